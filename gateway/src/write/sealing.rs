//! Plaintext into sealed chunks, and the checksums of a body on the way.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use diptych_core::chunk::{ChunkSealer, SealedChunk};
use diptych_core::ids::{BlobId, RingKeyNumber, UploadId};
use diptych_core::layout::CHUNK;
use diptych_core::lease::SubLease;
use rand::Rng;

use super::sequence::ExtentSequence;
use super::tail::Description;
use super::written::Written;
use crate::body::Body;
use crate::context::Context;
use crate::digests::{Announced, Checksums, Sums};
use crate::error::{GatewayError, Result};
use crate::md5::Md5;

/// Bodies up to this share extents with others.
pub(crate) const SMALL_BODY: usize = 256 << 10;
/// Work on fewer bytes than this is done where it stands: handing it to another thread costs more.
pub(crate) const INLINE: usize = 32 << 10;

/// A sealed chunk on its way into an extent.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// The blob it is of.
    pub blob: BlobId,
    /// Key that its blob's key is derived from.
    pub ring_key: RingKeyNumber,
    /// Number, sealed length, whether it is compressed.
    pub sealed: SealedChunk,
    /// Bytes of plaintext.
    pub plain: u32,
    /// The blob ends with it.
    pub last: bool,
    /// Ciphertext and tag.
    pub bytes: Bytes,
}

/// Seals one blob.
pub(crate) struct BlobSealer {
    blob: BlobId,
    ring_key: RingKeyNumber,
    sealer: ChunkSealer,
    checksums: Checksums,
}

impl BlobSealer {
    /// A fresh blob under the keyring's current key.
    pub(crate) fn new(context: &Context, announced: &Announced) -> Self {
        let blob = BlobId(rand::rng().random());
        let keyring = context.keyring();
        let key = keyring.current();
        let ring_key = key.number();
        let sealer = ChunkSealer::new(blob, key.blob_key(blob), Arc::clone(context.cipher()));
        Self { blob, ring_key, sealer, checksums: Checksums::new(announced) }
    }

    fn seal(&mut self, plain: &[u8], last: bool) -> Result<Chunk> {
        self.checksums.update(plain);
        let mut bytes = Vec::with_capacity(plain.len() + 64);
        let sealed = self.sealer.seal(plain, last, &mut bytes);
        let sealed = sealed.map_err(|error| GatewayError::Internal(error.to_string()))?;
        let plain = plain.len() as u32;
        Ok(Chunk { blob: self.blob, ring_key: self.ring_key, sealed, plain, last, bytes: bytes.into() })
    }
}

/// A small object, ready for a batch.
pub(crate) struct Prepared {
    /// Its only chunk.
    pub chunk: Chunk,
    /// Its sums.
    pub sums: Sums,
}

/// Seals a body of one chunk.
pub(crate) async fn prepare_small(
    context: &Context,
    plain: BytesMut,
    announced: &Announced,
) -> Result<Prepared> {
    let mut sealer = Box::new(BlobSealer::new(context, announced));
    if plain.len() <= INLINE {
        let chunk = sealer.seal(&plain, true)?;
        let mut md5 = Md5::default();
        md5.update(&plain);
        return Ok(Prepared { chunk, sums: Sums { md5: md5.finish(), others: sealer.checksums.finish() } });
    }
    let plain = plain.freeze();
    let mut hashing = context.md5().body();
    hashing.update(plain.clone()).await?;
    let sealed = on_cpu(plain.len(), move || {
        let chunk = sealer.seal(&plain, true)?;
        Ok::<_, GatewayError>((chunk, sealer.checksums.finish()))
    });
    let (chunk, others) = sealed.await??;
    Ok(Prepared { chunk, sums: Sums { md5: hashing.finish().await?, others } })
}

/// Runs work on `bytes` bytes off the reactor, unless it is little.
pub(crate) async fn on_cpu<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes <= INLINE {
        return Ok(work());
    }
    let stopped =
        |error: tokio::task::JoinError| GatewayError::Internal(format!("work was stopped: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}

/// Streams a body into extents: at most a chunk is gathered while the one before is coded and sent.
///
/// `head` is what was read of it already.
pub(crate) async fn write_body(
    context: &Arc<Context>,
    lease: &SubLease,
    owner: UploadId,
    description: Description,
    head: BytesMut,
    body: &mut Body,
    announced: &Announced,
) -> Result<(Written, Sums)> {
    // Its compression table is large: what is handed from thread to thread is a pointer.
    let mut sealer = Box::new(BlobSealer::new(context, announced));
    let mut hashing = context.md5().body();
    let mut extents = ExtentSequence::new(context.clone(), *lease, owner, description, body.announced())?;
    let mut piece = head;
    let pushed: Result<_> = async {
        loop {
            piece.reserve(CHUNK.saturating_sub(piece.len()));
            let more = body.fill(&mut piece, CHUNK).await?;
            context.metrics().bytes_in.inc_by(piece.len() as u64);
            let plain = std::mem::take(&mut piece).freeze();
            // Hashed beside all that follows, and waited for before the next bytes are, or before the object is committed.
            hashing.update(plain.clone()).await?;
            let sealing = plain.clone();
            let sealed = on_cpu(plain.len(), move || {
                let chunk = sealer.seal(&sealing, !more);
                (sealer, chunk)
            });
            let chunk;
            (sealer, chunk) = sealed.await?;
            extents.push(chunk?).await?;
            if !more {
                return Ok(sealer.checksums.finish());
            }
            hashing.settle().await?;
            piece = plain.try_into_mut().unwrap_or_default();
            piece.clear();
        }
    }
    .await;
    match pushed {
        Ok(others) => {
            let (written, md5) = tokio::join!(extents.finish(), hashing.finish());
            Ok((written?, Sums { md5: md5?, others }))
        }
        Err(error) => {
            extents.give_up().await;
            Err(error)
        }
    }
}
