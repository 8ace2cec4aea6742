//! The index's tables and what changes them. Everything here may be replayed: doing it twice is doing it once.

use diptych_core::ids::{ExtentId, InstanceId, Row, SegmentId};
use diptych_core::records::ExtentKind;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::types::{InventoryKey, ScrubState};

pub(super) const KEY: usize = 25;
pub(super) type KeyBytes = [u8; KEY];
const LOCATION: usize = 26;
const SEGMENT: usize = 34;

pub(super) const RECORDS: TableDefinition<&KeyBytes, &[u8; LOCATION]> = TableDefinition::new("records");
pub(super) const KILLED: TableDefinition<&[u8; 8], (u64, u64)> = TableDefinition::new("killed");
pub(super) const PINS: TableDefinition<(u64, u64), u64> = TableDefinition::new("pins");
pub(super) const SEGMENTS: TableDefinition<u64, &[u8; SEGMENT]> = TableDefinition::new("segments");
pub(super) const FINDINGS: TableDefinition<&KeyBytes, &str> = TableDefinition::new("findings");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// A place in the log: segments are numbered in the order in which they were begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct LogPosition {
    pub(crate) segment: u64,
    /// Bytes from the segment's start.
    pub(crate) offset: u64,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

impl LogPosition {
    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.segment.to_le_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 16).then(|| Self { segment: word(bytes, 0), offset: word(bytes, 8) })
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) at: LogPosition,
    /// Bytes of the whole record.
    pub(crate) record_bytes: u64,
    pub(crate) kind: ExtentKind,
    pub(crate) quarantined: bool,
}

impl Location {
    fn encode(&self) -> [u8; LOCATION] {
        let mut bytes = [0; LOCATION];
        bytes[..16].copy_from_slice(&self.at.encode());
        bytes[16..24].copy_from_slice(&self.record_bytes.to_le_bytes());
        bytes[24] = match self.kind {
            ExtentKind::Data => 0,
            ExtentKind::Journal => 1,
            ExtentKind::Checkpoint => 2,
        };
        bytes[25] = u8::from(self.quarantined);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; LOCATION]) -> Self {
        Self {
            at: LogPosition { segment: word(bytes, 0), offset: word(bytes, 8) },
            record_bytes: word(bytes, 16),
            kind: match bytes[24] {
                1 => ExtentKind::Journal,
                2 => ExtentKind::Checkpoint,
                _ => ExtentKind::Data,
            },
            quarantined: bytes[25] != 0,
        }
    }
}

/// What is known of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) id: SegmentId,
    pub(crate) live_records: u64,
    /// Bytes of live records.
    pub(crate) live_bytes: u64,
    pub(crate) sealed: bool,
    /// It is being unlinked.
    pub(crate) condemned: bool,
}

impl SegmentRow {
    fn encode(&self) -> [u8; SEGMENT] {
        let mut bytes = [0; SEGMENT];
        bytes[..16].copy_from_slice(self.id.as_bytes());
        bytes[16..24].copy_from_slice(&self.live_records.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.live_bytes.to_le_bytes());
        bytes[32] = u8::from(self.sealed);
        bytes[33] = u8::from(self.condemned);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        Self {
            id: SegmentId(id),
            live_records: word(bytes, 16),
            live_bytes: word(bytes, 24),
            sealed: bytes[32] != 0,
            condemned: bytes[33] != 0,
        }
    }
}

/// Something that happened in the log and is durable there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A segment was begun.
    Begun(u64, SegmentId),
    /// A record is whole.
    Put(InventoryKey, Location),
    /// A tombstone in `segment` kills a record.
    Kill { key: InventoryKey, segment: u64 },
    /// A segment has its table of contents.
    Sealed(u64),
    /// A segment is about to be unlinked.
    Condemned(u64),
}

pub(super) fn key_bytes(key: &InventoryKey) -> KeyBytes {
    let mut bytes = [0; KEY];
    bytes[..16].copy_from_slice(key.extent.as_bytes());
    bytes[16] = key.row.0;
    bytes[17..].copy_from_slice(key.instance.as_bytes());
    bytes
}

pub(super) fn key_of(bytes: &KeyBytes) -> InventoryKey {
    let (mut extent, mut instance) = ([0; 16], [0; 8]);
    extent.copy_from_slice(&bytes[..16]);
    instance.copy_from_slice(&bytes[17..]);
    InventoryKey { extent: ExtentId(extent), row: Row(bytes[16]), instance: InstanceId(instance) }
}

/// First and last possible instance of a row.
pub(super) fn row_range(extent: ExtentId, row: Row) -> (KeyBytes, KeyBytes) {
    let bound = |byte| key_bytes(&InventoryKey { extent, row, instance: InstanceId([byte; 8]) });
    (bound(0), bound(0xff))
}

pub(super) fn encode_scrub(state: &ScrubState) -> Vec<u8> {
    let mut bytes = state.bytes.to_le_bytes().to_vec();
    if let Some(key) = &state.after {
        bytes.extend_from_slice(&key_bytes(key));
    }
    bytes
}

pub(super) fn decode_scrub(bytes: &[u8]) -> ScrubState {
    let read = if bytes.len() >= 8 { word(bytes, 0) } else { 0 };
    let after = bytes.get(8..8 + KEY).and_then(|key| key.try_into().ok()).map(key_of);
    ScrubState { after, bytes: read, last_finished_ms: None }
}

struct Open<'t> {
    records: Table<'t, &'static KeyBytes, &'static [u8; LOCATION]>,
    killed: Table<'t, &'static [u8; 8], (u64, u64)>,
    pins: Table<'t, (u64, u64), u64>,
    segments: Table<'t, u64, &'static [u8; SEGMENT]>,
    findings: Table<'t, &'static KeyBytes, &'static str>,
}

impl Open<'_> {
    fn segment(&mut self, number: u64, change: impl FnOnce(&mut SegmentRow)) -> Result<(), redb::Error> {
        let found = self.segments.get(number)?.map(|row| SegmentRow::decode(row.value()));
        if let Some(mut row) = found {
            change(&mut row);
            self.segments.insert(number, &row.encode())?;
        }
        Ok(())
    }

    fn begun(&mut self, number: u64, id: SegmentId) -> Result<(), redb::Error> {
        if self.segments.get(number)?.is_none() {
            let row = SegmentRow { id, live_records: 0, live_bytes: 0, sealed: false, condemned: false };
            self.segments.insert(number, &row.encode())?;
        }
        Ok(())
    }

    fn put(&mut self, key: &InventoryKey, location: &Location) -> Result<(), redb::Error> {
        let bytes = key_bytes(key);
        if self.killed.get(key.instance.as_bytes())?.is_some() || self.records.get(&bytes)?.is_some() {
            return Ok(());
        }
        self.records.insert(&bytes, &location.encode())?;
        self.segment(location.at.segment, |row| {
            row.live_records += 1;
            row.live_bytes += location.record_bytes;
        })
    }

    fn kill(&mut self, key: &InventoryKey, tombstone_segment: u64) -> Result<(), redb::Error> {
        let bytes = key_bytes(key);
        let Some(location) = self.records.remove(&bytes)?.map(|value| Location::decode(value.value())) else {
            return Ok(());
        };
        self.findings.remove(&bytes)?;
        self.segment(location.at.segment, |row| {
            row.live_records = row.live_records.saturating_sub(1);
            row.live_bytes = row.live_bytes.saturating_sub(location.record_bytes);
        })?;
        self.killed.insert(key.instance.as_bytes(), (tombstone_segment, location.at.segment))?;
        let pin = (tombstone_segment, location.at.segment);
        let pinned = self.pins.get(pin)?.map_or(0, |count| count.value());
        self.pins.insert(pin, pinned + 1)?;
        Ok(())
    }
}

pub(super) fn apply(transaction: &WriteTransaction, changes: &[Change]) -> Result<(), redb::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut open = Open {
        records: transaction.open_table(RECORDS)?,
        killed: transaction.open_table(KILLED)?,
        pins: transaction.open_table(PINS)?,
        segments: transaction.open_table(SEGMENTS)?,
        findings: transaction.open_table(FINDINGS)?,
    };
    for change in changes {
        match change {
            Change::Begun(number, id) => open.begun(*number, *id)?,
            Change::Put(key, location) => open.put(key, location)?,
            Change::Kill { key, segment } => open.kill(key, *segment)?,
            Change::Sealed(number) => open.segment(*number, |row| row.sealed = true)?,
            Change::Condemned(number) => open.segment(*number, |row| row.condemned = true)?,
        }
    }
    Ok(())
}

pub(super) fn quarantine(
    transaction: &WriteTransaction,
    key: &InventoryKey,
    at: LogPosition,
    reason: &str,
) -> Result<bool, redb::Error> {
    let bytes = key_bytes(key);
    let mut records = transaction.open_table(RECORDS)?;
    let found = records.get(&bytes)?.map(|value| Location::decode(value.value()));
    let Some(mut location) = found.filter(|found| found.at == at && !found.quarantined) else {
        return Ok(false);
    };
    location.quarantined = true;
    records.insert(&bytes, &location.encode())?;
    transaction.open_table(FINDINGS)?.insert(&bytes, reason)?;
    Ok(true)
}

pub(super) fn release(
    transaction: &WriteTransaction,
    key: &InventoryKey,
    at: LogPosition,
) -> Result<(), redb::Error> {
    let bytes = key_bytes(key);
    let mut records = transaction.open_table(RECORDS)?;
    let found = records.get(&bytes)?.map(|value| Location::decode(value.value()));
    if let Some(location) = found.filter(|found| found.at == at) {
        records.insert(&bytes, &Location { quarantined: false, ..location }.encode())?;
        transaction.open_table(FINDINGS)?.remove(&bytes)?;
    }
    Ok(())
}

/// A tombstone is dead with the segment of what it killed, or with its own.
pub(super) fn forget_segment(transaction: &WriteTransaction, number: u64) -> Result<(), redb::Error> {
    transaction.open_table(SEGMENTS)?.remove(number)?;
    transaction.open_table(PINS)?.retain(|(tombstone, killed), _| tombstone != number && killed != number)?;
    transaction
        .open_table(KILLED)?
        .retain(|_, (tombstone, killed)| tombstone != number && killed != number)?;
    Ok(())
}
