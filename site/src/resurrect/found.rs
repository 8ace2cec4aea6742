//! Versions that no journal knows: what was acknowledged after the journal's end lies in extents whose tails name it.
//!
//! What may have been acknowledged in a stretch of the journal that is missing is kept, for a person to look at: whether it was
//! deleted since is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Catalog, View};
use diptych_core::ids::{BucketId, Epoch, ExtentId, Hlc, SiteName};
use diptych_core::journal::open_run;
use diptych_core::keyring::Keyring;
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Blob, Bucket, CodingPlan, Content, DeadMark, Etag, Extent, ExtentState, Head, HeadBody, Kept, Layout,
    Object, Piece, Placement, Record, VersionRef,
};
use diptych_core::tail::{Tail, TailEntry};
use md5::{Digest, Md5};

use super::ResurrectError;
use super::extent::FoundExtent;
use super::fragments::Fragments;
use super::history::{History, Unknown};
use super::load::Loader;
use super::report::{FoundVersion, Report};
use crate::error::SiteError;
use crate::survey::each;

/// An extent whose tail was opened.
struct Opened {
    extent: FoundExtent,
    bytes: Vec<u8>,
    tail: Tail,
    entries: Vec<TailEntry>,
}

/// What becomes of an entry.
enum Fate {
    Head,
    /// A conflict version.
    Kept(&'static str),
    /// Its bytes stay, and nothing names them.
    Stays(&'static str),
    /// Its bytes are dead.
    Dead(String),
}

/// Makes heads of what is newer than the head that is known, oldest first; the rest is listed.
pub(super) async fn take(
    source: &dyn Fragments,
    keyring: &Keyring,
    catalog: &dyn Catalog,
    history: &History,
    unknown: BTreeMap<ExtentId, FoundExtent>,
    report: &mut Report,
) -> Result<(), ResurrectError> {
    let buckets = buckets(catalog.view().await?.as_ref())?;
    let mut extents: Vec<FoundExtent> = unknown.into_values().collect();
    extents.sort_by_key(|extent| (extent.facts.birth_epoch, extent.facts.birth_hlc));
    for extent in extents {
        // One that does not read was never finished, or its rows are on other devices.
        let Some(opened) = open(source, keyring, extent).await else {
            report.stayed_away += 1;
            continue;
        };
        enter(keyring, catalog, history, &buckets, opened, report).await?;
    }
    Ok(())
}

fn buckets(view: &dyn View) -> Result<BTreeMap<BucketId, (String, Bucket)>, ResurrectError> {
    let mut buckets = BTreeMap::new();
    each(view, &keys::buckets(), |key, value| {
        let bucket = Bucket::decode(value)?;
        let name = keys::bucket_name(key).unwrap_or_default().to_owned();
        buckets.insert(bucket.id, (name, bucket));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(buckets)
}

async fn open(source: &dyn Fragments, keyring: &Keyring, extent: FoundExtent) -> Option<Opened> {
    let bytes = extent.read(source).await.ok()?;
    let tail = Tail::parse(&bytes).ok()?;
    let entries = tail.open(extent.facts.extent, keyring).ok()?;
    Some(Opened { extent, bytes, tail, entries })
}

/// Enters what is taken of one extent: heads, the versions that they replace, dead marks for the rest, the extent itself.
async fn enter(
    keyring: &Keyring,
    catalog: &dyn Catalog,
    history: &History,
    buckets: &BTreeMap<BucketId, (String, Bucket)>,
    opened: Opened,
    report: &mut Report,
) -> Result<(), ResurrectError> {
    let facts = opened.extent.facts.clone();
    let view = catalog.view().await?;
    let mut loader = Loader::new(catalog);
    let mut made: BTreeSet<Key> = BTreeSet::new();
    let mut is_named = false;
    // Of two of one key in one extent the later one was committed later.
    for entry in opened.entries.iter().rev() {
        let bucket = buckets.get(&entry.bucket);
        let key = keys::head(entry.bucket, &entry.key);
        let known = view.get(&key)?;
        let is_newest = !made.contains(&key);
        let kept = bucket.map_or(Kept::No, |(_, bucket)| bucket.versioning.of_new());
        let mut fate = fate(view.as_ref(), history, &opened, entry, bucket.map(|_| kept), is_newest)?;
        if let Fate::Head | Fate::Kept(_) = fate {
            match object(&opened, entry, keyring) {
                Ok(object) => {
                    make_version(&mut loader, &opened, entry, object, known.as_deref(), (&fate, kept))
                        .await?;
                    made.insert(key);
                }
                Err(reason) => fate = Fate::Dead(reason),
            }
        }
        is_named |= !matches!(fate, Fate::Dead(_));
        let left = match fate {
            Fate::Head => None,
            Fate::Kept(reason) | Fate::Stays(reason) => Some(reason.to_owned()),
            Fate::Dead(reason) => {
                let mark = DeadMark { sealed: u64::from(entry.sealed) };
                let mark = Some(Bytes::from(mark.encode()));
                loader.set(keys::dead_mark(facts.extent, entry.blob), mark).await?;
                Some(reason)
            }
        };
        report.found.push(FoundVersion {
            bucket: bucket.map(|(name, _)| name.clone()),
            key: String::from_utf8_lossy(&entry.key).into_owned(),
            version: entry.version,
            size: u64::from(entry.plain),
            left,
        });
    }
    let plan = view.last(&keys::plans())?.map(|(_, raw)| CodingPlan::decode(&raw)).transpose();
    drop(view);
    if !is_named {
        // It stays an orphan, dead marks and all.
        return Ok(());
    }
    let payload = opened.entries.iter().map(|entry| entry.sealed).sum();
    let record = record(&opened.extent, plan.map_err(SiteError::from)?, payload);
    loader.set(keys::extent(facts.extent), Some(Bytes::from(record.encode()))).await?;
    for (site, rows) in opened.extent.rows() {
        let placement = Placement { rows, verified_day: 0 };
        loader.set(keys::placement(&site, facts.extent), Some(Bytes::from(placement.encode()))).await?;
    }
    loader.finish().await
}

/// What becomes of an entry; `in_bucket`: what a version of its bucket is, None where that is not known; `is_newest`: no version was
/// made of another one of its key that comes behind it in its extent.
///
/// FENCING (no deleted file comes back): a tombstone stays longer than an extent counts as found, so that what was begun before the
/// delete is older than it. What a missing stretch may have deleted becomes no head.
fn fate(
    view: &dyn View,
    history: &History,
    opened: &Opened,
    entry: &TailEntry,
    in_bucket: Option<Kept>,
    is_newest: bool,
) -> Result<Fate, ResurrectError> {
    let facts = &opened.extent.facts;
    let head = view.get(&keys::head(entry.bucket, &entry.key))?;
    let head = head.as_deref().map(Head::decode).transpose().map_err(SiteError::from)?;
    let born = (facts.birth_epoch, facts.birth_hlc);
    let may_be_missing = history.unknown(facts.birth_hlc.milliseconds()) == Unknown::Missing;
    let unnamed = |reason: &'static str| {
        if may_be_missing { Fate::Stays(reason) } else { Fate::Dead(reason.to_owned()) }
    };
    let is_replaced = !is_newest || head.is_some_and(|head| (head.at.epoch, head.at.hlc) >= born);
    Ok(if view.get(&keys::dead_mark(facts.extent, entry.blob))?.is_some() {
        Fate::Dead("it was refused or replaced".to_owned())
    } else if entry.part.is_some() {
        unnamed("it is a part of an upload that was not completed")
    } else if in_bucket.is_none() {
        unnamed("its bucket is not known")
    } else if entry.first_chunk != 0 || !entry.last {
        unnamed("it is a part of a larger object whose end the journal does not know")
    } else if is_replaced && in_bucket == Some(Kept::Numbered) {
        Fate::Kept("its bucket keeps versions, and a newer one is there: it is kept as a conflict version")
    } else if is_replaced {
        Fate::Dead("it is older than what is there".to_owned())
    } else if may_be_missing {
        Fate::Kept("it was written in a stretch that is missing, and is kept as a conflict version")
    } else {
        Fate::Head
    })
}

/// The object, with what its tail does not say made from its bytes.
fn object(opened: &Opened, entry: &TailEntry, keyring: &Keyring) -> Result<Object, String> {
    let plain = open_run(&opened.bytes, &opened.tail, entry, keyring).map_err(|error| error.to_string())?;
    let lengths = opened.tail.lengths_at(entry.offset).unwrap_or_default();
    let layout = match lengths {
        [only] if only.compressed() => Layout::OneCompressed,
        all if all.iter().any(|length| length.compressed()) => Layout::InTail,
        _ => Layout::Plain,
    };
    let piece = Piece {
        extent: opened.extent.facts.extent,
        first_chunk: 0,
        offset: entry.offset,
        sealed: entry.sealed,
        plain: entry.plain,
        last: true,
        layout,
    };
    let etag = entry.etag.unwrap_or_else(|| Etag { md5: Md5::digest(&plain).into(), parts: 0 });
    Ok(Object {
        size: plain.len() as u64,
        etag,
        modified_ms: opened.extent.facts.birth_hlc.milliseconds(),
        headers: entry.headers.clone(),
        tags: Vec::new(),
        content: Content::Inline(vec![Blob {
            id: entry.blob,
            ring_key: entry.ring_key,
            pieces: vec![piece],
        }]),
    })
}

/// The head of its key, for which the one that it replaces is kept until the collector has seen to its bytes; or a conflict version.
async fn make_version(
    loader: &mut Loader<'_>,
    opened: &Opened,
    entry: &TailEntry,
    object: Object,
    known: Option<&[u8]>,
    (fate, kept): (&Fate, Kept),
) -> Result<(), ResurrectError> {
    let (epoch, hlc): (Epoch, Hlc) = (opened.extent.facts.birth_epoch, opened.extent.facts.birth_hlc);
    let replaced = known.map(Head::decode).transpose().map_err(SiteError::from)?;
    let at = VersionRef { epoch, hlc, version: entry.version };
    let replaces = replaced.as_ref().map(|head| head.at);
    let version = Head { kept, ..Head::new(at, replaces, HeadBody::Object(Box::new(object))) };
    let version = Some(Bytes::from(version.encode()));
    if let Fate::Kept(_) = fate {
        return loader.set(keys::conflict(entry.bucket, &entry.key, entry.version), version).await;
    }
    if let Some(old) = replaced {
        let old = old.replaced_by(kept);
        let key = keys::older_version(entry.bucket, &entry.key, old.at.epoch, old.at.hlc);
        loader.set(key, Some(Bytes::from(old.encode()))).await?;
    }
    loader.set(keys::head(entry.bucket, &entry.key), version).await
}

/// `x/`, as the writer would have entered it: the numbers of its rows say which site that was.
fn record(found: &FoundExtent, plan: Option<CodingPlan>, payload: u32) -> Extent {
    let facts = &found.facts;
    let plan = plan.unwrap_or(CodingPlan { needed: facts.needed, rows: Vec::new() });
    let numbering = plan.rows.iter().map(|(writer, _)| plan.rows_by_site(writer)).find(|numbering| {
        // Rows outside stand in no extent's record.
        let mut of_sites = found.fragments.iter().filter(|fragment| fragment.site != SiteName::outside());
        of_sites.all(|fragment| {
            numbering.iter().any(|(site, first, count)| {
                *site == fragment.site && (first.0..first.0 + count).contains(&fragment.placed.row.0)
            })
        })
    });
    Extent {
        state: ExtentState::Live,
        holds: facts.holds,
        length: facts.length,
        payload,
        hash: facts.hash,
        needed: facts.needed,
        rows: numbering.unwrap_or_default(),
        epoch: facts.birth_epoch,
        hlc: facts.birth_hlc,
    }
}
