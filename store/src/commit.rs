//! The committer: one thread a device that makes durable what waits, many records with one sync, and only then answers.
//!
//! ```text
//! rows written ─► sync each touched segment ─► index (in memory) ─► answers
//!                                                     │ now and then
//!                                                     └► seal full segments, sync the index with its cursor, reclaim
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Admission;
use crate::error::StoreError;
use crate::health::Health;
use crate::index::{Change, Index, LogPosition, Sync};
use crate::log::Log;
use crate::moving::Moving;
use crate::pending::Answer;
use crate::queue::{Item, Queue, Work};
use crate::recent::Recent;
use crate::segment::{self, Segment};
use crate::types::{Deleted, Sealed, WholeRow};

/// After so many bytes or batches the index is synced, so that a crash has little to replay.
const SYNC_INDEX_BYTES: u64 = 64 << 20;
const SYNC_INDEX_BATCHES: u32 = if cfg!(test) { 5 } else { 4096 };
/// Dead segments are looked for no more often than this.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);

/// What the committer works with.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) log: Arc<Log>,
    pub(crate) index: Arc<Index>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) health: Arc<Health>,
    pub(crate) moving: Arc<Moving>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) unsynced_bytes: u64,
    pub(crate) unsynced_batches: u32,
    /// Something died since the last look for dead segments.
    pub(crate) deaths: bool,
    pub(crate) reclaimed: Instant,
    pub(crate) recent: Recent,
}

/// Sees to it that nobody waits for a committer that has ended, however it did.
struct LastWords {
    queue: Arc<Queue>,
    health: Arc<Health>,
    log: Arc<Log>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.health.fail(StoreError::failed("the committer", &"it panicked"));
        }
        self.queue.close();
        // Items that are dropped answer that the device is closed.
        while self.queue.take(None).is_some() {}
        self.log.stop();
    }
}

/// Answers that are owed once a batch is durable.
#[derive(Debug, Default)]
struct Batch {
    changes: Vec<Change>,
    touched: BTreeMap<u64, Arc<Segment>>,
    settled: Vec<LogPosition>,
    rows: Vec<(Answer<Sealed>, Sealed)>,
    deletes: Vec<Answer<Deleted>>,
    carried: Vec<Answer<()>>,
    reclaims: Vec<Answer<u64>>,
    bytes: u64,
    notes: Vec<(Arc<Segment>, diptych_core::fragment::FootEntry)>,
}

impl Batch {
    fn add(&mut self, item: Item) {
        match item {
            Item::Row { key, location, entry, segment, sealed, answer } => {
                self.changes.push(Change::Put(key, location));
                self.settled.push(location.at);
                self.bytes += location.record_bytes;
                self.rows.push((answer, sealed));
                self.touch(segment, entry);
            }
            Item::Tombstone { key, at, entry, segment, answer } => {
                self.changes.push(Change::Kill { key, segment: at.segment });
                self.settled.push(at);
                self.bytes += entry.length;
                self.deletes.push(answer);
                self.touch(segment, entry);
            }
            Item::Carried { instance, from, at, entry, segment, answer } => {
                self.changes.push(Change::Carried { instance, from, to: at.segment });
                self.settled.push(at);
                self.bytes += entry.length;
                self.carried.push(answer);
                self.touch(segment, entry);
            }
            Item::Abandoned(at) => self.settled.push(at),
            Item::Reclaim(answer) => self.reclaims.push(answer),
        }
    }

    fn touch(&mut self, segment: Arc<Segment>, entry: diptych_core::fragment::FootEntry) {
        self.touched.entry(segment.number).or_insert_with(|| Arc::clone(&segment));
        self.notes.push((segment, entry));
    }

    fn refuse(self, error: &StoreError) {
        self.rows.into_iter().for_each(|(answer, _)| answer.give(Err(error.clone())));
        self.deletes.into_iter().for_each(|answer| answer.give(Err(error.clone())));
        self.carried.into_iter().for_each(|answer| answer.give(Err(error.clone())));
        self.reclaims.into_iter().for_each(|answer| answer.give(Err(error.clone())));
    }
}

impl Committer {
    /// Body of the committer's thread: until the queue is closed.
    pub(crate) fn run(mut self) {
        let _last_words = LastWords {
            queue: Arc::clone(&self.queue),
            health: Arc::clone(&self.health),
            log: Arc::clone(&self.log),
        };
        loop {
            let patience = self.deaths.then_some(RECLAIM_EVERY);
            let Some(work) = self.queue.take(patience) else { break };
            self.round(work);
        }
        self.finish();
    }

    fn round(&mut self, work: VecDeque<Work>) {
        let mut batch = Batch::default();
        for work in work {
            let item = match work {
                Work::Write(whole, answer) => self.write(&whole, answer),
                Work::Written(item) => Some(item),
            };
            if let Some(item) = item {
                batch.add(item);
            }
        }
        if let Some(failure) = self.health.failure() {
            return batch.refuse(&failure);
        }
        match self.commit(&mut batch) {
            Ok(()) => self.answer(batch),
            Err(error) => batch.refuse(&self.health.fail(error)),
        }
    }

    /// A short row that is refused is answered at once.
    fn write(&self, whole: &WholeRow, answer: Answer<Sealed>) -> Option<Item> {
        match self.admission.write(&self.index, &self.queue, whole) {
            Ok(written) => Some(written.into_item(answer)),
            Err(error) => {
                let broken = matches!(error, StoreError::Index { .. });
                answer.give(Err(if broken { self.health.fail(error) } else { error }));
                None
            }
        }
    }

    fn commit(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        // FENCING: the log is on the disk before the index speaks of it, and both before anybody is answered. A sync that
        // fails is never tried again: the second one would succeed without the pages that the first one lost.
        for segment in batch.touched.values() {
            segment.file.sync().map_err(|error| StoreError::failed("syncing the log", &error))?;
        }
        if !batch.changes.is_empty() {
            let begun = batch.touched.values().map(|segment| Change::Begun(segment.number, segment.id));
            let changes: Vec<Change> = begun.chain(std::mem::take(&mut batch.changes)).collect();
            self.unsynced_bytes += batch.bytes;
            self.unsynced_batches += 1;
            let sync = self.how_to_sync();
            self.index.apply(&changes, sync)?;
            self.bury(&changes);
        }
        for (segment, entry) in batch.notes.drain(..) {
            self.recent.wrote(&segment, entry.offset, entry.length);
            segment.note([entry]);
        }
        self.log.settle(batch.settled.drain(..));
        Ok(())
    }

    /// The index knows that they are dead: nobody copies them any more.
    fn bury(&self, changes: &[Change]) {
        let mut fates = self.moving.fates();
        for change in changes {
            if let Change::Kill { key, .. } = change {
                fates.dying.remove(&key.instance);
            }
        }
    }

    fn how_to_sync(&mut self) -> Sync {
        if self.unsynced_bytes < SYNC_INDEX_BYTES && self.unsynced_batches < SYNC_INDEX_BATCHES {
            return Sync::No;
        }
        self.unsynced_bytes = 0;
        self.unsynced_batches = 0;
        // What this batch settles still counts as in flight, so the cursor stays before it: replayed twice is fine.
        Sync::UpTo(self.log.cursor())
    }

    fn answer(&mut self, batch: Batch) {
        self.deaths |= !batch.deletes.is_empty();
        batch.rows.into_iter().for_each(|(answer, sealed)| answer.give(Ok(sealed)));
        batch.deletes.into_iter().for_each(|answer| answer.give(Ok(Deleted::Now)));
        batch.carried.into_iter().for_each(|answer| answer.give(Ok(())));
        let mut outcome = self.seal_full().map(|()| 0);
        let due = self.deaths && self.reclaimed.elapsed() >= RECLAIM_EVERY;
        if outcome.is_ok() && (due || !batch.reclaims.is_empty()) {
            outcome = self.reclaim();
        }
        if due {
            self.moving.ring();
        }
        let outcome = outcome.map_err(|error| self.health.fail(error));
        batch.reclaims.into_iter().for_each(|answer| answer.give(outcome.clone()));
        self.recent.let_go();
    }

    /// Writes the table of contents of segments that are full and whole.
    fn seal_full(&self) -> Result<(), StoreError> {
        for segment in self.log.take_sealable() {
            if segment.is_empty() {
                self.unlink(&segment)?;
                continue;
            }
            match segment.write_foot() {
                Ok(len) => {
                    segment.file.sync().map_err(|error| StoreError::failed("sealing a segment", &error))?;
                    segment.sealed(len);
                    self.index.apply(&[Change::Sealed(segment.number)], Sync::UpTo(self.log.cursor()))?;
                }
                // Not sealed is not lost: the next opening scans it. It is tried again with the next batch.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => self.log.not_sealed(segment),
                Err(error) => return Err(StoreError::failed("sealing a segment", &error)),
            }
        }
        Ok(())
    }

    /// Unlinks sealed segments in which nothing lives and whose tombstones nobody needs; gives the bytes freed. Compaction
    /// makes such segments of those that are mostly dead.
    fn reclaim(&mut self) -> Result<u64, StoreError> {
        self.deaths = false;
        self.reclaimed = Instant::now();
        let mut freed = 0;
        // With a segment the tombstones of what it held are dead, and perhaps their segments with them.
        loop {
            let victim = self.moving.fates().victim;
            let mut dead = self.index.dead_segments()?;
            dead.retain(|number| Some(*number) != victim);
            if dead.is_empty() {
                return Ok(freed);
            }
            let condemned: Vec<Change> = dead.iter().map(|number| Change::Condemned(*number)).collect();
            // FENCING: the index knows durably that a segment goes before it is gone, and the segment is gone durably
            // before tombstones that killed in it may go: what was deleted never comes back.
            self.index.apply(&condemned, Sync::UpTo(self.log.cursor()))?;
            for number in dead {
                if let Some(segment) = self.log.segment(number) {
                    freed += segment.bytes();
                    self.unlink(&segment)?;
                }
                self.index.forget_segment(number)?;
            }
        }
    }

    fn unlink(&self, segment: &Segment) -> Result<(), StoreError> {
        remove_segment(&self.log, segment)?;
        self.log.drop_segment(segment.number);
        Ok(())
    }

    /// The last things before closing. What fails here is found again by the next opening.
    fn finish(self) {
        let ready = self.log.stop();
        if self.health.failure().is_some() {
            return;
        }
        let tidy = || -> Result<(), StoreError> {
            if let Some(ready) = ready {
                remove_segment(&self.log, &ready)?;
            }
            self.seal_full()?;
            self.index.apply(&[], Sync::UpTo(self.log.cursor()))
        };
        if let Err(error) = tidy() {
            tracing::warn!(%error, "the device was not closed cleanly; opening it checks what is there");
        }
    }
}

fn remove_segment(log: &Log, segment: &Segment) -> Result<(), StoreError> {
    let removed =
        log.disk.remove(&segment.path).and_then(|()| log.disk.sync_dir(&log.device.join(segment::FOLDER)));
    removed.map_err(|error| StoreError::failed("unlinking a segment", &error))
}
