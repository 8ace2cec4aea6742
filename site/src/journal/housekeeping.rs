//! What goes on beside the journal: checkpoints, and merges of small journals. Neither moves the journal's progress.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use diptych_catalog::View;
use diptych_core::ids::{Epoch, ExtentId, Hlc};
use diptych_core::journal::{Checkpoint, CheckpointPart, Document, Journal, Writer, is_recorded, open, tile};
use diptych_core::keys::{Key, KeyRange};
use diptych_core::records::{Position, Span};

use super::shelf::condemn;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::extents::{self, Pen};

/// Bytes of keys and values in a part of a checkpoint or a merged journal: all that is held of it at one time.
const PART_BYTES: usize = 4 << 20;
/// Keys that are looked at at once: some of their values are large.
const SCAN: usize = 128;
/// A checkpoint takes a quarter of the time: the rest is the site's.
const REST: u32 = 3;

/// Writes a checkpoint of the catalog as it is now, and reads it back. Where that fails, nothing of it stays.
pub(super) async fn checkpoint(context: &SiteContext, epoch: Epoch) -> Result<Checkpoint, SiteError> {
    let mut parts = Vec::new();
    let made = write_parts(context, epoch, &mut parts).await;
    if made.is_err() {
        give_up(context, epoch, &parts).await;
    }
    made
}

async fn write_parts(
    context: &SiteContext,
    epoch: Epoch,
    parts: &mut Vec<ExtentId>,
) -> Result<Checkpoint, SiteError> {
    let born = Hlc::from_milliseconds(now_ms());
    let mut view = context.catalog.view().await?;
    let pen = Pen::find(context, view.as_ref())?;
    let writer = Writer { site: context.site.clone(), epoch };
    let mut made = Checkpoint { at: view.position(), ..Checkpoint::default() };
    let mut next = Some(Key(Vec::new()));
    while let Some(from) = next.take() {
        let (begun, writer) = (Instant::now(), writer.clone());
        let scan = tokio::task::spawn_blocking(move || {
            let part = next_part(view.as_ref(), writer, from);
            (view, part)
        });
        let part;
        (view, part) = scan.await.map_err(|_| SiteError::Stopped)?;
        let part = part?;
        next.clone_from(&part.to);
        made.keys += part.entries.len() as u64;
        let written = pen.write(context, epoch, born, Document::Checkpoint(part)).await?;
        written.enter(context, epoch).await?;
        made.bytes += u64::from(written.record.length);
        parts.push(written.extent);
        tokio::time::sleep(rest(begun)).await;
    }
    drop(view);
    read_back(context, &pen, made.at, parts).await?;
    tracing::info!(site = %context.site, keys = made.keys, bytes = made.bytes, parts = parts.len(), "checkpoint");
    Ok(made)
}

/// Nothing will name these extents: the collector may have them.
async fn give_up(context: &SiteContext, epoch: Epoch, extents: &[ExtentId]) {
    if let Err(error) = condemn(context, epoch, extents).await {
        tracing::warn!(site = %context.site, %error, "parts of what failed stay until the next checkpoint");
    }
}

fn rest(begun: Instant) -> Duration {
    begun.elapsed() * REST
}

/// The recorded keys from `from` on, as many as a part takes.
fn next_part(view: &dyn View, writer: Writer, from: Key) -> Result<CheckpointPart, SiteError> {
    let mut range = KeyRange { start: from.clone(), end: Key(vec![0xff; 64]) };
    let mut part = CheckpointPart { writer, at: view.position(), from, to: None, entries: Vec::new() };
    let mut bytes = 0;
    loop {
        let page = view.scan(&range, SCAN)?;
        for (key, value) in page.entries {
            if is_recorded(&key, Some(&value))? {
                if bytes >= PART_BYTES {
                    part.to = Some(key);
                    return Ok(part);
                }
                bytes += key.0.len() + value.len();
                part.entries.push((key, value.to_vec()));
            }
        }
        match page.next {
            Some(next) => range.start = next,
            None => return Ok(part),
        }
    }
}

/// Reads the parts from the devices, as a resurrection would, and finds them whole.
///
/// FENCING: before the journal's progress names the checkpoint, and so before anything older is freed.
async fn read_back(
    context: &SiteContext,
    pen: &Pen,
    at: Position,
    parts: &[ExtentId],
) -> Result<(), SiteError> {
    let mut found = Vec::new();
    for extent in parts {
        let begun = Instant::now();
        match read(context, pen, *extent).await? {
            (_, Document::Checkpoint(part)) if part.at == at => found.push((part.from, part.to)),
            (_, Document::Checkpoint(_) | Document::Journal(_)) => {
                return Err(SiteError::WrongExtent { extent: *extent });
            }
        }
        tokio::time::sleep(rest(begun)).await;
    }
    tile(&found).map(drop).ok_or(SiteError::Changed)
}

/// When an extent was born, and what it holds.
async fn read(context: &SiteContext, pen: &Pen, extent: ExtentId) -> Result<(Hlc, Document), SiteError> {
    let (record, bytes) = extents::read(context, extent).await?;
    let keyring = pen.keyring().clone();
    let opened = tokio::task::spawn_blocking(move || open(&bytes, extent, &keyring)).await;
    Ok((record.hlc, opened.map_err(|_| SiteError::Stopped)??))
}

/// Journals that are read one after the other, and become one.
#[derive(Default)]
struct Merging {
    span: Option<Span>,
    born: Hlc,
    changes: BTreeMap<Key, Option<Vec<u8>>>,
    bytes: usize,
    sources: Vec<ExtentId>,
}

/// Merges runs of journals, and condemns those that it has merged; how many were made of them.
pub(super) async fn merge(
    context: &SiteContext,
    epoch: Epoch,
    runs: Vec<Vec<ExtentId>>,
) -> Result<u64, SiteError> {
    let view = context.catalog.view().await?;
    let pen = Pen::find(context, view.as_ref())?;
    drop(view);
    let mut merged = 0;
    for run in runs {
        let mut merging = Merging::default();
        for extent in run {
            if let (born, Document::Journal(journal)) = read(context, &pen, extent).await? {
                merging.add(extent, born, journal);
            }
            if merging.bytes >= PART_BYTES {
                merged += std::mem::take(&mut merging).finish(context, &pen, epoch).await?;
            }
        }
        merged += merging.finish(context, &pen, epoch).await?;
    }
    Ok(merged)
}

impl Merging {
    /// The journal that begins where the one before ends.
    fn add(&mut self, extent: ExtentId, born: Hlc, journal: Journal) {
        let after = self.span.map_or(journal.span.after, |span| span.after);
        self.span = Some(Span { after, upto: journal.span.upto });
        // What it tells of ends with the newest of them, whenever it is written.
        self.born = self.born.max(born);
        self.sources.push(extent);
        for (key, value) in journal.changes {
            self.bytes += key.0.len() + value.as_ref().map_or(0, Vec::len);
            self.changes.insert(key, value);
        }
    }

    /// FENCING: read back before those that it is made of are condemned, and condemned itself where that fails.
    async fn finish(self, context: &SiteContext, pen: &Pen, epoch: Epoch) -> Result<u64, SiteError> {
        let Some(span) = self.span.filter(|_| self.sources.len() > 1) else { return Ok(0) };
        let writer = Writer { site: context.site.clone(), epoch };
        let journal = Journal { writer, span, changes: self.changes.into_iter().collect() };
        let written = pen.write(context, epoch, self.born, Document::Journal(journal)).await?;
        written.enter(context, epoch).await?;
        let extent = written.extent;
        let reads = match read(context, pen, extent).await {
            Ok((_, Document::Journal(journal))) if journal.span == span => Ok(()),
            Ok((_, Document::Journal(_) | Document::Checkpoint(_))) => Err(SiteError::WrongExtent { extent }),
            Err(error) => Err(error),
        };
        if let Err(error) = reads {
            give_up(context, epoch, &[extent]).await;
            return Err(error);
        }
        condemn(context, epoch, &self.sources).await?;
        Ok(1)
    }
}
