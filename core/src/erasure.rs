//! The erasure code: GF(2^8), systematic Vandermonde, as `reed-solomon-erasure` makes it (frozen by golden vectors).
//!
//! A row's coefficients depend on k and its own number alone, so rows can be added without coding anything again.
//! Multiplication of slices is that crate's; the matrices are our own, since it rebuilds every missing row where mostly
//! one is wanted, and makes its parity only as one contiguous set.

mod matrix;
mod sets;

use std::sync::OnceLock;

use bytes::Bytes;
use reed_solomon_erasure::galois_8;
use thiserror::Error;

use crate::ids::Row;
use crate::layout::{NEEDED_MAX, Stripe};
use matrix::Matrix;

pub use sets::combinations;

/// Bytes of each row that are worked on at a time: input and output then stay in the nearest caches.
const STEP: usize = 16 << 10;

/// Why rows can't be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ErasureError {
    /// k is 0 or beyond the format's.
    #[error("k = {0} is not a coding: 1 to {NEEDED_MAX} rows can be needed")]
    Needed(u8),
    /// Too few distinct rows to decode.
    #[error("{have} different rows are there, {needed} are needed to decode")]
    TooFewRows {
        /// Distinct rows that were given.
        have: usize,
        /// k.
        needed: u8,
    },
    /// Rows of different lengths, or not as many as were announced.
    #[error("shards of one stripe have one length each and {needed} were announced: got lengths {lengths:?}")]
    Lengths {
        /// Shards that should be there.
        needed: usize,
        /// What was given.
        lengths: Vec<usize>,
    },
}

/// Whether this CPU runs the SIMD code that was compiled in (AVX2 on x86-64). Where it does not, encoding dies of an
/// illegal instruction: check it at the start and refuse with a clear error.
pub fn simd_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx2")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        true
    }
}

/// The coefficients of all 256 rows of a k, made once for each k.
fn generator(needed: u8) -> Result<&'static Matrix, ErasureError> {
    static MADE: [OnceLock<Matrix>; NEEDED_MAX as usize + 1] =
        [const { OnceLock::new() }; NEEDED_MAX as usize + 1];
    if needed == 0 {
        return Err(ErasureError::Needed(needed));
    }
    let slot = MADE.get(usize::from(needed)).ok_or(ErasureError::Needed(needed))?;
    Ok(slot.get_or_init(|| matrix::systematic_vandermonde(usize::from(needed))))
}

/// Makes the rows of stripes. Cheap to create, meant to be kept.
#[derive(Debug, Clone)]
pub struct Encoder {
    needed: u8,
    rows: Vec<Row>,
    generator: &'static Matrix,
}

impl Encoder {
    /// An encoder for `rows` of a code that needs k = `needed`, in the order given.
    ///
    /// # Errors
    /// [`ErasureError::Needed`].
    pub fn new(needed: u8, rows: impl IntoIterator<Item = Row>) -> Result<Self, ErasureError> {
        let generator = generator(needed)?;
        Ok(Self { needed, rows: rows.into_iter().collect(), generator })
    }

    /// k.
    pub const fn needed(&self) -> u8 {
        self.needed
    }

    /// The rows that it makes.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// This stripe's shard of each of the rows, in their order. Data rows are slices of the stripe, not copies.
    ///
    /// # Panics
    /// If the stripe was cut for another k.
    pub fn encode(&self, stripe: &Stripe) -> Vec<Bytes> {
        let shard = stripe.shard as usize;
        assert_eq!(stripe.data.len(), shard * usize::from(self.needed), "a stripe cut for another k");
        let data: Vec<&[u8]> = stripe.data.chunks(shard.max(1)).collect();
        let parity: Vec<&[u8]> =
            self.parity_rows().map(|row| self.generator.row(usize::from(row.0))).collect();
        let mut made = combine(&parity, &data, shard).into_iter();
        let one = |row: &Row| {
            if self.is_data(*row) {
                stripe.data_shard(*row)
            } else {
                made.next().map(Bytes::from).unwrap_or_default()
            }
        };
        self.rows.iter().map(one).collect()
    }

    const fn is_data(&self, row: Row) -> bool {
        row.0 < self.needed
    }

    fn parity_rows(&self) -> impl Iterator<Item = Row> {
        self.rows.iter().copied().filter(|row| !self.is_data(*row))
    }
}

/// Makes some rows from k others. Keep it for all stripes that have the same rows: it holds the inverted matrix.
#[derive(Debug, Clone)]
pub struct Decoder {
    have: Vec<Row>,
    want: Vec<Row>,
    coefficients: Matrix,
}

impl Decoder {
    /// A decoder that makes `want` from the first k distinct rows of `have`: see [`Decoder::have`] for which.
    ///
    /// # Errors
    /// [`ErasureError::Needed`], [`ErasureError::TooFewRows`].
    pub fn new(needed: u8, have: &[Row], want: &[Row]) -> Result<Self, ErasureError> {
        let generator = generator(needed)?;
        let mut used: Vec<Row> = Vec::with_capacity(usize::from(needed));
        for row in have {
            if used.len() < usize::from(needed) && !used.contains(row) {
                used.push(*row);
            }
        }
        if used.len() < usize::from(needed) {
            return Err(ErasureError::TooFewRows { have: used.len(), needed });
        }
        let to_data = generator.select(&used).inverted().expect("any k rows of the code are independent");
        let coefficients = generator.select(want).times(&to_data);
        Ok(Self { have: used, want: want.to_vec(), coefficients })
    }

    /// The k rows that [`Decoder::decode`] takes, in this order.
    pub fn have(&self) -> &[Row] {
        &self.have
    }

    /// The rows that it makes, in this order.
    pub fn want(&self) -> &[Row] {
        &self.want
    }

    /// The wanted rows' bytes from the same range of the rows of [`Decoder::have`]: whole shards or any part.
    ///
    /// # Errors
    /// [`ErasureError::Lengths`].
    pub fn decode(&self, shards: &[&[u8]]) -> Result<Vec<Vec<u8>>, ErasureError> {
        let len = shards.first().map_or(0, |shard| shard.len());
        if shards.len() != self.have.len() || shards.iter().any(|shard| shard.len() != len) {
            let lengths = shards.iter().map(|shard| shard.len()).collect();
            return Err(ErasureError::Lengths { needed: self.have.len(), lengths });
        }
        let wanted: Vec<&[u8]> = (0..self.want.len()).map(|row| self.coefficients.row(row)).collect();
        Ok(combine(&wanted, shards, len))
    }
}

/// Makes only the rows of `want` from at least k rows of one stripe (whole shards, or the same range of each).
///
/// # Errors
/// As [`Decoder::new`] and [`Decoder::decode`].
pub fn reconstruct(needed: u8, have: &[(Row, &[u8])], want: &[Row]) -> Result<Vec<Vec<u8>>, ErasureError> {
    let rows: Vec<Row> = have.iter().map(|(row, _)| *row).collect();
    let decoder = Decoder::new(needed, &rows, want)?;
    let bytes_of =
        |row: &Row| have.iter().find(|(other, _)| other == row).map_or(&[][..], |(_, bytes)| bytes);
    let shards: Vec<&[u8]> = decoder.have().iter().map(bytes_of).collect();
    decoder.decode(&shards)
}

/// For each list of coefficients the sum of the inputs, each times its own. All inputs are `len` bytes long.
fn combine(coefficients: &[&[u8]], inputs: &[&[u8]], len: usize) -> Vec<Vec<u8>> {
    let mut outputs = vec![vec![0; len]; coefficients.len()];
    for start in (0..len).step_by(STEP) {
        let range = start..(start + STEP).min(len);
        for (output, factors) in outputs.iter_mut().zip(coefficients) {
            for (factor, input) in factors.iter().zip(inputs) {
                galois_8::mul_slice_xor(*factor, &input[range.clone()], &mut output[range.clone()]);
            }
        }
    }
    outputs
}

#[cfg(test)]
mod tests;
