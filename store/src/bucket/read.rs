//! Reading rows from their objects, every byte checked; what fails a check twice goes into quarantine.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use diptych_core::fragment::{FragmentError, RECORD_HEAD_LEN, RecordHead, Trailer};
use diptych_core::ids::{ExtentId, InstanceId, Row, SegmentId};

use super::contents::{Contents, Entry};
use super::name::RowName;
use super::{Bucket, BucketPlace};
use crate::disk::{ReadAt, read_exact_at};
use crate::error::StoreError;
use crate::health::Health;
use crate::scan::{self, RecordFault};
use crate::types::InventoryKey;

const HEAD: u64 = RECORD_HEAD_LEN as u64;
/// Objects up to this length are read with one call, whatever of them is asked for.
const SMALL_OBJECT: u64 = 1 << 20;

/// Heads are salted with the extent, which the object's name gives: an object under another extent's name does not pass.
pub(super) const fn salt(extent: ExtentId) -> SegmentId {
    SegmentId(extent.0)
}

/// Borrows what reading needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'d> {
    pub(super) place: &'d BucketPlace,
    pub(super) contents: &'d Contents,
    pub(super) health: &'d Health,
}

/// A record whose head and trailer are checked.
pub(super) struct OpenObject {
    bytes: Box<dyn ReadAt>,
    pub(super) head: RecordHead,
    pub(super) trailer: Trailer,
}

impl OpenObject {
    pub(super) fn open(bytes: Box<dyn ReadAt>, name: &RowName) -> Result<Self, RecordFault> {
        let (head, head_bytes) = scan::read_head(&*bytes, salt(name.key.extent), 0)?;
        let found = InventoryKey { extent: head.extent, row: head.row, instance: head.instance };
        if found != name.key {
            return Err(FragmentError::Absent { what: "record head" }.into());
        }
        let trailer = scan::read_trailer(&*bytes, 0, &head, &head_bytes)?;
        Ok(Self { bytes, head, trailer })
    }

    /// Bytes of whole blocks around `range`, checked, then cut to it.
    pub(super) fn read(&self, range: &Range<u64>) -> Result<Bytes, RecordFault> {
        let block = u64::from(self.head.crc_block);
        let start = range.start / block * block;
        let end = range.end.next_multiple_of(block).min(self.trailer.row_bytes);
        let mut bytes = vec![0; end.saturating_sub(start) as usize];
        read_exact_at(&*self.bytes, &mut bytes, HEAD + start)?;
        scan::check_piece(&bytes, start, &self.head, &self.trailer)?;
        Ok(Bytes::from(bytes).slice((range.start - start) as usize..(range.end - start) as usize))
    }

    pub(super) fn check_all(&self) -> Result<(), RecordFault> {
        scan::check_blocks(&*self.bytes, 0, &self.head, &self.trailer, |_| ())
    }
}

impl Reader<'_> {
    /// Does something with a record. `whole`: all of it will be read.
    pub(super) fn with<T>(
        &self,
        (extent, row, instance): (ExtentId, Row, Option<InstanceId>),
        whole: bool,
        act: impl Fn(&OpenObject) -> Result<T, RecordFault>,
    ) -> Result<T, StoreError> {
        self.health.check()?;
        let found = self.contents.find(extent, row, instance);
        let Some(entry) = found else { return Err(StoreError::NotFound { extent, row }) };
        let attempt = |whole| {
            let open = self.fetch(&entry, whole || entry.wrong.is_some())?;
            if entry.wrong.is_some() {
                open.check_all()?;
            }
            act(&open)
        };
        let read = attempt(whole).or_else(|fault| match fault {
            // What the way has spoiled is right the second time; what lies wrong in the bucket is not.
            fault if is_rot(&fault) => attempt(true),
            fault => Err(fault),
        });
        let read = read.or_else(|fault| self.failed(&entry, fault))?;
        self.health.check()?;
        if entry.wrong.is_some() {
            tracing::warn!(extent = %extent, row = %row, "a row in quarantine is whole again");
            self.contents.release(&entry.name.key);
        }
        Ok(read)
    }

    fn fetch(&self, entry: &Entry, whole: bool) -> Result<OpenObject, RecordFault> {
        let object = entry.name.object();
        let bytes: Box<dyn ReadAt> = if whole || entry.bytes <= SMALL_OBJECT {
            Box::new(Fetched(self.place.bucket.get(&object, entry.bytes).map_err(io::Error::from)?.0))
        } else {
            Box::new(Ranged { bucket: Arc::clone(&self.place.bucket), object, len: entry.bytes })
        };
        OpenObject::open(bytes, &entry.name)
    }

    fn failed<T>(&self, entry: &Entry, fault: RecordFault) -> Result<T, StoreError> {
        let InventoryKey { extent, row, instance } = entry.name.key;
        let reason: Arc<str> = match fault {
            RecordFault::Rotten(error) => error.to_string().into(),
            RecordFault::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the object is cut".into()
            }
            RecordFault::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::error!(%extent, %row, %instance, "a row is gone from the bucket");
                self.contents.remove(&entry.name.key);
                return Err(StoreError::NotFound { extent, row });
            }
            RecordFault::Io(error) => {
                let name = &self.place.name;
                return Err(StoreError::io_at("reading", &name.join(entry.name.object()), name, error));
            }
        };
        tracing::warn!(%extent, %row, %instance, reason = &*reason, "a row is rotten");
        self.contents.quarantine(&entry.name.key, &reason);
        Err(StoreError::Rotten { extent, row, instance, reason })
    }
}

fn is_rot(fault: &RecordFault) -> bool {
    match fault {
        RecordFault::Rotten(_) => true,
        RecordFault::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}

/// An object that was read whole.
#[derive(Debug)]
pub(super) struct Fetched(pub(super) Bytes);

impl ReadAt for Fetched {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// An object of which parts are read.
#[derive(Debug)]
struct Ranged {
    bucket: Arc<dyn Bucket>,
    object: String,
    len: u64,
}

impl ReadAt for Ranged {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let range = offset..self.len.min(offset + buffer.len() as u64);
        if range.is_empty() {
            return Ok(0);
        }
        let bytes = self.bucket.get_range(&self.object, range)?;
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}
