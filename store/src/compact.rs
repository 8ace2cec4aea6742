//! Compaction: what lives in a sealed segment that is mostly dead is copied to the end of the log, so that the segment can go.
//!
//! ```text
//! victim ─► each row that lives, each tombstone that is needed ─► end of the log ─► committer: sync, index ─► reclaim: unlink
//! ```
//! Readers keep the segment's handle; the index says where a row is next time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use diptych_core::fragment::{FootEntry, RECORD_HEAD_LEN, RecordHead};

use crate::error::StoreError;
use crate::health::Health;
use crate::index::{Index, Location, LogPosition};
use crate::log::Log;
use crate::moving::Moving;
use crate::pending::Pending;
use crate::queue::{Item, Queue};
use crate::read::{self, Reader};
use crate::room;
use crate::scan::{self, RecordFault};
use crate::segment::Segment;
use crate::types::{InventoryKey, RowEnd, Sealed};
use crate::writer::{self, LogWriter};

/// A segment is emptied when at most so much of it lives, in thousandths,
const LIVE_MOST: u64 = 500;
/// and once the device is as full as this,
const CROWDED_PERCENT: u8 = 80;
/// when at most so much does.
const LIVE_MOST_CROWDED: u64 = 800;
/// Copies that may wait for their group commit.
const COPIES_AT_ONCE: usize = 512;

/// Empties segments, one at a time.
#[derive(Debug)]
pub(crate) struct Compactor {
    pub(crate) log: Arc<Log>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) health: Arc<Health>,
    pub(crate) moving: Arc<Moving>,
    /// Bytes that the device may hold, as it was opened.
    pub(crate) capacity: Option<u64>,
    pub(crate) memory: Mutex<Memory>,
}

/// What earlier passes found.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Records that live in segments that a pass could not empty: it is tried again when there are fewer.
    left_in: BTreeMap<u64, u64>,
    /// It was said that there is no room to copy to.
    said_full: bool,
}

impl Memory {
    /// Notes what a pass left in a segment, if that is still there.
    fn left_in(&mut self, number: u64, index: &Index) -> Result<(), StoreError> {
        match index.segment(number)? {
            Some(row) => drop(self.left_in.insert(number, row.live_records)),
            None => drop(self.left_in.remove(&number)),
        }
        Ok(())
    }
}

/// Copies whose group commit is not answered yet.
#[derive(Default)]
struct Copies {
    rows: Vec<Pending<Sealed>>,
    tombstones: Vec<Pending<()>>,
}

impl Copies {
    fn wait(&mut self) -> Result<(), StoreError> {
        let rows = self.rows.drain(..).map(|row| row.wait().map(drop));
        let answers = rows.chain(self.tombstones.drain(..).map(Pending::wait));
        // Each is waited for, whatever the others said.
        answers.fold(Ok(()), Result::and)
    }
}

impl Compactor {
    /// Body of the compactor's thread: until it is stopped.
    pub(crate) fn run(&self, index: &Index) {
        while self.moving.wait() {
            match self.compact(index) {
                Err(error @ StoreError::Index { .. }) => drop(self.health.fail(error)),
                Ok(_) | Err(StoreError::Closed | StoreError::DeviceFailed { .. }) => {}
                Err(error) => tracing::warn!(%error, "a segment could not be emptied"),
            }
        }
    }

    /// Empties segments until none is worth it, and unlinks them; gives the bytes freed.
    pub(crate) fn compact(&self, index: &Index) -> Result<u64, StoreError> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut freed = self.reclaim()?;
        while let Some(victim) = self.victim(index, &memory)? {
            let emptied =
                if self.has_room()? { self.empty(index, &victim).map(|()| true) } else { Ok(false) };
            match emptied {
                Ok(true) => memory.said_full = false,
                Err(error) if !error.is_full() => {
                    // The next pass goes on with others.
                    memory.left_in(victim.number, index)?;
                    return Err(error);
                }
                _ => return Ok(self.no_room(&mut memory, freed)),
            }
            // FENCING: the copies are synced, then in the index, then that is durable, and only then is this unlinked.
            freed += self.reclaim()?;
            memory.left_in(victim.number, index)?;
        }
        Ok(freed)
    }

    fn no_room(&self, memory: &mut Memory, freed: u64) -> u64 {
        if !std::mem::replace(&mut memory.said_full, true) {
            let device = self.log.device.display();
            tracing::warn!(%device, "no room to copy to: segments that are mostly dead stay until there is");
        }
        freed
    }

    fn reclaim(&self) -> Result<u64, StoreError> {
        self.health.check()?;
        let (answer, pending) = Pending::new();
        self.queue.push(Item::Reclaim(answer))?;
        pending.wait()
    }

    /// Two segments must fit the file system: what is copied, and what comes meanwhile.
    fn has_room(&self) -> Result<bool, StoreError> {
        let (disk, device) = (&self.log.disk, &self.log.device);
        let room = disk.room(device);
        let room = room.map_err(|error| StoreError::io_at("asking for room in", device, device, error))?;
        Ok(room.available >= 2 * self.log.segment_bytes())
    }

    /// The sealed segment of which least lives, if that is little enough.
    fn victim(&self, index: &Index, memory: &Memory) -> Result<Option<Arc<Segment>>, StoreError> {
        let crowded = room::of(&self.log, index, self.capacity)?.used_percent() >= CROWDED_PERCENT;
        let most = if crowded { LIVE_MOST_CROWDED } else { LIVE_MOST };
        let mut least: Option<(u64, Arc<Segment>)> = None;
        for (number, row) in index.segments()? {
            let tried = memory.left_in.get(&number) == Some(&row.live_records);
            if !row.sealed || row.condemned || tried {
                continue;
            }
            let Some(segment) = self.log.segment(number) else { continue };
            let tombstones = index.pinned_tombstones(number)? * RECORD_HEAD_LEN as u64;
            let live = (row.live_bytes + tombstones).saturating_mul(1000) / segment.bytes().max(1);
            if live <= most && least.as_ref().is_none_or(|(lives, _)| live < *lives) {
                least = Some((live, segment));
            }
        }
        Ok(least.map(|(_, segment)| segment))
    }

    /// Copies what is needed of a segment. It returns when all copies are in the index, or the device has failed.
    fn empty(&self, index: &Index, victim: &Segment) -> Result<(), StoreError> {
        let _emptying = self.moving.empty(victim.number);
        let mut copies = Copies::default();
        let copied = self.copy_all(index, victim, &mut copies);
        copied.and(copies.wait())
    }

    fn copy_all(&self, index: &Index, victim: &Segment, copies: &mut Copies) -> Result<(), StoreError> {
        let failed = |error| StoreError::io_at("reading", &victim.path, &self.log.device, error);
        let entries = match scan::contents(victim) {
            Ok(entries) => entries,
            Err(RecordFault::Io(error)) => return Err(failed(error)),
            Err(RecordFault::Rotten(error)) => {
                tracing::warn!(segment = victim.number, %error, "a segment stays: its records can't be listed");
                return Ok(());
            }
        };
        for entry in entries {
            if self.moving.is_stopped() {
                return Err(StoreError::Closed);
            }
            if entry.kind.extent_kind().is_some() {
                copies.rows.extend(self.copy_row(index, victim, &entry)?);
            } else {
                copies.tombstones.extend(self.carry(index, victim, &entry)?);
            }
            if copies.rows.len() + copies.tombstones.len() >= COPIES_AT_ONCE {
                copies.wait()?;
            }
        }
        Ok(())
    }

    /// Copies a row if it lives just there and is sound. What is rotten goes to quarantine and stays: it is rebuilt from others.
    fn copy_row(
        &self,
        index: &Index,
        victim: &Segment,
        entry: &FootEntry,
    ) -> Result<Option<Pending<Sealed>>, StoreError> {
        let key = InventoryKey { extent: entry.extent, row: entry.row, instance: entry.instance };
        let at = LogPosition { segment: victim.number, offset: entry.offset };
        let Some(location) = lives(index, &key, at)? else { return Ok(None) };
        let (head, trailer) = match read::parts(&*victim.file, victim, &key, &location) {
            Ok(parts) => parts,
            Err(fault) => return self.stays(index, &key, &location, fault),
        };
        let reserved = writer::record_bytes(trailer.row_bytes, head.crc_block);
        if reserved > self.log.longest_record() {
            return Ok(None);
        }
        let mut writer = {
            let fates = self.moving.fates();
            if fates.dying.contains(&key.instance) || lives(index, &key, at)?.is_none() {
                return Ok(None);
            }
            let (log, queue) = (Arc::clone(&self.log), Arc::clone(&self.queue));
            LogWriter::begin(log, queue, RecordHead { reserved, ..head }, trailer.row_bytes)?
        };
        let mut written = Ok(());
        let checked = scan::check_blocks(&*victim.file, at.offset, &head, &trailer, |piece| {
            if written.is_ok() {
                written = writer.append(piece);
            }
        });
        if let Err(fault) = checked {
            return self.stays(index, &key, &location, fault);
        }
        written?;
        let (extent_bytes, extent_hash) = (trailer.extent_bytes, trailer.extent_hash);
        writer.seal(&RowEnd { extent_bytes, extent_hash, last_position: trailer.last_position }).map(Some)
    }

    fn stays<T>(
        &self,
        index: &Index,
        key: &InventoryKey,
        location: &Location,
        fault: RecordFault,
    ) -> Result<Option<T>, StoreError> {
        let reader = Reader { log: &self.log, index, health: &self.health };
        match reader.rotten(key, location, fault) {
            Err(StoreError::Rotten { .. }) => Ok(None),
            outcome => outcome,
        }
    }

    /// Copies a tombstone if it holds down what another segment has.
    fn carry(
        &self,
        index: &Index,
        victim: &Segment,
        entry: &FootEntry,
    ) -> Result<Option<Pending<()>>, StoreError> {
        let (instance, from) = (entry.instance, victim.number);
        if !index.needs_tombstone(instance, from)? {
            return Ok(None);
        }
        let tombstone = match scan::read_tombstone(&*victim.file, victim.id, entry.offset) {
            Ok(tombstone) => tombstone,
            Err(RecordFault::Io(error)) if !read::is_rot(&error) => {
                return Err(StoreError::io_at("reading", &victim.path, &self.log.device, error));
            }
            Err(fault) => {
                tracing::warn!(segment = from, %instance, ?fault, "a segment stays: a tombstone in it is rotten");
                return Ok(None);
            }
        };
        let (reservation, entry) = writer::write_tombstone(&self.log, &tombstone)?;
        let (answer, pending) = Pending::new();
        let (at, segment) = (reservation.at, reservation.segment);
        self.queue.push(Item::Carried { instance, from, at, entry, segment, answer })?;
        Ok(Some(pending))
    }
}

/// Where a record is, if that is just here and it is not in quarantine.
fn lives(index: &Index, key: &InventoryKey, at: LogPosition) -> Result<Option<Location>, StoreError> {
    let found = index.find(key.extent, key.row, Some(key.instance))?;
    Ok(found.map(|(_, location)| location).filter(|location| location.at == at && !location.quarantined))
}
