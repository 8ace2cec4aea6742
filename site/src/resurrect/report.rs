//! What a resurrection found and made, for people and programs.

use diptych_core::ids::{Epoch, Generation, VersionId};
use diptych_core::journal::Gap;
use diptych_core::records::Position;
use serde::{Deserialize, Serialize};

use super::history::History;

/// What was found and made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Generation of the keyring that opened.
    pub keyring: Generation,
    /// The checkpoint that it begins with; None: with the catalog's first revision.
    pub checkpoint: Option<CheckpointFound>,
    /// Journals that were applied.
    pub journals: u64,
    /// The last position that is known.
    pub upto: Option<Position>,
    /// When that was written down, milliseconds since 1970.
    pub upto_ms: u64,
    /// What is missing in between, and was accepted.
    pub gaps: Vec<GapFound>,
    /// Role-owned keys.
    pub keys: u64,
    /// Versions of objects, older ones too.
    pub versions: u64,
    /// Deletes that are still remembered.
    pub tombstones: u64,
    /// Buckets.
    pub buckets: u64,
    /// Access keys.
    pub access_keys: u64,
    /// Extents.
    pub extents: u64,
    /// Rows of them that were found.
    pub rows: u64,
    /// Extents with fewer rows than are needed on these devices.
    pub lacking: u64,
    /// Extents that no journal knows and that are too old for an acknowledged write: deleted, or never acknowledged.
    pub stayed_away: u64,
    /// Versions that no journal knows.
    pub found: Vec<FoundVersion>,
    /// The highest epoch that was seen.
    pub epoch: Epoch,
    /// What did not read.
    pub troubles: Vec<String>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFound {
    /// Term in which it was written.
    pub epoch: Epoch,
    /// What it shows.
    pub at: Position,
    /// Extents that it has.
    pub parts: u64,
}

/// A stretch that nothing tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapFound {
    /// All up to it is known; None: nothing is.
    pub after: Option<Position>,
    /// What comes behind it is.
    pub next: Position,
}

/// A version that its extent's tail names and no journal knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVersion {
    /// Name of the bucket; None: no journal knows it.
    pub bucket: Option<String>,
    /// Its key.
    pub key: String,
    /// The version.
    pub version: VersionId,
    /// Bytes of plaintext, as far as they were found.
    pub size: u64,
    /// Why it was left where it is; None: it is head now.
    pub left: Option<String>,
}

impl Report {
    /// Something does not read. The same is met again with each kind of extent that is looked for.
    pub(super) fn note(&mut self, trouble: String) {
        if !self.troubles.contains(&trouble) {
            self.troubles.push(trouble);
        }
    }

    pub(super) fn note_history(&mut self, history: &History) {
        let parts = history.parts.len() as u64;
        self.checkpoint = history.checkpoint.map(|(epoch, at)| CheckpointFound { epoch, at, parts });
        self.journals = history.journals.len() as u64;
        (self.upto, self.upto_ms) = (history.upto, history.ended_ms);
        self.gaps = history.gaps.iter().map(|&Gap { after, next }| GapFound { after, next }).collect();
    }

    /// The gaps, as a person reads them.
    pub fn gaps_as_text(&self) -> String {
        let gaps = self.gaps.iter().map(|GapFound { after, next }| match after {
            Some(after) if after.incarnation == next.incarnation => {
                format!("revisions {} to {}", after.revision + 1, next.revision)
            }
            Some(after) => {
                let (known, begun) = (after.revision, next.revision);
                format!(
                    "the time between revision {known} of one catalog and revision {begun} of the next term's"
                )
            }
            None => format!("everything up to revision {}, since no checkpoint is whole", next.revision),
        });
        let troubles = self.troubles.iter().take(3).cloned();
        gaps.chain(troubles).collect::<Vec<_>>().join("; ")
    }
}
