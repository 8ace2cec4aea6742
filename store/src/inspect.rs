//! Reads a device's folder without opening the device: while an agent runs, and without one. Changes nothing, takes no
//! lock, trusts no index: records are found by hopping from head to head, and every checksum is computed anew.

use std::path::{Path, PathBuf};

use diptych_core::ids::{InstanceId, Stamp};

use crate::error::StoreError;
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
pub fn device(_path: &Path) -> Result<InspectedDevice, StoreError> {
    todo!()
}

/// Every row's record, in the order of the log, with every checksum computed anew.
pub fn records(_path: &Path) -> Result<Vec<InspectedRecord>, StoreError> {
    todo!()
}

/// Every tombstone, in the order of the log.
pub fn tombstones(_path: &Path) -> Result<Vec<InspectedTombstone>, StoreError> {
    todo!()
}

/// The bytes of a record's row, each block checked.
pub fn row_bytes(_record: &InspectedRecord) -> Result<Vec<u8>, StoreError> {
    todo!()
}
