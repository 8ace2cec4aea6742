//! Journals and checkpoints: the role-owned keys of a catalog as sealed extents, from which `resurrect` makes it anew.
//!
//! ```text
//! feed        1 2 3 4 5 6 7 8 9 …
//! checkpoint        └ all keys as they were at 4, in parts that tile the key space
//! journals    (0,3] (3,5] (5,8]     each the newest value of every key that it changes
//! ```
//! A journal's values are absolute: applied to any state between its first and its last position it gives the state at its
//! last. So journals may overlap each other and the checkpoint, and one that is applied twice does no harm.

mod chain;
mod document;
mod sealing;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::keys::{self, Key, Owner};
use crate::records::{Extent, ExtentKind, Position, Record, RecordError};

pub use chain::{Found, Gap, Walk, is_superseded, tile, walk};
pub use document::{CheckpointPart, Document, DocumentError, Journal, Writer};
pub use sealing::{Fresh, SealedDocument, open, open_run, seal};

/// An extent that no journal knows may belong to a version that was acknowledged after the newest journal's end if it was begun
/// so long before that end, or later: an extent is entered, or committed, or given up within that time.
pub const FOUND_WITHIN: Duration = Duration::from_mins(15);

/// How long a tombstone stays at least. Longer than an extent counts as found: a writer that was held up between its look at the
/// clock and its commit is a little later, and clocks differ a little.
pub const TOMBSTONE_HOLD: Duration = Duration::from_mins(20);

/// `s/journal`: how far the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Every recorded change up to it is in a journal, or in a checkpoint that is being made.
    pub upto: Position,
    /// The newest whole checkpoint; None: none of this catalog's incarnation yet.
    pub checkpoint: Option<Checkpoint>,
}

/// A whole checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What it shows.
    pub at: Position,
    /// Keys in it.
    pub keys: u64,
    /// Bytes of its extents.
    pub bytes: u64,
}

impl Record for Progress {
    const NAME: &'static str = "Progress";
}

/// Whether journals and checkpoints hold a key with this value (None: deleted): all that is role-owned, but for the
/// journal's own progress and extents, which stand in the heads of their records, and for what outside nodes can say again.
///
/// # Errors
/// An extent's record that does not read.
pub fn is_recorded(key: &Key, value: Option<&[u8]>) -> Result<bool, RecordError> {
    if keys::owner(key) != Some(Owner::Active) || *key == keys::journal() || keys::is_outside(key) {
        return Ok(false);
    }
    match value.filter(|_| key.0.starts_with(b"x/")) {
        Some(value) => Ok(Extent::decode(value)?.holds.kind() == ExtentKind::Data),
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests;
