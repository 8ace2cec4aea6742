//! How fast one core does each stage of the byte path that lives here, and what is lost when all stages follow each other.
//! `cargo xtask bench --stages`; coding and checks by themselves are in core's bench of the same name.

#[path = "../../../core/benches/stages/data.rs"]
mod data;
mod pipeline;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use diptych_core::cipher::{BulkCipher, SecretKey};
use diptych_core::layout::CHUNK;
use diptych_gateway::cipher::AwsLcAesGcm;
use diptych_gateway::stages::{Md5, Md5Lanes};
use futures::executor::block_on;
use futures::future::join_all;

use data::random;

/// The program's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn cipher(criterion: &mut Criterion) {
    let (key, nonce) = (SecretKey::new([5; 32]), [9; 12]);
    let mut sealed = random(CHUNK);
    let tag = AwsLcAesGcm.seal(&key, &nonce, b"chunk", &mut sealed).expect("it seals");
    sealed.extend_from_slice(&tag);
    let mut group = criterion.benchmark_group("AES-256-GCM of 1 MiB");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    let mut plain = random(CHUNK);
    group.bench_function("seal", |bencher| {
        bencher.iter(|| AwsLcAesGcm.seal(&key, &nonce, b"chunk", black_box(&mut plain)));
    });
    group.bench_function("open", |bencher| {
        bencher.iter_batched_ref(
            || sealed.clone(),
            |sealed| AwsLcAesGcm.open(&key, &nonce, b"chunk", sealed),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn md5(criterion: &mut Criterion) {
    let body = Bytes::from(random(CHUNK));
    let mut group = criterion.benchmark_group("MD5 of bodies of 1 MiB");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    group.bench_function("one stream", |bencher| {
        bencher.iter(|| {
            let mut md5 = Md5::default();
            md5.update(black_box(&body));
            md5.finish()
        });
    });
    let lanes = Md5Lanes::start().expect("a thread");
    for streams in [2, 8, 16] {
        group.throughput(Throughput::Bytes((streams * CHUNK) as u64));
        group.bench_function(format!("lanes, {streams} streams"), |bencher| {
            bencher.iter(|| block_on(join_all((0..streams).map(|_| by_lanes(&lanes, &body)))));
        });
    }
    group.finish();
}

async fn by_lanes(lanes: &Md5Lanes, body: &Bytes) -> [u8; 16] {
    let mut hashing = lanes.body();
    hashing.update(body.clone()).await.expect("the thread lives");
    hashing.finish().await.expect("the thread lives")
}

fn briefly() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group!(name = stages; config = briefly(); targets = cipher, md5);

fn main() {
    stages();
    Criterion::default().configure_from_args().final_summary();
    pipeline::measure();
}
