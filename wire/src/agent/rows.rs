//! Rows: written whole or in pieces, read by ranges, listed, deleted.

use std::ops::Range;

use diptych_core::ids::{DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, Row, Stamp};
use diptych_core::records::{ExtentKind, Holds};
use serde::{Deserialize, Serialize};

use super::AgentError;

/// What a row is: goes into its record's head and trailer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowHead {
    /// Device that holds it.
    pub device: DeviceId,
    /// Extent it is of.
    pub extent: ExtentId,
    /// Its number in the codeword.
    pub row: Row,
    /// k: rows that are needed to decode.
    pub needed: u8,
    /// What the extent holds.
    pub holds: Holds,
    /// Bytes of the extent's ciphertext, its tail with them.
    pub extent_len: u32,
    /// BLAKE3 of them.
    pub extent_hash: [u8; 32],
    /// Term in which the extent was born; refuses nothing.
    pub birth_epoch: Epoch,
    /// When it was born.
    pub birth_hlc: Hlc,
    /// Bytes of this row.
    pub len: u32,
}

/// Write whole rows. Payload: the rows' bytes, in order. Answer: by row, its instance once durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRows {
    /// Term and keeper that the sender knows.
    pub stamp: Stamp,
    /// Of the placement map that chose the devices.
    pub map_generation: Generation,
    /// What the payloads are.
    pub rows: Vec<RowHead>,
}

/// A stream of rows of one extent on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// A row whose bytes come in pieces; the extent's length and hash come with the seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginRow {
    /// Device that shall hold it.
    pub device: DeviceId,
    /// Its number in the codeword.
    pub row: Row,
    /// Room to reserve: at least the bytes that will come.
    pub reserve: u32,
}

/// Begin to write rows of one extent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Term and keeper that the sender knows.
    pub stamp: Stamp,
    /// Of the placement map that chose the devices.
    pub map_generation: Generation,
    /// Extent they are of.
    pub extent: ExtentId,
    /// k: rows that are needed to decode.
    pub needed: u8,
    /// What the extent holds.
    pub holds: Holds,
    /// Term in which the extent was born.
    pub birth_epoch: Epoch,
    /// When it was born.
    pub birth_hlc: Hlc,
    /// The rows; later messages name them by their index here.
    pub rows: Vec<BeginRow>,
}

/// A begun stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginReply {
    /// Names it from now on.
    pub stream: StreamId,
    /// By row: whether it was begun. One that was not is skipped from now on.
    pub rows: Vec<Result<(), AgentError>>,
}

/// More bytes of a stream's rows. Payload: the pieces, in order. Answer: the rows that failed, with why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// Which stream.
    pub stream: StreamId,
    /// 0, 1, 2 … in the order in which the pieces belong.
    pub sequence: u32,
    /// Index of the row, bytes of its piece.
    pub pieces: Vec<(u16, u32)>,
}

/// Make a stream's rows durable. Answer: by row, its instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Which stream.
    pub stream: StreamId,
    /// How many appends there were.
    pub appends: u32,
    /// Bytes of the extent's ciphertext.
    pub extent_len: u32,
    /// BLAKE3 of them.
    pub extent_hash: [u8; 32],
}

/// Give a stream up: its room is taken by compaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandon {
    /// Which stream.
    pub stream: StreamId,
}

/// A row's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowAt {
    /// Device that holds it.
    pub device: DeviceId,
    /// Extent it is of.
    pub extent: ExtentId,
    /// Its number.
    pub row: Row,
    /// Which record of it; None: whichever the device has.
    pub instance: Option<InstanceId>,
}

/// A range of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadItem {
    /// Which row.
    pub at: RowAt,
    /// First byte of it.
    pub offset: u32,
    /// Bytes; exactly so many come, or an error.
    pub len: u32,
}

impl ReadItem {
    /// From its first byte to behind its last one, in the row.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.len)
    }
}

/// Read ranges. Answer: by item its length, and the bytes as payload, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// At most what fits a frame.
    pub items: Vec<ReadItem>,
}

/// Where rows lie in the files of their devices. Answer: by item; None: the device has no files that could be lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locate {
    /// Each with its instance.
    pub items: Vec<RowAt>,
}

/// Where a row's bytes lie, one after the other. That stays true for as long as the file can be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPlace {
    /// Number of its segment on the device.
    pub segment: u64,
    /// Where in the segment's file it begins.
    pub offset: u64,
    /// Bytes of the row.
    pub len: u64,
}

/// Lend the file of a segment for reading: its descriptor goes with the answer, over a unix socket only. `NotFound`: the segment is there no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lend {
    /// Which device.
    pub device: DeviceId,
    /// Which segment of it.
    pub segment: u64,
}

/// What a row is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Describe {
    /// Which row.
    pub at: RowAt,
}

/// A row as a device holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowFacts {
    /// Which record.
    pub instance: InstanceId,
    /// What it is.
    pub head: RowHead,
    /// A check of it failed: it is not served any more.
    pub quarantined: bool,
}

/// Read a whole row from its device, not from its cache, and check every block of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// Which row.
    pub at: RowAt,
}

/// A row that was read and found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Bytes of the row.
    pub row_len: u64,
    /// BLAKE3 of its extent, as the row was sealed.
    pub extent_hash: [u8; 32],
}

/// Delete rows. Answer: by item; `NotFound` is as good as done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Term and keeper that the sender knows.
    pub stamp: Stamp,
    /// Each with its instance: another instance of the same row stays.
    pub items: Vec<RowAt>,
}

/// List a device's records in order of extent, row and instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Which device.
    pub device: DeviceId,
    /// Last record of the page before.
    pub after: Option<(ExtentId, Row, InstanceId)>,
    /// Only records of extents that hold this; None: all.
    pub kind: Option<ExtentKind>,
    /// Records at most; the agent may give fewer.
    pub limit: u32,
}

/// A page of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPage {
    /// In order.
    pub records: Vec<InventoryRecord>,
    /// Nothing comes after.
    pub last: bool,
}

/// A record that a device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryRecord {
    /// Extent it is of.
    pub extent: ExtentId,
    /// Its number.
    pub row: Row,
    /// Which record.
    pub instance: InstanceId,
    /// What its extent holds.
    pub kind: ExtentKind,
    /// Bytes that the record takes.
    pub record_bytes: u64,
    /// A check of it failed: it is not served any more.
    pub quarantined: bool,
    /// Milliseconds since 1970 when the last whole round of scrub began that has read it and found it right; 0: none has.
    pub verified_ms: u64,
}
