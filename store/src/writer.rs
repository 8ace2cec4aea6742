//! A row on its way to the disk.

use std::sync::Arc;

use diptych_core::fragment::{
    BlockChecks, Codec, FootEntry, RECORD_HEAD_LEN, RecordHead, RecordKind, Tombstone, Trailer, record_len,
};
use diptych_core::ids::ClusterId;
use diptych_core::layout;

use crate::error::StoreError;
use crate::index::Location;
use crate::log::{Log, Reservation};
use crate::pending::{Answer, Pending};
use crate::queue::{Item, Queue};
use crate::scan::HeadBytes;
use crate::types::{InventoryKey, NewRow, RowEnd, Sealed};

const HEAD: u64 = RECORD_HEAD_LEN as u64;
/// Records up to this length are written with one call, under the log's lock.
pub(crate) const SMALL_RECORD: u64 = 20 << 10;

/// Writes one row into room that was reserved for it. Dropping it abandons the row: its room is dead, nothing else is.
#[derive(Debug)]
pub(crate) struct LogWriter {
    log: Arc<Log>,
    queue: Arc<Queue>,
    head: RecordHead,
    head_bytes: HeadBytes,
    reservation: Reservation,
    /// Bytes that the row may have.
    room: u64,
    checks: BlockChecks,
    /// Its fate is decided: dropping it does nothing more.
    settled: bool,
}

impl LogWriter {
    /// Reserves the room and writes the head.
    pub(crate) fn begin(
        log: Arc<Log>,
        queue: Arc<Queue>,
        head: RecordHead,
        room: u64,
    ) -> Result<Self, StoreError> {
        let mut head_bytes = [0; RECORD_HEAD_LEN];
        let reservation = log.reserve(head.reserved, |segment, offset| {
            head_bytes = head.encode(segment.id);
            segment.file.write_at(&head_bytes, offset)
        })?;
        let checks = BlockChecks::new(head.crc_block);
        Ok(Self { log, queue, head, head_bytes, reservation, room, checks, settled: false })
    }

    /// Writes a whole row; what is left is to make it durable.
    pub(crate) fn whole(
        log: Arc<Log>,
        queue: Arc<Queue>,
        head: RecordHead,
        bytes: &[u8],
        end: &RowEnd,
    ) -> Result<Self, StoreError> {
        let mut checks = BlockChecks::new(head.crc_block);
        checks.push(bytes);
        if head.reserved > SMALL_RECORD {
            let mut writer = Self::begin(log, queue, head, bytes.len() as u64)?;
            writer.write(bytes, 0)?;
            writer.checks = checks;
            writer.end(end)?;
            return Ok(writer);
        }
        let mut head_bytes = [0; RECORD_HEAD_LEN];
        let trailer = trailer(checks.clone(), end);
        let reservation = log.reserve(head.reserved, |segment, offset| {
            head_bytes = head.encode(segment.id);
            let record = whole_record(&head_bytes, bytes, &trailer.encode(&head_bytes), head.reserved);
            segment.file.write_at(&record, offset)
        })?;
        let room = bytes.len() as u64;
        Ok(Self { log, queue, head, head_bytes, reservation, room, checks, settled: false })
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        self.log.health.check()?;
        let segment = &self.reservation.segment;
        let written = segment.file.write_at(bytes, self.reservation.at.offset + HEAD + at);
        written.map_err(|error| StoreError::io_at("writing", &segment.path, &self.log.device, error))
    }

    /// They are handed to the operating system, not yet synced.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.checks.row_bytes();
        let wanted = written + bytes.len() as u64;
        if wanted > self.room {
            return Err(StoreError::TooLong { bytes: wanted, limit: self.room });
        }
        self.write(bytes, written)?;
        self.checks.push(bytes);
        Ok(())
    }

    /// Bytes appended so far.
    pub(crate) fn written(&self) -> u64 {
        self.checks.row_bytes()
    }

    /// Writes the record's end and queues it for the next group commit.
    pub(crate) fn seal(self, end: &RowEnd) -> Result<Pending<Sealed>, StoreError> {
        self.end(end)?;
        self.queue()
    }

    fn end(&self, end: &RowEnd) -> Result<(), StoreError> {
        let trailer = trailer(self.checks.clone(), end).encode(&self.head_bytes);
        self.write(&trailer, self.head.reserved - HEAD - trailer.len() as u64)
    }

    /// Leaves a row that is written to the committer.
    pub(crate) fn queue(self) -> Result<Pending<Sealed>, StoreError> {
        let (answer, pending) = Pending::new();
        let queue = Arc::clone(&self.queue);
        // A queue that takes nothing belongs to a closed device: the next opening finds the record.
        queue.push(self.into_item(answer))?;
        Ok(pending)
    }

    /// What the committer is to make durable.
    pub(crate) fn into_item(mut self, answer: Answer<Sealed>) -> Item {
        let RecordHead { kind, extent, row, instance, reserved, .. } = self.head;
        let at = self.reservation.at;
        self.settled = true;
        Item::Row {
            key: InventoryKey { extent, row, instance },
            location: Location { at, record_bytes: reserved, kind, quarantined: false },
            entry: FootEntry {
                extent,
                row,
                kind: kind.into(),
                instance,
                offset: at.offset,
                length: reserved,
            },
            segment: Arc::clone(&self.reservation.segment),
            sealed: Sealed { instance, row_bytes: self.checks.row_bytes() },
            answer,
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if !self.settled {
            // A closed device has no use for it: the next opening finds a record without an end.
            drop(self.queue.push(Item::Abandoned(self.reservation.at)));
        }
    }
}

/// Writes a tombstone at the end of the log.
pub(crate) fn write_tombstone(
    log: &Log,
    tombstone: &Tombstone,
) -> Result<(Reservation, FootEntry), StoreError> {
    let reservation =
        log.reserve(HEAD, |segment, offset| segment.file.write_at(&tombstone.encode(segment.id), offset))?;
    let Tombstone { extent, row, killed: instance, .. } = *tombstone;
    let (kind, offset) = (RecordKind::Tombstone, reservation.at.offset);
    Ok((reservation, FootEntry { extent, row, kind, instance, offset, length: HEAD }))
}

/// The head of a record for a row of at most `room` bytes.
pub(crate) fn record_head(cluster: ClusterId, row: &NewRow, room: u64) -> RecordHead {
    let crc_block = layout::crc_block(room);
    RecordHead {
        kind: row.kind,
        codec: Codec::Vandermonde,
        cluster,
        extent: row.extent,
        instance: row.instance,
        row: row.row,
        needed: row.needed,
        coding: row.coding,
        shard_size: row.shard_bytes,
        crc_block,
        birth_epoch: row.epoch,
        birth_hlc: row.hlc,
        first_position: row.first_position,
        reserved: record_bytes(room, crc_block),
    }
}

/// Room of a record for a row of at most `row_bytes`.
pub(crate) fn record_bytes(row_bytes: u64, crc_block: u32) -> u64 {
    record_len(row_bytes, crc_block)
}

/// The end of a record.
pub(crate) fn trailer(checks: BlockChecks, end: &RowEnd) -> Trailer {
    Trailer {
        row_bytes: checks.row_bytes(),
        blocks: checks.finish(),
        extent_bytes: end.extent_bytes,
        extent_hash: end.extent_hash,
        last_position: end.last_position,
    }
}

/// Head, row, padding, trailer.
fn whole_record(head: &HeadBytes, row: &[u8], trailer: &[u8], reserved: u64) -> Vec<u8> {
    let mut record = Vec::with_capacity(reserved as usize);
    record.extend_from_slice(head);
    record.extend_from_slice(row);
    record.resize(reserved as usize - trailer.len(), 0);
    record.extend_from_slice(trailer);
    record
}
