//! Reads a device's folder without opening the device: while an agent runs, and without one. Changes nothing, takes no
//! lock, trusts no index: records are found by hopping from head to head, and every checksum is computed anew.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use diptych_core::fragment::{
    FragmentError, RECORD_HEAD_LEN, Record, RecordHead, SEGMENT_HEAD_LEN, SegmentHead, Trailer,
};
use diptych_core::ids::{InstanceId, SegmentId, Stamp};
use diptych_core::records::ExtentKind;
use rustix::fs::FlockOperation;

use crate::disk::{ReadAt, RealDisk};
use crate::error::StoreError;
use crate::log_device::LOCK;
use crate::read::describe;
use crate::record;
use crate::recover::format_error;
use crate::scan::{self, RecordFault, Scan, Scanned};
use crate::segment::{self, Named};
use crate::types::{DeviceIdentity, InventoryKey, Keyring, NewRow, RowDescription};

/// Who a device says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedDevice {
    /// Written when it was formatted.
    pub identity: DeviceIdentity,
    /// Highest stamp that it has seen.
    pub highest_stamp: Stamp,
    /// The keyring that it keeps.
    pub keyring: Option<Keyring>,
    /// Segment files in the order of the log.
    pub segments: Vec<PathBuf>,
}

/// What a record turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordState {
    /// Whole, and every checksum right.
    Whole,
    /// Whole, and deleted by a tombstone.
    Deleted,
    /// Without an end: being written just now, or given up.
    Unfinished,
    /// A checksum is wrong.
    Rotten(String),
}

/// A record as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedRecord {
    /// The segment file.
    pub segment: PathBuf,
    /// Where in it the record begins, in bytes.
    pub offset: u64,
    /// Where in it the row's first byte lies.
    pub payload_offset: u64,
    /// Its description; of an unfinished one, what its head says.
    pub description: RowDescription,
    /// What the checks said.
    pub state: RecordState,
}

/// A whole row's record, by its head and trailer: nothing of the row was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRow {
    /// Number of the segment.
    pub segment: u64,
    /// Where in it the record begins, in bytes.
    pub offset: u64,
    /// What head and trailer say.
    pub description: RowDescription,
}

/// A tombstone as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedTombstone {
    /// The segment file.
    pub segment: PathBuf,
    /// The record that it kills.
    pub killed: InstanceId,
    /// Stamp of the delete.
    pub stamp: Stamp,
}

/// Reads the device record and lists the segments.
pub fn device(path: &Path) -> Result<InspectedDevice, StoreError> {
    let found = record::read(&RealDisk, path)?;
    Ok(InspectedDevice {
        identity: found.identity(),
        highest_stamp: found.highest_stamp,
        keyring: found.keyring(),
        segments: segments(path)?.into_iter().map(|(_, segment)| segment).collect(),
    })
}

/// Every row's record once, in the order of the log, with every checksum computed anew. Of one that compaction has copied it is
/// the last copy that got an end.
pub fn records(path: &Path) -> Result<Vec<InspectedRecord>, StoreError> {
    let killed: HashSet<InstanceId> =
        tombstones(path)?.into_iter().map(|tombstone| tombstone.killed).collect();
    let mut records = Vec::new();
    let mut failed = None;
    let _ = each_segment(path, |_, segment| {
        let flow = each_in(segment, |open, scanned| {
            let Record::Row(head) = &scanned.record else { return ControlFlow::Continue(()) };
            match inspect(open, scanned, head, &killed) {
                Ok(record) => records.push(record),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        flow.unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failed.map_or(Ok(once_each(records)), Err)
}

/// Of several copies of a record the last, and one without an end only where there is no other.
fn once_each(records: Vec<InspectedRecord>) -> Vec<InspectedRecord> {
    let mut kept: HashMap<InventoryKey, usize> = HashMap::new();
    let key = |record: &InspectedRecord| {
        let NewRow { extent, row, instance, .. } = record.description.row;
        InventoryKey { extent, row, instance }
    };
    for (place, record) in records.iter().enumerate() {
        if record.state != RecordState::Unfinished || !kept.contains_key(&key(record)) {
            kept.insert(key(record), place);
        }
    }
    let kept: HashSet<usize> = kept.into_values().collect();
    let all = records.into_iter().enumerate();
    all.filter(|(place, _)| kept.contains(place)).map(|(_, record)| record).collect()
}

/// A device that no process can open while this lives.
#[derive(Debug)]
pub struct Held {
    /// None: it was never opened, there is nothing to hold.
    _lock: Option<File>,
}

/// Keeps a device from being opened; None: a process has it open.
pub fn hold(path: &Path) -> Result<Option<Held>, StoreError> {
    let lock = path.join(LOCK);
    let failed = |error: io::Error| StoreError::io_at("looking at", &lock, path, error);
    let file = match File::open(&lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Held { _lock: None })),
        Err(error) => return Err(failed(error)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(Held { _lock: Some(file) })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// Rows of extents of a kind, in the order of the log, but for those in `deleted` and what never got an end. An error is about one
/// segment, from some place on or as a whole, and the others follow. A record that compaction has copied comes twice until its
/// old segment goes: either will do. Stops where `visit` says.
pub fn rows<S: BuildHasher>(
    path: &Path,
    kind: ExtentKind,
    deleted: &HashSet<InstanceId, S>,
    mut visit: impl FnMut(Result<FoundRow, StoreError>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let _ = each_segment(path, |number, segment| {
        let flow = each_in(segment, |open, scanned| {
            let Record::Row(head) = &scanned.record else { return ControlFlow::Continue(()) };
            if head.kind != kind || deleted.contains(&head.instance) {
                return ControlFlow::Continue(());
            }
            match scan::read_trailer(&open.file, scanned.offset, head, &scanned.head_bytes) {
                Ok(trailer) => {
                    let description = describe(head, Some(&trailer), false);
                    visit(Ok(FoundRow { segment: number, offset: scanned.offset, description }))
                }
                Err(RecordFault::Rotten(_)) => ControlFlow::Continue(()),
                Err(RecordFault::Io(error)) => visit(Err(open.error(error))),
            }
        });
        flow.unwrap_or_else(|error| visit(Err(error)))
    })?;
    Ok(())
}

/// The bytes of the row whose record begins at `offset` of segment `number`, each block checked.
pub fn row_at(path: &Path, number: u64, offset: u64) -> Result<Vec<u8>, StoreError> {
    checked_bytes(&segment::path(path, number), offset)
}

/// Every tombstone, in the order of the log.
pub fn tombstones(path: &Path) -> Result<Vec<InspectedTombstone>, StoreError> {
    let mut tombstones = Vec::new();
    each_tombstone(path, |tombstone| tombstones.push(tombstone))?.map_or(Ok(tombstones), Err)
}

/// Tombstones in the order of the log, of every segment as far as it reads; gives the first error of a segment.
pub fn each_tombstone(
    path: &Path,
    mut visit: impl FnMut(InspectedTombstone),
) -> Result<Option<StoreError>, StoreError> {
    let mut failed = None;
    let _ = each_segment(path, |_, segment| {
        let flow = each_in(segment, |open, scanned| {
            if let Record::Tombstone(tombstone) = &scanned.record {
                let (killed, stamp) = (tombstone.killed, tombstone.stamp);
                visit(InspectedTombstone { segment: open.path.clone(), killed, stamp });
            }
            ControlFlow::Continue(())
        });
        failed = failed.take().or(flow.err());
        ControlFlow::Continue(())
    })?;
    Ok(failed)
}

/// The bytes of a record's row, each block checked.
pub fn row_bytes(record: &InspectedRecord) -> Result<Vec<u8>, StoreError> {
    checked_bytes(&record.segment, record.offset)
}

fn checked_bytes(segment: &Path, offset: u64) -> Result<Vec<u8>, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { file: segment.to_owned(), reason };
    let open = OpenSegment::open(segment)?.ok_or_else(|| damaged("it was unlinked".to_owned()))?;
    let mut bytes = Vec::new();
    match check(&open, offset, |piece| bytes.extend_from_slice(piece)) {
        Ok(_) => Ok(bytes),
        Err(RecordFault::Rotten(error)) => Err(damaged(format!("the record at byte {offset}: {error}"))),
        Err(RecordFault::Io(error)) => Err(open.error(error)),
    }
}

/// A segment that is only read.
#[derive(Debug)]
struct OpenSegment {
    path: PathBuf,
    id: SegmentId,
    file: ReadOnlyFile,
}

impl OpenSegment {
    /// `None`: unlinked since it was listed.
    fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let failed = |error| StoreError::io_at("reading", path, path, error);
        let file = match File::open(path) {
            Ok(file) => ReadOnlyFile(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut head = vec![0; SEGMENT_HEAD_LEN];
        let read = file.read_at(&mut head, 0).map_err(failed)?;
        let head = SegmentHead::parse(&head[..read], None).map_err(|error| format_error(path, &error))?;
        Ok(Some(Self { path: path.to_owned(), id: head.segment, file }))
    }

    fn each_record(
        &self,
        mut visit: impl FnMut(&Scanned) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut scan = Scan::new(&self.file, self.id, None).map_err(|error| self.error(error))?;
        loop {
            match scan.next_record() {
                Ok(Some(scanned)) => {
                    if visit(&scanned).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(None) => return Ok(ControlFlow::Continue(())),
                Err(RecordFault::Rotten(error)) => return Err(format_error(&self.path, &error)),
                Err(RecordFault::Io(error)) => return Err(self.error(error)),
            }
        }
    }

    fn error(&self, error: io::Error) -> StoreError {
        StoreError::io_at("reading", &self.path, &self.path, error)
    }
}

/// Segment files with their numbers, in the order of the log.
fn segments(path: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let folder = path.join(segment::FOLDER);
    let failed = |error| StoreError::io_at("listing", &folder, path, error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        if let Named::Segment(number) = segment::named(&entry.map_err(failed)?.file_name().to_string_lossy())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers.into_iter().map(|number| (number, segment::path(path, number))).collect())
}

/// Visits segments in the order of the log, those that are begun meanwhile too: what compaction copies while this reads goes to
/// the log's end, so it is met there if its old segment is gone.
fn each_segment(
    path: &Path,
    mut visit: impl FnMut(u64, &Path) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let mut visited = None;
    loop {
        let fresh = segments(path)?.into_iter().filter(|(number, _)| Some(*number) > visited);
        let fresh: Vec<(u64, PathBuf)> = fresh.collect();
        let Some((last, _)) = fresh.last() else { return Ok(ControlFlow::Continue(())) };
        visited = Some(*last);
        for (number, segment) in fresh {
            if visit(number, &segment).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}

/// Visits the records of a segment, until `visit` says that it is enough.
fn each_in(
    segment: &Path,
    mut visit: impl FnMut(&OpenSegment, &Scanned) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    match OpenSegment::open(segment)? {
        Some(open) => open.each_record(|scanned| visit(&open, scanned)),
        None => Ok(ControlFlow::Continue(())),
    }
}

fn inspect(
    open: &OpenSegment,
    scanned: &Scanned,
    head: &RecordHead,
    killed: &HashSet<InstanceId>,
) -> Result<InspectedRecord, StoreError> {
    let (trailer, state) = match check(open, scanned.offset, |_| ()) {
        Ok(trailer) if killed.contains(&head.instance) => (Some(trailer), RecordState::Deleted),
        Ok(trailer) => (Some(trailer), RecordState::Whole),
        Err(RecordFault::Rotten(FragmentError::Absent { .. } | FragmentError::Cut { .. })) => {
            (None, RecordState::Unfinished)
        }
        Err(RecordFault::Rotten(error)) => {
            let trailer = scan::read_trailer(&open.file, scanned.offset, head, &scanned.head_bytes).ok();
            (trailer, RecordState::Rotten(error.to_string()))
        }
        Err(RecordFault::Io(error)) => return Err(open.error(error)),
    };
    let rotten = matches!(state, RecordState::Rotten(_));
    Ok(InspectedRecord {
        segment: open.path.clone(),
        offset: scanned.offset,
        payload_offset: scanned.offset + RECORD_HEAD_LEN as u64,
        description: describe(head, trailer.as_ref(), rotten),
        state,
    })
}

/// Reads a row from its head to its trailer and checks all of it.
fn check(open: &OpenSegment, offset: u64, take: impl FnMut(&[u8])) -> Result<Trailer, RecordFault> {
    let (head, head_bytes) = scan::read_head(&open.file, open.id, offset)?;
    let trailer = scan::read_trailer(&open.file, offset, &head, &head_bytes)?;
    scan::check_blocks(&open.file, offset, &head, &trailer, take)?;
    Ok(trailer)
}

#[derive(Debug)]
struct ReadOnlyFile(File);

impl ReadAt for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], offset + read as u64)? {
                0 => break,
                some => read += some,
            }
        }
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
