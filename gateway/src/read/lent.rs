//! Chunks from rows that are lent: read where they lie, by the thread that opens them (docs/adr/0023).
//!
//! No checksum is looked at, since a chunk's tag covers each byte. Whatever is wrong, the agents are asked as if nothing had been lent: they say what it
//! is.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use diptych_core::ids::{ExtentId, Row};
use diptych_core::layout::DecodeRange;
use diptych_wire::agent::RowAt;
use rustix::io::ReadWriteFlags;
use tokio::task::{JoinError, JoinHandle};

use super::chunks::{Opening, PlannedChunk, read_by_agents};
use super::extent::ExtentPlace;
use super::rows::{Home, RangeReader, Wanted, decode_into};
use crate::agents::Agents;
use crate::context::Context;
use crate::error::Result;
use crate::latency::{HEDGE_LATEST, Operation, Size};
use crate::loans::LentRow;
use crate::write::INLINE;

/// A run of a row's bytes in a lent file.
struct Run {
    row: LentRow,
    offset: u64,
    len: usize,
}

impl Run {
    fn file(&self) -> &File {
        self.row.loan.file()
    }

    fn read(&self, into: &mut [u8]) -> io::Result<()> {
        self.file().read_exact_at(into, self.offset)
    }

    /// The same, if it is in memory.
    fn read_cached(&self, into: &mut [u8]) -> io::Result<()> {
        let mut pieces = [IoSliceMut::new(into)];
        let read = rustix::io::preadv2(self.file(), &mut pieces, self.offset, ReadWriteFlags::NOWAIT)?;
        if read < self.len { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

/// The wanted bytes of a chunk. None: they are to be read by way of the agents.
pub(super) async fn read_plain(context: &Context, chunk: &PlannedChunk) -> Option<Result<Bytes>> {
    let range = chunk.place.extent_range();
    // What is read to be verified is read by those who check it.
    if chunk.extent.alone || range.end > u64::from(chunk.extent.record.length) {
        return None;
    }
    let agents = context.agents();
    let reader = RangeReader::new(context, &agents, &chunk.extent, &[]);
    let (wanted, shape) = plan(&reader, &chunk.extent, &range)?;
    let runs = borrow(context, &agents, chunk.extent.id, &wanted).await?;
    let lent = LentChunk {
        runs,
        shape,
        len: chunk.place.sealed as usize,
        opening: Opening::of(context, chunk).ok()?,
    };
    LentRead { context, chunk, reader: &reader, wanted: &wanted }.read(lent).await
}

/// How a chunk comes out of its runs.
enum Shape {
    /// They are its bytes, one after the other.
    Joined,
    /// They are ranges of k rows, the same of all for each part.
    Coded {
        /// k.
        needed: u8,
        /// Which rows.
        rows: Vec<Row>,
        /// The parts.
        parts: Vec<DecodeRange>,
    },
}

/// What to read: the data rows, or else any k.
fn plan(reader: &RangeReader<'_>, extent: &ExtentPlace, range: &Range<u64>) -> Option<(Vec<Wanted>, Shape)> {
    if let Some(wanted) = reader.direct(range) {
        return Some((wanted, Shape::Joined));
    }
    let chosen = reader.choose().ok()?;
    let parts: Vec<DecodeRange> = reader.layout().locate_decode(range.clone()).collect();
    let wanted = parts.iter().flat_map(|part| chosen.iter().map(|home| Wanted::of(*home, part))).collect();
    let rows = chosen.iter().map(Home::row).collect();
    Some((wanted, Shape::Coded { needed: extent.record.needed, rows, parts }))
}

/// The runs, if all of their rows are lent.
async fn borrow(context: &Context, agents: &Agents, extent: ExtentId, wanted: &[Wanted]) -> Option<Vec<Run>> {
    let rows: Vec<RowAt> = wanted.iter().map(|wanted| wanted.at(extent)).collect::<Option<_>>()?;
    let lent = context.loans().rows(agents, &rows).await?;
    let run = |(wanted, row): (&Wanted, LentRow)| {
        let (start, len) = (u64::from(wanted.offset), wanted.len as usize);
        let inside = start + len as u64 <= row.place.len;
        inside.then(|| Run { offset: row.place.offset + start, row, len })
    };
    wanted.iter().zip(lent).map(run).collect()
}

fn count_runs(context: &Context, outcome: &str, runs: usize) {
    context.metrics().lent_reads.with_label_values(&[outcome]).inc_by(runs as u64);
}

/// A chunk whose rows are lent.
struct LentChunk {
    runs: Vec<Run>,
    shape: Shape,
    /// Sealed bytes.
    len: usize,
    opening: Opening,
}

/// Why a chunk did not come.
enum Fault {
    /// A file is too short, or its disk can't read it.
    Failed,
    /// What is in the files is not the chunk.
    Wrong,
}

/// What came of it, and how long each run took.
struct Done {
    opened: std::result::Result<Bytes, Fault>,
    took: Vec<Duration>,
}

impl LentChunk {
    /// Opens it, if all of it is in memory and that is little work.
    fn open_cached(&self) -> Option<Done> {
        if self.len > INLINE {
            return None;
        }
        let sealed = self.sealed(Run::read_cached).ok()?;
        let took = vec![Duration::ZERO; self.runs.len()];
        Some(Done { opened: self.opening.open(sealed).map_err(|_| Fault::Wrong), took })
    }

    /// Reads it, and opens it where it lies. `reading`: which run it is at.
    fn open(&self, reading: &AtomicUsize) -> Done {
        let mut took = Vec::with_capacity(self.runs.len());
        let sealed = self.sealed(|run, into| {
            reading.store(took.len(), Ordering::Relaxed);
            let begun = Instant::now();
            let read = run.read(into);
            took.push(begun.elapsed());
            read
        });
        let opened = match sealed {
            Ok(sealed) => self.opening.open(sealed).map_err(|_| Fault::Wrong),
            Err(_) => Err(Fault::Failed),
        };
        Done { opened, took }
    }

    /// Its sealed bytes, each run read once.
    fn sealed(&self, mut read: impl FnMut(&Run, &mut [u8]) -> io::Result<()>) -> io::Result<BytesMut> {
        let Shape::Coded { needed, rows, parts } = &self.shape else {
            let mut sealed = BytesMut::zeroed(self.len);
            let mut rest = &mut sealed[..];
            for run in &self.runs {
                let (into, others) = rest.split_at_mut(run.len);
                read(run, into)?;
                rest = others;
            }
            return Ok(sealed);
        };
        let mut sealed = BytesMut::with_capacity(self.len);
        for (part, runs) in parts.iter().zip(self.runs.chunks(rows.len())) {
            let len = part.len as usize;
            let mut shards = vec![0; len * rows.len()];
            for (run, into) in runs.iter().zip(shards.chunks_mut(len)) {
                read(run, into)?;
            }
            let shards: Vec<&[u8]> = shards.chunks(len).collect();
            decode_into(&mut sealed, part, *needed, rows, &shards).map_err(io::Error::other)?;
        }
        Ok(sealed)
    }
}

/// A chunk that is read by loan, and what is to be known of it meanwhile.
struct LentRead<'a> {
    context: &'a Context,
    chunk: &'a PlannedChunk,
    reader: &'a RangeReader<'a>,
    wanted: &'a [Wanted],
}

impl LentRead<'_> {
    async fn read(&self, lent: LentChunk) -> Option<Result<Bytes>> {
        self.context.hedges().note_read();
        if let Shape::Coded { .. } = lent.shape {
            self.context.metrics().degraded_reads.inc();
        }
        let begun = Instant::now();
        if let Some(done) = lent.open_cached() {
            return self.finish(begun, done);
        }
        let reading = Arc::new(AtomicUsize::new(0));
        let progress = Arc::clone(&reading);
        let mut work = tokio::task::spawn_blocking(move || lent.open(&progress));
        tokio::select! {
            done = &mut work => return self.joined(begun, done),
            () = self.reader.others_are_due(self.wanted) => {}
        }
        let by_agents = read_by_agents(self.context, self.chunk);
        tokio::pin!(by_agents);
        tokio::select! {
            done = &mut work => match self.joined(begun, done) {
                None => Some(by_agents.await),
                read => read,
            },
            read = &mut by_agents => match read {
                Ok(plain) => {
                    self.context.metrics().hedges.with_label_values(&["first"]).inc();
                    self.note_late(begun, reading.load(Ordering::Relaxed), work);
                    Some(Ok(plain))
                }
                // Slow is better than nothing.
                Err(error) => self.joined(begun, work.await).or(Some(Err(error))),
            },
        }
    }

    fn joined(&self, begun: Instant, done: std::result::Result<Done, JoinError>) -> Option<Result<Bytes>> {
        self.finish(begun, done.ok()?)
    }

    /// Counts a row's time without that of the others, and all that was neither: as long as one that is read alone would have taken.
    fn finish(&self, begun: Instant, Done { opened, took }: Done) -> Option<Result<Bytes>> {
        let besides = begun.elapsed().saturating_sub(took.iter().sum());
        for (wanted, took) in self.wanted.iter().zip(took) {
            self.record(wanted, took + besides);
        }
        let outcome = match &opened {
            Ok(_) => "read",
            Err(Fault::Failed) => "failed",
            Err(Fault::Wrong) => "wrong",
        };
        count_runs(self.context, outcome, self.wanted.len());
        if opened.is_err() {
            let extent = self.chunk.extent.id;
            tracing::warn!(%extent, outcome, "a chunk of lent rows does not read: the agents are asked");
            let rows: Vec<RowAt> = self.wanted.iter().filter_map(|wanted| wanted.at(extent)).collect();
            self.context.loans().forget(&rows);
        }
        opened.ok().map(Ok)
    }

    fn record(&self, wanted: &Wanted, took: Duration) {
        if let Some(latency) = self.reader.latency(&wanted.home) {
            latency.meter(Operation::Read, Size::of(wanted.len as usize)).record(took);
        }
    }

    /// The agents were faster. A device that has not answered even later keeps a thread waiting: no more of them shall.
    fn note_late(&self, begun: Instant, reading: usize, work: JoinHandle<Done>) {
        count_runs(self.context, "late", self.wanted.len());
        let Some(late) = self.wanted.get(reading) else { return };
        self.record(late, begun.elapsed());
        let Some(at) = late.at(self.chunk.extent.id) else { return };
        let loans = Arc::clone(self.context.loans());
        tokio::spawn(async move {
            if tokio::time::timeout(HEDGE_LATEST, work).await.is_err() {
                loans.rest(at.device);
            }
        });
    }
}
