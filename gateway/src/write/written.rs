//! What was written and is not committed yet: extents, and the blobs that name them.

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, View, Write};
use diptych_core::ids::{ExtentId, UploadId};
use diptych_core::keys;
use diptych_core::lease::SubLease;
use diptych_core::records::{Blob, Content, Extent, ExtentState, Layout, Placement, Record, ReferencePage};

use super::sealing::Chunk;
use super::sequence::first_piece;
use crate::commit::{commit_many, commit_plain};
use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::objects::NewObject;

/// Extent references that a head holds itself.
const INLINE_REFERENCES: usize = 8;
/// Extent references of a page.
const PAGE_REFERENCES: usize = 1000;

/// An extent whose rows are durable.
#[derive(Debug, Clone)]
pub(crate) struct WrittenExtent {
    /// Which.
    pub id: ExtentId,
    /// As it will be when it is live.
    pub record: Extent,
    /// Where its rows are.
    pub placement: Placement,
    /// Its record in the catalog, if it is entered: open.
    pub entered: Option<Bytes>,
}

impl WrittenExtent {
    /// Its record in this state.
    pub(crate) fn encoded(&self, state: ExtentState) -> Bytes {
        Bytes::from(Extent { state, ..self.record.clone() }.encode())
    }

    /// Enters it in this state, or changes it from open to this.
    ///
    /// FENCING (what was acknowledged is found): one that is too old is not entered, for a resurrection that does not know it would
    /// take it for deleted.
    pub(crate) fn entering(&self, context: &Context, state: ExtentState) -> Result<Change> {
        let named = state != ExtentState::Condemned && self.entered.is_none();
        if named && context.clock().age(self.record.hlc) >= context.limits().enter_within {
            return Err(too_late());
        }
        let key = keys::extent(self.id);
        let expect = self.entered.clone().map_or(Expect::Absent, Expect::Value);
        let mut writes = vec![Write::Put(key.clone(), self.encoded(state))];
        if self.entered.is_none() {
            let placement = Bytes::from(self.placement.encode());
            writes.push(Write::Put(keys::placement(context.site(), self.id), placement));
        }
        Ok(Change { guards: vec![Guard { key, expect }], writes })
    }
}

/// Blobs and the extents that they lie in.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    owner: UploadId,
    blobs: Vec<Blob>,
    extents: Vec<WrittenExtent>,
}

impl Written {
    pub(crate) fn new(owner: UploadId) -> Self {
        Self { owner, blobs: Vec::new(), extents: Vec::new() }
    }

    /// Blobs and extents that are in the catalog already: the parts of an upload.
    pub(crate) fn of(owner: UploadId, blobs: Vec<Blob>, extents: Vec<WrittenExtent>) -> Self {
        Self { owner, blobs, extents }
    }

    /// The blobs.
    pub(crate) fn into_blobs(self) -> Vec<Blob> {
        self.blobs
    }

    /// Bytes of plaintext.
    pub(crate) fn size(&self) -> u64 {
        self.blobs.iter().flat_map(|blob| &blob.pieces).map(|piece| u64::from(piece.plain)).sum()
    }

    /// The extents.
    pub(crate) fn extent_ids(&self) -> Vec<ExtentId> {
        self.extents.iter().map(|extent| extent.id).collect()
    }

    /// Durable rows of the extent that has fewest.
    pub(crate) fn least_durable(&self) -> u8 {
        self.extents.iter().map(|extent| extent.placement.rows.len()).min().unwrap_or(0) as u8
    }

    /// A chunk was put at `offset` of an extent.
    pub(crate) fn add(&mut self, extent: ExtentId, offset: u32, chunk: &Chunk) {
        let next = first_piece(extent, offset, chunk);
        let blob = match self.blobs.last_mut() {
            Some(last) if last.id == chunk.blob => last,
            _ => {
                self.blobs.push(Blob { id: chunk.blob, ring_key: chunk.ring_key, pieces: vec![next] });
                return;
            }
        };
        match blob.pieces.last_mut() {
            Some(piece) if piece.extent == extent => {
                let plain = piece.layout == Layout::Plain && next.layout == Layout::Plain;
                piece.layout = if plain { Layout::Plain } else { Layout::InTail };
                piece.sealed += next.sealed;
                piece.plain += next.plain;
                piece.last = next.last;
            }
            _ => blob.pieces.push(next),
        }
    }

    /// An extent that is not entered yet.
    pub(crate) fn push(&mut self, extent: WrittenExtent) {
        self.extents.push(extent);
    }

    /// Enters an extent as open: the upload goes on.
    pub(crate) async fn enter_open(
        &mut self,
        context: &Context,
        lease: &SubLease,
        extent: WrittenExtent,
    ) -> Result<()> {
        let state = ExtentState::Open(self.owner);
        let record = extent.encoded(state.clone());
        let key = keys::extent(extent.id);
        let landed = |view: &dyn View| Ok(view.get(&key)?.as_ref() == Some(&record));
        if !commit_plain(context, lease, extent.entering(context, state)?, landed).await? {
            return Err(too_late());
        }
        self.extents.push(WrittenExtent { entered: Some(record), ..extent });
        Ok(())
    }

    /// What makes a part of an upload: its extents stay open, guarded so that none was collected.
    pub(crate) fn open_changes(&self, context: &Context) -> Result<(Vec<Guard>, Vec<Write>)> {
        let mut guards = Vec::new();
        let mut writes = Vec::new();
        for extent in &self.extents {
            let change = extent.entering(context, ExtentState::Open(self.owner))?;
            guards.extend(change.guards);
            if extent.entered.is_none() {
                writes.extend(change.writes);
            }
        }
        Ok((guards, writes))
    }

    /// Makes the extents live: with the head's own change where they are few, before it where they are many.
    ///
    /// FENCING: live before the head names them, never after: an extent that is still open when its upload is gone is
    /// collected.
    pub(crate) async fn enter_live(
        &self,
        context: &Context,
        lease: &SubLease,
        object: &NewObject,
    ) -> Result<(Content, Vec<Guard>, Vec<Write>)> {
        let references: usize = self.blobs.iter().map(|blob| blob.pieces.len()).sum();
        let entering = self.extents.iter().map(|extent| extent.entering(context, ExtentState::Live));
        let changes = entering.collect::<Result<Vec<_>>>()?;
        if references <= INLINE_REFERENCES && self.extents.len() <= INLINE_REFERENCES {
            let (guards, writes): (Vec<_>, Vec<_>) =
                changes.into_iter().map(|change| (change.guards, change.writes)).unzip();
            let flat = (guards.into_iter().flatten().collect(), writes.into_iter().flatten().collect());
            return Ok((Content::Inline(self.blobs.clone()), flat.0, flat.1));
        }
        let landed = |view: &dyn View, index: usize| {
            let extent = &self.extents[index];
            Ok(view.get(&keys::extent(extent.id))?.as_ref() == Some(&extent.encoded(ExtentState::Live)))
        };
        if !commit_many(context, lease, changes, landed).await? {
            return Err(too_late());
        }
        let pages = pages(&self.blobs);
        let count = u32::try_from(pages.len()).map_err(|_| GatewayError::TooLarge(self.size()))?;
        let mut changes = Vec::new();
        let mut values = Vec::new();
        for (number, page) in (0..).zip(pages) {
            let key = keys::reference_page(object.bucket, object.version, number);
            let value = Bytes::from(page.encode());
            changes.push(Change::blind(vec![Write::Put(key.clone(), value.clone())]));
            values.push((key, value));
        }
        let landed = |view: &dyn View, index: usize| {
            Ok(view.get(&values[index].0)?.as_ref() == Some(&values[index].1))
        };
        if !commit_many(context, lease, changes, landed).await? {
            return Err(GatewayError::Internal("a page of references was not written".to_owned()));
        }
        Ok((Content::Paged { pages: count }, Vec::new(), Vec::new()))
    }

    /// Nothing will name the extents: the collector may have them.
    ///
    /// FENCING (what was refused stays away): those that were never entered, too. A resurrection takes what is durable and unknown for
    /// acknowledged after the journal's end.
    pub(crate) async fn condemn(&self, context: &Context, lease: &SubLease) {
        if let Err(error) = self.condemn_all(context, lease).await {
            tracing::warn!(%error, "extents of a write that failed stay until they are collected");
        }
    }

    async fn condemn_all(&self, context: &Context, lease: &SubLease) -> Result<()> {
        let view = context.catalog().view().await?;
        let mut changes = Vec::with_capacity(self.extents.len());
        for extent in &self.extents {
            // As it is now: it may have become live before its head was refused.
            let now = WrittenExtent { entered: view.get(&keys::extent(extent.id))?, ..extent.clone() };
            changes.push(now.entering(context, ExtentState::Condemned)?);
        }
        drop(view);
        commit_many(context, lease, changes, |_, _| Ok(true)).await.map(drop)
    }
}

fn too_late() -> GatewayError {
    GatewayError::Busy("the upload took too long and was collected; nothing was stored, send it again")
}

/// Blobs in pages; one that spans pages stands in each with its own pieces.
fn pages(blobs: &[Blob]) -> Vec<ReferencePage> {
    let mut pages: Vec<ReferencePage> = Vec::new();
    let mut room = 0;
    for blob in blobs {
        for piece in &blob.pieces {
            if room == 0 {
                pages.push(ReferencePage { blobs: Vec::new() });
                room = PAGE_REFERENCES;
            }
            room -= 1;
            let Some(page) = pages.last_mut() else { continue };
            match page.blobs.last_mut() {
                Some(last) if last.id == blob.id => last.pieces.push(*piece),
                _ => page.blobs.push(Blob { id: blob.id, ring_key: blob.ring_key, pieces: vec![*piece] }),
            }
        }
    }
    pages
}
