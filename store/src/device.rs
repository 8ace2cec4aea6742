//! The device: what a node-agent holds of a disk.

use std::path::Path;

use bytes::Bytes;
use diptych_core::ids::{ExtentId, InstanceId, Row, Stamp};

use crate::error::StoreError;
use crate::pending::Pending;
use crate::types::{
    ByteRange, Deleted, DeviceIdentity, Finding, InventoryEntry, InventoryKey, Keyring, NewRow, OpenOptions,
    OpenReport, Purpose, Room, RowDescription, RowEnd, ScrubProgress, ScrubState, Sealed, Verified,
};
use crate::writer::Writer;

/// An open device. Clones are handles to the same one; the last one dropped closes it.
#[derive(Debug, Clone)]
pub struct Device {}

impl Device {
    /// Makes a new device in a folder that is empty or not there yet.
    ///
    /// Errors: [`StoreError::NotEmpty`], [`StoreError::AlreadyFormatted`], [`StoreError::ReadOnly`], [`StoreError::Io`].
    pub fn format(_path: &Path, _identity: &DeviceIdentity) -> Result<(), StoreError> {
        todo!()
    }

    /// Opens a device: checks who it is, replays what the index had not been synced past, makes the index anew if it is
    /// lost, and seals the segment that was open.
    ///
    /// Errors: [`StoreError::Missing`], [`StoreError::WrongIdentity`], [`StoreError::InUse`], [`StoreError::ReadOnly`],
    /// [`StoreError::UnknownFormat`], [`StoreError::ForeignSegment`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn open(_path: &Path, _options: OpenOptions) -> Result<Self, StoreError> {
        todo!()
    }

    /// What opening found.
    pub fn open_report(&self) -> OpenReport {
        todo!()
    }

    /// Who it is.
    pub fn identity(&self) -> &DeviceIdentity {
        todo!()
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        todo!()
    }

    /// Waits for what is queued, syncs the index and closes. Later calls on any handle get [`StoreError::Closed`].
    pub fn close(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// The failure that closed it, if one did.
    pub fn failure(&self) -> Option<StoreError> {
        todo!()
    }

    // ---- rows ----

    /// Reserves room for a row of up to `reserve` bytes and writes its head.
    ///
    /// Errors: [`StoreError::DeviceFull`], [`StoreError::TooLong`], [`StoreError::InstanceUsed`],
    /// [`StoreError::DeviceFailed`], [`StoreError::Io`].
    pub fn begin(&self, _row: &NewRow, _reserve: u64, _purpose: Purpose) -> Result<Writer, StoreError> {
        todo!()
    }

    /// A whole row at once: `begin`, `append`, `seal`.
    pub fn put_row(
        &self,
        _row: &NewRow,
        _bytes: &[u8],
        _end: &RowEnd,
        _purpose: Purpose,
    ) -> Result<Pending<Sealed>, StoreError> {
        todo!()
    }

    /// Bytes of a row, every block that the range touches checked. `instance` `None`: the newest whole record.
    ///
    /// Errors: [`StoreError::NotFound`], [`StoreError::OutOfRange`], [`StoreError::Rotten`] (the record is in quarantine
    /// from then on), [`StoreError::DeviceFailed`].
    pub fn read(
        &self,
        _extent: ExtentId,
        _row: Row,
        _instance: Option<InstanceId>,
        _range: ByteRange,
    ) -> Result<Bytes, StoreError> {
        todo!()
    }

    /// What a row's record says of itself, its checks included; reads head and trailer only.
    pub fn describe(
        &self,
        _extent: ExtentId,
        _row: Row,
        _instance: Option<InstanceId>,
    ) -> Result<RowDescription, StoreError> {
        todo!()
    }

    /// The whole row as the *disk* has it, page cache dropped first, every block checked: repair's read-back.
    pub fn read_uncached(
        &self,
        _extent: ExtentId,
        _row: Row,
        _instance: Option<InstanceId>,
    ) -> Result<Bytes, StoreError> {
        todo!()
    }

    /// As [`Device::read_uncached`], in constant memory and without giving the bytes.
    pub fn verify(
        &self,
        _extent: ExtentId,
        _row: Row,
        _instance: Option<InstanceId>,
    ) -> Result<Verified, StoreError> {
        todo!()
    }

    /// Deletes one record by a tombstone. The stamp is admitted first (see [`Device::admit`]).
    pub fn delete(
        &self,
        _extent: ExtentId,
        _row: Row,
        _instance: InstanceId,
        _stamp: Stamp,
    ) -> Result<Pending<Deleted>, StoreError> {
        todo!()
    }

    // ---- device record ----

    /// Highest stamp that it has seen.
    pub fn highest_stamp(&self) -> Stamp {
        todo!()
    }

    /// Lets a command pass if its stamp is not lower than any seen before; a higher one is durable when this returns.
    ///
    /// Errors: [`StoreError::OldStamp`], [`StoreError::Io`], [`StoreError::DeviceFailed`].
    pub fn admit(&self, _stamp: Stamp) -> Result<(), StoreError> {
        todo!()
    }

    /// The keyring that it keeps.
    pub fn keyring(&self) -> Option<Keyring> {
        todo!()
    }

    /// Keeps a keyring, durable when this returns. The same number with the same bytes is no change.
    ///
    /// Errors: [`StoreError::OldKeyring`], [`StoreError::Io`], [`StoreError::DeviceFailed`].
    pub fn put_keyring(&self, _keyring: Keyring) -> Result<(), StoreError> {
        todo!()
    }

    // ---- what it holds ----

    /// Up to `limit` records after `after`, in order.
    pub fn inventory(
        &self,
        _after: Option<InventoryKey>,
        _limit: usize,
    ) -> Result<Vec<InventoryEntry>, StoreError> {
        todo!()
    }

    /// Records of one row that are here, the newest first.
    pub fn instances(&self, _extent: ExtentId, _row: Row) -> Result<Vec<InventoryEntry>, StoreError> {
        todo!()
    }

    /// Records in quarantine.
    pub fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        todo!()
    }

    /// How full it is.
    pub fn room(&self) -> Result<Room, StoreError> {
        todo!()
    }

    /// Number of records that it holds.
    pub fn record_count(&self) -> Result<u64, StoreError> {
        todo!()
    }

    // ---- care ----

    /// Reads on from disk where the last step stopped, about `budget_bytes` of whole records, and puts rotten ones in
    /// quarantine. `now_ms` (milliseconds since 1970) is kept as the end of a round that this step finishes.
    pub fn scrub_step(&self, _budget_bytes: u64, _now_ms: u64) -> Result<ScrubProgress, StoreError> {
        todo!()
    }

    /// How far the scrub is.
    pub fn scrub_state(&self) -> Result<ScrubState, StoreError> {
        todo!()
    }

    /// Unlinks sealed segments in which every record is dead; gives the bytes that this freed. Runs by itself too.
    pub fn reclaim(&self) -> Result<u64, StoreError> {
        todo!()
    }
}
