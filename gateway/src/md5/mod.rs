//! MD5, the etag of S3, is the dearest thing to compute of a body: so bodies that come at the same moment are hashed together.
//!
//! One stream can't be cut, each block waits for the one before. But a vector of the CPU does the same step for 8 or 16 streams in
//! little more than the time of one, and a gateway has as many streams as clients.

mod kernel;
mod lanes;

pub use lanes::Md5Lanes;

use kernel::{BLOCK, START, State};

/// The MD5 of a stream so far.
#[derive(Debug, Clone)]
pub struct Md5 {
    state: State,
    /// Bytes so far.
    length: u64,
    /// The block that was begun.
    rest: [u8; BLOCK],
    /// Bytes of it.
    held: usize,
}

impl Default for Md5 {
    fn default() -> Self {
        Self { state: START, length: 0, rest: [0; BLOCK], held: 0 }
    }
}

impl Md5 {
    /// Adds the next bytes, here and now.
    pub fn update(&mut self, bytes: &[u8]) {
        let from = self.begin(bytes);
        let whole = whole_blocks(&bytes[from..]);
        kernel::one(&mut self.state, whole);
        self.keep(&bytes[from + whole.len()..]);
    }

    /// The MD5 of it all.
    pub fn finish(mut self) -> [u8; 16] {
        // RFC 1321, 3.1 and 3.2: a one, zeros, and the number of bits, up to the end of a block.
        let bits = self.length.wrapping_mul(8);
        let zeros = (2 * BLOCK - 9 - self.held) % BLOCK;
        let mut end = [0; 2 * BLOCK];
        end[0] = 0x80;
        end[zeros + 1..zeros + 9].copy_from_slice(&bits.to_le_bytes());
        self.update(&end[..zeros + 9]);
        let mut sum = [0; 16];
        for (into, word) in sum.as_chunks_mut().0.iter_mut().zip(self.state) {
            *into = word.to_le_bytes();
        }
        sum
    }

    /// Fills the block that was begun; so many bytes went into it.
    fn begin(&mut self, bytes: &[u8]) -> usize {
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if self.held == 0 {
            return 0;
        }
        let taken = bytes.len().min(BLOCK - self.held);
        self.rest[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
        self.held += taken;
        if self.held == BLOCK {
            kernel::one(&mut self.state, &self.rest);
            self.held = 0;
        }
        taken
    }

    /// What is behind the last whole block.
    fn keep(&mut self, rest: &[u8]) {
        self.rest[self.held..self.held + rest.len()].copy_from_slice(rest);
        self.held += rest.len();
    }
}

fn whole_blocks(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() / BLOCK * BLOCK]
}

#[cfg(test)]
mod tests {
    use ::md5::Digest;
    use fearless_simd::{Level, Simd};
    use proptest::prelude::*;

    use super::*;

    /// What this CPU can do, and what older ones can.
    fn levels() -> Vec<Level> {
        let newest = Level::new();
        let mut levels = vec![newest, Level::baseline()];
        #[cfg(target_arch = "x86_64")]
        levels.extend(newest.as_avx2().map(Simd::level));
        levels
    }

    #[test]
    fn every_width_of_vectors_gives_what_one_stream_gives() {
        for level in levels() {
            for streams in 1..=kernel::width(level, usize::MAX) {
                let bodies: Vec<Vec<u8>> = (0..streams)
                    .map(|stream| (0..5 * BLOCK).map(|at| (31 * stream + 7 * at) as u8).collect())
                    .collect();
                let mut together = vec![kernel::START; streams];
                let mut lanes: Vec<kernel::Lane<'_>> =
                    together.iter_mut().zip(&bodies).map(|(state, body)| (state, body.as_slice())).collect();
                kernel::many(level, &mut lanes);
                for (state, body) in together.iter().zip(&bodies) {
                    let mut alone = kernel::START;
                    kernel::one(&mut alone, body);
                    assert_eq!(state, &alone, "{streams} streams, {level:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn one_stream_gives_what_another_implementation_gives(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        ) {
            let (mut ours, mut theirs) = (Md5::default(), ::md5::Md5::new());
            for piece in &pieces {
                ours.update(piece);
                theirs.update(piece);
            }
            prop_assert_eq!(ours.finish(), <[u8; 16]>::from(theirs.finalize()));
        }
    }
}
