//! Chunks: plaintext → LZ4 where it saves at least 5 % → sealed under the blob's key.
//!
//! Each chunk holds [`CHUNK`] bytes of plaintext, the last of a blob what is left (an empty blob is one empty chunk), so
//! that a plaintext offset names its chunk without a table. A compressed chunk is its plaintext length (u32,
//! little-endian), then an LZ4 block; both are sealed. Sealed is the ciphertext, then the tag.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use thiserror::Error;

use crate::cipher::{BulkCipher, CipherError, SecretKey, TAG_LEN, chunk_aad, chunk_nonce};
use crate::ids::BlobId;
use crate::layout::CHUNK;
use crate::records::{Layout, Piece};

/// Length of the plaintext length before an LZ4 block.
const LENGTH_LEN: usize = 4;
/// Chunks beyond this are probed first.
const PROBE_FROM: usize = 32 << 10;
/// Bytes of a probe.
const PROBE: usize = 4 << 10;

/// Why a chunk can't be sealed, read or found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// Altered, cut, moved, or of another key.
    #[error("chunk {index} of blob {blob}: {source}")]
    Cipher {
        /// The blob.
        blob: BlobId,
        /// Which chunk of it.
        index: u32,
        /// What the cipher said.
        source: CipherError,
    },
    /// More plaintext than a chunk holds, or less in one that is not the last.
    #[error(
        "chunk {index} of blob {blob} has {plain} bytes of plaintext: {CHUNK} are right, fewer only in the last"
    )]
    PlainLength {
        /// The blob.
        blob: BlobId,
        /// Which chunk of it.
        index: u32,
        /// Its bytes.
        plain: usize,
    },
    /// Authentic, but not an LZ4 block of the length it says: a writer's fault.
    #[error("chunk {index} of blob {blob} is authentic but does not decompress: {reason}")]
    Decompress {
        /// The blob.
        blob: BlobId,
        /// Which chunk of it.
        index: u32,
        /// What the decoder said.
        reason: String,
    },
    /// A blob of more than 2^32 chunks, or bytes after its last chunk.
    #[error("blob {0} goes on after its last chunk")]
    PastTheEnd(BlobId),
    /// The piece and the lengths in the extent's tail contradict each other.
    #[error("a piece of {sealed} sealed and {plain} plain bytes does not fit its chunks: {reason}")]
    Piece {
        /// Sealed bytes by the catalog.
        sealed: u32,
        /// Plain bytes by the catalog.
        plain: u32,
        /// What does not fit.
        reason: &'static str,
    },
}

/// What [`ChunkSealer::seal`] appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedChunk {
    /// Its number in the blob.
    pub index: u32,
    /// Sealed bytes, the tag with them.
    pub len: u32,
    /// Whether it holds an LZ4 block.
    pub compressed: bool,
}

impl SealedChunk {
    /// What the extent's tail says of it.
    pub const fn length(&self) -> ChunkLength {
        ChunkLength::new(self.len, self.compressed)
    }
}

/// Sealed length of a chunk and whether it is compressed, as the tail holds it: a u32 whose high bit says compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLength(pub u32);

impl ChunkLength {
    const COMPRESSED: u32 = 1 << 31;

    /// Of `sealed` bytes (less than 2^31).
    pub const fn new(sealed: u32, compressed: bool) -> Self {
        Self(if compressed { sealed | Self::COMPRESSED } else { sealed })
    }

    /// Sealed bytes.
    pub const fn sealed(self) -> u32 {
        self.0 & !Self::COMPRESSED
    }

    /// Whether it holds an LZ4 block.
    pub const fn compressed(self) -> bool {
        self.0 & Self::COMPRESSED != 0
    }
}

/// Seals the chunks of one blob, in order.
pub struct ChunkSealer {
    blob: BlobId,
    key: SecretKey,
    cipher: Arc<dyn BulkCipher>,
    next: Option<u32>,
    table: CompressTable,
    probe: Vec<u8>,
}

impl ChunkSealer {
    /// A sealer for a fresh blob; `key` is [`crate::cipher::blob_key`].
    pub fn new(blob: BlobId, key: SecretKey, cipher: Arc<dyn BulkCipher>) -> Self {
        let probe = vec![0; get_maximum_output_size(PROBE)];
        Self { blob, key, cipher, next: Some(0), table: CompressTable::small(), probe }
    }

    /// Index of the chunk that comes next.
    pub const fn next_index(&self) -> Option<u32> {
        self.next
    }

    /// Seals the next chunk and appends it to `out`. `plain` is [`CHUNK`] bytes, or at most that with `last`.
    ///
    /// # Errors
    /// [`ChunkError::PlainLength`], [`ChunkError::PastTheEnd`]; `out` is as it was.
    pub fn seal(&mut self, plain: &[u8], last: bool, out: &mut Vec<u8>) -> Result<SealedChunk, ChunkError> {
        let blob = self.blob;
        let index = self.next.ok_or(ChunkError::PastTheEnd(blob))?;
        if plain.len() > CHUNK || (plain.len() < CHUNK && !last) {
            return Err(ChunkError::PlainLength { blob, index, plain: plain.len() });
        }
        let start = out.len();
        let compressed = self.worth_a_try(plain) && self.compress(plain, out);
        if !compressed {
            out.extend_from_slice(plain);
        }
        let aad = chunk_aad(blob, index, last, compressed);
        match self.cipher.seal(&self.key, &chunk_nonce(index), &aad, &mut out[start..]) {
            Ok(tag) => out.extend_from_slice(&tag),
            Err(source) => {
                out.truncate(start);
                return Err(ChunkError::Cipher { blob, index, source });
            }
        }
        self.next = if last { None } else { index.checked_add(1) };
        Ok(SealedChunk { index, len: (out.len() - start) as u32, compressed })
    }

    /// Whether compression may save something. A long chunk is judged by 4 KiB at its start and in its middle: media
    /// and archives, most of what does not shrink, are told by either.
    fn worth_a_try(&mut self, plain: &[u8]) -> bool {
        let middle = plain.len() / 2;
        plain.len() < PROBE_FROM
            || self.shrinks(&plain[..PROBE])
            || self.shrinks(&plain[middle..middle + PROBE])
    }

    fn shrinks(&mut self, sample: &[u8]) -> bool {
        compress_into_with_table(sample, &mut self.probe, &mut self.table)
            .is_ok_and(|len| len * 100 <= sample.len() * 98)
    }

    /// Appends the compressed form; false, and `out` as it was, where it does not save 5 %.
    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        out.resize(start + LENGTH_LEN + get_maximum_output_size(plain.len()), 0);
        let made = compress_into_with_table(plain, &mut out[start + LENGTH_LEN..], &mut self.table);
        match made {
            Ok(len) if (LENGTH_LEN + len) * 100 <= plain.len() * 95 => {
                out.truncate(start + LENGTH_LEN + len);
                true
            }
            _ => {
                out.truncate(start);
                false
            }
        }
    }
}

/// Opens the chunks of one blob, in any order.
#[derive(Clone)]
pub struct ChunkOpener {
    blob: BlobId,
    key: SecretKey,
    cipher: Arc<dyn BulkCipher>,
}

impl ChunkOpener {
    /// An opener; `key` is [`crate::cipher::blob_key`].
    pub fn new(blob: BlobId, key: SecretKey, cipher: Arc<dyn BulkCipher>) -> Self {
        Self { blob, key, cipher }
    }

    /// The plaintext of a chunk; where it is not compressed it takes the place of the sealed bytes.
    ///
    /// # Errors
    /// [`ChunkError::Cipher`] where anything differs from what was sealed, index and flags too.
    pub fn open(
        &self,
        index: u32,
        last: bool,
        compressed: bool,
        mut sealed: BytesMut,
    ) -> Result<BytesMut, ChunkError> {
        let aad = chunk_aad(self.blob, index, last, compressed);
        self.cipher
            .open(&self.key, &chunk_nonce(index), &aad, &mut sealed)
            .map_err(|source| ChunkError::Cipher { blob: self.blob, index, source })?;
        sealed.truncate(sealed.len() - TAG_LEN);
        let plain = if compressed { self.decompress(index, &sealed)? } else { sealed };
        let fits = if last { plain.len() <= CHUNK } else { plain.len() == CHUNK };
        if fits {
            Ok(plain)
        } else {
            Err(ChunkError::PlainLength { blob: self.blob, index, plain: plain.len() })
        }
    }

    fn decompress(&self, index: u32, packed: &[u8]) -> Result<BytesMut, ChunkError> {
        let broken = |reason: String| ChunkError::Decompress { blob: self.blob, index, reason };
        let (length, block) = packed
            .split_first_chunk::<LENGTH_LEN>()
            .ok_or_else(|| broken("it is shorter than its length field".to_owned()))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > CHUNK {
            return Err(ChunkError::PlainLength { blob: self.blob, index, plain: length });
        }
        let mut plain = BytesMut::zeroed(length);
        let made = decompress_into(block, &mut plain).map_err(|error| broken(error.to_string()))?;
        if made == length { Ok(plain) } else { Err(broken(format!("{made} bytes of {length}"))) }
    }
}

/// Where a chunk of a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Its number in the blob.
    pub index: u32,
    /// Whether the blob ends with it.
    pub last: bool,
    /// Whether it holds an LZ4 block.
    pub compressed: bool,
    /// Where in the extent it begins.
    pub offset: u64,
    /// Sealed bytes.
    pub sealed: u32,
    /// Where its plaintext begins in that of the piece.
    pub plain_offset: u64,
    /// Bytes of plaintext.
    pub plain: u32,
}

impl ChunkPlace {
    /// Its bytes in the extent.
    pub const fn extent_range(&self) -> Range<u64> {
        self.offset..self.offset + self.sealed as u64
    }
}

/// The chunks of a piece that hold `wanted` (bytes of the piece's plaintext; an empty range finds the chunk at its
/// start). `in_tail` are the piece's chunk lengths from the extent's tail, needed with [`Layout::InTail`] only.
///
/// # Errors
/// [`ChunkError::Piece`] where lengths contradict each other.
pub fn chunks_of(
    piece: &Piece,
    in_tail: Option<&[ChunkLength]>,
    wanted: Range<u64>,
) -> Result<Vec<ChunkPlace>, ChunkError> {
    let wrong = |reason| ChunkError::Piece { sealed: piece.sealed, plain: piece.plain, reason };
    let count = piece.plain.div_ceil(CHUNK as u32).max(1);
    let plain_of = |at: u32| (piece.plain - at * CHUNK as u32).min(CHUNK as u32);
    let tag = TAG_LEN as u32;
    let length_of = |at: u32| match piece.layout {
        Layout::Plain => Ok(ChunkLength::new(plain_of(at) + tag, false)),
        Layout::OneCompressed if count == 1 => Ok(ChunkLength::new(piece.sealed, true)),
        Layout::OneCompressed => Err(wrong("it should be one chunk")),
        Layout::InTail => {
            let lengths = in_tail.ok_or_else(|| wrong("the lengths in the extent's tail are needed"))?;
            lengths.get(at as usize).copied().ok_or_else(|| wrong("the tail knows fewer chunks"))
        }
    };
    let mut found = Vec::new();
    let mut offset = u64::from(piece.offset);
    for at in 0..count {
        let (length, plain, plain_offset) = (length_of(at)?, plain_of(at), u64::from(at) * CHUNK as u64);
        let index = piece.first_chunk.checked_add(at).ok_or_else(|| wrong("the chunk numbers overflow"))?;
        if plain_offset + u64::from(plain) > wanted.start && plain_offset < wanted.end
            || (wanted.is_empty()
                && plain_offset <= wanted.start
                && wanted.start <= plain_offset + u64::from(plain))
        {
            found.push(ChunkPlace {
                index,
                last: piece.last && at + 1 == count,
                compressed: length.compressed(),
                offset,
                sealed: length.sealed(),
                plain_offset,
                plain,
            });
        }
        offset += u64::from(length.sealed());
    }
    if offset - u64::from(piece.offset) == u64::from(piece.sealed) {
        Ok(found)
    } else {
        Err(wrong("the chunks' lengths do not add up"))
    }
}

#[cfg(test)]
mod tests;
