//! At a takeover: heads whose bytes never came give way to the last whole version, and the ledger says so.

use std::collections::BTreeSet;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, View, Write, is_whole, lifted_marks};
use diptych_core::ids::{BucketId, Epoch, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::merge::{self, GaveWay};
use diptych_core::records::{Head, HeadBody, Kept, LedgerEntry, Noted, Record};
use rand::Rng;

use super::lacking::{Lacking, is_lacking};
use super::{accepted, goes_on};
use crate::collector::{Batches, WRITES};
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::history::{Here, Ledger};

/// Heads of a page of the scan.
const PAGE: usize = 1_000;

/// Looks through all heads until none of them lacks anything, and writes down that this is so; how many gave way.
///
/// FENCING: each commit stands under the epoch, so a keeper whose term is over changes nothing; and what says that all is done
/// is written when a whole look has found nothing, so one that was cut short is made again.
pub(super) async fn account(context: &SiteContext, epoch: Epoch) -> Result<u64, SiteError> {
    let mut lost = 0;
    if !goes_on(context.catalog.view().await?.as_ref(), &context.site, epoch)? {
        loop {
            let found = look(context, epoch).await?;
            if found == 0 {
                break;
            }
            lost += found;
        }
    }
    let done = Bytes::copy_from_slice(&epoch.0.to_be_bytes());
    let done = Change::blind(vec![Write::Put(keys::site_accounted(&context.site), done)]);
    context.catalog.commit(Batch::one(Some(epoch), done)).await?;
    if lost > 0 {
        tracing::warn!(site = %context.site, %epoch, lost, "heads whose bytes this site lacks gave way; the ledger names them");
    }
    Ok(lost)
}

/// One look through all heads; how many of them lacked something.
async fn look(context: &SiteContext, epoch: Epoch) -> Result<u64, SiteError> {
    let view = context.catalog.view().await?;
    let lacking = Lacking::read(view.as_ref(), &context.site)?;
    let accepted_ms = accepted(view.as_ref(), &context.site, epoch)?;
    drop(view);
    let mut found = 0;
    if lacking.is_empty() {
        return Ok(found);
    }
    let mut range = keys::prefix_range(b"h/");
    let mut batches = Batches::new(context, epoch);
    loop {
        let view = context.catalog.view().await?;
        let page = view.scan(&range, PAGE)?;
        let mut planned = Vec::new();
        for (key, raw) in page.entries {
            match plan(context, view.as_ref(), &lacking, (&key, &raw), epoch) {
                Ok(plan) => planned.extend(plan),
                Err(error) => {
                    tracing::warn!(site = %context.site, ?key, %error, "whether it is lost is not known: it stays as it is");
                }
            }
        }
        drop(view);
        for mut giving in planned {
            found += 1;
            let mut lifted = std::mem::take(&mut giving.lifted);
            // The head goes with the last of them.
            while lifted.len() > WRITES {
                let some = lifted.drain(..WRITES).collect();
                context.catalog.commit(Batch::one(Some(epoch), Change::blind(some))).await?;
            }
            lifted.extend(giving.writes(accepted_ms));
            batches.add(Change { guards: giving.guards, writes: lifted }).await?;
        }
        match page.next {
            Some(next) => range.start = next,
            None => break,
        }
    }
    batches.commit().await?;
    Ok(found)
}

/// A head that is to give way.
struct Giving {
    bucket: BucketId,
    object: Vec<u8>,
    epoch: Epoch,
    lost: Head,
    gave_way: GaveWay,
    /// The older version that is head again.
    instead: Option<Head>,
    /// Dead marks of its bytes that go.
    lifted: Vec<Write>,
    guards: Vec<Guard>,
}

fn plan(
    context: &SiteContext,
    view: &dyn View,
    lacking: &Lacking,
    (key, raw): (&Key, &Bytes),
    epoch: Epoch,
) -> Result<Option<Giving>, SiteError> {
    let Some((bucket, object)) = keys::object_of_head(key) else { return Ok(None) };
    let lost = Head::decode(raw)?;
    // What came since the list was made is not lost.
    if lacking.of(view, bucket, &lost)?.is_none() || !is_lacking(view, &context.site, bucket, &lost)? {
        return Ok(None);
    }
    let here = Here::read(view, bucket, &object, &Ledger::default())?;
    let mut usable = BTreeSet::new();
    for (_, version) in here.older.iter().filter(|(_, version)| version.kept != Kept::Discarded) {
        // A version whose pages are gone is on its way out.
        let deleted = !matches!(version.body, HeadBody::Object(_));
        if deleted || is_whole(view, &context.site, bucket, version).unwrap_or(false) {
            usable.insert(version.at);
        }
    }
    let delete = VersionId(rand::rng().random());
    let is_usable = |entry: &merge::Entry| usable.contains(&entry.at);
    let Some(gave_way) = merge::give_way(&here.history, is_usable, delete, epoch, now_ms()) else {
        return Ok(None);
    };
    let instead = gave_way.instead.and_then(|entry| here.older_version(entry.at));
    let mut guards = vec![Guard { key: key.clone(), expect: Expect::Value(raw.clone()) }];
    let mut lifted = Vec::new();
    if let Some((raw, version)) = instead {
        let key = keys::older_version(bucket, &object, version.at.epoch, version.at.hlc);
        guards.push(Guard { key, expect: Expect::Value(raw.clone()) });
        lifted = lifted_marks(view, bucket, version)?;
    }
    let instead = instead.map(|(_, version)| version.clone());
    Ok(Some(Giving { bucket, object, epoch, lost, gave_way, instead, lifted, guards }))
}

impl Giving {
    /// Without the marks.
    fn writes(&self, accepted_ms: Option<u64>) -> Vec<Write> {
        let Self { bucket, object, lost, gave_way, .. } = self;
        let put = |key: Key, value: Vec<u8>| Write::Put(key, Bytes::from(value));
        let (at, replaces) = (gave_way.head.at, gave_way.head.over);
        let head = match &self.instead {
            Some(version) => Head { at, replaces, ..version.clone() },
            None => Head::new(at, replaces, HeadBody::Tombstone),
        };
        let entry = keys::ledger(self.epoch, LedgerEntry::number(lost.at.version));
        let mut writes = vec![
            put(keys::head(*bucket, object), head.encode()),
            put(keys::conflict(*bucket, object, lost.at.version), lost.encode()),
            put(entry, self.entry(accepted_ms).encode()),
        ];
        let older = self.instead.as_ref().map(|version| version.at);
        writes.extend(older.map(|at| Write::Delete(keys::older_version(*bucket, object, at.epoch, at.hlc))));
        writes
    }

    fn entry(&self, accepted_ms: Option<u64>) -> LedgerEntry {
        let size = match &self.lost.body {
            HeadBody::Object(object) => object.size,
            HeadBody::Marker | HeadBody::Tombstone => 0,
        };
        LedgerEntry {
            at_ms: now_ms(),
            bucket: self.bucket,
            key: self.object.clone(),
            version: Some(self.lost.at),
            what: Noted::Lost { size, instead: self.gave_way.gave_way_to(), accepted_ms },
            settled: None,
        }
    }
}
