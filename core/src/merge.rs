//! The merge on failback: what becomes of changes that a returning site committed and the other never saw.
//!
//! The returning site's *unseen term* is what it committed after position P. The active site settles it, key by key, in any
//! order (docs/design.md, "Losing nothing"). All changes of one key are settled by one call and applied by one commit,
//! with a compare on the head; a call that is repeated finds them settled and does nothing.
//!
//! ```text
//!                      what it replaced or named is still head and
//!                      not retained, or nothing is there and
//!                      nothing was                                    otherwise
//!  put                 BecomesHead                                    KeptConflict
//!  metadata            BecomesHead                                    MetadataNotDone (ledger)
//!  delete              DeleteDone                                     DeleteNotDone (ledger)
//!  compaction          Dropped                                        Dropped
//! ```
//! What a promotion lost goes the other way first: a head whose bytes never came gives way to the last whole version
//! (`give_way`), and is settled by the same table once they are here (`settle`): what it replaced is then what stands in its
//! place. A change that the other site made on top of it brings it back with it.
//!
//! Laws, each with a property test: repeating it changes nothing; the order of keys and changes does not matter; each
//! acknowledged version is head, an older version, a conflict or in the ledger; no delete buries a version that it had not
//! seen, whichever of the two is newer.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::clock;
use crate::ids::{Epoch, VersionId};
use crate::records::{Head, HeadBody, VersionRef};

/// A change of one key in the unseen term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The version that it made; for a compaction, the version that was moved.
    pub at: VersionRef,
    /// What was there.
    pub replaces: Replaced,
    /// What it did.
    pub kind: ChangeKind,
}

/// What a change found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// No record of the key.
    Nothing,
    /// A tombstone or marker: readers saw nothing.
    Delete(VersionRef),
    /// A version that readers saw, or one of which the record does not tell which it was.
    Version(VersionRef),
}

impl Replaced {
    fn version(self) -> Option<VersionId> {
        match self {
            Self::Nothing => None,
            Self::Delete(at) | Self::Version(at) => Some(at.version),
        }
    }
}

impl From<Option<VersionRef>> for Replaced {
    fn from(replaces: Option<VersionRef>) -> Self {
        replaces.map_or(Self::Nothing, Self::Version)
    }
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// New bytes.
    Put,
    /// A tombstone, or a marker in a bucket with versioning.
    Delete,
    /// New headers or tags for the bytes of the version that it replaced.
    Metadata,
    /// The version lies in another extent; nothing else.
    Compaction,
}

/// A version of a key, as the merge sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The version.
    pub at: VersionRef,
    /// What was head before it.
    pub replaces: Option<VersionRef>,
    /// A tombstone or marker.
    pub deleted: bool,
}

impl From<&Head> for Entry {
    fn from(head: &Head) -> Self {
        let deleted = match head.body {
            HeadBody::Object(_) => false,
            HeadBody::Marker | HeadBody::Tombstone => true,
        };
        Self { at: head.at, replaces: head.replaces, deleted }
    }
}

/// What a site has of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// `h/`.
    pub head: Option<Entry>,
    /// `v/`, in any order.
    pub older: Vec<Entry>,
    /// `c/`.
    pub conflicts: BTreeSet<VersionId>,
    /// `y/`: changes that were noted, or settled by a person (a conflict restored or discarded).
    pub ledger: BTreeSet<VersionId>,
    /// What promotions lost and nothing has settled: kept as conflict versions, and in none of the places above. Each as the
    /// put that it was, over what is head in its place.
    pub lost: Vec<Change>,
    /// The bucket keeps replaced versions for readers.
    pub keeps_versions: bool,
    /// Versions whose retention runs: what would replace one as head does not.
    pub retained: BTreeSet<VersionId>,
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeAction {
    /// Its version is head; what was head becomes an older version.
    BecomesHead(HeadChange),
    /// Its delete is head; what it named becomes an older version.
    DeleteDone(HeadChange),
    /// Its version is kept as a conflict, for a person to restore or discard.
    KeptConflict,
    /// A delete of what is no longer head: for the ledger.
    DeleteNotDone,
    /// A change of metadata of what is no longer head: for the ledger.
    MetadataNotDone,
    /// Its version was head and is lacking among the older ones: kept as one of them.
    KeptOlder,
    /// The version stays where it lay before.
    Dropped,
    /// It is settled already.
    Nothing,
}

/// A new head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadChange {
    /// Its own name, or a later time where a newer epoch's delete must stand below it: (epoch, time) orders a key. The
    /// 16 bytes that identify the version stay, so that it is found by the name that its writer was given.
    pub at: VersionRef,
    /// The head that the commit compares with.
    pub over: Option<VersionRef>,
}

/// A head whose bytes are lost has given way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaveWay {
    /// The version that is lost.
    pub lost: VersionRef,
    /// The older version that is head again, by the name that it had; None: there is none, readers see nothing.
    pub instead: Option<Entry>,
    /// What is head now: it comes after what is lost in the order of the key.
    pub head: HeadChange,
}

impl GaveWay {
    /// What has to be head still, when the lost version comes back.
    pub fn gave_way_to(&self) -> Option<VersionRef> {
        self.instead.filter(|entry| !entry.deleted).map(|_| self.head.at)
    }
}

/// A change and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The change.
    pub change: Change,
    /// What becomes of it.
    pub action: MergeAction,
}

/// Settles the changes of one key that the other site never saw, oldest first.
///
/// `unseen` may come in any order and may name a change twice. `current` is what the active site has of the key, `epoch`
/// its term and `now_ms` its clock, in milliseconds since 1970. `History::after` says what the key looks like then.
pub fn merge(unseen: &[Change], current: &History, epoch: Epoch, now_ms: u64) -> Vec<Settled> {
    let (compactions, changes): (Vec<Change>, Vec<Change>) =
        unseen.iter().partition(|change| change.kind == ChangeKind::Compaction);
    let mut changes: BTreeMap<VersionRef, Change> =
        changes.into_iter().map(|change| (change.at, change)).collect();
    let deletes: BTreeSet<VersionId> = changes
        .values()
        .filter(|change| change.kind == ChangeKind::Delete)
        .map(|change| change.at.version)
        .collect();
    let succession = succession(&changes, current);
    let mut history = current.clone();
    let named: BTreeSet<VersionId> =
        changes.values().filter_map(|change| change.replaces.version()).collect();
    let returning = history.take_lost(|version| named.contains(&version));
    changes.extend(returning.iter().map(|lost| (lost.at, *lost)));
    let returning: BTreeSet<VersionId> = returning.iter().map(|lost| lost.at.version).collect();
    let mut settled = Vec::with_capacity(unseen.len());
    for change in changes.into_values() {
        let version = change.at.version;
        let action = if history.has(version) || history.is_lost(version) {
            MergeAction::Nothing
        } else if succession.contains(&version) && !returning.contains(&version) {
            if history.keeps_versions { MergeAction::KeptOlder } else { MergeAction::Nothing }
        } else {
            decide(&change, &deletes, &history, epoch, now_ms)
        };
        history.apply(&Settled { change, action });
        settled.push(Settled { change, action });
    }
    settled.extend(compactions.into_iter().map(|change| Settled { change, action: MergeAction::Dropped }));
    settled
}

/// What becomes of a lost version whose bytes have come: it is head again if what stands in its place still is (or nothing
/// is there and nothing was), else a conflict version. None: nothing of the key is lost under this name.
pub fn settle(lost: VersionId, current: &History, epoch: Epoch, now_ms: u64) -> Option<Settled> {
    let mut history = current.clone();
    let change = history.take_lost(|version| version == lost).pop()?;
    Some(Settled { change, action: decide(&change, &BTreeSet::new(), &history, epoch, now_ms) })
}

/// Has a head whose bytes are lost give way to the newest older version of which `is_usable` holds (it is whole, or a delete), or to a
/// delete where there is none; `delete` is its name then. None: readers see nothing there anyway.
///
/// A version that was deleted before the lost one was made is head again as that delete.
pub fn give_way(
    current: &History,
    is_usable: impl Fn(&Entry) -> bool,
    delete: VersionId,
    epoch: Epoch,
    now_ms: u64,
) -> Option<GaveWay> {
    let lost = current.head.filter(|head| !head.deleted)?.at;
    let usable = current.older.iter().filter(|entry| is_usable(entry));
    let instead = usable.max_by_key(|entry| (entry.at.epoch, entry.at.hlc)).copied();
    let version = instead.map_or(delete, |entry| entry.at.version);
    let at = VersionRef { epoch: epoch.max(lost.epoch), hlc: clock::next(now_ms, lost.hlc), version };
    Some(GaveWay { lost, instead, head: HeadChange { at, over: Some(lost) } })
}

/// What the returning site has of a key and the other does not know, where P is unknown and the catalogs are compared
/// whole. What the other has and this one lacks is not in it: absence never deletes.
pub fn unseen_by_comparison(returning: &History, current: &History) -> Vec<Change> {
    let entries = || returning.head.iter().chain(&returning.older);
    let deletes: BTreeSet<VersionId> =
        entries().filter(|entry| entry.deleted).map(|entry| entry.at.version).collect();
    let change = |entry: &Entry| Change {
        at: entry.at,
        replaces: match entry.replaces {
            Some(at) if deletes.contains(&at.version) => Replaced::Delete(at),
            other => Replaced::from(other),
        },
        kind: if entry.deleted { ChangeKind::Delete } else { ChangeKind::Put },
    };
    entries().filter(|entry| !current.knows(entry.at.version)).map(change).collect()
}

impl History {
    /// The key after these actions.
    #[must_use]
    pub fn after(&self, settled: &[Settled]) -> Self {
        let mut history = self.clone();
        for settled in settled {
            history.apply(settled);
        }
        history
    }

    /// The key after its head has given way.
    #[must_use]
    pub fn after_giving_way(&self, gave_way: &GaveWay) -> Self {
        let mut history = self.clone();
        let GaveWay { lost, instead, head } = gave_way;
        let deleted = instead.is_none_or(|entry| entry.deleted);
        history.head = Some(Entry { at: head.at, replaces: head.over, deleted });
        history.older.retain(|entry| instead.is_none_or(|instead| instead.at != entry.at));
        history.lost.push(Change {
            at: *lost,
            replaces: Replaced::from(gave_way.gave_way_to()),
            kind: ChangeKind::Put,
        });
        history
    }

    /// Takes out what is lost and meant.
    fn take_lost(&mut self, meant: impl Fn(VersionId) -> bool) -> Vec<Change> {
        self.lost.extract_if(.., |lost| meant(lost.at.version)).collect()
    }

    fn is_lost(&self, version: VersionId) -> bool {
        self.lost.iter().any(|lost| lost.at.version == version)
    }

    fn apply(&mut self, settled: &Settled) {
        let Settled { change, action } = settled;
        if *action != MergeAction::Nothing {
            drop(self.take_lost(|version| version == change.at.version));
        }
        match action {
            MergeAction::BecomesHead(head) => self.set_head(*head, false),
            MergeAction::DeleteDone(head) => self.set_head(*head, true),
            MergeAction::KeptConflict => {
                self.conflicts.insert(change.at.version);
            }
            MergeAction::DeleteNotDone | MergeAction::MetadataNotDone => {
                self.ledger.insert(change.at.version);
            }
            MergeAction::KeptOlder => self.older.push(Entry {
                at: change.at,
                replaces: match change.replaces {
                    Replaced::Nothing => None,
                    Replaced::Delete(at) | Replaced::Version(at) => Some(at),
                },
                deleted: change.kind == ChangeKind::Delete,
            }),
            MergeAction::Dropped | MergeAction::Nothing => {}
        }
    }

    fn set_head(&mut self, head: HeadChange, deleted: bool) {
        let entry = Entry { at: head.at, replaces: head.over, deleted };
        self.older.extend(self.head.replace(entry));
    }

    /// Whether the version stands in one of the four places: what is lost stands in none.
    fn has(&self, version: VersionId) -> bool {
        self.entries().any(|entry| entry.at.version == version)
            || self.conflicts.contains(&version)
            || self.ledger.contains(&version)
    }

    /// Whether the version stands here, or did: some version names it as the one that it replaced.
    fn knows(&self, version: VersionId) -> bool {
        self.has(version)
            || self.entries().any(|entry| entry.replaces.is_some_and(|at| at.version == version))
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.head.iter().chain(&self.older)
    }

    /// Readers find nothing.
    fn nothing_there(&self) -> bool {
        self.head.is_none_or(|head| head.deleted)
    }
}

/// Unseen changes that were head here once: the head, or an older version, goes back to them. A merge that is repeated
/// after what it superseded was freed knows them by that.
fn succession(changes: &BTreeMap<VersionRef, Change>, current: &History) -> BTreeSet<VersionId> {
    let mut succession: BTreeSet<VersionId> = current
        .entries()
        .flat_map(|entry| [Some(entry.at), entry.replaces])
        .flatten()
        .map(|at| at.version)
        .collect();
    for change in changes.values().rev() {
        if succession.contains(&change.at.version) {
            succession.extend(change.replaces.version());
        }
    }
    succession
}

fn decide(
    change: &Change,
    deletes: &BTreeSet<VersionId>,
    history: &History,
    epoch: Epoch,
    now_ms: u64,
) -> MergeAction {
    let is_head = |at: VersionRef| history.head.is_some_and(|head| head.at.version == at.version);
    // A newer epoch's delete never buries a version that it had not seen: where nothing was and nothing is, the version
    // is head again, and where something was, it is a conflict for a person.
    let stands = match change.replaces {
        Replaced::Nothing | Replaced::Delete(_) => history.nothing_there(),
        Replaced::Version(at) if deletes.contains(&at.version) => history.nothing_there(),
        Replaced::Version(at) => is_head(at),
    };
    let is_retained = history.head.is_some_and(|head| history.retained.contains(&head.at.version));
    let head_change = || head_change(change.at, history.head, epoch, now_ms);
    match (change.kind, stands && !is_retained) {
        (ChangeKind::Put | ChangeKind::Metadata, true) => MergeAction::BecomesHead(head_change()),
        (ChangeKind::Delete, true) => MergeAction::DeleteDone(head_change()),
        (ChangeKind::Put, false) => MergeAction::KeptConflict,
        (ChangeKind::Delete, false) => MergeAction::DeleteNotDone,
        (ChangeKind::Metadata, false) => MergeAction::MetadataNotDone,
        (ChangeKind::Compaction, _) => MergeAction::Dropped,
    }
}

/// The change's own place in the order where it comes after the head, else the next after it.
fn head_change(at: VersionRef, head: Option<Entry>, epoch: Epoch, now_ms: u64) -> HeadChange {
    let over = head.map(|head| head.at);
    let at = match over {
        Some(over) if (at.epoch, at.hlc) <= (over.epoch, over.hlc) => VersionRef {
            epoch: epoch.max(over.epoch),
            hlc: clock::next(now_ms, over.hlc),
            version: at.version,
        },
        _ => at,
    };
    HeadChange { at, over }
}
