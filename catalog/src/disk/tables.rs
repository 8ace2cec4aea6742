//! The tables of the file, inside a write transaction.

use bytes::Bytes;
use diptych_core::ids::SiteName;
use diptych_core::keys::Key;
use diptych_core::records::Position;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};

use super::error::{corrupt, storage, unavailable};
use super::log::{self, Changed};
use crate::{Batch, CatalogError, Change, Expect, Outcome, Write};

/// Keys and values.
pub(super) const DATA: TableDefinition<&[u8], &[u8]> = TableDefinition::new("data");
/// What each revision changed; a revision of which nothing is fed has no entry.
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// One value: `Meta`.
const META: TableDefinition<(), &[u8]> = TableDefinition::new("meta");

/// First byte of `Meta`: the format of all tables.
const FORMAT: u8 = 1;
/// Log entries that one transaction removes.
const COMPACTED_AT_ONCE: usize = 10_000;

/// What the file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Whose catalog it is.
    pub(crate) site: SiteName,
    /// Of the catalog; a mirror's is that of what it mirrors.
    pub(crate) incarnation: u64,
    /// Of the newest commit.
    pub(crate) revision: u64,
    /// The log holds all after this revision.
    pub(crate) floor: u64,
    /// The engine that made it, and what it is a mirror of.
    pub(crate) engine: String,
}

impl Meta {
    pub(crate) fn position(&self) -> Position {
        Position { incarnation: self.incarnation, revision: self.revision }
    }

    /// Where the oldest feed can begin.
    pub(crate) fn oldest(&self) -> Position {
        Position { incarnation: self.incarnation, revision: self.floor }
    }

    fn encode(&self) -> Vec<u8> {
        let site = self.site.as_str().as_bytes();
        let numbers = [self.incarnation, self.revision, self.floor].map(u64::to_be_bytes);
        [&[FORMAT, site.len() as u8], site, &numbers.concat(), self.engine.as_bytes()].concat()
    }

    fn decode(encoded: &[u8]) -> Result<Self, CatalogError> {
        match encoded {
            [FORMAT, rest @ ..] => Self::decode_fields(rest).ok_or_else(|| corrupt("its description is cut")),
            [found, ..] => Err(corrupt(format!("it has format {found}, this version reads {FORMAT}"))),
            [] => Err(corrupt("its description is empty")),
        }
    }

    fn decode_fields(fields: &[u8]) -> Option<Self> {
        let (&length, rest) = fields.split_first()?;
        let (site, rest) = rest.split_at_checked(usize::from(length))?;
        let (incarnation, rest) = rest.split_first_chunk()?;
        let (revision, rest) = rest.split_first_chunk()?;
        let (floor, engine) = rest.split_first_chunk()?;
        Some(Self {
            site: std::str::from_utf8(site).ok()?.parse().ok()?,
            incarnation: u64::from_be_bytes(*incarnation),
            revision: u64::from_be_bytes(*revision),
            floor: u64::from_be_bytes(*floor),
            engine: std::str::from_utf8(engine).ok()?.to_owned(),
        })
    }

    pub(super) fn read(transaction: &ReadTransaction) -> Result<Self, CatalogError> {
        let table = transaction.open_table(META).map_err(storage)?;
        let value = table.get(()).map_err(storage)?.ok_or_else(|| corrupt("its description is missing"))?;
        Self::decode(value.value())
    }
}

/// All tables of a write transaction.
pub(crate) struct Tables<'txn> {
    data: Table<'txn, &'static [u8], &'static [u8]>,
    log: Table<'txn, u64, &'static [u8]>,
    meta_table: Table<'txn, (), &'static [u8]>,
    pub(crate) meta: Meta,
    written: bool,
}

impl<'txn> Tables<'txn> {
    /// Makes the tables of a new file; tells how far an old one is.
    pub(super) fn ensure(database: &Database, new: &Meta) -> Result<Position, CatalogError> {
        let reader = database.begin_read().map_err(storage)?;
        match reader.open_table(META) {
            Ok(_) => {
                let found = Meta::read(&reader)?;
                return if (&found.site, &found.engine) == (&new.site, &new.engine) {
                    Ok(found.position())
                } else {
                    Err(unavailable(format!(
                        "its file is that of site {} and engine {}, not of {} and {}: give it its own",
                        found.site, found.engine, new.site, new.engine
                    )))
                };
            }
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(storage(error)),
        }
        let transaction = database.begin_write().map_err(storage)?;
        if transaction.list_tables().map_err(storage)?.next().is_some() {
            return Err(corrupt("it is a file of another program"));
        }
        {
            transaction.open_table(DATA).map_err(storage)?;
            transaction.open_table(LOG).map_err(storage)?;
            let mut meta = transaction.open_table(META).map_err(storage)?;
            meta.insert((), new.encode().as_slice()).map_err(storage)?;
        }
        transaction.commit().map_err(storage)?;
        Ok(new.position())
    }

    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, CatalogError> {
        let meta_table = transaction.open_table(META).map_err(storage)?;
        let value =
            meta_table.get(()).map_err(storage)?.ok_or_else(|| corrupt("its description is missing"))?;
        let meta = Meta::decode(value.value())?;
        drop(value);
        Ok(Self {
            data: transaction.open_table(DATA).map_err(storage)?,
            log: transaction.open_table(LOG).map_err(storage)?,
            meta_table,
            meta,
            written: false,
        })
    }

    /// Writes `meta` if anything was written; whether it was.
    pub(super) fn finish(mut self) -> Result<bool, CatalogError> {
        if self.written {
            self.meta_table.insert((), self.meta.encode().as_slice()).map_err(storage)?;
        }
        Ok(self.written)
    }

    /// The value of a key, with what this transaction wrote.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Bytes>, CatalogError> {
        let value = self.data.get(key.0.as_slice()).map_err(storage)?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// The changes of a batch whose guards hold, under the next revision.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<Vec<Outcome>, CatalogError> {
        let mut outcomes = Vec::with_capacity(batch.changes.len());
        let mut changed = Vec::new();
        for change in &batch.changes {
            let refused = self.first_refusing(change)?;
            outcomes.push(refused.map_or(Outcome::Applied, |guard| Outcome::Refused { guard }));
            if refused.is_none() {
                changed.extend(change.writes.iter().map(|write| match write {
                    Write::Put(key, value) => (key.clone(), Some(value.clone())),
                    Write::Delete(key) => (key.clone(), None),
                }));
            }
        }
        self.record(self.meta.revision + 1, changed)?;
        Ok(outcomes)
    }

    fn first_refusing(&self, change: &Change) -> Result<Option<usize>, CatalogError> {
        for (number, guard) in change.guards.iter().enumerate() {
            let found = self.data.get(guard.key.0.as_slice()).map_err(storage)?;
            let holds = match &guard.expect {
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::Value(value) => found.is_some_and(|found| found.value() == value.as_ref()),
            };
            if !holds {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Writes the changes of a revision, and its log entry. Without any effect there is no such revision.
    pub(crate) fn record(&mut self, revision: u64, mut changes: Vec<Changed>) -> Result<(), CatalogError> {
        let mut failed = None;
        changes.retain(|(key, value)| {
            let effect = match value {
                Some(value) => self.data.insert(key.0.as_slice(), value.as_ref()).map(|_| true),
                None => self.data.remove(key.0.as_slice()).map(|old| old.is_some()),
            };
            effect.unwrap_or_else(|error| {
                failed.get_or_insert(error);
                false
            })
        });
        if let Some(error) = failed {
            return Err(storage(error));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let entry = log::encode(&changes);
        if !entry.is_empty() {
            self.log.insert(revision, entry.as_slice()).map_err(storage)?;
        }
        self.advance(revision);
        Ok(())
    }

    /// All up to `revision` is here.
    pub(crate) fn advance(&mut self, revision: u64) {
        self.meta.revision = revision;
        self.written = true;
    }

    /// Sets a value without a log entry: for what was there before `Meta::floor`.
    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), CatalogError> {
        self.data.insert(key, value).map_err(storage)?;
        Ok(())
    }

    /// Removes everything; `meta` is what the file says from here on.
    pub(crate) fn reset(&mut self, meta: Meta) -> Result<(), CatalogError> {
        self.data.retain(|_, _| false).map_err(storage)?;
        self.log.retain(|_, _| false).map_err(storage)?;
        self.meta = meta;
        self.written = true;
        Ok(())
    }

    /// What was loaded is what stood at `revision`; the log begins there.
    pub(crate) fn reset_position(&mut self, revision: u64) {
        self.meta.revision = revision;
        self.meta.floor = revision;
        self.written = true;
    }

    /// Removes log entries up to `keep`; whether all are gone.
    pub(super) fn compact_log(&mut self, keep: Position) -> Result<bool, CatalogError> {
        let keep_revision = keep.revision.min(self.meta.revision);
        if keep.incarnation != self.meta.incarnation || keep_revision <= self.meta.floor {
            return Ok(true);
        }
        let mut removed = Vec::new();
        for entry in self.log.range(..=keep_revision).map_err(storage)?.take(COMPACTED_AT_ONCE) {
            removed.push(entry.map_err(storage)?.0.value());
        }
        for revision in &removed {
            self.log.remove(revision).map_err(storage)?;
        }
        let done = removed.len() < COMPACTED_AT_ONCE;
        self.meta.floor = if done { keep_revision } else { removed.last().copied().unwrap_or(keep_revision) };
        self.written = true;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_reads_back() {
        let meta = Meta {
            site: "east".parse().expect("a name"),
            incarnation: 7,
            revision: 9,
            floor: 3,
            engine: "redb".to_owned(),
        };
        assert_eq!(Meta::decode(&meta.encode()).expect("it decodes"), meta);
    }

    #[test]
    fn a_description_of_another_format_is_refused_by_number() {
        let error = Meta::decode(&[9, 0]).expect_err("format 9 is unknown");
        assert!(error.to_string().contains("format 9, this version reads 1"), "{error}");
    }
}
