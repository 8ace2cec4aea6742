//! A commit: one outer condition, and guarded changes that are answered one by one.

use bytes::Bytes;
use diptych_core::ids::Epoch;
use diptych_core::keys::Key;
use diptych_core::records::Position;

/// Changes that are committed together, at one position.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// FENCING: the site's gate must be open at this epoch, or nothing is done. None: for keys that the site owns in
    /// either role, and for what mirrors the other site.
    pub epoch: Option<Epoch>,
    /// Within `Limits`. A key that one of them writes stands in no other, not as a guard either (`Footprint`), so their
    /// order means nothing.
    pub changes: Vec<Change>,
}

/// All of its writes, or none: what its guards say must hold.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// Done when they do.
    pub writes: Vec<Write>,
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The key that is looked at.
    pub key: Key,
    /// What must be true of it.
    pub expect: Expect,
}

/// What a guard asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// No value.
    Absent,
    /// Any value.
    Present,
    /// Just this value.
    Value(Bytes),
}

/// One key's new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a value.
    Put(Key, Bytes),
    /// Removes a key; nothing happens where there is none.
    Delete(Key),
}

impl Write {
    /// The key that it changes.
    pub fn key(&self) -> &Key {
        match self {
            Write::Put(key, _) | Write::Delete(key) => key,
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Durable.
    Applied,
    /// Guard number `guard` did not hold; nothing of this change was done.
    Refused {
        /// Index in `Change::guards`.
        guard: usize,
    },
}

/// A batch was answered.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Durable up to here; the position of the batch if anything of it was applied.
    pub position: Position,
    /// One for each change, in order.
    pub outcomes: Vec<Outcome>,
}

impl Change {
    /// A change without conditions.
    pub fn blind(writes: Vec<Write>) -> Self {
        Self { guards: Vec::new(), writes }
    }
}

impl Batch {
    /// One change under an epoch.
    pub fn one(epoch: Option<Epoch>, change: Change) -> Self {
        Self { epoch, changes: vec![change] }
    }
}

impl Committed {
    /// Whether every change was applied.
    pub fn all_applied(&self) -> bool {
        self.outcomes.iter().all(|outcome| *outcome == Outcome::Applied)
    }
}
