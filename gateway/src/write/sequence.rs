//! Chunks into extents: each at most 64 MiB of plaintext and a tail, coded and sent as it grows.

use std::sync::Arc;

use bytes::Bytes;
use diptych_core::ids::{ExtentId, UploadId};
use diptych_core::layout::{CHUNK, EXTENT_PLAIN_MAX, StripeLayout};
use diptych_core::lease::SubLease;
use diptych_core::records::{Blob, Extent, ExtentState, Holds, Layout, Piece, Placement};
use rand::Rng;

use super::coder::ExtentCoder;
use super::rows::RowWriter;
use super::sealing::{Chunk, on_cpu};
use super::tail::{Description, Run, build_tail};
use super::written::{Written, WrittenExtent};
use crate::context::{Coding, Context};
use crate::error::{GatewayError, Result};

/// Room for tags of chunks and the tail, in what is reserved for an extent.
const OVERHEAD: u64 = 256 << 10;

/// Writes blobs into extents, one after the other.
pub(crate) struct ExtentSequence {
    context: Arc<Context>,
    lease: SubLease,
    description: Description,
    coding: Coding,
    /// Bytes of plaintext that are still to come, if that is known.
    to_come: Option<u64>,
    open: Option<OpenExtent>,
    written: Written,
}

struct OpenExtent {
    id: ExtentId,
    coding: Coding,
    /// Boxed: it goes from thread to thread with each chunk.
    coder: Box<ExtentCoder>,
    rows: RowWriter,
    plain: usize,
    payload: u32,
    runs: Vec<Run>,
}

impl OpenExtent {
    /// `most`: the most bytes that its chunks can have, but for tags.
    fn new(context: &Arc<Context>, lease: SubLease, coding: Coding, most: u64) -> Result<Self> {
        let id = ExtentId(rand::rng().random());
        let needed = coding.plan.needed;
        let reserve = StripeLayout::new(needed, most + OVERHEAD).row_len() as u32;
        let coder = Box::new(ExtentCoder::new(needed, &coding.rows)?);
        let rows = RowWriter::new(context.clone(), lease, id, (needed, coding.rows.clone()), reserve);
        Ok(Self { id, coding, coder, rows, plain: 0, payload: 0, runs: Vec::new() })
    }
}

impl ExtentSequence {
    /// `owner` is who the extents are open for until they are committed; `plain`: bytes to come, if known.
    pub(crate) fn new(
        context: Arc<Context>,
        lease: SubLease,
        owner: UploadId,
        description: Description,
        plain: Option<u64>,
    ) -> Result<Self> {
        let coding = context.coding()?;
        let written = Written::new(owner);
        Ok(Self { context, lease, description, coding, to_come: plain, open: None, written })
    }

    /// Adds the next chunk of a blob, or the first of the next one.
    pub(crate) async fn push(&mut self, chunk: Chunk) -> Result<()> {
        let old = self.context.limits().extent_open;
        let full = |open: &OpenExtent| {
            open.plain + chunk.plain as usize > EXTENT_PLAIN_MAX
                || self.context.clock().age(open.rows.born()) >= old
        };
        if self.open.as_ref().is_some_and(full) {
            let extent = self.close().await?;
            // More follows: the extent is entered now, so that it crosses while the object is still written, and is known to the
            // journal before a resurrection would call it too old.
            self.written.enter_open(&self.context, &self.lease, extent).await?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        self.to_come = self.to_come.map(|bytes| bytes.saturating_sub(u64::from(chunk.plain)));
        let offset = open.coder.length() as u32;
        open.plain += chunk.plain as usize;
        open.payload += chunk.sealed.len;
        self.written.add(open.id, offset, &chunk);
        Run::add(&mut open.runs, offset, &chunk);
        self.open = Some(code(open, chunk.bytes).await?);
        Ok(())
    }

    fn begin(&self) -> Result<OpenExtent> {
        let most = self.to_come.unwrap_or(u64::MAX).min(EXTENT_PLAIN_MAX as u64);
        OpenExtent::new(&self.context, self.lease, self.coding.clone(), most)
    }

    async fn close(&mut self) -> Result<WrittenExtent> {
        let Some(open) = self.open.take() else {
            return Err(GatewayError::Internal("an extent was closed that was not open".to_owned()));
        };
        let tail = build_tail(&self.context, open.id, &open.runs, std::slice::from_ref(&self.description))?;
        let open = code(open, tail).await?;
        seal(&self.context, &self.lease, open).await
    }

    /// The last extent is durable, and not yet in the catalog.
    pub(crate) async fn finish(mut self) -> Result<Written> {
        match self.close().await {
            Ok(extent) => self.written.push(extent),
            Err(error) => {
                self.give_up().await;
                return Err(error);
            }
        }
        Ok(self.written)
    }

    /// Lets the collector have what was entered. Rows that are open are given up with their streams.
    pub(crate) async fn give_up(self) {
        drop(self.open);
        self.written.condemn(&self.context, &self.lease).await;
    }
}

/// Codes bytes off the reactor, and sends the stripes that they fill.
async fn code(mut open: OpenExtent, bytes: Bytes) -> Result<OpenExtent> {
    let mut coder = open.coder;
    let (coder, stripes) = on_cpu(bytes.len(), move || {
        let stripes = coder.push(&bytes);
        (coder, stripes)
    })
    .await?;
    open.coder = coder;
    for shards in stripes {
        open.rows.push(shards).await?;
    }
    Ok(open)
}

async fn seal(context: &Context, lease: &SubLease, open: OpenExtent) -> Result<WrittenExtent> {
    let coder = open.coder;
    let coded = on_cpu(CHUNK, move || coder.finish()).await??;
    let born = open.rows.born();
    let (length, hash) = (coded.length, coded.hash);
    let durable = open.rows.seal(coded).await?;
    let plan = &open.coding.plan;
    let record = Extent {
        state: ExtentState::Live,
        holds: Holds::Data,
        length,
        payload: open.payload,
        hash,
        needed: plan.needed,
        rows: plan.rows_by_site(context.site()),
        epoch: lease.epoch,
        hlc: born,
    };
    let placement = Placement { rows: durable.placed, verified_day: 0 };
    Ok(WrittenExtent { id: open.id, record, placement, entered: None })
}

/// One extent of chunks that are all there: what a batch is written with.
pub(crate) async fn write_extent(
    context: &Arc<Context>,
    lease: &SubLease,
    chunks: &[Chunk],
    descriptions: &[Description],
) -> Result<(WrittenExtent, Vec<Blob>)> {
    let total = chunks.iter().map(|chunk| u64::from(chunk.sealed.len)).sum();
    let mut open = OpenExtent::new(context, *lease, context.coding()?, total)?;
    let id = open.id;
    let mut blobs = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let offset = open.coder.length() as u32;
        blobs.push(Blob {
            id: chunk.blob,
            ring_key: chunk.ring_key,
            pieces: vec![first_piece(id, offset, chunk)],
        });
        open.payload += chunk.sealed.len;
        Run::add(&mut open.runs, offset, chunk);
        open = code(open, chunk.bytes.clone()).await?;
    }
    let tail = build_tail(context, id, &open.runs, descriptions)?;
    let open = code(open, tail).await?;
    Ok((seal(context, lease, open).await?, blobs))
}

/// A piece that holds one chunk.
pub(crate) fn first_piece(extent: ExtentId, offset: u32, chunk: &Chunk) -> Piece {
    Piece {
        extent,
        first_chunk: chunk.sealed.index,
        offset,
        sealed: chunk.sealed.len,
        plain: chunk.plain,
        last: chunk.last,
        layout: if chunk.sealed.compressed { Layout::OneCompressed } else { Layout::Plain },
    }
}
