use proptest::prelude::*;

use super::*;

/// Rows by the definition, byte by byte.
fn naive_rows(needed: usize, extent: &[u8]) -> Vec<Vec<u8>> {
    let mut rows = vec![Vec::new(); needed];
    for stripe in extent.chunks(needed * SHARD) {
        let shard = stripe.len().div_ceil(needed);
        for (row, bytes) in rows.iter_mut().enumerate() {
            bytes.extend((0..shard).map(|at| stripe.get(row * shard + at).copied().unwrap_or(0)));
        }
    }
    rows
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Lengths near every edge: empty, short, just around whole stripes.
fn lengths(needed: usize) -> impl Strategy<Value = usize> {
    let full = needed * SHARD;
    prop_oneof![0..64_usize, 0..2 * full, (full - 40)..(full + 40), (2 * full - 40)..(2 * full + 40)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_range_is_found_in_the_rows_and_nothing_past_the_end(
        (needed, len) in (1_usize..=5).prop_flat_map(|needed| (Just(needed), lengths(needed))),
        from: prop::sample::Index, to: prop::sample::Index,
    ) {
        let extent = pattern(len);
        let rows = naive_rows(needed, &extent);
        let layout = StripeLayout::new(needed as u8, len as u64);
        prop_assert_eq!(layout.row_len(), rows[0].len() as u64);

        let (a, b) = (from.index(len + 1), to.index(len + 1));
        let (start, end) = (a.min(b), a.max(b));
        let mut read = Vec::new();
        for run in layout.locate(start as u64..end as u64 + 7) {
            prop_assert_eq!(run.extent_offset, (start + read.len()) as u64);
            let at = run.row_offset as usize;
            read.extend_from_slice(&rows[usize::from(run.row.0)][at..at + run.len as usize]);
        }
        prop_assert_eq!(&read, &extent[start..(end + 7).min(len)]);
    }

    #[test]
    fn a_decode_reads_all_that_is_wanted_and_nothing_twice(
        (needed, len) in (1_usize..=5).prop_flat_map(|needed| (Just(needed), lengths(needed))),
        from: prop::sample::Index, to: prop::sample::Index,
    ) {
        let layout = StripeLayout::new(needed as u8, len as u64);
        let (a, b) = (from.index(len + 1) as u64, to.index(len + 1) as u64);
        let range = a.min(b)..a.max(b);
        let reads: Vec<DecodeRange> = layout.locate_decode(range.clone()).collect();
        let mut runs: Vec<RowRange> = reads.iter().flat_map(|read| read.wanted.clone()).collect();
        runs.sort_by_key(|run| run.extent_offset);
        prop_assert_eq!(runs, layout.locate(range).collect::<Vec<_>>());
        for (index, read) in reads.iter().enumerate() {
            for run in &read.wanted {
                prop_assert!(read.row_offset <= run.row_offset);
                prop_assert!(run.row_offset + u64::from(run.len) <= read.end());
            }
            for other in &reads[..index] {
                prop_assert!(other.end() <= read.row_offset || read.end() <= other.row_offset);
            }
            // No column is read that nobody wants.
            let mut covered = read.row_offset;
            let mut wanted = read.wanted.clone();
            wanted.sort_by_key(|run| run.row_offset);
            for run in wanted {
                prop_assert!(run.row_offset <= covered);
                covered = covered.max(run.row_offset + u64::from(run.len));
            }
            prop_assert_eq!(covered, read.end());
        }
    }

    #[test]
    fn stripes_cut_while_bytes_come_in_are_those_of_the_layout(
        (needed, len) in (1_usize..=5).prop_flat_map(|needed| (Just(needed), lengths(needed))),
        piece in 1_usize..700_000,
    ) {
        let extent = pattern(len);
        let mut builder = StripeBuilder::new(needed as u8);
        let mut stripes = Vec::new();
        for mut input in extent.chunks(piece) {
            while !input.is_empty() {
                stripes.extend(builder.push(&mut input));
            }
        }
        prop_assert_eq!(builder.extent_len(), len as u64);
        stripes.extend(builder.finish());

        let layout = StripeLayout::new(needed as u8, len as u64);
        prop_assert_eq!(stripes.len(), layout.stripes() as usize);
        let rows = naive_rows(needed, &extent);
        for stripe in &stripes {
            prop_assert_eq!(stripe.shard, layout.shard_len(stripe.index));
            let at = layout.shard_offset(stripe.index) as usize;
            for (row, bytes) in rows.iter().enumerate() {
                prop_assert_eq!(&stripe.data_shard(Row(row as u8))[..], &bytes[at..at + stripe.shard as usize]);
            }
        }
    }
}

#[test]
fn a_small_extent_is_one_stripe_with_short_shards() {
    let layout = StripeLayout::new(4, 1001);
    assert_eq!((layout.stripes(), layout.shard_len(0), layout.row_len()), (1, 251, 251));
    assert_eq!(StripeLayout::new(4, 4 * SHARD as u64).shard_len(0), SHARD as u32);
}

#[test]
fn a_range_over_two_shards_decodes_two_short_columns() {
    let layout = StripeLayout::new(4, 4 * SHARD as u64);
    let edge = SHARD as u64;
    let reads: Vec<_> =
        layout.locate_decode(edge - 10..edge + 10).map(|read| (read.row_offset, read.len)).collect();
    assert_eq!(reads, [(edge - 10, 10), (0, 10)]);
}

#[test]
fn rows_up_to_64_kib_have_small_checksum_blocks() {
    assert_eq!((crc_block(65_536), crc_block(65_537)), (4096, 65_536));
}
