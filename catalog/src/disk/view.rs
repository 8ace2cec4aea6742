//! A view: redb's read transaction.

use bytes::Bytes;
use diptych_core::keys::{Key, KeyRange};
use diptych_core::records::Position;
use redb::{AccessGuard, ReadOnlyTable, ReadTransaction};

use super::error::storage;
use super::log;
use super::tables::{DATA, LOG, Meta};
use crate::{CatalogError, FeedEntry, Page, View};

/// The file as it was at one position.
pub(crate) struct DiskView {
    position: Position,
    data: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl DiskView {
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self, CatalogError> {
        let position = Meta::read(transaction)?.position();
        Ok(Self { position, data: transaction.open_table(DATA).map_err(storage)? })
    }
}

impl View for DiskView {
    fn position(&self) -> Position {
        self.position
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>, CatalogError> {
        let value = self.data.get(key.0.as_slice()).map_err(storage)?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Page, CatalogError> {
        let mut page = Page::default();
        if range.start >= range.end {
            return Ok(page);
        }
        for entry in self.data.range(bounds(range)).map_err(storage)? {
            let entry = entry.map_err(storage)?;
            if page.entries.len() == limit {
                page.next = Some(Key(entry.0.value().to_vec()));
                break;
            }
            page.entries.push(owned(&entry));
        }
        Ok(page)
    }

    fn last(&self, range: &KeyRange) -> Result<Option<(Key, Bytes)>, CatalogError> {
        if range.start >= range.end {
            return Ok(None);
        }
        let last = self.data.range(bounds(range)).map_err(storage)?.next_back();
        last.transpose().map(|entry| entry.as_ref().map(owned)).map_err(storage)
    }
}

fn bounds(range: &KeyRange) -> std::ops::Range<&[u8]> {
    range.start.0.as_slice()..range.end.0.as_slice()
}

fn owned((key, value): &(AccessGuard<'_, &'static [u8]>, AccessGuard<'_, &'static [u8]>)) -> (Key, Bytes) {
    (Key(key.value().to_vec()), Bytes::copy_from_slice(value.value()))
}

/// A piece of the log.
pub(super) struct LogPage {
    pub(super) meta: Meta,
    pub(super) entries: Vec<FeedEntry>,
    /// Whether it reaches to `meta.revision`.
    pub(super) complete: bool,
}

/// Entries after a revision, up to about `bytes`.
pub(super) fn read_log(
    transaction: &ReadTransaction,
    after: u64,
    bytes: usize,
) -> Result<LogPage, CatalogError> {
    let meta = Meta::read(transaction)?;
    let table = transaction.open_table(LOG).map_err(storage)?;
    let mut page = LogPage { meta, entries: Vec::new(), complete: false };
    let mut size = 0;
    for entry in table.range(after + 1..).map_err(storage)? {
        if size >= bytes {
            return Ok(page);
        }
        let (revision, encoded) = entry.map_err(storage)?;
        size += encoded.value().len() + 64;
        let position = Position { incarnation: page.meta.incarnation, revision: revision.value() };
        page.entries.push(FeedEntry { position, changes: log::decode(position.revision, encoded.value())? });
    }
    page.complete = true;
    Ok(page)
}
