//! A row on its way to a bucket: gathered in memory, and sent whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use diptych_core::fragment::{BlockChecks, RECORD_HEAD_LEN, RecordHead};

use super::device::Inner;
use super::read::salt;
use crate::error::StoreError;
use crate::pending::Pending;
use crate::types::{RowEnd, Sealed};
use crate::writer::{record_bytes, trailer};

/// Rows that are gathered at once may have so many bytes.
const MEMORY: u64 = 256 << 20;

/// Gathers one row.
#[derive(Debug)]
pub(crate) struct BucketWriter {
    device: Arc<Inner>,
    record: Record,
    room: Reserved,
}

impl BucketWriter {
    pub(super) fn begin(device: Arc<Inner>, head: RecordHead, room: u64) -> Result<Self, StoreError> {
        let room = Reserved::take(&device.memory, room)?;
        Ok(Self { device, record: Record::new(head), room })
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.device.health.check()?;
        let (wanted, limit) = (self.written() + bytes.len() as u64, self.room.bytes);
        if wanted > limit {
            return Err(StoreError::TooLong { bytes: wanted, limit });
        }
        self.record.push(bytes);
        Ok(())
    }

    pub(crate) fn written(&self) -> u64 {
        self.record.checks.row_bytes()
    }

    pub(crate) fn seal(self, end: &RowEnd) -> Result<Pending<Sealed>, StoreError> {
        self.device.place_row(self.record, end)
    }
}

/// A record that is put together: head, row, padding, trailer.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) head: RecordHead,
    checks: BlockChecks,
    bytes: Vec<u8>,
}

impl Record {
    pub(super) fn new(head: RecordHead) -> Self {
        let checks = BlockChecks::new(head.crc_block);
        Self { head, checks, bytes: vec![0; RECORD_HEAD_LEN] }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.checks.push(bytes);
        self.bytes.extend_from_slice(bytes);
    }

    /// The whole record, as long as its row needs it, and the length of the row.
    pub(super) fn end(mut self, end: &RowEnd) -> (Bytes, u64) {
        let row_bytes = self.checks.row_bytes();
        self.head.reserved = record_bytes(row_bytes, self.head.crc_block);
        let head_bytes = self.head.encode(salt(self.head.extent));
        let trailer = trailer(self.checks, end).encode(&head_bytes);
        self.bytes[..RECORD_HEAD_LEN].copy_from_slice(&head_bytes);
        self.bytes.resize(self.head.reserved as usize - trailer.len(), 0);
        self.bytes.extend_from_slice(&trailer);
        (self.bytes.into(), row_bytes)
    }
}

/// Memory for a row; free again when dropped.
#[derive(Debug)]
struct Reserved {
    of: Arc<AtomicU64>,
    bytes: u64,
}

impl Reserved {
    fn take(of: &Arc<AtomicU64>, bytes: u64) -> Result<Self, StoreError> {
        let taken = of.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Self { of: Arc::clone(of), bytes };
        // A row by itself always finds room.
        if taken > 0 && taken + bytes > MEMORY {
            Err(StoreError::Busy { bytes: taken })
        } else {
            Ok(reserved)
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
