//! Reads a device's folder without opening the device: while an agent runs, and without one. Changes nothing, takes no
//! lock, trusts no index: records are found by hopping from head to head, and every checksum is computed anew.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use diptych_core::fragment::{
    FragmentError, RECORD_HEAD_LEN, Record, RecordHead, SEGMENT_HEAD_LEN, SegmentHead, Trailer,
};
use diptych_core::ids::{InstanceId, SegmentId, Stamp};

use crate::disk::{DiskFile, RealDisk};
use crate::error::StoreError;
use crate::read::describe;
use crate::record;
use crate::recover::format_error;
use crate::scan::{self, RecordFault, Scan, Scanned};
use crate::segment::{self, Named};
use crate::types::{DeviceIdentity, RowDescription};

/// Who a device says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedDevice {
    /// Written when it was formatted.
    pub identity: DeviceIdentity,
    /// Highest stamp that it has seen.
    pub highest_stamp: Stamp,
    /// Number of the keyring that it keeps.
    pub keyring_number: Option<u64>,
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
        keyring_number: found.keyring().map(|keyring| keyring.number.0),
        segments: segments(path)?,
    })
}

/// Every row's record, in the order of the log, with every checksum computed anew.
pub fn records(path: &Path) -> Result<Vec<InspectedRecord>, StoreError> {
    let killed: HashSet<InstanceId> =
        tombstones(path)?.into_iter().map(|tombstone| tombstone.killed).collect();
    let mut records = Vec::new();
    each_record(path, |open, scanned| {
        if let Record::Row(head) = &scanned.record {
            records.push(inspect(open, scanned, head, &killed)?);
        }
        Ok(())
    })?;
    Ok(records)
}

/// Every tombstone, in the order of the log.
pub fn tombstones(path: &Path) -> Result<Vec<InspectedTombstone>, StoreError> {
    let mut tombstones = Vec::new();
    each_record(path, |open, scanned| {
        if let Record::Tombstone(tombstone) = &scanned.record {
            let (killed, stamp) = (tombstone.killed, tombstone.stamp);
            tombstones.push(InspectedTombstone { segment: open.path.clone(), killed, stamp });
        }
        Ok(())
    })?;
    Ok(tombstones)
}

/// The bytes of a record's row, each block checked.
pub fn row_bytes(record: &InspectedRecord) -> Result<Vec<u8>, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { file: record.segment.clone(), reason };
    let open = OpenSegment::open(&record.segment)?.ok_or_else(|| damaged("it was unlinked".to_owned()))?;
    let mut bytes = Vec::new();
    match check(&open, record.offset, |piece| bytes.extend_from_slice(piece)) {
        Ok(_) => Ok(bytes),
        Err(RecordFault::Rotten(error)) => {
            Err(damaged(format!("the record at byte {}: {error}", record.offset)))
        }
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

    fn error(&self, error: io::Error) -> StoreError {
        StoreError::io_at("reading", &self.path, &self.path, error)
    }
}

fn segments(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
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
    Ok(numbers.into_iter().map(|number| segment::path(path, number)).collect())
}

fn each_record(
    path: &Path,
    mut visit: impl FnMut(&OpenSegment, &Scanned) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for path in segments(path)? {
        let Some(open) = OpenSegment::open(&path)? else { continue };
        let mut scan = Scan::new(&open.file, open.id, None).map_err(|error| open.error(error))?;
        loop {
            match scan.next_record() {
                Ok(Some(scanned)) => visit(&open, &scanned)?,
                Ok(None) => break,
                Err(RecordFault::Rotten(error)) => return Err(format_error(&path, &error)),
                Err(RecordFault::Io(error)) => return Err(open.error(error)),
            }
        }
    }
    Ok(())
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

/// A file that can't be written through this.
#[derive(Debug)]
struct ReadOnlyFile(File);

fn refuse() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

impl DiskFile for ReadOnlyFile {
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

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(refuse())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(refuse())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        Err(refuse())
    }

    fn drop_cache(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
