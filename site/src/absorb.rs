//! The other end of a return: the active site takes in what the returning one committed and it never saw.
//!
//! Decided by `core::merge`, key by key; applied by one commit a key, under the own epoch and with a compare on the head.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, View, Write};
use diptych_core::ids::{BucketId, Epoch};
use diptych_core::keys::{self, Key};
use diptych_core::merge::{self, ChangeKind, Entry, HeadChange, History, MergeAction, Replaced, Settled};
use diptych_core::records::{
    Bucket, Head, HeadBody, Kept, LedgerEntry, Object, Record, VersionRef, Versioning,
};
use diptych_wire::peer::UnseenTerm;

use crate::context::now_ms;
use crate::error::SiteError;
use crate::peer::want_all;
use crate::sessions;
use crate::survey::each;

/// Rounds after which a key that clients keep changing is left for the next call.
const ROUNDS: usize = 32;

/// Takes an unseen term in; how many of its records were new here.
pub async fn absorb(catalog: &dyn Catalog, epoch: Epoch, term: &UnseenTerm) -> Result<u64, SiteError> {
    let mut taken = 0;
    let mut objects: BTreeMap<(BucketId, Vec<u8>), Vec<Head>> = BTreeMap::new();
    for (key, value) in &term.versions {
        if let Some(object) = keys::bucket_and_object(key) {
            objects.entry(object).or_default().push(Head::decode(value)?);
            continue;
        }
        let new = put_if_absent(catalog, epoch, key, value).await?;
        let merged =
            !new && keys::is_token_family(key) && sessions::merge(catalog, epoch, key, value).await?;
        taken += u64::from(new || merged);
    }
    for ((bucket, object), versions) in objects {
        taken += merge_object(catalog, epoch, bucket, &object, versions).await?;
    }
    tracing::info!(site = %catalog.site(), from = %term.site, records = term.versions.len(), taken, "an unseen term was taken in");
    Ok(taken)
}

async fn put_if_absent(
    catalog: &dyn Catalog,
    epoch: Epoch,
    key: &Key,
    value: &[u8],
) -> Result<bool, SiteError> {
    let value = Bytes::copy_from_slice(value);
    let view = catalog.view().await?;
    let mut also = BTreeMap::new();
    want_all(view.as_ref(), catalog.site(), key, Some(&value), &mut also)?;
    drop(view);
    let mut writes = vec![Write::Put(key.clone(), value)];
    writes.extend(also.into_iter().map(|(key, value)| crate::peer::apply::put_or_delete(key, value)));
    let guards = vec![Guard { key: key.clone(), expect: Expect::Absent }];
    Ok(catalog.commit(Batch::one(Some(epoch), Change { guards, writes })).await?.all_applied())
}

async fn merge_object(
    catalog: &dyn Catalog,
    epoch: Epoch,
    bucket: BucketId,
    object: &[u8],
    mut versions: Vec<Head>,
) -> Result<u64, SiteError> {
    versions.sort_by_key(|head| head.at);
    versions.dedup_by_key(|head| head.at);
    // Who deleted a version by its name wants it neither as head nor as a conflict.
    let (discarded, versions): (Vec<Head>, Vec<Head>) =
        versions.into_iter().partition(|head| head.kept == Kept::Discarded);
    for _ in 0..ROUNDS {
        let view = catalog.view().await?;
        let here = Here::read(view.as_ref(), bucket, object)?;
        drop(view);
        let changes = changes(&versions);
        let settled = merge::merge(&changes, &here.history, epoch, now_ms());
        let mut writes = here.writes(bucket, object, epoch, &settled, &versions);
        here.let_go(bucket, object, epoch, &discarded, &mut writes);
        let guards = here.retag(&versions, &mut writes);
        if writes.is_empty() {
            return Ok(0);
        }
        let writes = writes.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
        let expect = here.head.map_or(Expect::Absent, |(raw, _)| Expect::Value(raw));
        let guards = [Guard { key: keys::head(bucket, object), expect }].into_iter().chain(guards).collect();
        let change = Change { guards, writes };
        if catalog.commit(Batch::one(Some(epoch), change)).await?.all_applied() {
            let settled = settled.iter().filter(|settled| settled.action != MergeAction::Nothing).count();
            return Ok((settled + discarded.len()) as u64);
        }
    }
    tracing::warn!(site = %catalog.site(), "a key of an unseen term is changed all the time; it is merged with the next call");
    Ok(0)
}

fn changes(versions: &[Head]) -> Vec<merge::Change> {
    let deletes: BTreeSet<VersionRef> = versions
        .iter()
        .filter(|head| !matches!(head.body, HeadBody::Object(_)))
        .map(|head| head.at)
        .collect();
    let change = |head: &Head| merge::Change {
        at: head.at,
        replaces: match head.replaces {
            Some(at) if deletes.contains(&at) => Replaced::Delete(at),
            other => Replaced::from(other),
        },
        kind: if deletes.contains(&head.at) { ChangeKind::Delete } else { ChangeKind::Put },
    };
    versions.iter().map(change).collect()
}

/// What this site has of an object.
struct Here {
    head: Option<(Bytes, Head)>,
    /// `v/`.
    older: Vec<(Key, Bytes, Head)>,
    history: History,
}

impl Here {
    fn read(view: &dyn View, bucket: BucketId, object: &[u8]) -> Result<Self, SiteError> {
        let raw = view.get(&keys::head(bucket, object))?;
        let head = raw.map(|raw| Head::decode(&raw).map(|head| (raw, head))).transpose()?;
        let mut history =
            History { head: head.as_ref().map(|(_, head)| Entry::from(head)), ..History::default() };
        let mut older = Vec::new();
        each(view, &keys::older_versions(bucket, object), |key, value| {
            let head = Head::decode(value)?;
            history.older.push(Entry::from(&head));
            older.push((key.clone(), value.clone(), head));
            Ok(ControlFlow::Continue(()))
        })?;
        each(view, &keys::conflicts(bucket, object), |_, value| {
            history.conflicts.insert(Head::decode(value)?.at.version);
            Ok(ControlFlow::Continue(()))
        })?;
        each(view, &keys::ledger_entries(), |_, value| {
            let entry = LedgerEntry::decode(value)?;
            if entry.bucket == bucket && entry.key == object {
                history.ledger.extend(entry.version.map(|at| at.version));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        each(view, &keys::buckets(), |_, value| {
            let record = Bucket::decode(value)?;
            history.keeps_versions |= record.id == bucket && record.versioning != Versioning::Off;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Self { head, older, history })
    }

    /// Notes deletes by name of versions that are still there; the record of one that never came here is for the collector, which frees
    /// its bytes.
    fn let_go(
        &self,
        bucket: BucketId,
        object: &[u8],
        epoch: Epoch,
        discarded: &[Head],
        writes: &mut BTreeMap<Key, Bytes>,
    ) {
        for version in discarded {
            let here = self.heads().find(|head| head.at.version == version.at.version);
            match here.map(|head| head.kept) {
                Some(Kept::Discarded) => {}
                Some(Kept::No | Kept::Null | Kept::Numbered) => {
                    note(
                        writes,
                        epoch,
                        bucket,
                        object,
                        version,
                        "a delete of this version in an unseen term was not done",
                    );
                }
                None => {
                    let key = keys::older_version(bucket, object, version.at.epoch, version.at.hlc);
                    writes.insert(key, Bytes::from(version.encode()));
                }
            }
        }
    }

    fn heads(&self) -> impl Iterator<Item = &Head> {
        self.head.iter().map(|(_, head)| head).chain(self.older.iter().map(|(_, _, head)| head))
    }

    /// Of tags that were set in both terms those that were set last stay. What must hold besides of what is written.
    fn retag(&self, versions: &[Head], writes: &mut BTreeMap<Key, Bytes>) -> Vec<Guard> {
        let mut guards = Vec::new();
        for (key, raw, head) in &self.older {
            if let Some(tagged) = retagged(head, versions) {
                guards.push(Guard { key: key.clone(), expect: Expect::Value(raw.clone()) });
                writes.insert(key.clone(), Bytes::from(tagged.encode()));
            }
        }
        guards
    }

    fn writes(
        &self,
        bucket: BucketId,
        object: &[u8],
        epoch: Epoch,
        settled: &[Settled],
        versions: &[Head],
    ) -> BTreeMap<Key, Bytes> {
        let mut head = self.head.as_ref().map(|(_, head)| head.clone());
        let tagged = head.as_ref().and_then(|head| retagged(head, versions));
        let mut moved = tagged.is_some();
        head = tagged.or(head);
        let mut writes: BTreeMap<Key, Bytes> = BTreeMap::new();
        for Settled { change, action } in settled {
            let Some(version) = versions.iter().find(|head| head.at == change.at) else { continue };
            match action {
                MergeAction::BecomesHead(HeadChange { at, over })
                | MergeAction::DeleteDone(HeadChange { at, over }) => {
                    if let Some(old) = head.replace(Head { at: *at, replaces: *over, ..version.clone() }) {
                        let old = old.replaced_by(version.kept);
                        let key = keys::older_version(bucket, object, old.at.epoch, old.at.hlc);
                        writes.insert(key, Bytes::from(old.encode()));
                    }
                    moved = true;
                }
                MergeAction::KeptConflict => {
                    let key = keys::conflict(bucket, object, version.at.version);
                    writes.insert(key, Bytes::from(version.encode()));
                }
                MergeAction::KeptOlder => {
                    let key = keys::older_version(bucket, object, version.at.epoch, version.at.hlc);
                    writes.insert(key, Bytes::from(version.encode()));
                }
                MergeAction::DeleteNotDone => note(
                    &mut writes,
                    epoch,
                    bucket,
                    object,
                    version,
                    "a delete of an unseen term was not done: its version is no longer head",
                ),
                MergeAction::MetadataNotDone => note(
                    &mut writes,
                    epoch,
                    bucket,
                    object,
                    version,
                    "a change of metadata of an unseen term was not done: its version is no longer head",
                ),
                MergeAction::Dropped | MergeAction::Nothing => {}
            }
        }
        if let Some(head) = head.filter(|_| moved) {
            writes.insert(keys::head(bucket, object), Bytes::from(head.encode()));
        }
        writes
    }
}

/// The version with the tags that were set later in an unseen term; None: there are none.
fn retagged(here: &Head, versions: &[Head]) -> Option<Head> {
    let unseen = versions.iter().find(|head| head.at.version == here.at.version)?;
    let (HeadBody::Object(own), HeadBody::Object(theirs)) = (&here.body, &unseen.body) else { return None };
    let body = HeadBody::Object(Box::new(Object { tags: theirs.tags.clone(), ..own.as_ref().clone() }));
    (unseen.tagged > here.tagged).then(|| Head { body, tagged: unseen.tagged, ..here.clone() })
}

fn note(
    writes: &mut BTreeMap<Key, Bytes>,
    epoch: Epoch,
    bucket: BucketId,
    object: &[u8],
    version: &Head,
    what: &str,
) {
    let entry = LedgerEntry {
        at_ms: now_ms(),
        bucket,
        key: object.to_vec(),
        version: Some(version.at),
        what: what.to_owned(),
        settled: false,
    };
    // The version names the entry, so that a repeated merge writes the same one.
    let (number, _) = version.at.version.0.split_at(8);
    let number = number.try_into().map_or(0, u64::from_be_bytes);
    writes.insert(keys::ledger(epoch, number), Bytes::from(entry.encode()));
}
