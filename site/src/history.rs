//! What this site has of one object, as `core::merge` sees it, and the writes for what that decides.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, View};
use diptych_core::ids::{BucketId, Epoch, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::merge::{self, ChangeKind, Entry, HeadChange, History, MergeAction, Replaced, Settled};
use diptych_core::records::{
    Bucket, Head, HeadBody, Kept, LedgerEntry, Noted, Record, SettledAs, Settlement, VersionRef, Versioning,
};

use crate::context::now_ms;
use crate::error::SiteError;
use crate::peer::apply::put_or_delete;
use crate::survey::each;

/// What the ledger has decided, or has to, by object.
#[derive(Default)]
pub(crate) struct Ledger(BTreeMap<(BucketId, Vec<u8>), Vec<Noting>>);

/// An entry, as it was read.
#[derive(Clone)]
struct Noting {
    key: Key,
    raw: Bytes,
    entry: LedgerEntry,
}

impl Ledger {
    pub(crate) fn read(view: &dyn View) -> Result<Self, SiteError> {
        let mut ledger = Self::default();
        each(view, &keys::ledger_entries(), |key, raw| {
            let entry = LedgerEntry::decode(raw)?;
            // The version that such a one names is still to be merged.
            if !entry.decides() {
                return Ok(ControlFlow::Continue(()));
            }
            let of_object = ledger.0.entry((entry.bucket, entry.key.clone())).or_default();
            of_object.push(Noting { key: key.clone(), raw: raw.clone(), entry });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ledger)
    }

    /// The lost versions of which nothing has been decided.
    pub(crate) fn open(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.0.values().flatten().map(|noting| &noting.entry).filter(|entry| entry.is_open_loss())
    }

    fn of(&self, bucket: BucketId, object: &[u8]) -> &[Noting] {
        self.0.get(&(bucket, object.to_vec())).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A lost version: its record under `c/`, and its open entry.
struct LostHere {
    version: Head,
    noting: Noting,
}

/// What this site has of an object.
pub(crate) struct Here {
    bucket: BucketId,
    object: Vec<u8>,
    head: Option<(Bytes, Head)>,
    /// `v/`, as they were read.
    pub(crate) older: Vec<(Bytes, Head)>,
    lost: BTreeMap<VersionId, LostHere>,
    pub(crate) history: History,
}

impl Here {
    pub(crate) fn read(
        view: &dyn View,
        bucket: BucketId,
        object: &[u8],
        ledger: &Ledger,
    ) -> Result<Self, SiteError> {
        let raw = view.get(&keys::head(bucket, object))?;
        let head = raw.map(|raw| Head::decode(&raw).map(|head| (raw, head))).transpose()?;
        let history =
            History { head: head.as_ref().map(|(_, head)| Entry::from(head)), ..History::default() };
        let mut here =
            Self { bucket, object: object.to_vec(), head, older: Vec::new(), lost: BTreeMap::new(), history };
        each(view, &keys::older_versions(bucket, object), |_, raw| {
            let version = Head::decode(raw)?;
            here.history.older.push(Entry::from(&version));
            here.older.push((raw.clone(), version));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut open = BTreeMap::new();
        for noting in ledger.of(bucket, object) {
            let Some(at) = noting.entry.version else { continue };
            if noting.entry.is_open_loss() {
                open.insert(at.version, noting);
            } else {
                here.history.ledger.insert(at.version);
            }
        }
        each(view, &keys::conflicts(bucket, object), |_, raw| {
            let version = Head::decode(raw)?;
            match open.remove(&version.at.version) {
                Some(noting) => here.note_lost(version, noting),
                None => {
                    here.history.conflicts.insert(version.at.version);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        each(view, &keys::buckets(), |_, value| {
            let record = Bucket::decode(value)?;
            here.history.keeps_versions |= record.id == bucket && record.versioning != Versioning::Off;
            Ok(ControlFlow::Continue(()))
        })?;
        let lost = here.lost.values().map(|lost| &lost.version);
        let retained = retained(here.versions().chain(lost));
        here.history.retained = retained;
        Ok(here)
    }

    /// Takes into account which versions an unseen term retains: by that nothing replaces them here either.
    pub(crate) fn hear_of(&mut self, versions: &[Head]) {
        self.history.retained.extend(retained(versions));
    }

    fn note_lost(&mut self, version: Head, noting: &Noting) {
        let Noted::Lost { instead, .. } = noting.entry.what else { return };
        let replaces = Replaced::from(instead);
        self.history.lost.push(merge::Change { at: version.at, replaces, kind: ChangeKind::Put });
        self.lost.insert(version.at.version, LostHere { version, noting: noting.clone() });
    }

    /// A version that is lost and not settled.
    pub(crate) fn lost(&self, version: VersionId) -> Option<&Head> {
        self.lost.get(&version).map(|lost| &lost.version)
    }

    /// An older version, and its bytes as they were read.
    pub(crate) fn older_version(&self, at: VersionRef) -> Option<(&Bytes, &Head)> {
        self.older.iter().find(|(_, version)| version.at == at).map(|(raw, version)| (raw, version))
    }

    /// Closes the entry of a lost version that is head already, or was: another term brought it back.
    pub(crate) fn close(&self, version: VersionId, epoch: Epoch) -> Option<Change> {
        self.version(version)?;
        let mut writing = self.writing(epoch);
        writing.settles_lost(version, SettledAs::Restored);
        writing.writes.insert(keys::conflict(self.bucket, &self.object, version), None);
        Some(writing.end())
    }

    fn writing(&self, epoch: Epoch) -> Writing<'_> {
        let expect = self.head.as_ref().map_or(Expect::Absent, |(raw, _)| Expect::Value(raw.clone()));
        let guards = vec![Guard { key: keys::head(self.bucket, &self.object), expect }];
        Writing { here: self, epoch, head: None, came_back: None, writes: BTreeMap::new(), guards }
    }

    /// What carries `settled` out, compared with what was read here. Given are the versions that came from the other site, and those
    /// that it deleted by their names.
    pub(crate) fn change<'a>(
        &'a self,
        epoch: Epoch,
        settled: &[Settled],
        (versions, discarded): (&'a [Head], &[Head]),
    ) -> Change {
        let mut writing = self.writing(epoch);
        writing.amend(versions);
        for settled in settled {
            let lost = self.lost.get(&settled.change.at.version);
            let handed_over = || versions.iter().find(|head| head.at == settled.change.at);
            if let Some(version) = lost.map(|lost| &lost.version).or_else(handed_over) {
                writing.settle(settled.action, version);
            }
        }
        writing.let_go(discarded);
        writing.end()
    }

    /// A version that is head, or was.
    pub(crate) fn version(&self, version: VersionId) -> Option<&Head> {
        self.versions().find(|found| found.at.version == version)
    }

    fn versions(&self) -> impl Iterator<Item = &Head> {
        self.head.iter().chain(&self.older).map(|(_, version)| version)
    }
}

/// Writes under way.
struct Writing<'a> {
    here: &'a Here,
    epoch: Epoch,
    /// What becomes head.
    head: Option<Head>,
    /// The same, if it is a change of an unseen term.
    came_back: Option<&'a Head>,
    writes: BTreeMap<Key, Option<Bytes>>,
    guards: Vec<Guard>,
}

impl<'a> Writing<'a> {
    fn put(&mut self, key: Key, value: Vec<u8>) {
        self.writes.insert(key, Some(Bytes::from(value)));
    }

    fn settle(&mut self, action: MergeAction, version: &'a Head) {
        let Here { bucket, object, .. } = self.here;
        let (bucket, id) = (*bucket, version.at.version);
        match action {
            MergeAction::BecomesHead(head) | MergeAction::DeleteDone(head) => {
                self.becomes_head(head, version);
                let was_lost = self.settles_lost(id, SettledAs::Restored);
                if was_lost {
                    self.writes.insert(keys::conflict(bucket, object, id), None);
                }
                self.came_back = (!was_lost).then_some(version);
            }
            MergeAction::KeptConflict => {
                if !self.settles_lost(id, SettledAs::KeptConflict) {
                    self.put(keys::conflict(bucket, object, id), version.encode());
                    self.note(Noted::Conflict, version);
                }
            }
            MergeAction::KeptOlder => {
                let key = keys::older_version(bucket, object, version.at.epoch, version.at.hlc);
                self.put(key, version.encode());
            }
            MergeAction::DeleteNotDone => self.note(Noted::DeleteNotDone, version),
            MergeAction::MetadataNotDone => self.note(Noted::MetadataNotDone, version),
            MergeAction::Dropped | MergeAction::Nothing => {}
        }
    }

    fn becomes_head(&mut self, HeadChange { at, over }: HeadChange, version: &Head) {
        let before = self.head.replace(Head { at, replaces: over, ..version.clone() });
        if let Some(old) = before.or_else(|| self.here.head.as_ref().map(|(_, head)| head.clone())) {
            let old = old.replaced_by(version.kept);
            let key = keys::older_version(self.here.bucket, &self.here.object, old.at.epoch, old.at.hlc);
            self.put(key, old.encode());
        }
    }

    /// What was said of versions in both terms: of tags those that were set last stay, of retentions the one that runs longest.
    fn amend(&mut self, versions: &[Head]) {
        let Here { bucket, object, head, older, history, .. } = self.here;
        self.head = head.as_ref().and_then(|(_, head)| amended(head, versions));
        for (raw, version) in older {
            let Some(amended) = amended(version, versions) else { continue };
            let key = keys::older_version(*bucket, object, version.at.epoch, version.at.hlc);
            self.guards.push(Guard { key: key.clone(), expect: Expect::Value(raw.clone()) });
            self.put(key, amended.encode());
            // Its bytes are on their way out: who was promised that it stays has to hear of it.
            let too_late = !version.is_kept() && amended.retained_until > version.retained_until;
            if too_late && !history.ledger.contains(&version.at.version) {
                self.note(Noted::MetadataNotDone, version);
            }
        }
    }

    /// Notes deletes by name of versions that are still there; the record of one that never came here is for the collector, which frees
    /// its bytes.
    fn let_go(&mut self, discarded: &[Head]) {
        let Here { bucket, object, .. } = self.here;
        for version in discarded {
            let here = self.here.version(version.at.version);
            match here.map(|head| head.kept) {
                Some(Kept::Discarded) => {}
                Some(Kept::No | Kept::Null | Kept::Numbered) => self.note(Noted::DiscardNotDone, version),
                None => {
                    let key = keys::older_version(*bucket, object, version.at.epoch, version.at.hlc);
                    self.put(key, version.encode());
                }
            }
        }
    }

    /// Closes the entry of a lost version; false: it is none.
    fn settles_lost(&mut self, version: VersionId, outcome: SettledAs) -> bool {
        let Some(LostHere { noting: Noting { key, raw, entry }, .. }) = self.here.lost.get(&version) else {
            return false;
        };
        // A person may settle it, too: one of both does.
        self.guards.push(Guard { key: key.clone(), expect: Expect::Value(raw.clone()) });
        let settled = Some(Settlement { at_ms: now_ms(), outcome });
        self.put(key.clone(), LedgerEntry { settled, ..entry.clone() }.encode());
        true
    }

    fn note(&mut self, what: Noted, version: &Head) {
        self.note_settled(what, version, None);
    }

    fn note_settled(&mut self, what: Noted, version: &Head, outcome: Option<SettledAs>) {
        let at_ms = now_ms();
        let entry = LedgerEntry {
            at_ms,
            bucket: self.here.bucket,
            key: self.here.object.clone(),
            version: Some(version.at),
            what,
            settled: outcome.map(|outcome| Settlement { at_ms, outcome }),
        };
        self.put(keys::ledger(self.epoch, LedgerEntry::number(version.at.version)), entry.encode());
    }

    fn end(mut self) -> Change {
        // What an unseen term replaced itself was over before anybody missed it.
        if let Some(version) = self.came_back.take() {
            self.note_settled(Noted::CameBack, version, Some(SettledAs::Restored));
        }
        if let Some(head) = self.head.take() {
            self.put(keys::head(self.here.bucket, &self.here.object), head.encode());
        }
        let writes = self.writes.into_iter().map(|(key, value)| put_or_delete(key, value)).collect();
        Change { guards: self.guards, writes }
    }
}

/// The version with what an unseen term says of it beyond what is known here; None: nothing.
fn amended(here: &Head, versions: &[Head]) -> Option<Head> {
    let unseen = versions.iter().find(|head| head.at.version == here.at.version)?;
    let mut amended = here.clone();
    if let (HeadBody::Object(own), HeadBody::Object(theirs)) = (&mut amended.body, &unseen.body)
        && unseen.tagged > here.tagged
    {
        own.tags.clone_from(&theirs.tags);
        amended.tagged = unseen.tagged;
    }
    amended.retained_until = here.retained_until.max(unseen.retained_until);
    (amended != *here).then_some(amended)
}

/// Those whose retention runs, as far as one clock can tell.
fn retained<'a>(versions: impl IntoIterator<Item = &'a Head>) -> BTreeSet<VersionId> {
    let now_ms = now_ms();
    let runs = |head: &&Head| head.retained_until.is_some_and(|until| until.runs_by_one_clock(now_ms));
    versions.into_iter().filter(runs).map(|head| head.at.version).collect()
}
