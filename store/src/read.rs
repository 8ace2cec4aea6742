//! Reading rows, every byte checked; what fails a check goes into quarantine.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use diptych_core::fragment::{RECORD_HEAD_LEN, RecordHead, Trailer};
use diptych_core::ids::{ExtentId, InstanceId, Row};

use crate::disk::{DiskFile, ReadAt, read_exact_at};
use crate::error::StoreError;
use crate::health::Health;
use crate::index::{Index, Location};
use crate::log::Log;
use crate::scan::{self, RecordFault};
use crate::segment::Segment;
use crate::types::{InventoryKey, NewRow, RowDescription, RowEnd, RowPlace, Verified};

const HEAD: u64 = RECORD_HEAD_LEN as u64;
/// Longer ranges are not read on the caller's thread, even from memory: copying and checking them takes longer than to wake another.
const SHORT: u64 = 32 << 10;
/// EIO: the disk can't read a sector any more, which is rot of that record.
const BAD_SECTOR: i32 = 5;

/// Borrows what reading needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'d> {
    pub(crate) log: &'d Log,
    pub(crate) index: &'d Index,
    pub(crate) health: &'d Health,
}

/// A record whose head and trailer are checked.
struct OpenRow {
    key: InventoryKey,
    location: Location,
    file: Arc<dyn ReadAt>,
    head: RecordHead,
    trailer: Trailer,
}

impl OpenRow {
    /// Bytes of whole blocks around `range`, checked, then cut to it.
    fn read(&self, range: &Range<u64>) -> Result<Bytes, RecordFault> {
        let block = u64::from(self.head.crc_block);
        let start = range.start / block * block;
        let end = range.end.next_multiple_of(block).min(self.trailer.row_bytes);
        let mut bytes = vec![0; end.saturating_sub(start) as usize];
        read_exact_at(&*self.file, &mut bytes, self.location.at.offset + HEAD + start)?;
        scan::check_piece(&bytes, start, &self.head, &self.trailer)?;
        Ok(Bytes::from(bytes).slice((range.start - start) as usize..(range.end - start) as usize))
    }

    fn check_all(&self) -> Result<(), RecordFault> {
        scan::check_blocks(&*self.file, self.location.at.offset, &self.head, &self.trailer, |_| ())
    }
}

impl Reader<'_> {
    pub(crate) fn range(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
        range: &Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let open = self.open(extent, row, instance, false)?;
        let row_bytes = open.trailer.row_bytes;
        if range.start > range.end || range.end > row_bytes {
            return Err(StoreError::OutOfRange { start: range.start, end: range.end, row_bytes });
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = open.read(range).or_else(|fault| self.rotten(&open.key, &open.location, fault))?;
        // A sync may have failed while this was read from memory.
        self.health.check().map(|()| bytes)
    }

    /// A short range, if it is in memory and nothing is wrong with it; else [`Reader::range`] is to be asked.
    pub(crate) fn cached(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
        range: &Range<u64>,
    ) -> Option<Bytes> {
        if range.is_empty() || range.end - range.start > SHORT {
            return None;
        }
        self.health.check().ok()?;
        let (key, location, segment) = self.locate(extent, row, instance).ok()??;
        if location.quarantined {
            return None;
        }
        let file: Arc<dyn ReadAt> = Arc::new(InMemory(Arc::clone(&segment.file)));
        let (head, trailer) = parts(&*file, &segment, &key, &location).ok()?;
        if range.end > trailer.row_bytes {
            return None;
        }
        let bytes = OpenRow { key, location, file, head, trailer }.read(range).ok()?;
        self.health.check().ok().map(|()| bytes)
    }

    /// Where a row lies in its segment's file.
    pub(crate) fn place(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<RowPlace, StoreError> {
        let open = self.open(extent, row, instance, false)?;
        self.health.check()?;
        let at = open.location.at;
        Ok(RowPlace { segment: at.segment, offset: at.offset + HEAD, row_bytes: open.trailer.row_bytes })
    }

    pub(crate) fn uncached(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Bytes, StoreError> {
        let open = self.open(extent, row, instance, true)?;
        let bytes = open.read(&(0..open.trailer.row_bytes));
        let bytes = bytes.or_else(|fault| self.rotten(&open.key, &open.location, fault))?;
        self.health.check().map(|()| bytes)
    }

    pub(crate) fn verify(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Verified, StoreError> {
        let open = self.open(extent, row, instance, true)?;
        open.check_all().or_else(|fault| self.rotten(&open.key, &open.location, fault))?;
        self.health.check()?;
        let Trailer { row_bytes, extent_bytes, extent_hash, .. } = open.trailer;
        Ok(Verified { instance: open.key.instance, row_bytes, extent_bytes, extent_hash })
    }

    pub(crate) fn describe(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<RowDescription, StoreError> {
        let open = self.open(extent, row, instance, false)?;
        self.health.check()?;
        Ok(describe(&open.head, Some(&open.trailer), false))
    }

    /// Finds a record and checks its head and trailer. `from_disk`: the page cache forgets the record first.
    fn open(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
        from_disk: bool,
    ) -> Result<OpenRow, StoreError> {
        self.health.check()?;
        let found = self.locate(extent, row, instance)?;
        let Some((key, location, segment)) = found else { return Err(StoreError::NotFound { extent, row }) };
        let doubted = location.quarantined;
        if from_disk || doubted {
            // What is in the index was synced, so its pages are clean and the kernel lets go of them.
            let dropped = segment.file.drop_cache(location.at.offset, location.record_bytes);
            dropped.map_err(|error| StoreError::io_at("reading", &segment.path, &self.log.device, error))?;
        }
        let open = parts(&*segment.file, &segment, &key, &location).map(|(head, trailer)| {
            let file = Arc::clone(&segment.file) as Arc<dyn ReadAt>;
            OpenRow { key, location, file, head, trailer }
        });
        if doubted {
            self.recheck(key, open)
        } else {
            open.or_else(|fault| self.rotten(&key, &location, fault))
        }
    }

    /// Where a record is, with a handle that stays good.
    fn locate(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Option<(InventoryKey, Location, Arc<Segment>)>, StoreError> {
        let mut missed = None;
        while let Some((key, location)) = self.index.find(extent, row, instance)? {
            if let Some(segment) = self.log.segment(location.at.segment) {
                return Ok(Some((key, location, segment)));
            }
            // Moved or deleted, and its segment unlinked, since the index was asked: it is asked again.
            if missed.replace(location.at) == Some(location.at) {
                break;
            }
        }
        Ok(None)
    }

    /// A record in quarantine is looked at whole each time that it is asked for: what was put right, or was a fault of the
    /// way and not of the disk, is served again.
    fn recheck(&self, key: InventoryKey, open: Result<OpenRow, RecordFault>) -> Result<OpenRow, StoreError> {
        let sound = open.and_then(|open| open.check_all().map(|()| open));
        let Ok(open) = sound else {
            let InventoryKey { extent, row, instance } = key;
            return Err(StoreError::Rotten { extent, row, instance, reason: self.index.finding(&key)? });
        };
        self.health.check()?;
        tracing::warn!(extent = %key.extent, row = %key.row, instance = %key.instance, "a row in quarantine is whole again");
        self.index.release(&key, open.location.at)?;
        Ok(open)
    }

    /// Puts a record in quarantine, if it is the record's fault.
    pub(crate) fn rotten<T>(
        &self,
        key: &InventoryKey,
        location: &Location,
        fault: RecordFault,
    ) -> Result<T, StoreError> {
        self.health.check()?;
        let reason = match fault {
            RecordFault::Rotten(error) => error.to_string(),
            RecordFault::Io(error) if is_rot(&error) => format!("the disk could not read it: {error}"),
            RecordFault::Io(error) => {
                return Err(StoreError::io_at("reading a row in", &self.log.device, &self.log.device, error));
            }
        };
        tracing::warn!(extent = %key.extent, row = %key.row, instance = %key.instance, reason, "a row is rotten");
        self.index.quarantine(key, location.at, &reason)?;
        Err(StoreError::Rotten {
            extent: key.extent,
            row: key.row,
            instance: key.instance,
            reason: reason.into(),
        })
    }
}

pub(crate) fn is_rot(error: &io::Error) -> bool {
    error.raw_os_error() == Some(BAD_SECTOR) || error.kind() == io::ErrorKind::UnexpectedEof
}

/// A file of which only what is in memory is read.
#[derive(Debug)]
struct InMemory(Arc<dyn DiskFile>);

impl ReadAt for InMemory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_cached(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

/// Head and trailer of a record, checked; `file` is its segment's.
pub(crate) fn parts(
    file: &dyn ReadAt,
    segment: &Segment,
    key: &InventoryKey,
    location: &Location,
) -> Result<(RecordHead, Trailer), RecordFault> {
    let (head, head_bytes) = scan::read_head(file, segment.id, location.at.offset)?;
    let found = InventoryKey { extent: head.extent, row: head.row, instance: head.instance };
    if found != *key {
        return Err(diptych_core::fragment::FragmentError::Absent { what: "record head" }.into());
    }
    let trailer = scan::read_trailer(file, location.at.offset, &head, &head_bytes)?;
    Ok((head, trailer))
}

/// What a record says of itself; without a trailer only what its head knows.
pub(crate) fn describe(head: &RecordHead, trailer: Option<&Trailer>, quarantined: bool) -> RowDescription {
    RowDescription {
        row: NewRow {
            kind: head.kind,
            extent: head.extent,
            row: head.row,
            instance: head.instance,
            needed: head.needed,
            coding: head.coding,
            shard_bytes: head.shard_size,
            epoch: head.birth_epoch,
            hlc: head.birth_hlc,
            first_position: head.first_position,
        },
        end: RowEnd {
            extent_bytes: trailer.map_or(0, |trailer| trailer.extent_bytes),
            extent_hash: trailer.map_or([0; 32], |trailer| trailer.extent_hash),
            last_position: trailer.and_then(|trailer| trailer.last_position),
        },
        row_bytes: trailer.map_or(0, |trailer| trailer.row_bytes),
        quarantined,
    }
}
