//! The collector: what nothing names any more is condemned, and its rows are freed once the other site knows.
//!
//! ```text
//! replaced or deleted ──► v/ and dead marks ──confirmed, journaled──► v/, p/ gone, marks written again ──all marks──► x/ condemned
//!                                  ──confirmed, free_after──► rows deleted, l/ gone ──► x/, marks gone
//! ```
//! A version that is kept for readers stays under v/ until it is deleted by its name. A conflict version that a person discarded goes the
//! way of an older one. A placement whose extent the catalog no longer knows at all goes the way of a condemned one. Rows outside
//! that a lower `outside.rows` no longer asks for leave their placement first, and are deleted once that is confirmed.
//! FENCING: a pass remembers the position that it looked at, and acts only when the other site has confirmed that position and the
//! journal holds all up to it: what a takeover or a resurrection could still bring back is never freed.

mod freeing;
mod surplus;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Footprint, Guard, Outcome, View, Write, blobs_of, dead_marks};
use diptych_core::ids::{Epoch, ExtentId, SiteName};
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Content, DeadMark, Extent, ExtentState, Head, HeadBody, LedgerEntry, Position, Record, SettledAs,
};

use crate::context::{LoopOptions, SiteContext, now_ms};
use crate::error::SiteError;
use crate::journal::is_journaled;
use crate::lost;
use crate::peer::cursor_of;
use crate::sessions;
use crate::survey::each;
use freeing::Freeing;
use surplus::Surplus;

/// Changes of one commit.
const BATCH: usize = 60;
/// Bytes of the changes of one commit, about.
const BATCH_BYTES: usize = 512 << 10;
/// Writes of one change.
pub(crate) const WRITES: usize = 256;

/// Keys that go, each with the value that it must still have.
type Doomed = Vec<(Key, Bytes)>;

/// What a pass saw and waits to act on.
#[derive(Debug, Default)]
struct Seen {
    position: Position,
    forgotten: Doomed,
    dead: Doomed,
}

/// The collector of one site.
#[derive(Debug, Default)]
pub struct Collector {
    waiting: Option<Seen>,
    here: Freeing,
    outside: Freeing,
    surplus: Surplus,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Older versions and tombstones that are gone.
    pub versions: u64,
    /// Extents that were condemned.
    pub condemned: u64,
    /// Extents whose rows in this site were freed; those outside, on the active site, counted by themselves.
    pub freed: u64,
    /// Rows outside that were freed because fewer are declared.
    pub surplus: u64,
    /// Sessions that had run out.
    pub sessions: u64,
}

impl Collector {
    /// One pass; to be called every few seconds.
    pub async fn pass(&mut self, context: &SiteContext) -> Result<Collected, SiteError> {
        let mut done = Collected::default();
        let view = context.catalog.view().await?;
        let confirmed = confirmed_by_peer(context, view.as_ref())?;
        if let Some(epoch) = collecting(context, view.as_ref())? {
            let is_known =
                |seen: &Seen| covers(confirmed, seen.position) && is_journaled(context, seen.position);
            if self.waiting.as_ref().is_some_and(is_known) {
                let seen = self.waiting.take().unwrap_or_default();
                done.versions = forget(context, epoch, &seen.forgotten).await?;
                done.condemned = condemn(context, epoch, &seen.dead).await?;
            }
            if self.waiting.is_none() {
                self.waiting = Some(look(view.as_ref(), &context.options)?);
            }
            drop_records(context, epoch, view.as_ref()).await?;
            done.sessions = sessions::collect(context, epoch, view.as_ref(), now_ms()).await?;
        } else {
            self.waiting = None;
        }
        done.freed = self.here.pass(context, &context.here(), view.as_ref(), confirmed).await?;
        if let Some(outside) = context.outside_nodes() {
            done.freed += self.outside.pass(context, &outside, view.as_ref(), confirmed).await?;
            done.surplus = self.surplus.pass(context, &outside, view.as_ref(), confirmed).await?;
        } else {
            self.outside = Freeing::default();
            self.surplus = Surplus::default();
        }
        Ok(done)
    }
}

/// The epoch under which what nothing names is collected; None: this site is not active, or what it lost by taking over is not in
/// the ledger yet.
pub(crate) fn collecting(context: &SiteContext, view: &dyn View) -> Result<Option<Epoch>, SiteError> {
    let Some(epoch) = context.active_epoch() else { return Ok(None) };
    let collects = context.peer.is_none() || lost::is_accounted(view, &context.site, epoch)?;
    Ok(Some(epoch).filter(|_| collects))
}

/// Whether the other site knows all up to `position`; without one everything is known.
pub(crate) fn covers(confirmed: Option<Position>, position: Position) -> bool {
    confirmed.is_none_or(|confirmed| {
        confirmed.incarnation == position.incarnation && confirmed.revision >= position.revision
    })
}

/// The position of this site's feed that the other one has confirmed; None without another site.
pub fn confirmed_by_peer(context: &SiteContext, view: &dyn View) -> Result<Option<Position>, SiteError> {
    let Some(peer) = &context.peer else { return Ok(None) };
    Ok(Some(cursor_of(view, peer)?.confirmed))
}

/// Whether what was no longer named at `position`, so long ago, may be deleted: the other site knows it, and who began to read
/// before is done.
fn may_go(context: &SiteContext, confirmed: Option<Position>, since: Instant, position: Position) -> bool {
    let is_known =
        covers(confirmed, position) && (context.active_epoch().is_none() || is_journaled(context, position));
    since.elapsed() >= context.options.free_after && is_known
}

fn look(view: &dyn View, options: &LoopOptions) -> Result<Seen, SiteError> {
    let mut seen = Seen { position: view.position(), ..Seen::default() };
    each(view, &keys::prefix_range(b"v/"), |key, value| {
        if !Head::decode(value)?.is_kept() {
            seen.forgotten.push((key.clone(), value.clone()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    each(view, &keys::prefix_range(b"h/"), |key, value| {
        let head = Head::decode(value)?;
        let age = Duration::from_millis(now_ms().saturating_sub(head.at.hlc.milliseconds()));
        // FENCING: within that time a resurrection may find an older version of the key that no journal knows.
        if head.body == HeadBody::Tombstone && age >= options.tombstone_hold {
            seen.forgotten.push((key.clone(), value.clone()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for key in discarded_conflicts(view)? {
        seen.forgotten.extend(view.get(&key)?.map(|raw| (key, raw)));
    }
    seen.dead = dead_extents(view)?;
    Ok(seen)
}

/// Conflict versions that a person gave up.
fn discarded_conflicts(view: &dyn View) -> Result<BTreeSet<Key>, SiteError> {
    let mut discarded = BTreeSet::new();
    each(view, &keys::ledger_entries(), |_, value| {
        let entry = LedgerEntry::decode(value)?;
        let given_up = entry.settled.is_some_and(|settled| settled.outcome == SettledAs::Discarded);
        let version = entry.version.filter(|_| given_up);
        discarded.extend(version.map(|at| keys::conflict(entry.bucket, &entry.key, at.version)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(discarded)
}

/// Extents of which all is dead.
fn dead_extents(view: &dyn View) -> Result<Doomed, SiteError> {
    let mut dead = Vec::new();
    for (extent, sealed) in dead_bytes(view)? {
        let key = keys::extent(extent);
        let Some(raw) = view.get(&key)? else { continue };
        let record = Extent::decode(&raw)?;
        if record.state == ExtentState::Live && sealed >= u64::from(record.payload) {
            dead.push((key, raw));
        }
    }
    Ok(dead)
}

/// What would be marks on bytes of conflict versions that may still be restored.
fn marks_of_conflicts(view: &dyn View) -> Result<BTreeSet<Key>, SiteError> {
    let (discarded, mut marks) = (discarded_conflicts(view)?, BTreeSet::new());
    each(view, &keys::prefix_range(b"c/"), |key, value| {
        let head = Head::decode(value)?;
        let of_bucket = keys::object_of_conflict(key).filter(|_| !discarded.contains(key));
        if let (Some((bucket, ..)), HeadBody::Object(object)) = (of_bucket, &head.body) {
            let blobs = blobs_of(view, bucket, head.at.version, &object.content)?;
            marks.extend(dead_marks(&blobs).iter().map(|mark| mark.key().clone()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(marks)
}

/// Bytes of each extent that nothing names any more, by their marks. What a conflict version names is not dead, marked or not.
pub(crate) fn dead_bytes(view: &dyn View) -> Result<BTreeMap<ExtentId, u64>, SiteError> {
    let kept = marks_of_conflicts(view)?;
    let mut dead: BTreeMap<ExtentId, u64> = BTreeMap::new();
    each(view, &keys::prefix_range(b"g/"), |key, value| {
        if kept.contains(key) {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(extent) = key.0.get(2..18).and_then(|bytes| bytes.try_into().ok()).map(ExtentId) {
            *dead.entry(extent).or_default() += DeadMark::decode(value)?.sealed;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(dead)
}

/// Takes older versions, discarded conflicts and tombstones away, each with its pages, and leaves dead marks for its bytes: those that were
/// written when it was replaced may have been lost in a crash, or by the merge of a term.
///
/// FENCING: only what the other site has confirmed comes here, and a mark is left only for bytes that no other version of
/// the key names: a mark on bytes that are still named would let them be freed.
async fn forget(context: &SiteContext, epoch: Epoch, doomed: &Doomed) -> Result<u64, SiteError> {
    let going: BTreeSet<&Key> = doomed.iter().map(|(key, _)| key).collect();
    let mut batches = Batches::new(context, epoch);
    for (key, raw) in doomed {
        let view = context.catalog.view().await?;
        let mut writes = match remains(view.as_ref(), key, raw, &going) {
            Ok(writes) => writes,
            Err(error) => {
                tracing::warn!(site = %context.site, ?key, %error, "an older version stays: what it names is not known");
                continue;
            }
        };
        drop(view);
        // The version goes with the last of its marks: until then it names what they stand for.
        while writes.len() > WRITES {
            let some = writes.drain(..WRITES).collect();
            context.catalog.commit(Batch::one(Some(epoch), Change::blind(some))).await?;
        }
        writes.push(Write::Delete(key.clone()));
        let guard = Guard { key: key.clone(), expect: Expect::Value(raw.clone()) };
        batches.add(Change { guards: vec![guard], writes }).await?;
    }
    batches.commit().await
}

/// Dead marks for the bytes of a version that goes, and its pages.
fn remains(view: &dyn View, key: &Key, raw: &Bytes, going: &BTreeSet<&Key>) -> Result<Vec<Write>, SiteError> {
    let head = Head::decode(raw)?;
    let of_conflict = || keys::object_of_conflict(key).map(|(bucket, name, _)| (bucket, name));
    let of_key = keys::bucket_and_object(key).or_else(of_conflict);
    let (HeadBody::Object(object), Some((bucket, name))) = (head.body, of_key) else {
        return Ok(Vec::new());
    };
    // Without its pages: a pass was broken off after its marks were written, and goes on with the rest.
    let blobs = blobs_of(view, bucket, head.at.version, &object.content).unwrap_or_default();
    let mut kept: BTreeSet<Key> = BTreeSet::new();
    let mut keep = |other: &Key, value: &Bytes| -> Result<ControlFlow<()>, SiteError> {
        let head = Head::decode(value)?;
        if let HeadBody::Object(object) = &head.body
            && other != key
            && !going.contains(other)
        {
            let blobs = blobs_of(view, bucket, head.at.version, &object.content)?;
            kept.extend(dead_marks(&blobs).iter().map(|mark| mark.key().clone()));
        }
        Ok(ControlFlow::Continue(()))
    };
    let head_key = keys::head(bucket, &name);
    if let Some(value) = view.get(&head_key)? {
        let _ = keep(&head_key, &value)?;
    }
    each(view, &keys::older_versions(bucket, &name), &mut keep)?;
    each(view, &keys::conflicts(bucket, &name), &mut keep)?;
    let mut writes = dead_marks(&blobs);
    writes.retain(|mark| !kept.contains(mark.key()));
    if let Content::Paged { pages } = object.content {
        let page = |page| Write::Delete(keys::reference_page(bucket, head.at.version, page));
        writes.extend((0..pages).map(page));
    }
    Ok(writes)
}

/// Changes that are committed together, as many as may be.
pub(crate) struct Batches<'a> {
    context: &'a SiteContext,
    epoch: Epoch,
    changes: Vec<Change>,
    footprint: Footprint,
    applied: u64,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(context: &'a SiteContext, epoch: Epoch) -> Self {
        Self { context, epoch, changes: Vec::new(), footprint: Footprint::default(), applied: 0 }
    }

    pub(crate) async fn add(&mut self, change: Change) -> Result<(), SiteError> {
        let bytes: usize = self.changes.iter().map(Change::bytes).sum();
        let full = self.changes.len() == BATCH || bytes + change.bytes() > BATCH_BYTES;
        if full || self.footprint.add(&change).is_err() {
            self.commit().await?;
            self.footprint.add(&change)?;
        }
        self.changes.push(change);
        Ok(())
    }

    /// Commits what is left; how many changes were applied, from the first on.
    pub(crate) async fn commit(&mut self) -> Result<u64, SiteError> {
        self.footprint = Footprint::default();
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return Ok(self.applied);
        }
        let committed = self.context.catalog.commit(Batch { epoch: Some(self.epoch), changes }).await?;
        let applied = committed.outcomes.iter().filter(|outcome| **outcome == Outcome::Applied);
        self.applied += applied.count() as u64;
        Ok(self.applied)
    }
}

/// Condemns each extent that is dead as it was seen, and still is; how many were.
///
/// FENCING: marks are lifted where a conflict version becomes head again, which leaves the extent's record as it was. So they are
/// counted once more, now that the other site has confirmed what was seen: whoever lifts one from here on restores a conflict
/// version that is there already, and what such a version names is not dead.
async fn condemn(context: &SiteContext, epoch: Epoch, doomed: &Doomed) -> Result<u64, SiteError> {
    if doomed.is_empty() {
        return Ok(0);
    }
    let still: BTreeSet<Key> =
        dead_extents(context.catalog.view().await?.as_ref())?.into_iter().map(|(key, _)| key).collect();
    let mut batches = Batches::new(context, epoch);
    for (key, raw) in doomed.iter().filter(|(key, _)| still.contains(key)) {
        let record = Extent { state: ExtentState::Condemned, ..Extent::decode(raw)? };
        let guard = Guard { key: key.clone(), expect: Expect::Value(raw.clone()) };
        let mut writes = vec![Write::Put(key.clone(), Bytes::from(record.encode()))];
        // What never came need not come any more.
        writes.extend(keys::extent_of(key).map(|extent| Write::Delete(keys::wanted(&context.site, extent))));
        batches.add(Change { guards: vec![guard], writes }).await?;
    }
    batches.commit().await
}

/// Forgets condemned extents of which no rows are left in either site or outside.
async fn drop_records(context: &SiteContext, epoch: Epoch, view: &dyn View) -> Result<(), SiteError> {
    let outside = SiteName::outside();
    let places: Vec<&SiteName> = [&context.site, &outside].into_iter().chain(&context.peer).collect();
    let mut gone: Vec<(Key, Bytes)> = Vec::new();
    each(view, &keys::extents(), |key, value| {
        let Some(extent) = keys::extent_of(key) else { return Ok(ControlFlow::Continue(())) };
        if Extent::decode(value)?.state != ExtentState::Condemned {
            return Ok(ControlFlow::Continue(()));
        }
        for place in &places {
            let kept = view.get(&keys::placement(place, extent))?.is_some()
                || view.get(&keys::wanted(place, extent))?.is_some();
            if kept {
                return Ok(ControlFlow::Continue(()));
            }
        }
        gone.push((key.clone(), value.clone()));
        Ok(ControlFlow::Continue(()))
    })?;
    for (key, raw) in gone {
        let Some(extent) = keys::extent_of(&key) else { continue };
        let mut writes = vec![Write::Delete(key.clone())];
        each(view, &keys::dead_marks(extent), |mark, _| {
            writes.push(Write::Delete(mark.clone()));
            Ok(ControlFlow::Continue(()))
        })?;
        let guard = Guard { key, expect: Expect::Value(raw) };
        let change = Change { guards: vec![guard], writes };
        context.catalog.commit(Batch::one(Some(epoch), change)).await?;
    }
    Ok(())
}
