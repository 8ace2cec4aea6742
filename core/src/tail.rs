//! The tail of an extent: what lies in it, coded with it as its last bytes.
//!
//! ```text
//! for each blob: where its chunks begin in the extent 4, number of chunks 4, their lengths 4 each (high bit: compressed)
//! ring key 4, algorithm 1, zeros 3, nonce 12, the sealed list, tag 16
//! lengths' bytes 4, sealed bytes 4, CRC32C of all of the tail but itself 4, magic `DPT1`
//! ```
//! The lengths open without a key: a reader whose piece says [`crate::records::Layout::InTail`] needs them, and the
//! peer, which has no key at hand, can check the shape. The list is sealed under a key of the extent; the lengths and the
//! ring key's number are its associated data. `resurrect` reads it when the catalogs are gone.

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::chunk::{ChunkLength, SealedChunk};
use crate::cipher::{Algorithm, CipherError, NONCE_LEN, Nonce, TAG_LEN, open_metadata, seal_metadata};
use crate::ids::{BlobId, BucketId, ExtentId, RingKeyNumber, UploadId, VersionId};
use crate::keyring::{Keyring, KeyringError, RingKey};
use crate::records::Etag;

/// The last bytes of a tail, which say how long it is.
pub const TAIL_END_LEN: usize = 16;
/// A first read of so many bytes of an extent's end mostly holds the whole tail.
pub const TAIL_GUESS: usize = 4 << 10;

const MAGIC: &[u8; 4] = b"DPT1";
const SEALED_HEAD_LEN: usize = 8 + NONCE_LEN;
const LIST_FORMAT: u8 = 1;

/// Why a tail can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TailError {
    /// The extent does not end with a tail of a format that this version reads.
    #[error("the extent does not end with a tail of a known format: its last bytes are {0:02x?}")]
    Absent([u8; 4]),
    /// More of the extent's end is needed, or the extent is cut.
    #[error("the tail has {needed} bytes, {len} are there")]
    Cut {
        /// Bytes that are there.
        len: u64,
        /// Bytes that it has.
        needed: u64,
    },
    /// Altered.
    #[error("the tail has checksum {stored:08x}, its bytes give {computed:08x}: they were altered")]
    Checksum {
        /// Checksum that was written.
        stored: u32,
        /// Checksum of what is there.
        computed: u32,
    },
    /// Its checksum fits, its contents don't: a writer's fault.
    #[error("the tail contradicts itself: {0}")]
    Malformed(String),
    /// Sealed by an algorithm that this version does not know.
    #[error("the tail is sealed by algorithm {0}, which this version does not know")]
    UnknownAlgorithm(u8),
    /// The ring key is not there.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The list does not open: another extent's tail, another key, or altered.
    #[error("the tail's list does not open: {0}")]
    Sealed(CipherError),
}

/// One blob's run of chunks in an extent, and what it is for, as far as known when the extent was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailEntry {
    /// The blob.
    pub blob: BlobId,
    /// The ring key that its key is derived from.
    pub ring_key: RingKeyNumber,
    /// Index in the blob of the first chunk here.
    pub first_chunk: u32,
    /// Where in the extent that chunk begins.
    pub offset: u32,
    /// Sealed bytes here.
    pub sealed: u32,
    /// Plaintext here.
    pub plain: u32,
    /// Whether the blob ends here.
    pub last: bool,
    /// Bucket of the object.
    pub bucket: BucketId,
    /// Its key.
    pub key: Vec<u8>,
    /// The version it was written for.
    pub version: VersionId,
    /// Of a part: the upload, and the part's number.
    pub part: Option<(UploadId, u16)>,
    /// Bytes of the object or part, if known.
    pub size: Option<u64>,
    /// Its entity tag, if known.
    pub etag: Option<Etag>,
    /// Its headers, as in the catalog.
    pub headers: Vec<(String, String)>,
}

/// Lengths of one blob's chunks in an extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRun {
    /// Where in the extent the first one begins.
    pub offset: u32,
    /// In order.
    pub lengths: Vec<ChunkLength>,
}

/// Collects what an extent holds while it is filled.
#[derive(Debug, Clone, Default)]
pub struct TailBuilder {
    runs: Vec<ChunkRun>,
    entries: Vec<TailEntry>,
}

impl TailBuilder {
    /// An empty extent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a blob's run: what it is, and its chunks as they were sealed.
    pub fn add(&mut self, entry: TailEntry, chunks: &[SealedChunk]) {
        self.add_copied(entry, chunks.iter().map(SealedChunk::length).collect());
    }

    /// Adds a blob's run as another extent's tail has it, but for where it begins.
    pub fn add_copied(&mut self, entry: TailEntry, lengths: Vec<ChunkLength>) {
        self.runs.push(ChunkRun { offset: entry.offset, lengths });
        self.entries.push(entry);
    }

    /// Number of runs.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was added yet.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tail's bytes, which end the extent. `nonce` is random and fresh.
    ///
    /// # Errors
    /// [`TailError::Malformed`] if the list can't be written, [`TailError::Sealed`].
    pub fn finish(self, extent: ExtentId, ring_key: &RingKey, nonce: &Nonce) -> Result<Vec<u8>, TailError> {
        let mut bytes = Vec::new();
        for run in &self.runs {
            bytes.put_u32_le(run.offset);
            bytes.put_u32_le(run.lengths.len() as u32);
            for length in &run.lengths {
                bytes.put_u32_le(length.0);
            }
        }
        let lengths_len = bytes.len();
        bytes.put_u32_le(ring_key.number().0);
        bytes.put_u8(Algorithm::Aes256Gcm.code());
        bytes.put_bytes(0, 3);
        let list = postcard::to_extend(&self.entries, vec![LIST_FORMAT])
            .map_err(|error| TailError::Malformed(error.to_string()))?;
        let sealed =
            seal_metadata(&ring_key.tail_key(extent), nonce, &bytes, &list).map_err(TailError::Sealed)?;
        bytes.put_slice(nonce);
        bytes.put_slice(&sealed);
        let sealed_len = bytes.len() - lengths_len;
        bytes.put_u32_le(lengths_len as u32);
        bytes.put_u32_le(sealed_len as u32);
        let crc = checksum(&bytes);
        bytes.put_u32_le(crc);
        bytes.put_slice(MAGIC);
        Ok(bytes)
    }
}

fn checksum(covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(covered), MAGIC)
}

/// Bytes of the whole tail, from the extent's last [`TAIL_END_LEN`] bytes (or more). `extent_len`: bytes of the extent.
///
/// # Errors
/// `Absent`; `Cut` where the tail would be longer than the extent. All else is checked by [`Tail::parse`].
pub fn tail_len(end: &[u8], extent_len: u64) -> Result<u64, TailError> {
    let cut = TailError::Cut { len: end.len() as u64, needed: TAIL_END_LEN as u64 };
    let mut end: &[u8] = end.last_chunk::<TAIL_END_LEN>().ok_or(cut)?;
    let (lengths, sealed) = (u64::from(end.get_u32_le()), u64::from(end.get_u32_le()));
    end.advance(4);
    let needed = lengths + sealed + TAIL_END_LEN as u64;
    match end.first_chunk() {
        Some(MAGIC) if needed > extent_len => Err(TailError::Cut { len: extent_len, needed }),
        Some(MAGIC) => Ok(needed),
        other => Err(TailError::Absent(other.copied().unwrap_or_default())),
    }
}

/// A tail, its list still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Lengths of chunks, a run for each blob, in the extent's order.
    pub runs: Vec<ChunkRun>,
    /// The ring key that sealed the list.
    pub ring_key: RingKeyNumber,
    /// Bytes of the tail.
    pub len: u64,
    associated: Vec<u8>,
    nonce: Nonce,
    sealed: Vec<u8>,
}

impl Tail {
    /// Reads a tail from bytes that end with the extent. Where they are too few, [`TailError::Cut`] says how many are
    /// needed.
    ///
    /// # Errors
    /// `Absent`, `Cut`, `Checksum`, `UnknownAlgorithm`, `Malformed`.
    pub fn parse(bytes: &[u8]) -> Result<Self, TailError> {
        let len = tail_len(bytes, u64::MAX)?;
        let start = (bytes.len() as u64)
            .checked_sub(len)
            .ok_or(TailError::Cut { len: bytes.len() as u64, needed: len })?;
        let (covered, mut end) = bytes[start as usize..].split_at(len as usize - 8);
        let (stored, computed) = (end.get_u32_le(), checksum(covered));
        if stored != computed {
            return Err(TailError::Checksum { stored, computed });
        }
        let (body, mut counts) = covered.split_at(covered.len() - 8);
        let (lengths, sealed) = body.split_at(counts.get_u32_le() as usize);
        let runs = parse_runs(lengths)?;
        if sealed.len() < SEALED_HEAD_LEN + TAG_LEN {
            return Err(TailError::Malformed("the sealed list is too short".to_owned()));
        }
        let (mut fields, sealed) = sealed.split_at(SEALED_HEAD_LEN);
        let associated = body[..lengths.len() + 8].to_vec();
        let ring_key = RingKeyNumber(fields.get_u32_le());
        let algorithm = fields.get_u8();
        if Algorithm::from_code(algorithm) != Some(Algorithm::Aes256Gcm) {
            return Err(TailError::UnknownAlgorithm(algorithm));
        }
        fields.advance(3);
        let mut nonce = [0; NONCE_LEN];
        fields.copy_to_slice(&mut nonce);
        Ok(Self { runs, ring_key, len, associated, nonce, sealed: sealed.to_vec() })
    }

    /// Lengths of the chunks of the piece that begins at `offset` of the extent.
    pub fn lengths_at(&self, offset: u32) -> Option<&[ChunkLength]> {
        self.runs.iter().find(|run| run.offset == offset).map(|run| run.lengths.as_slice())
    }

    /// Opens the list of what lies in the extent.
    ///
    /// # Errors
    /// `Keyring`, `Sealed`, `Malformed`.
    pub fn open(&self, extent: ExtentId, keyring: &Keyring) -> Result<Vec<TailEntry>, TailError> {
        let key = keyring.ring_key(self.ring_key)?.tail_key(extent);
        let list =
            open_metadata(&key, &self.nonce, &self.associated, &self.sealed).map_err(TailError::Sealed)?;
        match list.split_first() {
            Some((&LIST_FORMAT, list)) => {
                postcard::from_bytes(list).map_err(|error| TailError::Malformed(error.to_string()))
            }
            other => {
                let found = other.map_or(0, |(format, _)| *format);
                Err(TailError::Malformed(format!(
                    "its list has format {found}, this version reads {LIST_FORMAT}"
                )))
            }
        }
    }
}

fn parse_runs(mut lengths: &[u8]) -> Result<Vec<ChunkRun>, TailError> {
    let short = || TailError::Malformed("a run of chunk lengths is cut".to_owned());
    let mut runs = Vec::new();
    while lengths.has_remaining() {
        let offset = lengths.try_get_u32_le().map_err(|_| short())?;
        let count = lengths.try_get_u32_le().map_err(|_| short())? as usize;
        if count > lengths.len() / 4 {
            return Err(short());
        }
        let run = (0..count).map(|_| ChunkLength(lengths.get_u32_le())).collect();
        runs.push(ChunkRun { offset, lengths: run });
    }
    Ok(runs)
}

#[cfg(test)]
mod tests;
