//! The device: what a node-agent holds of a disk, or of a bucket.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use diptych_core::ids::{ExtentId, InstanceId, Row, Stamp};
use diptych_core::records::ExtentKind;

use crate::bucket::{BucketDevice, BucketPlace, BucketWriter};
use crate::disk::RealDisk;
use crate::error::StoreError;
use crate::log_device::{self, LogDevice};
use crate::pending::Pending;
use crate::types::{
    ByteRange, Commits, Deleted, DeviceIdentity, Finding, InventoryEntry, InventoryKey, Keyring, NewRow,
    OpenOptions, OpenReport, Purpose, Room, RowDescription, RowEnd, RowPlace, ScrubProgress, ScrubState,
    Sealed, Verified, WholeRow,
};
use crate::writer::LogWriter;

/// An open device. Clones are handles to the same one; the last one dropped closes it.
#[derive(Debug, Clone)]
pub struct Device(Engine);

/// What carries it.
#[derive(Debug, Clone)]
enum Engine {
    /// A folder.
    Log(LogDevice),
    /// A bucket.
    Bucket(BucketDevice),
}

macro_rules! engine {
    ($self:ident, $device:ident => $call:expr) => {
        match &$self.0 {
            Engine::Log($device) => $call,
            Engine::Bucket($device) => $call,
        }
    };
}

impl Device {
    /// Makes a new device in a folder that is empty or not there yet.
    ///
    /// Errors: [`StoreError::NotEmpty`], [`StoreError::AlreadyFormatted`], [`StoreError::ReadOnly`], [`StoreError::Io`].
    pub fn format(path: &Path, identity: &DeviceIdentity) -> Result<(), StoreError> {
        log_device::format_on(&RealDisk, path, identity)
    }

    /// Makes a new device in a bucket, under a prefix that no object has yet.
    ///
    /// Errors: [`StoreError::NotEmpty`], [`StoreError::AlreadyFormatted`], [`StoreError::Io`].
    pub fn format_bucket(place: &BucketPlace, identity: &DeviceIdentity) -> Result<(), StoreError> {
        BucketDevice::format(place, identity)
    }

    /// Opens a device: checks who it is, replays what the index had not been synced past, makes the index anew if it is
    /// lost, and seals the segment that was open.
    ///
    /// Errors: [`StoreError::Missing`], [`StoreError::WrongIdentity`], [`StoreError::InUse`], [`StoreError::ReadOnly`],
    /// [`StoreError::UnknownFormat`], [`StoreError::ForeignSegment`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        LogDevice::open_on(Arc::new(RealDisk), path, options).map(|device| Self(Engine::Log(device)))
    }

    /// Opens a device in a bucket: takes it for this process alone and lists what is there. One that another process holds is
    /// refused; asked again and again, it opens once nothing was heard of that process for long enough.
    ///
    /// Errors: [`StoreError::Missing`], [`StoreError::WrongIdentity`], [`StoreError::Held`],
    /// [`StoreError::UnknownFormat`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn open_bucket(place: &Arc<BucketPlace>, options: OpenOptions) -> Result<Self, StoreError> {
        BucketDevice::open(place, options).map(|device| Self(Engine::Bucket(device)))
    }

    #[cfg(test)]
    pub(crate) fn open_on(
        disk: Arc<dyn crate::disk::Disk>,
        path: &Path,
        options: OpenOptions,
    ) -> Result<Self, StoreError> {
        LogDevice::open_on(disk, path, options).map(|device| Self(Engine::Log(device)))
    }

    #[cfg(test)]
    pub(crate) fn log(&self) -> &LogDevice {
        match &self.0 {
            Engine::Log(device) => device,
            Engine::Bucket(_) => unreachable!("the device of this test is a folder"),
        }
    }

    #[cfg(test)]
    pub(crate) fn bucket(&self) -> &BucketDevice {
        match &self.0 {
            Engine::Bucket(device) => device,
            Engine::Log(_) => unreachable!("the device of this test is a bucket"),
        }
    }

    /// What opening found.
    pub fn open_report(&self) -> OpenReport {
        engine!(self, device => device.open_report())
    }

    /// Who it is.
    pub fn identity(&self) -> &DeviceIdentity {
        engine!(self, device => device.identity())
    }

    /// Its folder, or its place in a bucket: `s3://BUCKET/PREFIX`.
    pub fn path(&self) -> &Path {
        engine!(self, device => device.path())
    }

    /// Waits for what is queued, syncs the index and closes. Later calls on any handle get [`StoreError::Closed`].
    ///
    /// Errors: the failure that closed it before.
    pub fn close(&self) -> Result<(), StoreError> {
        engine!(self, device => device.close())
    }

    /// The failure that closed it, if one did.
    pub fn failure(&self) -> Option<StoreError> {
        engine!(self, device => device.failure())
    }

    // ---- rows ----

    /// Reserves room for a row of up to `reserve` bytes and writes its head.
    ///
    /// Errors: [`StoreError::DeviceFull`], [`StoreError::TooLong`], [`StoreError::InstanceUsed`],
    /// [`StoreError::BadRow`], [`StoreError::DeviceFailed`], [`StoreError::Io`].
    pub fn begin(&self, row: &NewRow, reserve: u64, purpose: Purpose) -> Result<Writer, StoreError> {
        Ok(Writer(match &self.0 {
            Engine::Log(device) => Writing::Log(device.begin(row, reserve, purpose)?),
            Engine::Bucket(device) => Writing::Bucket(device.begin(row, reserve, purpose)?),
        }))
    }

    /// A whole row, under a stamp that is admitted first (see [`Device::admit`]). In a folder a short one is left to the committer, so that no thread is woken on the way.
    ///
    /// Errors: as [`Device::admit`] and [`Device::begin`], at once or with the answer.
    pub fn place(&self, whole: WholeRow) -> Result<Pending<Sealed>, StoreError> {
        engine!(self, device => device.place(whole))
    }

    /// Whether [`Device::place`] may keep its thread waiting for this one.
    pub fn place_blocks(&self, whole: &WholeRow) -> bool {
        match &self.0 {
            Engine::Log(_) => !whole.is_short(),
            Engine::Bucket(_) => true,
        }
    }

    /// Bytes of a row, every block that the range touches checked. `instance` `None`: the whole record that was
    /// written, or moved by compaction, last.
    ///
    /// Errors: [`StoreError::NotFound`], [`StoreError::OutOfRange`], [`StoreError::Rotten`] (the record is in quarantine
    /// from then on), [`StoreError::DeviceFailed`].
    pub fn read(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
        range: ByteRange,
    ) -> Result<Bytes, StoreError> {
        engine!(self, device => device.read(extent, row, instance, range))
    }

    /// A range of at most 32 KiB as [`Device::read`] gives it, if it is in memory and nothing is wrong with it; `None`: [`Device::read`] is to be
    /// asked. It waits for no row's bytes, but a page of the index may have to come from the disk.
    pub fn read_cached(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
        range: &ByteRange,
    ) -> Option<Bytes> {
        match &self.0 {
            Engine::Log(device) => device.read_cached(extent, row, instance, range),
            Engine::Bucket(_) => None,
        }
    }

    /// Where a row lies in the device's files, its head and trailer checked; `None`: it has no files. That stays true for as long as the segment is
    /// there ([`Device::lend`]).
    ///
    /// Errors: as [`Device::read`].
    pub fn row_place(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Option<RowPlace>, StoreError> {
        match &self.0 {
            Engine::Log(device) => device.row_place(extent, row, instance).map(Some),
            Engine::Bucket(_) => Ok(None),
        }
    }

    /// The file of a segment, opened anew for another process that only reads; `None`: it is not there any more. Nothing in it is ever overwritten;
    /// while somebody has it open its room is not free.
    pub fn lend(&self, segment: u64) -> Result<Option<OwnedFd>, StoreError> {
        match &self.0 {
            Engine::Log(device) => device.lend(segment),
            Engine::Bucket(_) => Ok(None),
        }
    }

    /// What a row's record says of itself, its checks included; reads head and trailer only.
    pub fn describe(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<RowDescription, StoreError> {
        engine!(self, device => device.describe(extent, row, instance))
    }

    /// The whole row as the *disk* has it, page cache dropped first, every block checked: repair's read-back.
    pub fn read_uncached(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Bytes, StoreError> {
        engine!(self, device => device.read_uncached(extent, row, instance))
    }

    /// As [`Device::read_uncached`], in constant memory and without giving the bytes.
    pub fn verify(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Verified, StoreError> {
        engine!(self, device => device.verify(extent, row, instance))
    }

    /// Deletes one record by a tombstone. The stamp is admitted first (see [`Device::admit`]), and none that is higher is
    /// admitted before the tombstone has its place in the log.
    pub fn delete(
        &self,
        extent: ExtentId,
        row: Row,
        instance: InstanceId,
        stamp: Stamp,
    ) -> Result<Pending<Deleted>, StoreError> {
        engine!(self, device => device.delete(extent, row, instance, stamp))
    }

    // ---- device record ----

    /// Highest stamp that it has seen.
    pub fn highest_stamp(&self) -> Stamp {
        engine!(self, device => device.highest_stamp())
    }

    /// Lets a command pass if its stamp is not lower than any seen before; a higher one is durable when this returns.
    ///
    /// Errors: [`StoreError::OldStamp`], [`StoreError::Io`], [`StoreError::DeviceFailed`].
    pub fn admit(&self, stamp: Stamp) -> Result<(), StoreError> {
        engine!(self, device => device.admit(stamp))
    }

    /// The keyring that it keeps.
    pub fn keyring(&self) -> Option<Keyring> {
        engine!(self, device => device.keyring())
    }

    /// The keyring as it lies on the disk.
    ///
    /// Errors: [`StoreError::Damaged`], [`StoreError::Io`], [`StoreError::Missing`].
    pub fn read_keyring(&self) -> Result<Option<Keyring>, StoreError> {
        engine!(self, device => device.read_keyring())
    }

    /// Keeps a keyring, durable when this returns. The same number with the same bytes is no change.
    ///
    /// Errors: [`StoreError::OldKeyring`], [`StoreError::Io`], [`StoreError::DeviceFailed`].
    pub fn put_keyring(&self, keyring: Keyring) -> Result<(), StoreError> {
        engine!(self, device => device.put_keyring(keyring))
    }

    // ---- what it holds ----

    /// Up to `limit` records after `after`, in order; `kind`: only those of extents that hold that.
    pub fn inventory(
        &self,
        after: Option<InventoryKey>,
        kind: Option<ExtentKind>,
        limit: usize,
    ) -> Result<Vec<InventoryEntry>, StoreError> {
        engine!(self, device => device.inventory(after, kind, limit))
    }

    /// Records of one row that are here, the one that was written or moved last first.
    pub fn instances(&self, extent: ExtentId, row: Row) -> Result<Vec<InventoryEntry>, StoreError> {
        engine!(self, device => device.instances(extent, row))
    }

    /// Records in quarantine.
    pub fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        engine!(self, device => device.findings())
    }

    /// How full it is.
    pub fn room(&self) -> Result<Room, StoreError> {
        engine!(self, device => device.room())
    }

    /// Number of records that it holds.
    pub fn record_count(&self) -> Result<u64, StoreError> {
        engine!(self, device => device.record_count())
    }

    /// How well its commits are shared; a bucket has none that could be.
    pub fn commits(&self) -> Commits {
        match &self.0 {
            Engine::Log(device) => device.commits(),
            Engine::Bucket(_) => Commits::default(),
        }
    }

    // ---- care ----

    /// Reads on from disk where the last step stopped, about `budget_bytes` of whole records, and puts rotten ones in
    /// quarantine. `now_ms` (milliseconds since 1970) is kept as the end of a round that this step finishes.
    pub fn scrub_step(&self, budget_bytes: u64, now_ms: u64) -> Result<ScrubProgress, StoreError> {
        engine!(self, device => device.scrub_step(budget_bytes, now_ms))
    }

    /// How far the scrub is.
    pub fn scrub_state(&self) -> Result<ScrubState, StoreError> {
        engine!(self, device => device.scrub_state())
    }

    /// Copies what lives out of sealed segments that are mostly dead, and unlinks them; gives the bytes that this freed, those of
    /// [`Device::reclaim`] among them. A full disk is no error: it stops there. Runs by itself too.
    pub fn compact(&self) -> Result<u64, StoreError> {
        engine!(self, device => device.compact())
    }

    /// Unlinks sealed segments in which every record is dead; gives the bytes that this freed. Runs by itself too.
    pub fn reclaim(&self) -> Result<u64, StoreError> {
        engine!(self, device => device.reclaim())
    }
}

/// Writes one row into room that was reserved for it. Dropping it abandons the row: its room is dead, nothing else is.
#[derive(Debug)]
pub struct Writer(Writing);

#[derive(Debug)]
enum Writing {
    Log(LogWriter),
    Bucket(BucketWriter),
}

impl Writer {
    /// Appends the row's next bytes and checksums them. They are handed on, or gathered, and not yet durable.
    ///
    /// Errors: [`StoreError::TooLong`] past the reservation, [`StoreError::DeviceFailed`], [`StoreError::Io`] (a full
    /// disk, for one); after any of them only [`Writer::abandon`] is left.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match &mut self.0 {
            Writing::Log(writer) => writer.append(bytes),
            Writing::Bucket(writer) => writer.append(bytes),
        }
    }

    /// Bytes appended so far.
    pub fn written(&self) -> u64 {
        match &self.0 {
            Writing::Log(writer) => writer.written(),
            Writing::Bucket(writer) => writer.written(),
        }
    }

    /// Writes the record's end; it is durable when the answer comes.
    ///
    /// Errors: as [`Writer::append`]; the row is abandoned then.
    pub fn seal(self, end: &RowEnd) -> Result<Pending<Sealed>, StoreError> {
        match self.0 {
            Writing::Log(writer) => writer.seal(end),
            Writing::Bucket(writer) => writer.seal(end),
        }
    }

    /// Gives the row up.
    pub fn abandon(self) {}
}
