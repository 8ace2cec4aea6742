//! Reading at one position.

use bytes::Bytes;
use diptych_core::keys::{Key, KeyRange};
use diptych_core::records::Position;

use crate::CatalogError;

/// The catalog as it was at one position. Local and cheap: no call leaves the process.
pub trait View: Send {
    /// The position that it shows.
    fn position(&self) -> Position;

    /// The value of a key.
    fn get(&self, key: &Key) -> Result<Option<Bytes>, CatalogError>;

    /// Up to `limit` keys of a range in order; `Page::next` is where to go on.
    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Page, CatalogError>;

    /// The greatest key of a range.
    fn last(&self, range: &KeyRange) -> Result<Option<(Key, Bytes)>, CatalogError>;
}

/// A piece of a range.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In order.
    pub entries: Vec<(Key, Bytes)>,
    /// First key of what is left; None: the range is done.
    pub next: Option<Key>,
}
