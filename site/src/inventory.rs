//! Devices against the catalog: what a device holds and no placement names is an orphan, freed after its hold; what a
//! placement names and its device lacks is lost, and repaired.
//!
//! Both lists are in order of extent, so they are walked side by side, a page at a time, whatever their length.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Instant;

use diptych_catalog::View;
use diptych_core::ids::{DeviceId, ExtentId, InstanceId, Row, SiteName};
use diptych_core::keys::{self, KeyRange};
use diptych_core::records::{Placement, Position, Record};
use diptych_wire::agent::{AgentError, InventoryRecord, RowAt};

use crate::collector::{confirmed_by_peer, covers};
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::nodes::Rotten;
use crate::place::Place;
use crate::status::InventoryStatus;
use crate::survey::each;

/// Records of one page.
const PAGE: u32 = 1_000;

/// A record on a device, in the order in which it lists them.
type Entry = (ExtentId, Row, InstanceId);

/// What was found that no placement names, and since when it is known.
#[derive(Debug, Clone, Copy)]
struct Orphan {
    since: Instant,
    /// Of the own feed, when it was found.
    position: Position,
    bytes: u64,
}

/// Compares all devices of a place with the catalog, again and again.
#[derive(Debug, Default)]
pub struct Inventory {
    orphans: BTreeMap<(DeviceId, Entry), Orphan>,
}

/// What a pass found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Rows that placements name and devices lack.
    pub lost: BTreeSet<Rotten>,
    /// Orphans whose hold is over and that were freed.
    pub freed: u64,
    /// For people.
    pub status: InventoryStatus,
}

impl Found {
    /// What was found in another place, with this.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.lost.extend(other.lost);
        self.freed += other.freed;
        self.status = InventoryStatus {
            orphans: self.status.orphans + other.status.orphans,
            orphan_bytes: self.status.orphan_bytes + other.status.orphan_bytes,
            lost: self.status.lost + other.status.lost,
        };
        self
    }
}

impl Inventory {
    /// One pass over all devices that can be read. One that can't is left out: nothing is said of its rows.
    pub async fn pass(&mut self, context: &SiteContext, place: &Place) -> Result<Found, SiteError> {
        let map = &place.map;
        let mut found = Found::default();
        let readable = map.devices().filter(|(_, node, device)| node.readable(device));
        for device in readable.map(|(_, _, device)| device.id) {
            if let Err(error) = self.look_at(context, place, device, &mut found).await {
                tracing::info!(place = %place.name, %device, %error, "the device was not compared with the catalog now");
            }
        }
        // A device that left the map takes its orphans with it.
        self.orphans.retain(|(device, _), _| map.find(*device).is_some());
        found.status = InventoryStatus {
            orphans: self.orphans.len() as u64,
            orphan_bytes: self.orphans.values().map(|orphan| orphan.bytes).sum(),
            lost: found.lost.len() as u64,
        };
        Ok(found)
    }

    async fn look_at(
        &mut self,
        context: &SiteContext,
        place: &Place,
        device: DeviceId,
        found: &mut Found,
    ) -> Result<(), SiteError> {
        let agent = place.agent_of(device)?;
        let mut after: Option<Entry> = None;
        loop {
            // What was named before the device was asked must be on it; what is named after it was asked is no orphan.
            let before = context.catalog.view().await?;
            let page = agent.inventory(device, after, None, PAGE).await?;
            let then = context.catalog.view().await?;
            let last = page.records.last().map(entry_of).filter(|_| !page.last);
            let was = named(before.as_ref(), &place.name, device, (after, last))?;
            let is = named(then.as_ref(), &place.name, device, (after, last))?;
            drop(before);
            let held: BTreeSet<Entry> = page.records.iter().map(entry_of).collect();
            found.lost.extend(was.intersection(&is).filter(|entry| !held.contains(entry)));
            let unnamed: Vec<&InventoryRecord> =
                page.records.iter().filter(|record| !is.contains(&entry_of(record))).collect();
            self.note(device, (after, last), &unnamed, then.position());
            found.freed += self.free((context, place), then.as_ref(), device, (after, last)).await?;
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Notes the orphans of a page, and forgets those that are gone or named by now.
    fn note(&mut self, device: DeviceId, within: Span, unnamed: &[&InventoryRecord], position: Position) {
        let now: BTreeMap<Entry, u64> =
            unnamed.iter().map(|record| (entry_of(record), record.record_bytes)).collect();
        self.orphans
            .retain(|(of, entry), _| *of != device || !is_within(entry, within) || now.contains_key(entry));
        for (entry, bytes) in now {
            let fresh = Orphan { since: Instant::now(), position, bytes };
            self.orphans.entry((device, entry)).or_insert(fresh);
        }
    }

    /// Deletes the orphans of a page whose time has come.
    ///
    /// FENCING: an orphan waits for its hold, in which whatever is being written is named, and until the other site has
    /// confirmed the position at which nothing named it: what a takeover could still bring back is never freed.
    async fn free(
        &mut self,
        (context, place): (&SiteContext, &Place),
        view: &dyn View,
        device: DeviceId,
        within: Span,
    ) -> Result<u64, SiteError> {
        let confirmed = confirmed_by_peer(context, view)?;
        let due = self.orphans.iter().filter(|((of, entry), orphan)| {
            *of == device
                && is_within(entry, within)
                && orphan.since.elapsed() >= context.options.orphan_hold
                && covers(confirmed, orphan.position)
        });
        let due: Vec<Entry> = due.map(|((_, entry), _)| *entry).collect();
        if due.is_empty() {
            return Ok(0);
        }
        let items = due.iter().map(|&(extent, row, instance)| RowAt {
            device,
            extent,
            row,
            instance: Some(instance),
        });
        let agent = place.agent_of(device)?;
        let deleted = agent.delete(place.stamp, items.collect()).await?;
        let mut freed = 0;
        for (entry, outcome) in due.into_iter().zip(deleted) {
            match outcome {
                Ok(()) | Err(AgentError::NotFound) => {
                    self.orphans.remove(&(device, entry));
                    freed += 1;
                }
                Err(error) => tracing::info!(%device, extent = %entry.0, %error, "an orphan stays for now"),
            }
        }
        Ok(freed)
    }
}

/// After the first, up to the last; None: no bound.
type Span = (Option<Entry>, Option<Entry>);

fn is_within(entry: &Entry, (after, last): Span) -> bool {
    after.is_none_or(|after| *entry > after) && last.is_none_or(|last| *entry <= last)
}

fn entry_of(record: &InventoryRecord) -> Entry {
    (record.extent, record.row, record.instance)
}

/// Records of a device that placements name, within a page.
fn named(
    view: &dyn View,
    place: &SiteName,
    device: DeviceId,
    within: Span,
) -> Result<BTreeSet<Entry>, SiteError> {
    let all = keys::placements(place);
    let (after, last) = within;
    let start = after.map_or(all.start, |(extent, ..)| keys::placement(place, extent));
    let mut named = BTreeSet::new();
    each(view, &KeyRange { start, end: all.end }, |key, value| {
        let Some(extent) = keys::extent_of(key) else { return Ok(ControlFlow::Continue(())) };
        if last.is_some_and(|(last, ..)| extent > last) {
            return Ok(ControlFlow::Break(()));
        }
        let rows = Placement::decode(value)?.rows;
        let here = rows.iter().filter(|placed| placed.device == device);
        let entries = here.map(|placed| (extent, placed.row, placed.instance));
        named.extend(entries.filter(|entry| is_within(entry, within)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(named)
}
