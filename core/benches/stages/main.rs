//! How fast one core does each stage of the byte path that lives here. `cargo xtask bench --stages`; the other stages, and all of them
//! one after the other, are in the gateway's bench of the same name.

mod data;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use data::{GEOMETRIES, random, text};
use diptych_core::erasure::{Decoder, Encoder};
use diptych_core::fragment::BlockChecks;
use diptych_core::ids::Row;
use diptych_core::layout::{CHUNK, CRC_BLOCK, CRC_BLOCK_SMALL, SHARD, Stripe};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use sha2::{Digest, Sha256};

fn lz4(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lz4 of 1 MiB");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    for (name, plain) in [("text", text(CHUNK)), ("random", random(CHUNK))] {
        let mut packed = vec![0; get_maximum_output_size(CHUNK)];
        let mut table = CompressTable::small();
        let mut length = 0;
        group.bench_function(format!("compress {name}"), |bencher| {
            bencher.iter(|| {
                length = compress_into_with_table(black_box(&plain), &mut packed, &mut table).unwrap_or(0);
            });
        });
        let mut unpacked = vec![0; CHUNK];
        group.bench_function(format!("decompress {name}"), |bencher| {
            bencher.iter(|| decompress_into(black_box(&packed[..length]), &mut unpacked));
        });
    }
    group.finish();
}

fn code(criterion: &mut Criterion) {
    for (needed, rows) in GEOMETRIES {
        let shard = SHARD as u32;
        let data = Bytes::from(random(SHARD * usize::from(needed)));
        let stripe = Stripe { index: 0, shard, len: data.len() as u32, data };
        let encoder = Encoder::new(needed, (0..rows).map(Row)).expect("k is the format's");
        let coded = encoder.encode(&stripe);
        let mut group = criterion.benchmark_group(format!("code {needed} of {rows}"));
        group.throughput(Throughput::Bytes(u64::from(stripe.len)));
        group
            .bench_function("encode a stripe", |bencher| bencher.iter(|| encoder.encode(black_box(&stripe))));
        // Of a row that is made, its own bytes count.
        group.throughput(Throughput::Bytes(SHARD as u64));
        for lost in 1..=rows - needed {
            let have: Vec<Row> = (lost..rows).map(Row).collect();
            let decoder = Decoder::new(needed, &have, &[Row(0)]).expect("k rows are left");
            let shards: Vec<&[u8]> =
                decoder.have().iter().map(|row| &coded[usize::from(row.0)][..]).collect();
            group.bench_function(format!("make one row, {lost} of the data rows lost"), |bencher| {
                bencher.iter(|| decoder.decode(black_box(&shards)));
            });
        }
        group.finish();
    }
}

fn checks(criterion: &mut Criterion) {
    let bytes = random(CHUNK);
    let mut group = criterion.benchmark_group("checks of 1 MiB");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    for block in [CRC_BLOCK_SMALL, CRC_BLOCK] {
        group.bench_function(format!("CRC32C in blocks of {} KiB", block >> 10), |bencher| {
            bencher.iter_batched_ref(
                || BlockChecks::new(block),
                |checks| checks.push(black_box(&bytes)),
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("SHA-256", |bencher| bencher.iter(|| Sha256::digest(black_box(&bytes))));
    group.bench_function("BLAKE3", |bencher| bencher.iter(|| blake3::hash(black_box(&bytes))));
    group.finish();
}

fn briefly() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group!(name = stages; config = briefly(); targets = lz4, code, checks);
criterion_main!(stages);
