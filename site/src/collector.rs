//! The collector: what nothing names any more is condemned, and its rows are freed once the other site knows.
//!
//! ```text
//! replaced or deleted ──► v/ and dead marks ──confirmed──► v/ gone ──all marks──► x/ condemned
//!                                                     ──confirmed, free_after──► rows deleted, l/ gone ──► x/, marks gone
//! ```
//! FENCING: a pass remembers the position that it looked at, and acts only when the other site has confirmed that position:
//! what a takeover could still bring back is never freed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, View, Write};
use diptych_core::ids::{BucketId, Epoch, ExtentId, SiteName};
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Bucket, Cursor, DeadMark, Extent, ExtentState, Head, HeadBody, Placement, Position, Record,
};
use diptych_wire::agent::{AgentError, RowAt};

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::each;

/// Changes of one commit.
const BATCH: usize = 60;

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
    condemned_since: BTreeMap<ExtentId, (Instant, Position)>,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Older versions and tombstones that are gone.
    pub versions: u64,
    /// Extents that were condemned.
    pub condemned: u64,
    /// Extents whose rows in this site were freed.
    pub freed: u64,
}

impl Collector {
    /// One pass; to be called every few seconds.
    pub async fn pass(&mut self, context: &SiteContext) -> Result<Collected, SiteError> {
        let mut done = Collected::default();
        let view = context.catalog.view().await?;
        let confirmed = confirmed_by_peer(context, view.as_ref())?;
        if let Some(epoch) = context.active_epoch() {
            if self.waiting.as_ref().is_some_and(|seen| covers(confirmed, seen.position)) {
                let seen = self.waiting.take().unwrap_or_default();
                done.versions = remove(context, epoch, &seen.forgotten).await?;
                done.condemned = condemn(context, epoch, &seen.dead).await?;
            }
            if self.waiting.is_none() {
                self.waiting = Some(look(view.as_ref())?);
            }
            drop_records(context, epoch, view.as_ref()).await?;
        } else {
            self.waiting = None;
        }
        done.freed = self.free(context, view.as_ref(), confirmed).await?;
        Ok(done)
    }

    /// Deletes this site's rows of what is condemned for long enough and confirmed.
    async fn free(
        &mut self,
        context: &SiteContext,
        view: &dyn View,
        confirmed: Option<Position>,
    ) -> Result<u64, SiteError> {
        let condemned = condemned_with_rows(view, &context.site)?;
        self.condemned_since.retain(|extent, _| condemned.contains_key(extent));
        let mut freed = 0;
        for (extent, raw) in condemned {
            let fresh = (Instant::now(), view.position());
            let (since, position) = *self.condemned_since.entry(extent).or_insert(fresh);
            if since.elapsed() >= context.options.free_after && covers(confirmed, position) {
                freed += u64::from(free_rows(context, extent, &raw).await?);
            }
        }
        Ok(freed)
    }
}

/// Whether the other site knows all up to `position`; without one everything is known.
fn covers(confirmed: Option<Position>, position: Position) -> bool {
    confirmed.is_none_or(|confirmed| {
        confirmed.incarnation == position.incarnation && confirmed.revision >= position.revision
    })
}

/// The position of this site's feed that the other one has confirmed; None without another site.
pub fn confirmed_by_peer(context: &SiteContext, view: &dyn View) -> Result<Option<Position>, SiteError> {
    let Some(peer) = &context.peer else { return Ok(None) };
    let cursor = view.get(&keys::cursor(peer))?.map(|raw| Cursor::decode(&raw)).transpose()?;
    Ok(Some(cursor.unwrap_or_default().confirmed))
}

fn look(view: &dyn View) -> Result<Seen, SiteError> {
    let mut seen = Seen { position: view.position(), ..Seen::default() };
    let versioned = versioned_buckets(view)?;
    each(view, &keys::prefix_range(b"v/"), |key, value| {
        if !bucket_of(key).is_some_and(|bucket| versioned.contains(&bucket)) {
            seen.forgotten.push((key.clone(), value.clone()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    each(view, &keys::prefix_range(b"h/"), |key, value| {
        if Head::decode(value)?.body == HeadBody::Tombstone {
            seen.forgotten.push((key.clone(), value.clone()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut dead: BTreeMap<ExtentId, u64> = BTreeMap::new();
    each(view, &keys::prefix_range(b"g/"), |key, value| {
        if let Some(extent) = key.0.get(2..18).and_then(|bytes| bytes.try_into().ok()).map(ExtentId) {
            *dead.entry(extent).or_default() += DeadMark::decode(value)?.sealed;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for (extent, sealed) in dead {
        let key = keys::extent(extent);
        let Some(raw) = view.get(&key)? else { continue };
        let record = Extent::decode(&raw)?;
        if record.state == ExtentState::Live && sealed >= u64::from(record.payload) {
            seen.dead.push((key, raw));
        }
    }
    Ok(seen)
}

fn versioned_buckets(view: &dyn View) -> Result<Vec<BucketId>, SiteError> {
    let mut versioned = Vec::new();
    each(view, &keys::buckets(), |_, value| {
        let bucket = Bucket::decode(value)?;
        if bucket.versioning {
            versioned.push(bucket.id);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(versioned)
}

fn bucket_of(key: &Key) -> Option<BucketId> {
    key.0.get(2..10)?.try_into().ok().map(BucketId)
}

async fn remove(context: &SiteContext, epoch: Epoch, doomed: &Doomed) -> Result<u64, SiteError> {
    exchange(context, epoch, doomed, |key, _| Ok(Write::Delete(key.clone()))).await
}

async fn condemn(context: &SiteContext, epoch: Epoch, doomed: &Doomed) -> Result<u64, SiteError> {
    let condemned = |key: &Key, raw: &Bytes| {
        let record = Extent { state: ExtentState::Condemned, ..Extent::decode(raw)? };
        Ok(Write::Put(key.clone(), Bytes::from(record.encode())))
    };
    exchange(context, epoch, doomed, condemned).await
}

/// Changes each key that still has the value that was seen; how many had.
async fn exchange(
    context: &SiteContext,
    epoch: Epoch,
    doomed: &Doomed,
    write: impl Fn(&Key, &Bytes) -> Result<Write, SiteError>,
) -> Result<u64, SiteError> {
    let mut applied = 0;
    for some in doomed.chunks(BATCH) {
        let change = |(key, raw): &(Key, Bytes)| -> Result<Change, SiteError> {
            let guard = Guard { key: key.clone(), expect: Expect::Value(raw.clone()) };
            Ok(Change { guards: vec![guard], writes: vec![write(key, raw)?] })
        };
        let changes = some.iter().map(change).collect::<Result<Vec<_>, _>>()?;
        let committed = context.catalog.commit(Batch { epoch: Some(epoch), changes }).await?;
        let done = committed.outcomes.iter().filter(|outcome| **outcome == diptych_catalog::Outcome::Applied);
        applied += done.count() as u64;
    }
    Ok(applied)
}

/// Condemned extents that this site still has rows of, with their placements.
fn condemned_with_rows(view: &dyn View, site: &SiteName) -> Result<BTreeMap<ExtentId, Bytes>, SiteError> {
    let mut found = BTreeMap::new();
    each(view, &keys::extents(), |key, value| {
        if Extent::decode(value)?.state == ExtentState::Condemned
            && let Some(extent) = keys::extent_of(key)
            && let Some(placement) = view.get(&keys::placement(site, extent))?
        {
            found.insert(extent, placement);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Deletes an extent's rows here, then its placement. False: a device that may come back still has one.
async fn free_rows(context: &SiteContext, extent: ExtentId, raw: &Bytes) -> Result<bool, SiteError> {
    let map = context.map();
    for placed in Placement::decode(raw)?.rows {
        // Rows on what is dead go with it; if it returns, its inventory shows them as orphans.
        let dead = map.find(placed.device).is_none_or(|(_, node, device)| !node.readable(device));
        if dead {
            continue;
        }
        let item = RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
        let agent = context.agents.of_device(&map, placed.device)?;
        for outcome in agent.delete(context.stamp(), vec![item]).await? {
            match outcome {
                Ok(()) | Err(AgentError::NotFound) => {}
                Err(error) => {
                    tracing::info!(%extent, row = %placed.row, %error, "a row could not be freed now");
                    return Ok(false);
                }
            }
        }
    }
    let key = keys::placement(&context.site, extent);
    let guard = Guard { key: key.clone(), expect: Expect::Value(raw.clone()) };
    let change = Change { guards: vec![guard], writes: vec![Write::Delete(key)] };
    Ok(context.catalog.commit(Batch::one(None, change)).await?.all_applied())
}

/// Forgets condemned extents that no site has rows of any more.
async fn drop_records(context: &SiteContext, epoch: Epoch, view: &dyn View) -> Result<(), SiteError> {
    let sites: Vec<&SiteName> = std::iter::once(&context.site).chain(&context.peer).collect();
    let mut gone: Vec<(Key, Bytes)> = Vec::new();
    each(view, &keys::extents(), |key, value| {
        let Some(extent) = keys::extent_of(key) else { return Ok(ControlFlow::Continue(())) };
        if Extent::decode(value)?.state != ExtentState::Condemned {
            return Ok(ControlFlow::Continue(()));
        }
        for site in &sites {
            let kept = view.get(&keys::placement(site, extent))?.is_some()
                || view.get(&keys::wanted(site, extent))?.is_some();
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
