//! Opening a device: what the log has that the index lacks is entered, and segments that were open are sealed.
//!
//! After a crash nothing is appended to an old segment: leftovers of what was never acknowledged lie behind its end, and
//! must not be found again later. So each open segment is cut behind its last whole record and gets its foot.

mod indexed;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use diptych_core::fragment::{Foot, FootEntry, FragmentError, Record, SEGMENT_HEAD_LEN, SegmentHead};

use crate::disk::{Disk, ReadAt};
use crate::error::StoreError;
use crate::index::{self, Change, Index, Location, LogPosition, SegmentRow, Sync};
use crate::scan::{self, RecordFault, Scan, Scanned};
use crate::segment::{self, Named, Owner, Segment};
use crate::types::{InventoryKey, OpenReport};
use indexed::Indexed;

/// Changes that go into the index at once.
const BATCH: usize = 20_000;

/// With less room than this a failing index is a full disk's fault.
const INDEX_ROOM: u64 = 16 << 20;

/// What opening made of a folder.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    /// Number that the next segment gets.
    pub(crate) next_number: u64,
    pub(crate) report: OpenReport,
}

/// Borrows what recovery works on.
pub(crate) struct Recovery<'d> {
    pub(crate) disk: &'d dyn Disk,
    pub(crate) device: &'d Path,
    pub(crate) owner: Owner,
    pub(crate) index_cache_bytes: usize,
}

/// Counts while it goes through the log.
#[derive(Default)]
struct Replay {
    changes: Vec<Change>,
    report: OpenReport,
}

impl Recovery<'_> {
    pub(crate) fn run(&self) -> Result<Recovered, StoreError> {
        match self.run_with(|segments| self.index(segments)) {
            Err(StoreError::Index { reason }) if self.is_full() => {
                tracing::warn!(%reason, "no room for the index: it is made in memory, and writes are refused");
                let mut recovered = self.run_with(|_| Ok((self.memory_index()?, true)))?;
                recovered.report.index_in_memory = true;
                Ok(recovered)
            }
            outcome => outcome,
        }
    }

    fn is_full(&self) -> bool {
        self.disk.room(self.device).is_ok_and(|room| room.available < INDEX_ROOM)
    }

    fn run_with(
        &self,
        open: impl FnOnce(&mut BTreeMap<u64, Arc<Segment>>) -> Result<(Index, bool), StoreError>,
    ) -> Result<Recovered, StoreError> {
        let (mut segments, highest_name) = self.segments()?;
        let (index, rebuilt) = open(&mut segments)?;
        let cursor = index.cursor()?;
        let known: BTreeMap<u64, SegmentRow> = index.segments()?.into_iter().collect();
        let mut replay = Replay::default();
        replay.report.index_rebuilt = rebuilt;
        let mut gone = Vec::new();
        for segment in segments.values() {
            let row = known.get(&segment.number);
            if row.is_some_and(|row| row.sealed) && segment.number < cursor.segment {
                continue;
            }
            let from = if row.is_some() { cursor } else { LogPosition::default() };
            let indexed = Indexed::of(&index, segment.number, row);
            if !self.replay(segment, from, indexed, &mut replay)? {
                gone.push(segment.number);
            }
            replay.flush(&index, BATCH)?;
        }
        for number in gone {
            segments.remove(&number);
        }
        // Numbers are never given twice: the cursor would pass over a segment that has an old one.
        let next_number = highest_name.max(cursor.segment.saturating_sub(1)) + 1;
        replay.flush(&index, 0)?;
        index.apply(&[], Sync::UpTo(LogPosition { segment: next_number, offset: 0 }))?;
        replay.report.segments = segments.len() as u64;
        Ok(Recovered { index, segments, next_number, report: replay.report })
    }

    fn error(&self, doing: &str, file: &Path, error: io::Error) -> StoreError {
        StoreError::io_at(doing, file, self.device, error)
    }

    /// Opens every segment, checks whose it is, and takes away what was never finished.
    fn segments(&self) -> Result<(BTreeMap<u64, Arc<Segment>>, u64), StoreError> {
        let folder = self.device.join(segment::FOLDER);
        // FENCING: what was unlinked stays unlinked before anything is made of what is there: a process may have ended between
        // the two halves of an unlinking, and tombstones of records in that segment are dead from now on.
        self.disk.sync_dir(&folder).map_err(|error| self.error("syncing", &folder, error))?;
        let names = self.disk.list(&folder).map_err(|error| self.error("listing", &folder, error))?;
        let mut segments = BTreeMap::new();
        let mut unfinished = Vec::new();
        for name in names {
            match segment::named(&name) {
                Named::Segment(number) => {
                    let opened = self.open_segment(number)?;
                    segments.insert(number, Arc::new(opened));
                }
                Named::Unfinished => unfinished.push(folder.join(name)),
                Named::Other => tracing::warn!(name, "a file among the segments is none; it is left alone"),
            }
        }
        for path in unfinished {
            self.disk.remove(&path).map_err(|error| self.error("removing", &path, error))?;
        }
        let highest = segments.keys().next_back().copied().unwrap_or_default();
        Ok((segments, highest))
    }

    fn open_segment(&self, number: u64) -> Result<Segment, StoreError> {
        let path = segment::path(self.device, number);
        let failed = |error| self.error("opening", &path, error);
        let file = self.disk.open(&path).map_err(failed)?;
        let mut bytes = vec![0; SEGMENT_HEAD_LEN];
        let read = file.read_at(&mut bytes, 0).map_err(failed)?;
        let head = SegmentHead::parse(&bytes[..read], None).map_err(|error| format_error(&path, &error))?;
        let found = Owner { cluster: head.cluster, device: head.device, generation: head.generation };
        if found != self.owner {
            let found = format!(
                "cluster {}, device {}, generation {}",
                found.cluster, found.device, found.generation
            );
            return Err(StoreError::ForeignSegment { file: path, found });
        }
        let len = file.len().map_err(failed)?;
        Ok(Segment::new(number, head.segment, path, file, len))
    }

    /// The index, or an empty one where it can't be used; segments that were being unlinked go.
    fn index(&self, segments: &mut BTreeMap<u64, Arc<Segment>>) -> Result<(Index, bool), StoreError> {
        match self.usable_index(segments) {
            Ok(Some(index)) => return Ok((index, false)),
            Ok(None) => {}
            Err(error @ StoreError::Index { .. }) => tracing::warn!(%error, "the index is made anew"),
            Err(error) => return Err(error),
        }
        let path = self.device.join(index::FILE);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.error("removing", &path, error));
            }
            _ => {}
        }
        Ok((self.open_index()?, true))
    }

    fn owner_text(&self) -> String {
        let Owner { cluster, device, generation } = self.owner;
        format!("{cluster}/{device}/{generation}")
    }

    fn open_index(&self) -> Result<Index, StoreError> {
        Index::open(self.disk, self.device, self.index_cache_bytes, self.owner_text().as_bytes())
    }

    fn memory_index(&self) -> Result<Index, StoreError> {
        Index::in_memory(self.index_cache_bytes, self.owner_text().as_bytes())
    }

    fn usable_index(&self, segments: &mut BTreeMap<u64, Arc<Segment>>) -> Result<Option<Index>, StoreError> {
        let index = self.open_index()?;
        let known = index.segments()?;
        if known.is_empty() && !segments.is_empty() {
            return Ok(None);
        }
        for (number, row) in known {
            let found = segments.get(&number);
            if row.condemned {
                if segments.remove(&number).is_some() {
                    self.unlink(number)?;
                }
                index.forget_segment(number)?;
            } else if found.is_none_or(|segment| segment.id != row.id) {
                tracing::warn!(segment = number, "a segment is gone: what it held is lost here");
                return Ok(None);
            }
        }
        Ok(Some(index))
    }

    fn unlink(&self, number: u64) -> Result<(), StoreError> {
        let path = segment::path(self.device, number);
        let removed =
            self.disk.remove(&path).and_then(|()| self.disk.sync_dir(&self.device.join(segment::FOLDER)));
        removed.map_err(|error| self.error("removing", &path, error))
    }

    /// Enters what a segment holds from a position on; seals it if it was not. False: it held nothing, and is gone.
    fn replay(
        &self,
        segment: &Segment,
        from: LogPosition,
        mut indexed: Indexed<'_>,
        replay: &mut Replay,
    ) -> Result<bool, StoreError> {
        if let Some(foot) = self.foot(segment)? {
            replay.enter(segment, &foot.entries, from);
            replay.changes.push(Change::Sealed(segment.number));
            return Ok(true);
        }
        replay.report.unclean = true;
        let failed = |error| self.error("checking", &segment.path, error);
        // FENCING: what a killed process left in the page cache is on the disk before it is entered in the index.
        segment.file.sync().map_err(|error| StoreError::failed("syncing the log", &error))?;
        let mut entries = self.whole_records(segment, from, &mut indexed, replay)?;
        entries.extend(indexed.rest(&entries)?);
        entries.sort_by_key(|entry| entry.offset);
        let Some(last) = entries.last() else {
            self.unlink(segment.number)?;
            return Ok(false);
        };
        let end = last.offset + last.length;
        segment.set_bytes(end);
        replay.enter(segment, &entries, from);
        segment.note(entries);
        match segment.write_foot() {
            Ok(len) => {
                segment.file.sync().map_err(|error| StoreError::failed("sealing a segment", &error))?;
                segment.sealed(len);
                replay.changes.push(Change::Sealed(segment.number));
            }
            // A full disk is still read; the next opening tries again.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(true)
    }

    /// The table of contents, if the segment ends with one.
    fn foot(&self, segment: &Segment) -> Result<Option<Foot>, StoreError> {
        scan::read_foot(segment).map_err(|fault| match fault {
            RecordFault::Io(error) => self.error("reading", &segment.path, error),
            RecordFault::Rotten(error) => format_error(&segment.path, &error),
        })
    }

    /// Scans a segment; rows behind the cursor are checked to the last byte, read from the disk: their trailer may have
    /// reached it before their payload did.
    fn whole_records(
        &self,
        segment: &Segment,
        from: LogPosition,
        indexed: &mut Indexed<'_>,
        replay: &mut Replay,
    ) -> Result<Vec<FootEntry>, StoreError> {
        let failed = |error| self.error("checking", &segment.path, error);
        let file = &*segment.file;
        let len = file.len().map_err(failed)?;
        file.drop_cache(0, len).map_err(failed)?;
        let mut scan = Scan::new(file, segment.id, Some(self.owner.cluster)).map_err(failed)?;
        let mut entries = Vec::new();
        loop {
            let scanned = match scan.next_record() {
                Ok(Some(scanned)) => scanned,
                Ok(None) => return Ok(entries),
                Err(RecordFault::Rotten(error)) => return Err(format_error(&segment.path, &error)),
                Err(RecordFault::Io(error)) => return Err(failed(error)),
            };
            let at = LogPosition { segment: segment.number, offset: scanned.offset };
            let known = match &scanned.record {
                Record::Row(head) => indexed.take(head, scanned.offset)?,
                Record::Tombstone(_) => None,
            };
            match (entry(file, &scanned, at >= from), known) {
                (Ok(entry), _) | (Err(RecordFault::Rotten(_)), Some(entry)) => entries.push(entry),
                (Err(RecordFault::Rotten(error)), None) => {
                    replay.report.unfinished += 1;
                    tracing::info!(segment = segment.number, offset = scanned.offset, %error, "a record has no end");
                }
                (Err(RecordFault::Io(error)), _) => return Err(failed(error)),
            }
        }
    }
}

/// What a whole record is in a foot.
fn entry(file: &dyn ReadAt, scanned: &Scanned, check_payload: bool) -> Result<FootEntry, RecordFault> {
    if let Record::Row(head) = &scanned.record {
        let trailer = scan::read_trailer(file, scanned.offset, head, &scanned.head_bytes)?;
        if check_payload {
            scan::check_blocks(file, scanned.offset, head, &trailer, |_| ())?;
        }
    }
    Ok(scanned.entry())
}

impl Replay {
    /// Enters what has gathered, once it is more than `above` changes.
    fn flush(&mut self, index: &Index, above: usize) -> Result<(), StoreError> {
        if self.changes.len() > above {
            index.apply(&self.changes, Sync::No)?;
            self.changes.clear();
        }
        Ok(())
    }

    fn enter(&mut self, segment: &Segment, entries: &[FootEntry], from: LogPosition) {
        self.changes.push(Change::Begun(segment.number, segment.id));
        for entry in entries {
            let at = LogPosition { segment: segment.number, offset: entry.offset };
            if at < from {
                continue;
            }
            self.report.replayed += 1;
            let key = InventoryKey { extent: entry.extent, row: entry.row, instance: entry.instance };
            self.changes.push(match entry.kind.extent_kind() {
                None => Change::Kill { key, segment: segment.number },
                Some(kind) => {
                    Change::Put(key, Location { at, record_bytes: entry.length, kind, quarantined: false })
                }
            });
        }
    }
}

/// An error of a format, with the file that it is in.
pub(crate) fn format_error(file: &Path, error: &FragmentError) -> StoreError {
    match error {
        FragmentError::NewerFormat { found, .. } => StoreError::UnknownFormat {
            file: file.to_owned(),
            found: u32::from(*found),
            known: u32::from(diptych_core::fragment::FORMAT),
        },
        other => StoreError::Damaged { file: file.to_owned(), reason: other.to_string() },
    }
}
