//! What callers pass to a device and get from it.

use std::ops::Range;

use bytes::Bytes;
use diptych_core::ids::{
    ClusterId, DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, Row, SiteName, Stamp,
};
use diptych_core::layout;
use diptych_core::records::{ExtentKind, Position};

use crate::writer::{SMALL_RECORD, record_bytes};

/// Who a device is; written when it is formatted, and never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// The cluster whose rows it holds.
    pub cluster: ClusterId,
    /// The site that numbered it.
    pub site: SiteName,
    /// Its number in that site.
    pub device: DeviceId,
    /// Grows when the device comes back empty, so that an old placement on it is not taken for a new one.
    pub generation: Generation,
}

/// Who a device has to be to be opened. The generation is told ([`Device::identity`](crate::Device::identity)), not
/// demanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedIdentity {
    /// Another cluster's device is refused.
    pub cluster: ClusterId,
    /// Another site's device is refused.
    pub site: SiteName,
    /// A device of another number is refused.
    pub device: DeviceId,
}

/// How a device is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Refuse any other device; `None` opens whatever is there.
    pub expect: Option<ExpectedIdentity>,
    /// Bytes of a segment, 256 MiB unless a test wants to see many. A record longer than this is refused.
    pub segment_bytes: u64,
    /// Bytes that this device may hold; `None`: what its file system has.
    pub capacity: Option<u64>,
    /// Bytes of memory for the index.
    pub index_cache_bytes: usize,
    /// How far the log is written ahead with zeros, so that small appends don't extend their file.
    pub zero_ahead_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            expect: None,
            segment_bytes: 256 << 20,
            capacity: None,
            index_cache_bytes: 16 << 20,
            zero_ahead_bytes: 8 << 20,
        }
    }
}

/// What opening a device found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// Segments in the log.
    pub segments: u64,
    /// Records read again because the index had not been synced past them.
    pub replayed: u64,
    /// Records whose end never reached the disk: they were not acknowledged, and their room is dead.
    pub unfinished: u64,
    /// The index was lost or foreign and was made anew from the segments.
    pub index_rebuilt: bool,
    /// The disk has no room for the index, so it is in memory until the device is opened with room again.
    pub index_in_memory: bool,
    /// The last process that had it open did not close it.
    pub unclean: bool,
}

/// A row that is about to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// What the extent holds.
    pub kind: ExtentKind,
    /// The extent.
    pub extent: ExtentId,
    /// Number of the row.
    pub row: Row,
    /// Names this record: 8 random bytes, fresh for each attempt.
    pub instance: InstanceId,
    /// k: rows that are needed to decode.
    pub needed: u8,
    /// Number of the coding, 0 for the first that the extent had.
    pub coding: u8,
    /// Bytes of a shard.
    pub shard_bytes: u32,
    /// Term in which the extent was written.
    pub epoch: Epoch,
    /// When it was written.
    pub hlc: Hlc,
    /// Of a journal: position behind which it begins; of a checkpoint: the position that it shows.
    pub first_position: Option<Position>,
}

/// What is known of a row only once it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowEnd {
    /// Bytes of the extent.
    pub extent_bytes: u64,
    /// BLAKE3 of the extent.
    pub extent_hash: [u8; 32],
    /// Of a journal: the last position in it; of a checkpoint: the position that it shows.
    pub last_position: Option<Position>,
}

/// A row that is there as a whole, and the command that it came with.
#[derive(Debug, Clone)]
pub struct WholeRow {
    /// Of the command.
    pub stamp: Stamp,
    /// What it is.
    pub row: NewRow,
    /// It.
    pub bytes: Bytes,
    /// Of its extent.
    pub end: RowEnd,
    /// Who wants to write it.
    pub purpose: Purpose,
}

impl WholeRow {
    /// Whether its record is written with one call.
    pub fn is_short(&self) -> bool {
        let room = self.bytes.len() as u64;
        record_bytes(room, layout::crc_block(room)) <= SMALL_RECORD
    }
}

/// Who wants to write, and so how full the device may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A client's bytes: refused at 90 %.
    Client,
    /// A lost row made again, or one that crosses from the peer: refused at 95 %.
    Repair,
    /// A row of a journal or checkpoint: refused at 97 %. Nothing is freed before the journal has it, so a device that is full
    /// for all others must still take it.
    Journal,
}

/// Answer to a sealed row: it is on the disk and in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Its record.
    pub instance: InstanceId,
    /// Bytes of the row.
    pub row_bytes: u64,
}

/// Group commits since the device was opened: each syncs its records together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commits {
    /// How many.
    pub batches: u64,
    /// Records in all of them.
    pub records: u64,
}

/// Answer to a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Its tombstone is on the disk.
    Now,
    /// There is no such record, so nothing was written.
    NothingThere,
}

/// A row as its record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDescription {
    /// What it was begun with.
    pub row: NewRow,
    /// What it was sealed with.
    pub end: RowEnd,
    /// Bytes of the row.
    pub row_bytes: u64,
    /// A check of it failed: it is not served any more.
    pub quarantined: bool,
}

/// Where a row's bytes lie in its device's files, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPlace {
    /// Number of the segment: no other one ever has it.
    pub segment: u64,
    /// Where in its file the row begins.
    pub offset: u64,
    /// Bytes of the row.
    pub row_bytes: u64,
}

/// Answer to a check of every byte of a row, read from the disk and not from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The record that was read.
    pub instance: InstanceId,
    /// Bytes of the row.
    pub row_bytes: u64,
    /// Bytes of the extent.
    pub extent_bytes: u64,
    /// BLAKE3 of the extent, as it was sealed.
    pub extent_hash: [u8; 32],
}

/// Order of the inventory, and place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InventoryKey {
    /// First by extent,
    pub extent: ExtentId,
    /// then by row,
    pub row: Row,
    /// then by record.
    pub instance: InstanceId,
}

/// A record that the device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InventoryEntry {
    /// Which.
    pub key: InventoryKey,
    /// What its extent holds.
    pub kind: ExtentKind,
    /// Bytes that it takes on the device: the row, its head and trailer, and room that it did not use.
    pub record_bytes: u64,
    /// A check of it failed: it is not served any more.
    pub quarantined: bool,
    /// Milliseconds since 1970 when the last whole round of scrub began, which has read it from the disk and found it right. None:
    /// it was written or moved since, or no round has ended.
    pub verified_ms: Option<u64>,
}

/// A record that failed a check. It is kept, not served, and reported until it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub key: InventoryKey,
    /// What the check said.
    pub reason: String,
}

/// How full a device is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What it may hold.
    pub capacity: u64,
    /// What its files take, dead records not yet reclaimed among them.
    pub used: u64,
    /// What may still be written.
    pub free: u64,
}

impl Room {
    /// Hundredths of the capacity in use, rounded up.
    pub fn used_percent(&self) -> u8 {
        if self.capacity == 0 {
            return 100;
        }
        (u128::from(self.used) * 100).div_ceil(u128::from(self.capacity)).min(100) as u8
    }
}

/// The wrapped ring keys that a device keeps: opaque here, numbered so that an older one never replaces a newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    /// Number; only grows.
    pub number: Generation,
    /// The wrapped keys.
    pub bytes: Vec<u8>,
}

/// Answer to a step of a scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Bytes read in this step.
    pub bytes: u64,
    /// Records read in this step.
    pub records: u64,
    /// Records that this step put in quarantine.
    pub rotten: u64,
    /// The round ended with this step; the next one begins anew.
    pub finished: bool,
}

/// How far the scrub is; kept over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubState {
    /// Where the round stands; `None` before its first record.
    pub after: Option<InventoryKey>,
    /// Bytes that the round has read.
    pub bytes: u64,
    /// Milliseconds since 1970 when the last whole round ended, by the caller's clock.
    pub last_finished_ms: Option<u64>,
}

/// A range of a row's bytes.
pub type ByteRange = Range<u64>;
