//! A new extent: live blobs copied unopened, their chunks listed in a tail of its own.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Write};
use diptych_core::compaction::{Recipe, SourceRange};
use diptych_core::ids::{BlobId, Epoch, ExtentId, Hlc};
use diptych_core::journal::DocumentError;
use diptych_core::keys;
use diptych_core::records::{DeadMark, Extent, ExtentState, Holds, Placement, Record};
use diptych_core::tail::{Tail, TailBuilder, TailEntry};

use super::choose::Source;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::extents::{self, Pen};

/// Bytes of names, headers and lengths in a new extent's tail, about: its recipe holds them, and goes into one commit.
const DESCRIBED_MOST: usize = 256 << 10;

/// What a new extent is made of, as far as it was read.
#[derive(Default)]
struct Gathered {
    bytes: BTreeMap<ExtentId, Vec<u8>>,
    ranges: Vec<SourceRange>,
    tail: TailBuilder,
    described: usize,
    payload: u32,
    /// By blob, its bytes.
    blobs: Vec<(BlobId, u32)>,
    /// Of its oldest source.
    born: Option<(Epoch, Hlc)>,
}

/// Makes a new extent of what lives in `sources` and enters it, as one that no version names yet. Bytes that were read and written.
///
/// A source that does not read is left to the next round: repair sees to it.
pub(super) async fn copy(
    context: &SiteContext,
    epoch: Epoch,
    pen: &Pen,
    sources: Vec<Source>,
) -> Result<u64, SiteError> {
    let mut gathered = Gathered::default();
    for source in sources {
        if let Err(error) = gathered.add(context, pen, &source).await {
            tracing::info!(site = %context.site, extent = %source.extent, %error, "it can't be compacted now");
        }
    }
    let read: u64 = gathered.bytes.values().map(|bytes| bytes.len() as u64).sum();
    let Gathered { bytes, ranges, tail, payload, blobs, born: Some((birth_epoch, birth_hlc)), .. } = gathered
    else {
        return Ok(read);
    };
    let extent = ExtentId(rand::random());
    let tail = tail.finish(extent, pen.keyring().current(), &rand::random());
    let recipe = Recipe { ranges, tail: tail.map_err(DocumentError::from)? };
    let made = recipe.assemble(&bytes).ok_or(SiteError::WrongExtent { extent })?;
    let record = Extent {
        state: ExtentState::Compacting(recipe),
        holds: Holds::Data,
        length: made.len() as u32,
        payload,
        hash: *blake3::hash(&made).as_bytes(),
        needed: pen.plan().needed,
        rows: pen.plan().rows_by_site(&context.site),
        // FENCING (no deleted file comes back): as old as the oldest of what it is made of. A resurrection whose journal does not know it
        // takes it for no newer than that.
        epoch: birth_epoch,
        hlc: birth_hlc,
    };
    let moved = read + u64::from(record.length);
    let rows = extents::make_rows(context, extent, &record, made).await?;
    // FENCING (nothing is named that is not there): the rows are durable before the extent is entered.
    let placement = Placement { rows, verified_day: 0 };
    let entered = context
        .catalog
        .commit(Batch::one(Some(epoch), entering(context, extent, &record, &placement, &blobs)));
    if entered.await?.all_applied() { Ok(moved) } else { Err(SiteError::Changed) }
}

/// FENCING (no byte is kept for ever): every blob in it has a dead mark from the first moment on, which goes in the change that makes a
/// version name it. So whenever a keeper stops, what no version names is marked, and the collector sees to it.
fn entering(
    context: &SiteContext,
    extent: ExtentId,
    record: &Extent,
    placement: &Placement,
    blobs: &[(BlobId, u32)],
) -> Change {
    let key = keys::extent(extent);
    let mut writes = vec![
        Write::Put(key.clone(), Bytes::from(record.encode())),
        Write::Put(keys::placement(&context.site, extent), Bytes::from(placement.encode())),
    ];
    writes.extend(blobs.iter().map(|&(blob, sealed)| {
        let mark = DeadMark { sealed: u64::from(sealed) };
        Write::Put(keys::dead_mark(extent, blob), Bytes::from(mark.encode()))
    }));
    Change { guards: vec![Guard { key, expect: Expect::Absent }], writes }
}

impl Gathered {
    async fn add(&mut self, context: &SiteContext, pen: &Pen, source: &Source) -> Result<(), SiteError> {
        let (record, bytes) = extents::read(context, source.extent).await?;
        let tail = Tail::parse(&bytes).map_err(DocumentError::from)?;
        let entries = tail.open(source.extent, pen.keyring()).map_err(DocumentError::from)?;
        for named in &source.live {
            let piece = &named.piece;
            let is_it = |entry: &&TailEntry| {
                (entry.blob, entry.offset, entry.sealed) == (named.blob, piece.offset, piece.sealed)
            };
            let (Some(entry), Some(lengths)) = (entries.iter().find(is_it), tail.lengths_at(piece.offset))
            else {
                continue;
            };
            let headers = entry.headers.iter().map(|(name, value)| name.len() + value.len());
            self.described += headers.sum::<usize>() + entry.key.len() + 4 * lengths.len();
            if self.described > DESCRIBED_MOST {
                break;
            }
            let (offset, length) = (piece.offset, piece.sealed);
            self.tail.add_copied(TailEntry { offset: self.payload, ..entry.clone() }, lengths.to_vec());
            self.ranges.push(SourceRange { extent: source.extent, offset, length });
            self.payload += length;
            self.blobs.push((named.blob, length));
            let born = (record.epoch, record.hlc);
            self.born = Some(self.born.map_or(born, |before| before.min(born)));
        }
        self.bytes.insert(source.extent, bytes);
        Ok(())
    }
}
