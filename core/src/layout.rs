//! Where the bytes of an extent lie in its rows.
//!
//! A stripe is k contiguous shards of [`SHARD`] bytes; the last one (and an extent below k × [`SHARD`] is only a last
//! one) has shards of ⌈rest / k⌉, its end filled with zeros. Row i is the shards i of all stripes, one after the other:
//! ```text
//! extent   [0 0 0 0][1 1 1 1][2 2 2 2] [3 3][4 4][5 _]      k = 3
//! row 0    [0 0 0 0]                   [3 3]
//! row 1             [1 1 1 1]               [4 4]
//! row 2                      [2 2 2 2]           [5 0]
//! ```
//! So a byte range is read from the rows that hold it, and from any k rows it is decoded from just its own bytes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::ids::Row;

/// Plaintext of a chunk, but for the last of a blob.
pub const CHUNK: usize = 1 << 20;
/// Greatest shard: a row's bytes in one stripe.
pub const SHARD: usize = 256 << 10;
/// Plaintext in an extent, at most; sealing and the tail come on top.
pub const EXTENT_PLAIN_MAX: usize = 64 << 20;
/// Greatest k.
pub const NEEDED_MAX: u8 = 16;

/// Checksum block of a row of at most [`SMALL_ROW`] bytes.
pub const CRC_BLOCK_SMALL: u32 = 4 << 10;
/// Checksum block of a larger row, or of one whose length is not known when it is begun.
pub const CRC_BLOCK: u32 = 64 << 10;
/// Rows up to this length have small checksum blocks.
pub const SMALL_ROW: u64 = 64 << 10;

/// The checksum block for a row of `row_len` bytes.
pub const fn crc_block(row_len: u64) -> u32 {
    if row_len <= SMALL_ROW { CRC_BLOCK_SMALL } else { CRC_BLOCK }
}

/// A run of an extent's bytes in one data row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRange {
    /// The row: below k.
    pub row: Row,
    /// Where in the row.
    pub row_offset: u64,
    /// Bytes.
    pub len: u32,
    /// Where in the extent.
    pub extent_offset: u64,
}

/// What to read of each of any k rows, the same range of all, to decode some bytes of one stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeRange {
    /// Where in each row.
    pub row_offset: u64,
    /// Bytes of each row.
    pub len: u32,
    /// What the caller wanted of it: runs of data rows, each within `row_offset .. row_offset + len`.
    pub wanted: Vec<RowRange>,
}

/// The stripes of an extent of known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StripeLayout {
    needed: u8,
    extent_len: u64,
}

impl StripeLayout {
    /// The layout of `extent_len` bytes (the tail with them) by k = `needed` rows, 1 to [`NEEDED_MAX`].
    ///
    /// # Panics
    /// If `needed` is 0.
    pub const fn new(needed: u8, extent_len: u64) -> Self {
        assert!(needed > 0, "a codeword needs at least one row");
        Self { needed, extent_len }
    }

    /// k.
    pub const fn needed(&self) -> u8 {
        self.needed
    }

    /// Bytes of the extent.
    pub const fn extent_len(&self) -> u64 {
        self.extent_len
    }

    const fn full_stripe(&self) -> u64 {
        self.needed as u64 * SHARD as u64
    }

    /// Number of stripes.
    pub const fn stripes(&self) -> u32 {
        self.extent_len.div_ceil(self.full_stripe()) as u32
    }

    /// The stripe that holds byte `extent_offset`.
    pub const fn stripe_of(&self, extent_offset: u64) -> u32 {
        (extent_offset / self.full_stripe()) as u32
    }

    /// The extent's bytes that are in a stripe.
    pub fn stripe_range(&self, stripe: u32) -> Range<u64> {
        let start = u64::from(stripe) * self.full_stripe();
        start.min(self.extent_len)..(start + self.full_stripe()).min(self.extent_len)
    }

    /// Bytes of a row in a stripe.
    pub fn shard_len(&self, stripe: u32) -> u32 {
        let range = self.stripe_range(stripe);
        (range.end - range.start).div_ceil(u64::from(self.needed)) as u32
    }

    /// Where in a row its shard of a stripe begins.
    pub const fn shard_offset(&self, stripe: u32) -> u64 {
        stripe as u64 * SHARD as u64
    }

    /// Bytes of each row.
    pub fn row_len(&self) -> u64 {
        match self.stripes().checked_sub(1) {
            None => 0,
            Some(last) => self.shard_offset(last) + u64::from(self.shard_len(last)),
        }
    }

    /// The runs of data rows that hold `range` of the extent, in the extent's order. What lies past the end is left
    /// out.
    pub fn locate(&self, range: Range<u64>) -> impl Iterator<Item = RowRange> + use<> {
        let layout = *self;
        let end = range.end.min(layout.extent_len);
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let run = layout.run_at(at, end);
            at += u64::from(run.len);
            Some(run)
        })
    }

    /// The run that begins at `at` and ends with its shard, or at `end`.
    fn run_at(&self, at: u64, end: u64) -> RowRange {
        let stripe = self.stripe_of(at);
        let shard = u64::from(self.shard_len(stripe));
        let in_stripe = at - u64::from(stripe) * self.full_stripe();
        let in_shard = in_stripe % shard;
        RowRange {
            row: Row((in_stripe / shard) as u8),
            row_offset: self.shard_offset(stripe) + in_shard,
            len: (shard - in_shard).min(end - at) as u32,
            extent_offset: at,
        }
    }

    /// What to read of k rows, whichever, to decode `range` of the extent: just the wanted bytes, for each run the
    /// same range in every row, joined where runs of one stripe overlap.
    pub fn locate_decode(&self, range: Range<u64>) -> impl Iterator<Item = DecodeRange> + use<> {
        let layout = *self;
        let mut runs = layout.locate(range).peekable();
        let mut ready: Vec<DecodeRange> = Vec::new();
        std::iter::from_fn(move || {
            if ready.is_empty() {
                let first = runs.next()?;
                let stripe = layout.stripe_of(first.extent_offset);
                ready.push(DecodeRange::of(first));
                while let Some(run) = runs.next_if(|run| layout.stripe_of(run.extent_offset) == stripe) {
                    DecodeRange::add(&mut ready, run);
                }
                ready.reverse();
            }
            ready.pop()
        })
    }
}

impl DecodeRange {
    fn of(run: RowRange) -> Self {
        Self { row_offset: run.row_offset, len: run.len, wanted: vec![run] }
    }

    const fn end(&self) -> u64 {
        self.row_offset + self.len as u64
    }

    /// Adds a run of the same stripe. Runs follow each other in the extent, so a set has at most two members: the end
    /// of one shard and the beginning of the next; a third run is a whole shard or overlaps the beginning.
    fn add(set: &mut Vec<Self>, run: RowRange) {
        let mut joined = Self::of(run);
        set.retain_mut(|other| {
            let apart = other.end() < joined.row_offset || joined.end() < other.row_offset;
            if !apart {
                let end = joined.end().max(other.end());
                joined.row_offset = joined.row_offset.min(other.row_offset);
                joined.len = (end - joined.row_offset) as u32;
                joined.wanted.append(&mut other.wanted);
            }
            apart
        });
        joined.wanted.sort_by_key(|run| run.extent_offset);
        set.push(joined);
    }
}

/// One stripe's bytes, ready to be coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripe {
    /// Its number in the extent.
    pub index: u32,
    /// Bytes of each shard.
    pub shard: u32,
    /// k shards; the end of the last stripe is filled with zeros.
    pub data: Bytes,
    /// Bytes of the extent in it: `data` without the filling.
    pub len: u32,
}

impl Stripe {
    /// The shard of data row `row` (below k), not copied.
    pub fn data_shard(&self, row: Row) -> Bytes {
        let shard = self.shard as usize;
        let start = usize::from(row.0) * shard;
        self.data.slice(start..start + shard)
    }
}

/// Cuts an extent into stripes as its bytes come in, without knowing how many will come.
///
/// Holds at most one stripe: k × [`SHARD`] bytes.
#[derive(Debug)]
pub struct StripeBuilder {
    needed: u8,
    index: u32,
    total: u64,
    buffer: BytesMut,
}

impl StripeBuilder {
    /// An extent of k = `needed` rows, 1 to [`NEEDED_MAX`].
    ///
    /// # Panics
    /// If `needed` is 0.
    pub fn new(needed: u8) -> Self {
        assert!(needed > 0, "a codeword needs at least one row");
        Self { needed, index: 0, total: 0, buffer: BytesMut::new() }
    }

    /// Bytes that came in so far.
    pub const fn extent_len(&self) -> u64 {
        self.total
    }

    fn full(&self) -> usize {
        usize::from(self.needed) * SHARD
    }

    /// Takes bytes from the front of `input`; gives a stripe as soon as one is full. Call it until `input` is empty:
    /// ```
    /// # use diptych_core::layout::StripeBuilder;
    /// # let mut builder = StripeBuilder::new(4);
    /// let mut input = &[7; 3000][..];
    /// while !input.is_empty() {
    ///     if let Some(stripe) = builder.push(&mut input) {
    ///         // encode it, send its rows
    ///         # let _ = stripe;
    ///     }
    /// }
    /// let last = builder.finish().expect("3,000 bytes are waiting");
    /// assert_eq!(last.shard, 750);
    /// ```
    pub fn push(&mut self, input: &mut &[u8]) -> Option<Stripe> {
        let room = self.full() - self.buffer.len();
        let (taken, rest) = input.split_at(room.min(input.len()));
        self.buffer.extend_from_slice(taken);
        self.total += taken.len() as u64;
        *input = rest;
        (self.buffer.len() == self.full()).then(|| self.cut())
    }

    /// The short last stripe; None where the extent ended with a full one. The builder is then ready for the next
    /// extent.
    pub fn finish(&mut self) -> Option<Stripe> {
        let last = (!self.buffer.is_empty()).then(|| self.cut());
        self.index = 0;
        self.total = 0;
        last
    }

    fn cut(&mut self) -> Stripe {
        let len = self.buffer.len();
        let shard = len.div_ceil(usize::from(self.needed));
        let mut data = self.buffer.split();
        data.resize(shard * usize::from(self.needed), 0);
        let stripe = Stripe { index: self.index, shard: shard as u32, data: data.freeze(), len: len as u32 };
        self.index += 1;
        stripe
    }
}

#[cfg(test)]
mod tests;
