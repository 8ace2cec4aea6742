//! Which chunks hold a range of an object, and each chunk's sealed bytes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use diptych_core::chunk::{ChunkOpener, ChunkPlace, chunks_of};
use diptych_core::ids::{BlobId, ExtentId, RingKeyNumber, Row};
use diptych_core::records::{Blob, Layout, Piece};
use diptych_core::tail::Tail;

use super::extent::ExtentPlace;
use super::lent;
use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::write::on_cpu;

/// A chunk that is to be read.
#[derive(Debug, Clone)]
pub(crate) struct PlannedChunk {
    /// Its blob.
    pub blob: BlobId,
    /// Key that the blob's key is derived from.
    pub ring_key: RingKeyNumber,
    /// The extent.
    pub extent: Arc<ExtentPlace>,
    /// Where in it.
    pub place: ChunkPlace,
    /// Bytes of its plaintext that are wanted.
    pub wanted: Range<usize>,
}

/// Pieces that overlap a range of the object, each with the range of it that is wanted.
pub(crate) fn pieces_of(
    blobs: &[Blob],
    range: &Range<u64>,
) -> Vec<(BlobId, RingKeyNumber, Piece, Range<u64>)> {
    let mut at = 0;
    let mut found = Vec::new();
    for blob in blobs {
        for piece in &blob.pieces {
            let end = at + u64::from(piece.plain);
            let overlap = range.start.max(at)..range.end.min(end);
            // An empty blob still has a chunk whose tag says that it is empty.
            if overlap.start < overlap.end || (piece.plain == 0 && range.start == at && range.end == at) {
                found.push((
                    blob.id,
                    blob.ring_key,
                    *piece,
                    overlap.start - at..overlap.end.max(overlap.start) - at,
                ));
            }
            at = end;
        }
    }
    found
}

/// Places of extents and their tails, looked up once a request.
#[derive(Default)]
pub(crate) struct Places {
    extents: HashMap<ExtentId, Arc<ExtentPlace>>,
    tails: HashMap<ExtentId, Tail>,
    alone: bool,
}

impl Places {
    /// Of this site's own rows, and no others.
    pub(super) fn alone() -> Self {
        Self { alone: true, ..Self::default() }
    }

    pub(crate) async fn extent(&mut self, context: &Context, id: ExtentId) -> Result<Arc<ExtentPlace>> {
        if let Some(known) = self.extents.get(&id) {
            return Ok(known.clone());
        }
        let view = context.catalog().view().await?;
        let found = ExtentPlace::find(context, view.as_ref(), id)?;
        let place = Arc::new(if self.alone { found.alone() } else { found });
        // Pieces come in the order of the object: what was left behind is not asked for again soon.
        if self.extents.len() >= 16 {
            self.extents.clear();
            self.tails.clear();
        }
        self.extents.insert(id, place.clone());
        Ok(place)
    }

    async fn tail(&mut self, context: &Context, place: &ExtentPlace) -> Result<&Tail> {
        match self.tails.entry(place.id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => Ok(unknown.insert(place.tail(context).await?)),
        }
    }
}

/// The chunks of a piece that hold `wanted` of its plaintext.
pub(crate) async fn plan_chunks(
    context: &Context,
    places: &mut Places,
    blob: (BlobId, RingKeyNumber),
    piece: &Piece,
    wanted: Range<u64>,
) -> Result<Vec<PlannedChunk>> {
    let extent = places.extent(context, piece.extent).await?;
    let lengths = match piece.layout {
        Layout::InTail => {
            let tail = places.tail(context, &extent).await?;
            let missing =
                || GatewayError::Corrupt(format!("the tail of extent {} lacks a piece", piece.extent));
            Some(tail.lengths_at(piece.offset).ok_or_else(missing)?.to_vec())
        }
        Layout::Plain | Layout::OneCompressed => None,
    };
    let found = chunks_of(piece, lengths.as_deref(), wanted.clone());
    let found = found.map_err(|error| GatewayError::Corrupt(error.to_string()))?;
    let planned = |place: ChunkPlace| {
        let start = wanted.start.saturating_sub(place.plain_offset) as usize;
        let end = wanted.end.saturating_sub(place.plain_offset).min(u64::from(place.plain)) as usize;
        PlannedChunk { blob: blob.0, ring_key: blob.1, extent: extent.clone(), place, wanted: start..end }
    };
    Ok(found.into_iter().map(planned).collect())
}

/// A chunk's ciphertext and tag, not opened, by way of the agents.
pub(crate) async fn read_sealed(context: &Context, chunk: &PlannedChunk, avoid: &[Row]) -> Result<Bytes> {
    chunk.extent.read(context, chunk.place.extent_range(), avoid).await
}

/// The wanted bytes of a chunk, its tag verified: from rows that are lent, where all are and nothing is wrong with them.
pub(crate) async fn read_plain(context: &Context, chunk: &PlannedChunk) -> Result<Bytes> {
    match lent::read_plain(context, chunk).await {
        Some(read) => read,
        None => read_by_agents(context, chunk).await,
    }
}

/// The same by way of the agents. Where the tag does not fit, other sets of rows are tried, and the row that was wrong is named.
pub(super) async fn read_by_agents(context: &Context, chunk: &PlannedChunk) -> Result<Bytes> {
    let sealed = read_sealed(context, chunk, &[]).await?;
    let wrong = match open(context, chunk, sealed).await {
        Ok(plain) => return Ok(plain),
        Err(error) => error,
    };
    for placed in &chunk.extent.placed {
        let Ok(sealed) = read_sealed(context, chunk, &[placed.row]).await else { continue };
        if let Ok(plain) = open(context, chunk, sealed).await {
            let (extent, row, device) = (chunk.extent.id, placed.row, placed.device);
            tracing::error!(%extent, %row, %device, "this row is wrong although its checksums are right: rebuild it");
            context.metrics().rows_unreadable.with_label_values(&["forged"]).inc();
            return Ok(plain);
        }
    }
    Err(wrong)
}

async fn open(context: &Context, chunk: &PlannedChunk, sealed: Bytes) -> Result<Bytes> {
    let opening = Opening::of(context, chunk)?;
    on_cpu(sealed.len(), move || {
        // Whoever assembled it from rows has let go of it; what is one row's own bytes is copied.
        opening.open(sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..])))
    })
    .await?
}

/// What opens a chunk, on whichever thread.
pub(super) struct Opening {
    opener: ChunkOpener,
    place: ChunkPlace,
    wanted: Range<usize>,
}

impl Opening {
    pub(super) fn of(context: &Context, chunk: &PlannedChunk) -> Result<Self> {
        let keyring = context.keyring();
        let key =
            keyring.ring_key(chunk.ring_key).map_err(|error| GatewayError::NotReady(error.to_string()))?;
        let opener = ChunkOpener::new(chunk.blob, key.blob_key(chunk.blob), Arc::clone(context.cipher()));
        Ok(Self { opener, place: chunk.place, wanted: chunk.wanted.clone() })
    }

    /// The wanted bytes of a chunk; fails where the tag does not fit.
    pub(super) fn open(&self, sealed: BytesMut) -> Result<Bytes> {
        let ChunkPlace { index, last, compressed, plain: length, .. } = self.place;
        let plain = self.opener.open(index, last, compressed, sealed);
        let plain = plain.map_err(|error| GatewayError::Corrupt(error.to_string()))?;
        if plain.len() != length as usize {
            return Err(GatewayError::Corrupt("a chunk has another length than the catalog says".to_owned()));
        }
        Ok(plain.freeze().slice(self.wanted.clone()))
    }
}
