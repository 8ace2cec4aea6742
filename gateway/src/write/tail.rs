//! What an extent's tail says of the blobs in it.

use bytes::Bytes;
use diptych_core::chunk::SealedChunk;
use diptych_core::ids::{BlobId, BucketId, ExtentId, RingKeyNumber, UploadId, VersionId};
use diptych_core::records::Etag;
use diptych_core::tail::{TailBuilder, TailEntry};
use rand::Rng;

use super::sealing::Chunk;
use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::objects::NewObject;

/// What blobs are written for, as far as known before they end.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    /// Bucket of the object.
    pub bucket: BucketId,
    /// Its key.
    pub key: Vec<u8>,
    /// The version that it becomes.
    pub version: VersionId,
    /// Of a part: the upload and the part's number.
    pub part: Option<(UploadId, u16)>,
    /// Bytes of the object or part.
    pub size: Option<u64>,
    /// Its entity tag.
    pub etag: Option<Etag>,
    /// Its headers.
    pub headers: Vec<(String, String)>,
}

impl Description {
    /// Of an object whose bytes are still to come.
    pub(crate) fn of(object: &NewObject) -> Self {
        Self {
            bucket: object.bucket,
            key: object.key.clone().into_bytes(),
            version: object.version,
            part: None,
            size: None,
            etag: None,
            headers: object.headers.clone(),
        }
    }

    fn entry(&self, run: &Run) -> TailEntry {
        TailEntry {
            blob: run.blob,
            ring_key: run.ring_key,
            first_chunk: run.chunks.first().map_or(0, |chunk| chunk.index),
            offset: run.offset,
            sealed: run.chunks.iter().map(|chunk| chunk.len).sum(),
            plain: run.plain,
            last: run.last,
            bucket: self.bucket,
            key: self.key.clone(),
            version: self.version,
            part: self.part,
            size: self.size,
            etag: self.etag,
            headers: self.headers.clone(),
        }
    }
}

/// The chunks of one blob in an extent, one behind the other.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    blob: BlobId,
    ring_key: RingKeyNumber,
    offset: u32,
    chunks: Vec<SealedChunk>,
    plain: u32,
    last: bool,
}

impl Run {
    /// A chunk was put at `offset` of the extent.
    pub(crate) fn add(runs: &mut Vec<Self>, offset: u32, chunk: &Chunk) {
        if let Some(run) = runs.last_mut()
            && run.blob == chunk.blob
        {
            run.chunks.push(chunk.sealed);
            run.plain += chunk.plain;
            run.last = chunk.last;
            return;
        }
        runs.push(Self {
            blob: chunk.blob,
            ring_key: chunk.ring_key,
            offset,
            chunks: vec![chunk.sealed],
            plain: chunk.plain,
            last: chunk.last,
        });
    }
}

/// The tail. `descriptions` has one for each run, or one for all of them.
pub(crate) fn build_tail(
    context: &Context,
    extent: ExtentId,
    runs: &[Run],
    descriptions: &[Description],
) -> Result<Bytes> {
    let mut tail = TailBuilder::new();
    for (index, run) in runs.iter().enumerate() {
        if let Some(description) = descriptions.get(index).or_else(|| descriptions.last()) {
            tail.add(description.entry(run), &run.chunks);
        }
    }
    let keyring = context.keyring();
    let made = tail.finish(extent, keyring.current(), &rand::rng().random());
    made.map(Bytes::from).map_err(|error| GatewayError::Internal(error.to_string()))
}
