//! What may stand in one batch.

use std::collections::HashMap;

use diptych_core::keys::Key;

use crate::{Batch, CatalogError, Change, Expect, Write};

/// How much one commit takes, with every engine: what one site commits, a site with another engine can mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Changes in a batch.
    pub changes: usize,
    /// Guards of one change.
    pub guards: usize,
    /// Writes of one change.
    pub writes: usize,
    /// Bytes of keys, values and guards in a batch.
    pub bytes: usize,
}

impl Limits {
    /// Batches under an epoch.
    pub const ACTIVE: Self = Self { changes: 64, guards: 32, writes: 512, bytes: 1 << 20 };

    /// Batches without one. Only a mirror goes above 1 MiB: what it mirrors, its cursor and its guards.
    pub const UNFENCED: Self = Self { changes: 64, guards: 32, writes: 3_500, bytes: (1 << 20) + (64 << 10) };

    /// Those of a batch.
    pub fn of(batch: &Batch) -> Self {
        if batch.epoch.is_some() { Self::ACTIVE } else { Self::UNFENCED }
    }
}

impl Batch {
    /// Refuses what is over a limit, or has a key in two changes.
    ///
    /// # Errors
    /// `TooLarge`, `KeyTwice`.
    pub fn check(&self) -> Result<(), CatalogError> {
        let limits = Limits::of(self);
        let bytes = self.bytes();
        let over =
            |change: &Change| change.writes.len() > limits.writes || change.guards.len() > limits.guards;
        if self.changes.len() > limits.changes || bytes > limits.bytes || self.changes.iter().any(over) {
            return Err(CatalogError::TooLarge { changes: self.changes.len(), bytes });
        }
        let mut footprint = Footprint::default();
        self.changes.iter().try_for_each(|change| footprint.add(change))
    }
}

/// Keys of the changes of one batch: tells which change has to wait for the next one.
///
/// FENCING: a key that one change writes is neither written nor guarded by another. So it does not matter in which
/// order an engine looks at guards and does writes, and two changes never both rest on what only one of them may take.
#[derive(Debug, Default)]
pub struct Footprint {
    keys: HashMap<Key, Use>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// By one change.
    Written,
    /// By one or more.
    Guarded,
}

impl Footprint {
    /// Takes a change in, or leaves all as it was.
    ///
    /// # Errors
    /// `KeyTwice`: it stands in the way of a change that was taken before, or writes a key twice itself.
    pub fn add(&mut self, change: &Change) -> Result<(), CatalogError> {
        if let Some(key) = self.clash(change) {
            return Err(CatalogError::KeyTwice { key: format!("{key:?}") });
        }
        self.keys.extend(change.guards.iter().map(|guard| (guard.key.clone(), Use::Guarded)));
        self.keys.extend(change.writes.iter().map(|write| (write.key().clone(), Use::Written)));
        Ok(())
    }

    fn clash<'a>(&self, change: &'a Change) -> Option<&'a Key> {
        let mut guarded = change.guards.iter().map(|guard| &guard.key);
        let taken = guarded.find(|key| self.keys.get(key) == Some(&Use::Written));
        let written = || change.writes.iter().map(Write::key);
        taken.or_else(|| written().find(|key| self.keys.contains_key(key))).or_else(|| {
            let mut keys: Vec<&Key> = written().collect();
            keys.sort_unstable();
            keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
        })
    }
}

impl Change {
    /// Bytes of keys, values and guards.
    pub fn bytes(&self) -> usize {
        let guards = self.guards.iter().map(|guard| guard.key.0.len() + guard.expect.bytes());
        let writes = self.writes.iter().map(|write| match write {
            Write::Put(key, value) => key.0.len() + value.len(),
            Write::Delete(key) => key.0.len(),
        });
        guards.chain(writes).sum()
    }
}

impl Expect {
    fn bytes(&self) -> usize {
        match self {
            Expect::Absent | Expect::Present => 0,
            Expect::Value(value) => value.len(),
        }
    }
}

impl Batch {
    /// Bytes of keys, values and guards.
    pub fn bytes(&self) -> usize {
        self.changes.iter().map(Change::bytes).sum()
    }
}
