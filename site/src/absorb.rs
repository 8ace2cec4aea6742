//! The other end of a return: the active site takes in what the returning one committed and it never saw.
//!
//! Decided by `core::merge`, key by key; applied by one commit a key, under the own epoch and with a compare on the head.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, Write};
use diptych_core::ids::{BucketId, Epoch};
use diptych_core::keys::{self, Key};
use diptych_core::merge::{self, ChangeKind, MergeAction, Replaced};
use diptych_core::records::{Head, HeadBody, Kept, LedgerEntry, Record, SettledAs, VersionRef};
use diptych_wire::peer::UnseenTerm;

use crate::context::now_ms;
use crate::error::SiteError;
use crate::history::{Here, Ledger};
use crate::keys::{KeyProvider, take_in};
use crate::peer::want_all;
use crate::sessions;

/// Rounds after which a key that clients keep changing is left for the next call.
const ROUNDS: usize = 32;
/// Changes of one key that one commit settles: each is some three writes, of 512 that a commit may have.
const AT_ONCE: usize = 100;

/// Takes an unseen term in; how many of its records were new here.
pub async fn absorb(
    catalog: &dyn Catalog,
    epoch: Epoch,
    provider: &KeyProvider,
    term: &UnseenTerm,
) -> Result<u64, SiteError> {
    let mut taken = 0;
    // FENCING: nothing is taken in that lies under a ring key which this keyring has not.
    for (_, unseen) in term.versions.iter().filter(|(key, _)| *key == keys::keyring()) {
        taken += u64::from(take_in(catalog, epoch, provider, unseen).await?);
    }
    let mut objects: BTreeMap<(BucketId, Vec<u8>), Vec<Head>> = BTreeMap::new();
    for (key, value) in term.versions.iter().filter(|(key, _)| *key != keys::keyring()) {
        if let Some(object) = keys::bucket_and_object(key) {
            objects.entry(object).or_default().push(Head::decode(value)?);
            continue;
        }
        let new = put_if_absent(catalog, epoch, key, value).await?;
        let merged = !new
            && (keys::is_token_family(key) && sessions::merge(catalog, epoch, key, value).await?
                || is_ledger_entry(key) && take_decision(catalog, epoch, key, value).await?);
        taken += u64::from(new || merged);
    }
    let ledger = Ledger::read(catalog.view().await?.as_ref())?;
    for ((bucket, object), versions) in objects {
        taken += merge_object(catalog, epoch, (bucket, &object), versions, &ledger).await?;
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

fn is_ledger_entry(key: &Key) -> bool {
    let entries = keys::ledger_entries();
    entries.start <= *key && *key < entries.end
}

/// A person has discarded a conflict version in the unseen term, and its entry is open here: it is discarded here, too.
async fn take_decision(
    catalog: &dyn Catalog,
    epoch: Epoch,
    key: &Key,
    value: &[u8],
) -> Result<bool, SiteError> {
    let Some(raw) = catalog.view().await?.get(key)? else { return Ok(false) };
    let (here, theirs) = (LedgerEntry::decode(&raw)?, LedgerEntry::decode(value)?);
    let discards = theirs.settled.is_some_and(|settled| settled.outcome == SettledAs::Discarded);
    let same = (&here.what, here.version) == (&theirs.what, theirs.version);
    if !discards || !same || here.settled.is_some() {
        return Ok(false);
    }
    let guards = vec![Guard { key: key.clone(), expect: Expect::Value(raw) }];
    let writes = vec![Write::Put(key.clone(), Bytes::copy_from_slice(value))];
    Ok(catalog.commit(Batch::one(Some(epoch), Change { guards, writes })).await?.all_applied())
}

async fn merge_object(
    catalog: &dyn Catalog,
    epoch: Epoch,
    (bucket, object): (BucketId, &[u8]),
    mut versions: Vec<Head>,
    ledger: &Ledger,
) -> Result<u64, SiteError> {
    versions.sort_by_key(|head| head.at);
    versions.dedup_by_key(|head| head.at);
    // Who deleted a version by its name wants it neither as head nor as a conflict.
    let (discarded, versions): (Vec<Head>, Vec<Head>) =
        versions.into_iter().partition(|head| head.kept == Kept::Discarded);
    let changes = changes(&versions);
    let (mut newer, mut taken) = (None, 0);
    let mut rounds = 0..ROUNDS;
    while rounds.next().is_some() {
        let view = catalog.view().await?;
        let mut here = Here::read(view.as_ref(), bucket, object, newer.as_ref().unwrap_or(ledger))?;
        drop(view);
        here.hear_of(&versions);
        let mut settled = merge::merge(&changes, &here.history, epoch, now_ms());
        settled.retain(|settled| settled.action != MergeAction::Nothing);
        // What one commit does not hold goes with the next, which finds the rest settled.
        let is_last = settled.len() <= AT_ONCE;
        settled.truncate(AT_ONCE);
        let discarded = if is_last { discarded.as_slice() } else { &[] };
        let change = here.change(epoch, &settled, (&versions, discarded));
        if change.writes.is_empty() {
            return Ok(taken);
        }
        if catalog.commit(Batch::one(Some(epoch), change)).await?.all_applied() {
            taken += (settled.len() + discarded.len()) as u64;
            if is_last {
                return Ok(taken);
            }
            rounds = 0..ROUNDS;
        }
        // What did not hold may be an entry of the ledger, that a person has settled.
        newer = Some(Ledger::read(catalog.view().await?.as_ref())?);
    }
    tracing::warn!(site = %catalog.site(), "a key of an unseen term is changed all the time; it is merged with the next call");
    Ok(taken)
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
