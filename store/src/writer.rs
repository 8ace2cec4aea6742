//! A row on its way to the disk.

use crate::error::StoreError;
use crate::pending::Pending;
use crate::types::{RowEnd, Sealed};

/// Writes one row into room that was reserved for it. Dropping it abandons the row: its room is dead, nothing else is.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Appends the row's next bytes and checksums them. They are handed to the operating system, not yet synced.
    ///
    /// Errors: [`StoreError::TooLong`] past the reservation, [`StoreError::DeviceFailed`], [`StoreError::Io`] (a full
    /// disk, for one); after any of them only [`Writer::abandon`] is left.
    pub fn append(&mut self, _bytes: &[u8]) -> Result<(), StoreError> {
        todo!()
    }

    /// Bytes appended so far.
    pub fn written(&self) -> u64 {
        todo!()
    }

    /// Writes the record's end and queues it for the next group commit.
    pub fn seal(self, _end: &RowEnd) -> Result<Pending<Sealed>, StoreError> {
        todo!()
    }

    /// Gives the row up.
    pub fn abandon(self) {}
}
