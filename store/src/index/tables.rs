//! The index's tables and what changes them. Everything here may be replayed: doing it twice is doing it once.

use std::ops::RangeInclusive;

use diptych_core::ids::{ExtentId, InstanceId, Row, SegmentId};
use diptych_core::records::ExtentKind;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::types::{InventoryKey, ScrubState};

pub(super) const KEY: usize = 25;
pub(super) type KeyBytes = [u8; KEY];
const LOCATION: usize = 26;
const SEGMENT: usize = 34;

pub(super) const RECORDS: TableDefinition<&KeyBytes, &[u8; LOCATION]> = TableDefinition::new("records");
pub(super) const HOLDERS: TableDefinition<(u64, u64), ()> = TableDefinition::new("holders");
pub(super) const KILLED: TableDefinition<(u64, u64), u64> = TableDefinition::new("killed");
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

/// A round of scrub: when it began, and where the log ended then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    /// Milliseconds since 1970, by the caller's clock.
    pub(crate) began_ms: u64,
    pub(crate) upto: LogPosition,
}

impl Round {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.began_ms.to_le_bytes().as_slice(), &self.upto.encode()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (began, upto) = bytes.split_at_checked(8)?;
        Some(Self { began_ms: word(began, 0), upto: LogPosition::decode(upto)? })
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
    /// A record is whole; one that is there already at an earlier place was copied, and lives here from now on.
    Put(InventoryKey, Location),
    /// A tombstone in `segment` kills a record.
    Kill { key: InventoryKey, segment: u64 },
    /// A tombstone of segment `from` was copied to segment `to`.
    Carried { instance: InstanceId, from: u64, to: u64 },
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

/// An instance in the tables that are ordered by it.
pub(super) fn number(instance: InstanceId) -> u64 {
    u64::from_be_bytes(instance.0)
}

/// Keys of an instance, whatever the segment.
pub(super) fn all_of(instance: InstanceId) -> RangeInclusive<(u64, u64)> {
    (number(instance), 0)..=(number(instance), u64::MAX)
}

struct Open<'t> {
    records: Table<'t, &'static KeyBytes, &'static [u8; LOCATION]>,
    holders: Table<'t, (u64, u64), ()>,
    killed: Table<'t, (u64, u64), u64>,
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

    /// A record may be in the log more than once: compaction copies it. The last copy is the one that lives, the segments of the
    /// others hold it until they go.
    fn put(&mut self, key: &InventoryKey, location: &Location) -> Result<(), redb::Error> {
        if let Some(tombstone) = self.tombstone_of(key.instance)? {
            // FENCING: a copy that was on its way when its record was deleted is held down by the same tombstone.
            return self.pin(key.instance, tombstone, location.at.segment);
        }
        let bytes = key_bytes(key);
        let held = self.records.get(&bytes)?.map(|value| Location::decode(value.value()));
        match held {
            Some(held) if held.at == location.at => return Ok(()),
            Some(held) if held.at > location.at => return self.hold(key.instance, location.at.segment),
            Some(held) => {
                self.leave(&held)?;
                self.hold(key.instance, held.at.segment)?;
                self.findings.remove(&bytes)?;
            }
            None => {}
        }
        self.records.insert(&bytes, &location.encode())?;
        self.segment(location.at.segment, |row| {
            row.live_records += 1;
            row.live_bytes += location.record_bytes;
        })
    }

    /// A record does not live there any more.
    fn leave(&mut self, location: &Location) -> Result<(), redb::Error> {
        self.segment(location.at.segment, |row| {
            row.live_records = row.live_records.saturating_sub(1);
            row.live_bytes = row.live_bytes.saturating_sub(location.record_bytes);
        })
    }

    /// A segment has an older copy of a record that lives.
    fn hold(&mut self, instance: InstanceId, segment: u64) -> Result<(), redb::Error> {
        self.holders.insert((number(instance), segment), ())?;
        Ok(())
    }

    fn tombstone_of(&self, instance: InstanceId) -> Result<Option<u64>, redb::Error> {
        let first = self.killed.range(all_of(instance))?.next().transpose()?;
        Ok(first.map(|(_, tombstone)| tombstone.value()))
    }

    /// The tombstone of a record that a segment holds must outlive that segment.
    fn pin(&mut self, instance: InstanceId, tombstone: u64, holder: u64) -> Result<(), redb::Error> {
        let killed = (number(instance), holder);
        if self.killed.get(killed)?.is_none() {
            self.killed.insert(killed, tombstone)?;
            self.count_pin((tombstone, holder), |count| count + 1)?;
        }
        Ok(())
    }

    fn count_pin(&mut self, pin: (u64, u64), change: impl FnOnce(u64) -> u64) -> Result<(), redb::Error> {
        let count = change(self.pins.get(pin)?.map_or(0, |count| count.value()));
        if count == 0 {
            self.pins.remove(pin)?;
        } else {
            self.pins.insert(pin, count)?;
        }
        Ok(())
    }

    fn kill(&mut self, key: &InventoryKey, tombstone: u64) -> Result<(), redb::Error> {
        let bytes = key_bytes(key);
        let Some(location) = self.records.remove(&bytes)?.map(|value| Location::decode(value.value())) else {
            return Ok(());
        };
        self.findings.remove(&bytes)?;
        self.leave(&location)?;
        self.pin(key.instance, tombstone, location.at.segment)?;
        // FENCING: the tombstone outlives every segment that has a copy, or an index made anew would find the record again.
        let copies = self.holders.range(all_of(key.instance))?;
        let copies = copies.map(|copy| copy.map(|(key, _)| key.value())).collect::<Result<Vec<_>, _>>()?;
        for (instance, segment) in copies {
            self.holders.remove((instance, segment))?;
            self.pin(key.instance, tombstone, segment)?;
        }
        Ok(())
    }

    /// Whatever the tombstone held down is held down by its copy.
    fn carried(&mut self, instance: InstanceId, from: u64, to: u64) -> Result<(), redb::Error> {
        let killed = self.killed.range(all_of(instance))?;
        let killed = killed
            .map(|entry| entry.map(|(key, tombstone)| (key.value(), tombstone.value())))
            .collect::<Result<Vec<_>, _>>()?;
        for (key, _) in killed.into_iter().filter(|(_, tombstone)| *tombstone == from) {
            self.killed.insert(key, to)?;
            self.count_pin((from, key.1), |count| count.saturating_sub(1))?;
            self.count_pin((to, key.1), |count| count + 1)?;
        }
        Ok(())
    }
}

pub(super) fn apply(transaction: &WriteTransaction, changes: &[Change]) -> Result<(), redb::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut open = Open {
        records: transaction.open_table(RECORDS)?,
        holders: transaction.open_table(HOLDERS)?,
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
            Change::Carried { instance, from, to } => open.carried(*instance, *from, *to)?,
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

/// A tombstone is dead with the last segment that holds what it killed, or with its own.
pub(super) fn forget_segment(transaction: &WriteTransaction, number: u64) -> Result<(), redb::Error> {
    transaction.open_table(SEGMENTS)?.remove(number)?;
    transaction.open_table(HOLDERS)?.retain(|(_, holder), ()| holder != number)?;
    transaction.open_table(PINS)?.retain(|(tombstone, holder), _| tombstone != number && holder != number)?;
    transaction
        .open_table(KILLED)?
        .retain(|(_, holder), tombstone| tombstone != number && holder != number)?;
    Ok(())
}
