//! An extent that is all in memory: into its rows, and back from any k of them.

use bytes::Bytes;

use crate::erasure::{Decoder, Encoder, ErasureError, combinations};
use crate::ids::Row;
use crate::layout::{Stripe, StripeBuilder, StripeLayout};

/// Sets of k rows that are tried for one that gives the extent's hash.
const ATTEMPTS: usize = 64;

/// The rows `rows` of an extent, in that order.
///
/// # Errors
/// `Needed`.
pub fn split(needed: u8, rows: &[Row], extent: &[u8]) -> Result<Vec<Bytes>, ErasureError> {
    let encoder = Encoder::new(needed, rows.iter().copied())?;
    let mut made = vec![Vec::new(); rows.len()];
    let mut builder = StripeBuilder::new(needed);
    let mut append = |stripe: Option<Stripe>| {
        let shards = stripe.map_or_else(Vec::new, |stripe| encoder.encode(&stripe));
        for (row, shard) in made.iter_mut().zip(shards) {
            row.extend_from_slice(&shard);
        }
    };
    let mut rest = extent;
    while !rest.is_empty() {
        append(builder.push(&mut rest));
    }
    append(builder.finish());
    Ok(made.into_iter().map(Bytes::from).collect())
}

/// The extent of `extent_len` bytes, from the first k of `rows`.
///
/// # Errors
/// `Needed`, `TooFewRows`; `Lengths` where a row is not as long as those of such an extent.
pub fn join(needed: u8, extent_len: u64, rows: &[(Row, Bytes)]) -> Result<Vec<u8>, ErasureError> {
    let data: Vec<Row> = (0..needed).map(Row).collect();
    let names: Vec<Row> = rows.iter().map(|(row, _)| *row).collect();
    let decoder = Decoder::new(needed, &names, &data)?;
    let layout = StripeLayout::new(needed, extent_len);
    let bytes_of =
        |row: &Row| rows.iter().find(|(other, _)| other == row).map_or(&[][..], |(_, bytes)| bytes);
    let have: Vec<&[u8]> = decoder.have().iter().map(bytes_of).collect();
    if have.iter().any(|row| row.len() as u64 != layout.row_len()) {
        let lengths = have.iter().map(|row| row.len()).collect();
        return Err(ErasureError::Lengths { needed: usize::from(needed), lengths });
    }
    let mut extent = Vec::with_capacity(extent_len as usize);
    for stripe in 0..layout.stripes() {
        let start = layout.shard_offset(stripe) as usize;
        let end = start + layout.shard_len(stripe) as usize;
        let shards: Vec<&[u8]> = have.iter().map(|row| &row[start..end]).collect();
        for part in decoder.decode(&shards)? {
            let left = extent_len as usize - extent.len();
            extent.extend_from_slice(&part[..part.len().min(left)]);
        }
    }
    Ok(extent)
}

/// The extent from whichever k of `rows` give its hash (BLAKE3): a row that lies under right checksums is passed by.
/// None: no set does.
pub fn recover(needed: u8, extent_len: u64, hash: &[u8; 32], rows: &[(Row, Bytes)]) -> Option<Vec<u8>> {
    combinations(rows.len(), usize::from(needed)).take(ATTEMPTS).find_map(|set| {
        let set: Vec<(Row, Bytes)> = set.into_iter().map(|index| rows[index].clone()).collect();
        let extent = join(needed, extent_len, &set).ok()?;
        (blake3::hash(&extent).as_bytes() == hash).then_some(extent)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::SHARD;

    const ALL: [Row; 6] = [Row(0), Row(1), Row(2), Row(3), Row(4), Row(5)];

    fn named(rows: Vec<Bytes>) -> Vec<(Row, Bytes)> {
        ALL.into_iter().zip(rows).collect()
    }

    #[test]
    fn an_extent_of_several_stripes_comes_back_from_any_rows() {
        let extent: Vec<u8> = (0..9 * SHARD + 77).map(|index| (index % 251) as u8).collect();
        let rows = named(split(4, &ALL, &extent).expect("k is fine"));
        for lost in [[0, 1], [4, 5], [1, 4]] {
            let left: Vec<_> = rows.iter().filter(|(row, _)| !lost.contains(&row.0)).cloned().collect();
            assert!(
                join(4, extent.len() as u64, &left).expect("four are left") == extent,
                "without {lost:?}"
            );
        }
        assert!(matches!(join(4, 10, &rows), Err(ErasureError::Lengths { .. })));
        assert!(matches!(join(4, extent.len() as u64, &rows[..3]), Err(ErasureError::TooFewRows { .. })));
    }

    proptest! {
        #[test]
        fn rows_that_lie_are_passed_by_while_enough_are_honest(
            extent in prop::collection::vec(any::<u8>(), 1..5_000),
            liars in prop::sample::subsequence(vec![0_usize, 1, 2, 3, 4, 5], 0..=3),
        ) {
            let hash = *blake3::hash(&extent).as_bytes();
            let mut rows = named(split(4, &ALL, &extent).unwrap());
            for liar in &liars {
                let mut forged = rows[*liar].1.to_vec();
                forged[0] ^= 1;
                rows[*liar].1 = forged.into();
            }
            let found = recover(4, extent.len() as u64, &hash, &rows);
            if liars.len() <= 2 {
                prop_assert_eq!(found, Some(extent));
            } else {
                prop_assert!(found.is_none_or(|found| found == extent), "never other bytes");
            }
        }
    }
}
