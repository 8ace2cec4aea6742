//! A document as an extent: its bytes are those of one blob, in chunks, then a tail, as with an object's.

use std::sync::Arc;

use super::document::{Document, DocumentError};
use crate::chunk::{ChunkOpener, ChunkSealer};
use crate::cipher::{Nonce, RustCryptoAesGcm};
use crate::ids::{BlobId, BucketId, ExtentId, VersionId};
use crate::keyring::{Keyring, RingKey};
use crate::layout::CHUNK;
use crate::tail::{Tail, TailBuilder, TailEntry};

/// Fresh randomness for one extent.
#[derive(Debug, Clone, Copy)]
pub struct Fresh {
    /// The extent's name.
    pub extent: ExtentId,
    /// The blob that its chunks are of.
    pub blob: BlobId,
    /// For its tail.
    pub nonce: Nonce,
}

/// An extent's bytes.
#[derive(Debug, Clone)]
pub struct SealedDocument {
    /// Chunks and tail.
    pub bytes: Vec<u8>,
    /// Bytes of the chunks.
    pub payload: u32,
}

/// Seals a document.
///
/// # Errors
/// A document of 4 GiB.
pub fn seal(document: &Document, ring_key: &RingKey, fresh: &Fresh) -> Result<SealedDocument, DocumentError> {
    let plain = document.encode()?;
    let length = u32::try_from(plain.len()).map_err(|_| DocumentError::Malformed("it is too long".into()))?;
    let mut sealer = ChunkSealer::new(fresh.blob, ring_key.blob_key(fresh.blob), Arc::new(RustCryptoAesGcm));
    let mut bytes = Vec::with_capacity(plain.len() / 2);
    let mut chunks = Vec::new();
    let mut rest = plain.chunks(CHUNK).peekable();
    while let Some(chunk) = rest.next() {
        chunks.push(sealer.seal(chunk, rest.peek().is_none(), &mut bytes)?);
    }
    let payload = bytes.len() as u32;
    let entry = TailEntry {
        blob: fresh.blob,
        ring_key: ring_key.number(),
        first_chunk: 0,
        offset: 0,
        sealed: payload,
        plain: length,
        last: true,
        bucket: BucketId([0; BucketId::LEN]),
        key: Vec::new(),
        version: VersionId([0; VersionId::LEN]),
        part: None,
        size: Some(u64::from(length)),
        etag: None,
        headers: Vec::new(),
    };
    let mut tail = TailBuilder::new();
    tail.add(entry, &chunks);
    bytes.extend_from_slice(&tail.finish(fresh.extent, ring_key, &fresh.nonce)?);
    Ok(SealedDocument { bytes, payload })
}

/// Opens what [`seal`] made.
///
/// # Errors
/// Altered, of another extent, of an unknown ring key or format.
pub fn open(bytes: &[u8], extent: ExtentId, keyring: &Keyring) -> Result<Document, DocumentError> {
    let tail = Tail::parse(bytes)?;
    let entries = tail.open(extent, keyring)?;
    let [entry] = &entries[..] else {
        return Err(DocumentError::Malformed(format!("{} blobs lie in its extent", entries.len())));
    };
    Document::decode(&open_run(bytes, &tail, entry, keyring)?)
}

/// The plaintext of one blob's run of chunks in an extent.
///
/// # Errors
/// Altered, of an unknown ring key, or the tail names what is not there.
pub fn open_run(
    extent: &[u8],
    tail: &Tail,
    entry: &TailEntry,
    keyring: &Keyring,
) -> Result<Vec<u8>, DocumentError> {
    let short = || DocumentError::Malformed("the extent is shorter than its tail says".to_owned());
    let key = keyring.ring_key(entry.ring_key)?.blob_key(entry.blob);
    let opener = ChunkOpener::new(entry.blob, key, Arc::new(RustCryptoAesGcm));
    let lengths = tail.lengths_at(entry.offset).ok_or_else(short)?;
    let mut plain = Vec::with_capacity(entry.plain as usize);
    let mut rest = extent.get(entry.offset as usize..).ok_or_else(short)?;
    for (index, length) in lengths.iter().enumerate() {
        let (sealed, behind) = rest.split_at_checked(length.sealed() as usize).ok_or_else(short)?;
        let last = entry.last && index + 1 == lengths.len();
        let index = entry.first_chunk + index as u32;
        plain.extend_from_slice(&opener.open(index, last, length.compressed(), sealed.into())?);
        rest = behind;
    }
    Ok(plain)
}
