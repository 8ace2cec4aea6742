//! Writing very many keys into a catalog, as many in a commit as it takes.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Limits};
use diptych_core::keys::Key;

use super::ResurrectError;
use crate::peer::apply::put_or_delete;

/// Room for the greatest value beside what waits already.
const BYTES: usize = 512 << 10;

/// Gathers the newest value of each key.
pub(super) struct Loader<'a> {
    catalog: &'a dyn Catalog,
    waiting: BTreeMap<Key, Option<Bytes>>,
    bytes: usize,
}

impl<'a> Loader<'a> {
    pub(super) fn new(catalog: &'a dyn Catalog) -> Self {
        Self { catalog, waiting: BTreeMap::new(), bytes: 0 }
    }

    /// None: the key is deleted.
    pub(super) async fn set(&mut self, key: Key, value: Option<Bytes>) -> Result<(), ResurrectError> {
        let bytes = key.0.len() + value.as_ref().map_or(0, Bytes::len);
        let full = self.waiting.len() == Limits::UNFENCED.writes || self.bytes + bytes > BYTES;
        if full && !self.waiting.is_empty() {
            self.commit().await?;
        }
        self.bytes += bytes;
        self.waiting.insert(key, value);
        Ok(())
    }

    /// What waits for its commit under a key.
    pub(super) fn waiting(&self, key: &Key) -> Option<&Bytes> {
        self.waiting.get(key)?.as_ref()
    }

    pub(super) async fn finish(mut self) -> Result<(), ResurrectError> {
        self.commit().await
    }

    async fn commit(&mut self) -> Result<(), ResurrectError> {
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let writes = waiting.into_iter().map(|(key, value)| put_or_delete(key, value)).collect();
        self.catalog.commit(Batch::one(None, Change::blind(writes))).await?;
        Ok(())
    }
}
