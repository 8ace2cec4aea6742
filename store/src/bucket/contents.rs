//! What a bucket holds, in memory: made from a list at each opening, and compared with one at the beginning of each scrub.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diptych_core::ids::{ExtentId, InstanceId, Row};
use diptych_core::records::ExtentKind;

use super::name::RowName;
use crate::types::{Finding, InventoryEntry, InventoryKey, ScrubState};

/// A row's object.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: RowName,
    /// Bytes of the object.
    pub(super) bytes: u64,
    /// Why it is in quarantine.
    pub(super) wrong: Option<Arc<str>>,
    /// Place in the order in which rows became known to this opening.
    known: u64,
}

/// A round of scrub: it answers for what was known when it began.
#[derive(Debug, Clone, Copy)]
struct Round {
    began_ms: u64,
    upto: u64,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<InventoryKey, Entry>,
    bytes: u64,
    known: u64,
    /// While a list is made: what was deleted meanwhile, which an older page may still name.
    deleted: Option<HashSet<InventoryKey>>,
    scrub: ScrubState,
    round: Option<Round>,
    /// The last whole round.
    scrubbed: Option<Round>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Contents(Mutex<State>);

impl State {
    fn put(&mut self, name: RowName, bytes: u64) {
        let entry = Entry { name, bytes, wrong: None, known: self.known };
        self.known += 1;
        self.bytes += bytes;
        if let Some(old) = self.rows.insert(name.key, entry) {
            self.bytes -= old.bytes;
        }
    }

    fn remove(&mut self, key: &InventoryKey) {
        if let Some(old) = self.rows.remove(key) {
            self.bytes -= old.bytes;
        }
        if let Some(deleted) = &mut self.deleted {
            deleted.insert(*key);
        }
    }

    fn of_row(&self, extent: ExtentId, row: Row) -> impl Iterator<Item = &Entry> {
        let bound = |byte| InventoryKey { extent, row, instance: InstanceId([byte; 8]) };
        self.rows.range(bound(0)..=bound(0xff)).map(|(_, entry)| entry)
    }

    fn inventory(&self, entry: &Entry) -> InventoryEntry {
        let read = self.scrubbed.filter(|round| entry.known < round.upto && entry.wrong.is_none());
        InventoryEntry {
            key: entry.name.key,
            kind: entry.name.kind,
            record_bytes: entry.bytes,
            quarantined: entry.wrong.is_some(),
            verified_ms: read.map(|round| round.began_ms),
        }
    }
}

impl Contents {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row that is in the bucket now.
    pub(super) fn put(&self, name: RowName, bytes: u64) {
        self.state().put(name, bytes);
    }

    /// A row that is not there any more.
    pub(super) fn remove(&self, key: &InventoryKey) {
        self.state().remove(key);
    }

    /// The newest record of a row, a sound one if there is one; or the named one.
    pub(super) fn find(&self, extent: ExtentId, row: Row, instance: Option<InstanceId>) -> Option<Entry> {
        let state = self.state();
        match instance {
            Some(instance) => state.rows.get(&InventoryKey { extent, row, instance }).cloned(),
            None => state
                .of_row(extent, row)
                .max_by_key(|entry| (entry.wrong.is_none(), entry.name.order))
                .cloned(),
        }
    }

    pub(super) fn instances(&self, extent: ExtentId, row: Row) -> Vec<InventoryEntry> {
        let state = self.state();
        let mut found: Vec<&Entry> = state.of_row(extent, row).collect();
        found.sort_by_key(|entry| std::cmp::Reverse(entry.name.order));
        found.into_iter().map(|entry| state.inventory(entry)).collect()
    }

    pub(super) fn page(
        &self,
        after: Option<InventoryKey>,
        kind: Option<ExtentKind>,
        limit: usize,
    ) -> Vec<InventoryEntry> {
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = state.rows.range((from, Bound::Unbounded)).map(|(_, entry)| entry);
        let wanted = entries.filter(|entry| kind.is_none_or(|kind| entry.name.kind == kind));
        wanted.take(limit).map(|entry| state.inventory(entry)).collect()
    }

    pub(super) fn count(&self) -> u64 {
        self.state().rows.len() as u64
    }

    /// Bytes of all objects.
    pub(super) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    pub(super) fn quarantine(&self, key: &InventoryKey, reason: &Arc<str>) {
        if let Some(entry) = self.state().rows.get_mut(key) {
            entry.wrong = Some(Arc::clone(reason));
        }
    }

    pub(super) fn release(&self, key: &InventoryKey) {
        if let Some(entry) = self.state().rows.get_mut(key) {
            entry.wrong = None;
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let state = self.state();
        let wrong = state.rows.iter().filter_map(|(key, entry)| Some((*key, entry.wrong.as_ref()?)));
        wrong.map(|(key, reason)| Finding { key, reason: reason.to_string() }).collect()
    }

    // ---- lists ----

    /// A list is about to be made.
    pub(super) fn begin_list(&self) -> Vec<InventoryKey> {
        let mut state = self.state();
        state.deleted = Some(HashSet::new());
        state.rows.keys().copied().collect()
    }

    /// The list was made: what it names is there; what it does not name and was `known` before it is not.
    pub(super) fn end_list(&self, known: &[InventoryKey], listed: Vec<(RowName, u64)>) {
        let mut state = self.state();
        let deleted = state.deleted.take().unwrap_or_default();
        let there: HashSet<InventoryKey> = listed.iter().map(|(name, _)| name.key).collect();
        for gone in known.iter().filter(|key| !there.contains(*key) && !deleted.contains(*key)) {
            tracing::error!(extent = %gone.extent, row = %gone.row, instance = %gone.instance, "a row is gone from the bucket");
            state.remove(gone);
        }
        for (name, bytes) in listed {
            let same = state.rows.get(&name.key).is_some_and(|entry| entry.bytes == bytes);
            if !same && !deleted.contains(&name.key) {
                state.put(name, bytes);
            }
        }
    }

    // ---- scrub ----

    pub(super) fn scrub(&self) -> ScrubState {
        self.state().scrub
    }

    pub(super) fn begin_round(&self, began_ms: u64) {
        let mut state = self.state();
        state.round = Some(Round { began_ms, upto: state.known });
    }

    pub(super) fn scrubbed_to(&self, scrub: ScrubState) {
        self.state().scrub = scrub;
    }

    pub(super) fn end_round(&self) {
        let mut state = self.state();
        state.scrubbed = state.round.take();
        state.scrub = ScrubState::default();
    }
}
