//! Where the records are: a redb database that holds nothing of its own. What is in it was synced in the log before, and
//! what it lacks after a crash is read from the log again, from its cursor on.
//!
//! | table | key | value |
//! |---|---|---|
//! | records | extent, row, instance | place in the log, bytes, kind, quarantined |
//! | holders | instance, segment | an older copy of a record that lives elsewhere |
//! | killed | instance, segment that holds it | tombstone's segment |
//! | pins | tombstone's segment, segment that holds what it killed | tombstones: why the first must outlive the second |
//! | segments | number | id, live records and bytes, sealed, condemned |
//! | findings | as records | what a check said |
//! | meta | name | cursor, scrub |

mod backend;
mod tables;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use diptych_core::ids::{ExtentId, InstanceId, Row};
use diptych_core::records::ExtentKind;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction};

use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::types::{Finding, InventoryEntry, InventoryKey, ScrubState};
use backend::Backend;
pub(crate) use tables::{Change, Location, LogPosition, Round, SegmentRow};
use tables::{FINDINGS, HOLDERS, KILLED, META, PINS, RECORDS, SEGMENTS};

/// Name of the file in the device's folder.
pub(crate) const FILE: &str = "index.redb";
const CURSOR: &str = "cursor";
const SCRUB: &str = "scrub";
const ROUND: &str = "scrub round";
const SCRUBBED: &str = "scrubbed";
const OWNER: &str = "owner";

/// The open index.
#[derive(Debug)]
pub(crate) struct Index {
    database: Database,
    /// `None`: it is in memory.
    file: Option<Arc<dyn DiskFile>>,
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Index { reason: error.into().to_string().into() }
}

/// What [`Index::apply`] is to do about durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// In memory only: a crash replays it from the log.
    No,
    /// Durable, and everything in the log before this position with it.
    UpTo(LogPosition),
}

impl Index {
    /// Opens the index of a device's folder, or makes an empty one.
    pub(crate) fn open(
        disk: &dyn Disk,
        folder: &Path,
        cache_bytes: usize,
        owner: &[u8],
    ) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let opened = disk.open(&path).or_else(|_| disk.create(&path));
        let file = opened.map_err(|error| StoreError::io_at("opening", &path, folder, error))?;
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(Backend::new(Arc::clone(&file)))
            .map_err(failed)?;
        let index = Self { database, file: Some(file) };
        index.claim(owner)?;
        Ok(index)
    }

    /// An index for a device without room for one.
    pub(crate) fn in_memory(cache_bytes: usize, owner: &[u8]) -> Result<Self, StoreError> {
        let backend = redb::backends::InMemoryBackend::new();
        let database =
            Database::builder().set_cache_size(cache_bytes).create_with_backend(backend).map_err(failed)?;
        let index = Self { database, file: None };
        index.claim(owner)?;
        Ok(index)
    }

    /// Makes the tables, and refuses an index that another device left here.
    fn claim(&self, owner: &[u8]) -> Result<(), StoreError> {
        let transaction = self.write(Sync::No)?;
        {
            transaction.open_table(RECORDS).map_err(failed)?;
            transaction.open_table(HOLDERS).map_err(failed)?;
            transaction.open_table(KILLED).map_err(failed)?;
            transaction.open_table(PINS).map_err(failed)?;
            transaction.open_table(SEGMENTS).map_err(failed)?;
            transaction.open_table(FINDINGS).map_err(failed)?;
            let mut meta = transaction.open_table(META).map_err(failed)?;
            let found = meta.get(OWNER).map_err(failed)?.map(|value| value.value().to_vec());
            match found {
                None => drop(meta.insert(OWNER, owner).map_err(failed)?),
                Some(found) if found == owner => {}
                Some(_) => return Err(StoreError::Index { reason: "it belongs to another device".into() }),
            }
        }
        transaction.commit().map_err(failed)
    }

    fn write(&self, sync: Sync) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        match sync {
            Sync::No => transaction.set_durability(Durability::None).map_err(failed)?,
            // Rare, so it may cost a little more for an index that opens at once after a crash.
            Sync::UpTo(_) => transaction.set_quick_repair(true),
        }
        Ok(transaction)
    }

    /// Enters what was synced in the log; all of it or nothing.
    pub(crate) fn apply(&self, changes: &[Change], sync: Sync) -> Result<(), StoreError> {
        let transaction = self.write(sync)?;
        tables::apply(&transaction, changes).map_err(failed)?;
        if let Sync::UpTo(position) = sync {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            meta.insert(CURSOR, position.encode().as_slice()).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// Everything in the log before this is in the index.
    pub(crate) fn cursor(&self) -> Result<LogPosition, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let meta = transaction.open_table(META).map_err(failed)?;
        let value = meta.get(CURSOR).map_err(failed)?;
        Ok(value.and_then(|value| LogPosition::decode(value.value())).unwrap_or_default())
    }

    /// Segments that the index knows, in order.
    pub(crate) fn segments(&self) -> Result<Vec<(u64, SegmentRow)>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(SEGMENTS).map_err(failed)?;
        let mut segments = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let (number, row) = entry.map_err(failed)?;
            segments.push((number.value(), SegmentRow::decode(row.value())));
        }
        Ok(segments)
    }

    /// What it knows of one segment.
    pub(crate) fn segment(&self, number: u64) -> Result<Option<SegmentRow>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(SEGMENTS).map_err(failed)?;
        let found = table.get(number).map_err(failed)?;
        Ok(found.map(|row| SegmentRow::decode(row.value())))
    }

    /// Sealed segments in which nothing lives and whose tombstones nobody needs.
    pub(crate) fn dead_segments(&self) -> Result<Vec<u64>, StoreError> {
        let mut dead = Vec::new();
        for (number, row) in self.segments()? {
            if !row.sealed || row.live_records > 0 {
                continue;
            }
            if row.condemned || self.pinned_tombstones(number)? == 0 {
                dead.push(number);
            }
        }
        Ok(dead)
    }

    /// The newest record of a row, or the named one.
    pub(crate) fn find(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Option<(InventoryKey, Location)>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        if let Some(instance) = instance {
            let key = InventoryKey { extent, row, instance };
            let found = table.get(&tables::key_bytes(&key)).map_err(failed)?;
            return Ok(found.map(|value| (key, Location::decode(value.value()))));
        }
        let mut newest: Option<(InventoryKey, Location)> = None;
        let (first, last) = tables::row_range(extent, row);
        for entry in table.range::<&tables::KeyBytes>(&first..=&last).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let location = Location::decode(value.value());
            let better = newest
                .as_ref()
                .is_none_or(|(_, held)| (!location.quarantined, location.at) > (!held.quarantined, held.at));
            if better {
                newest = Some((tables::key_of(key.value()), location));
            }
        }
        Ok(newest)
    }

    /// Whether an instance was killed by a tombstone that is still there.
    pub(crate) fn was_killed(&self, instance: InstanceId) -> Result<bool, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(KILLED).map_err(failed)?;
        let mut killed = table.range(tables::all_of(instance)).map_err(failed)?;
        killed.next().transpose().map(|first| first.is_some()).map_err(failed)
    }

    /// Whether the tombstone of an instance in this segment holds down a copy in another.
    pub(crate) fn needs_tombstone(&self, instance: InstanceId, segment: u64) -> Result<bool, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(KILLED).map_err(failed)?;
        for entry in table.range(tables::all_of(instance)).map_err(failed)? {
            let (key, tombstone) = entry.map_err(failed)?;
            if tombstone.value() == segment && key.value().1 != segment {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tombstones in a segment that hold down what another one holds; one that does so in several counts for each.
    pub(crate) fn pinned_tombstones(&self, segment: u64) -> Result<u64, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let pins = transaction.open_table(PINS).map_err(failed)?;
        let mut pinned = 0;
        for pin in pins.range((segment, 0)..=(segment, u64::MAX)).map_err(failed)? {
            let (key, count) = pin.map_err(failed)?;
            if key.value().1 != segment {
                pinned += count.value();
            }
        }
        Ok(pinned)
    }

    /// Records after `after`, in order, each with its place; `kind`: only those of extents that hold that.
    pub(crate) fn page(
        &self,
        after: Option<InventoryKey>,
        kind: Option<ExtentKind>,
        limit: usize,
    ) -> Result<Vec<(InventoryKey, Location)>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        let after = after.map(|key| tables::key_bytes(&key));
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Vec::with_capacity(limit.min(4096));
        for entry in table.range::<&tables::KeyBytes>((start, Bound::Unbounded)).map_err(failed)? {
            if page.len() == limit {
                break;
            }
            let (key, value) = entry.map_err(failed)?;
            let location = Location::decode(value.value());
            if kind.is_none_or(|kind| location.kind == kind) {
                page.push((tables::key_of(key.value()), location));
            }
        }
        Ok(page)
    }

    /// Records whose place fits: looks at all.
    pub(crate) fn records_where(
        &self,
        fits: impl Fn(&Location) -> bool,
    ) -> Result<Vec<(InventoryKey, Location)>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        let mut found = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let location = Location::decode(value.value());
            if fits(&location) {
                found.push((tables::key_of(key.value()), location));
            }
        }
        Ok(found)
    }

    /// Records of one row.
    pub(crate) fn instances(
        &self,
        extent: ExtentId,
        row: Row,
    ) -> Result<Vec<(InventoryKey, Location)>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        let mut found = Vec::new();
        let (first, last) = tables::row_range(extent, row);
        for entry in table.range::<&tables::KeyBytes>(&first..=&last).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            found.push((tables::key_of(key.value()), Location::decode(value.value())));
        }
        found.sort_by_key(|(_, location)| std::cmp::Reverse(location.at));
        Ok(found)
    }

    /// Bytes of its file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file.as_ref().and_then(|file| file.len().ok()).unwrap_or_default()
    }

    /// Number of records.
    pub(crate) fn len(&self) -> Result<u64, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        transaction.open_table(RECORDS).map_err(failed)?.len().map_err(failed)
    }

    /// Records in quarantine.
    pub(crate) fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(FINDINGS).map_err(failed)?;
        let mut findings = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let (key, reason) = entry.map_err(failed)?;
            findings.push(Finding { key: tables::key_of(key.value()), reason: reason.value().to_owned() });
        }
        Ok(findings)
    }

    /// What a check said of a record.
    pub(crate) fn finding(&self, key: &InventoryKey) -> Result<Arc<str>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(FINDINGS).map_err(failed)?;
        let found = table.get(&tables::key_bytes(key)).map_err(failed)?;
        Ok(found.map_or_else(|| "it was found before".into(), |reason| reason.value().into()))
    }

    /// Puts a record in quarantine, durably; false if it is there no more, or in quarantine already.
    pub(crate) fn quarantine(
        &self,
        key: &InventoryKey,
        at: LogPosition,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_quick_repair(true);
        let found = tables::quarantine(&transaction, key, at, reason).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(found)
    }

    /// Takes a record out of quarantine, durably.
    pub(crate) fn release(&self, key: &InventoryKey, at: LogPosition) -> Result<(), StoreError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_quick_repair(true);
        tables::release(&transaction, key, at).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    /// Where the scrub stands.
    pub(crate) fn scrub(&self) -> Result<ScrubState, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let meta = transaction.open_table(META).map_err(failed)?;
        let value = meta.get(SCRUB).map_err(failed)?;
        Ok(value.map(|value| tables::decode_scrub(value.value())).unwrap_or_default())
    }

    /// Notes where the scrub stands.
    pub(crate) fn set_scrub(&self, state: &ScrubState) -> Result<(), StoreError> {
        self.put_meta(&[(SCRUB, tables::encode_scrub(state))])
    }

    /// A round of scrub begins: it will have read all that is in this index now.
    pub(crate) fn begin_round(&self, round: Round) -> Result<(), StoreError> {
        self.put_meta(&[(ROUND, round.encode())])
    }

    /// The round has read everything; the next one begins anew.
    pub(crate) fn end_round(&self) -> Result<(), StoreError> {
        let begin = (SCRUB, tables::encode_scrub(&ScrubState::default()));
        match self.round(ROUND)? {
            Some(round) => self.put_meta(&[begin, (SCRUBBED, round.encode())]),
            None => self.put_meta(&[begin]),
        }
    }

    /// The last round that ended; None: none since this index was made, so nothing is known to have been read.
    pub(crate) fn scrubbed(&self) -> Result<Option<Round>, StoreError> {
        self.round(SCRUBBED)
    }

    fn round(&self, name: &str) -> Result<Option<Round>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let meta = transaction.open_table(META).map_err(failed)?;
        let value = meta.get(name).map_err(failed)?;
        Ok(value.and_then(|value| Round::decode(value.value())))
    }

    fn put_meta(&self, values: &[(&str, Vec<u8>)]) -> Result<(), StoreError> {
        let transaction = self.write(Sync::No)?;
        {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            for (name, value) in values {
                meta.insert(*name, value.as_slice()).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)
    }

    /// Forgets a segment that was unlinked, and the tombstones that only killed records in it.
    pub(crate) fn forget_segment(&self, number: u64) -> Result<(), StoreError> {
        let transaction = self.write(Sync::No)?;
        tables::forget_segment(&transaction, number).map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}

impl InventoryEntry {
    /// A record, and whether the last round of scrub has read it. One that was written or moved since the round began lies
    /// behind what the round knew of, and is not taken for read.
    pub(crate) fn new((key, location): &(InventoryKey, Location), scrubbed: Option<Round>) -> Self {
        let read = scrubbed.filter(|round| location.at < round.upto && !location.quarantined);
        Self {
            key: *key,
            kind: location.kind,
            record_bytes: location.record_bytes,
            quarantined: location.quarantined,
            verified_ms: read.map(|round| round.began_ms),
        }
    }
}
