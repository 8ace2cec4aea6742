//! Rows outside that a lower `outside.rows` no longer asks for.
//!
//! Only what is whole in each of its sites gives rows up: until then any row more is one that may be needed.
//! FENCING: the placement is written without them before a record is deleted, and records go only once the other site has
//! confirmed that: a takeover never finds a placement that names a row which was freed. Who ends in between leaves orphans.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Outcome, View, Write};
use diptych_core::ids::{DeviceId, ExtentId, Row, SiteName};
use diptych_core::keys::{self, Key};
use diptych_core::placement::PlacementMap;
use diptych_core::records::{Extent, ExtentState, PlacedRow, Placement, Position, Record};
use diptych_wire::agent::{AgentError, RowAt};

use super::{BATCH, may_go};
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::place::Place;
use crate::survey::each;

/// Between two looks at all placements outside.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// Extents that give rows up at once: each row is a command over the WAN.
const AT_ONCE: usize = 10_000;
/// Rows that one command deletes.
const COMMAND: usize = 200;

/// Rows that no placement names any more, and that wait to be deleted.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    looked: Option<Instant>,
    /// As one look found them.
    unnamed: Vec<RowAt>,
    /// When, and where in the feed, their placements were written without them.
    since: Option<(Instant, Position)>,
}

/// An extent with rows too many.
struct Found {
    key: Key,
    raw: Bytes,
    kept: Placement,
    rows: Vec<RowAt>,
}

impl Surplus {
    /// Takes rows out of their placements, or deletes those that were taken out and are confirmed; how many were deleted.
    pub(super) async fn pass(
        &mut self,
        context: &SiteContext,
        place: &Place,
        view: &dyn View,
        confirmed: Option<Position>,
    ) -> Result<u64, SiteError> {
        if let Some((since, position)) = self.since {
            if !may_go(context, confirmed, since, position) {
                return Ok(0);
            }
            self.since = None;
            return Ok(delete(place, std::mem::take(&mut self.unnamed)).await);
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            let found = surplus(context, place, view)?;
            for some in found.chunks(BATCH) {
                self.take_out(context, place, some).await?;
            }
        }
        Ok(0)
    }

    async fn take_out(
        &mut self,
        context: &SiteContext,
        place: &Place,
        found: &[Found],
    ) -> Result<(), SiteError> {
        let changes = found.iter().map(Found::change).collect();
        let committed = context.catalog.commit(Batch { epoch: place.epoch, changes }).await?;
        let applied =
            found.iter().zip(&committed.outcomes).filter(|(_, outcome)| **outcome == Outcome::Applied);
        self.unnamed.extend(applied.flat_map(|(found, _)| found.rows.iter().copied()));
        if !self.unnamed.is_empty() {
            self.since = Some((Instant::now(), committed.position));
        }
        Ok(())
    }
}

impl Found {
    fn change(&self) -> Change {
        let guard = Guard { key: self.key.clone(), expect: Expect::Value(self.raw.clone()) };
        let key = self.key.clone();
        let write = if self.kept.rows.is_empty() {
            Write::Delete(key)
        } else {
            Write::Put(key, Bytes::from(self.kept.encode()))
        };
        Change { guards: vec![guard], writes: vec![write] }
    }
}

fn surplus(context: &SiteContext, place: &Place, view: &dyn View) -> Result<Vec<Found>, SiteError> {
    let sites = sites(context, view)?;
    let mut all = Vec::new();
    each(view, &keys::placements(&place.name), |key, value| {
        if let Some(extent) = keys::extent_of(key) {
            all.extend(of_extent(view, &sites, context.outside.config.rows, (extent, key, value))?);
        }
        Ok(if all.len() < AT_ONCE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(all)
}

fn of_extent(
    view: &dyn View,
    sites: &[(SiteName, PlacementMap)],
    rows: u8,
    (extent, key, raw): (ExtentId, &Key, &Bytes),
) -> Result<Option<Found>, SiteError> {
    let Some(record) = view.get(&keys::extent(extent))? else { return Ok(None) };
    let record = Extent::decode(&record)?;
    let mut kept = Placement::decode(raw)?;
    let wanted: Vec<Row> = record.outside_rows(rows).collect();
    let too_many: Vec<PlacedRow> = kept.rows.extract_if(.., |placed| !wanted.contains(&placed.row)).collect();
    if too_many.is_empty() || record.state != ExtentState::Live || !is_whole(view, sites, extent, &record)? {
        return Ok(None);
    }
    let at = |placed: &PlacedRow| RowAt {
        device: placed.device,
        extent,
        row: placed.row,
        instance: Some(placed.instance),
    };
    let rows = too_many.iter().map(at).collect();
    Ok(Some(Found { key: key.clone(), raw: raw.clone(), kept, rows }))
}

/// Both sites, with their nodes.
fn sites(context: &SiteContext, view: &dyn View) -> Result<Vec<(SiteName, PlacementMap)>, SiteError> {
    let mut sites = vec![(context.site.clone(), PlacementMap::clone(&context.map()))];
    if let Some(peer) = &context.peer {
        let map = view.get(&keys::map(peer))?.map(|raw| PlacementMap::decode(&raw)).transpose()?;
        sites.push((peer.clone(), map.unwrap_or_default()));
    }
    Ok(sites)
}

/// Whether each site has every row that was made for it on a device that can be read.
fn is_whole(
    view: &dyn View,
    sites: &[(SiteName, PlacementMap)],
    extent: ExtentId,
    record: &Extent,
) -> Result<bool, SiteError> {
    for (site, map) in sites {
        let placed = view.get(&keys::placement(site, extent))?;
        let placed =
            placed.map(|raw| Placement::decode(&raw)).transpose()?.map_or_else(Vec::new, |it| it.rows);
        let reads =
            |device: DeviceId| map.find(device).is_some_and(|(_, node, device)| node.readable(device));
        let has = |row: Row| placed.iter().any(|placed| placed.row == row && reads(placed.device));
        if !record.rows_of(site).all(has) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes records by instance; what can't be reached now is an orphan.
async fn delete(place: &Place, rows: Vec<RowAt>) -> u64 {
    let mut by_device: BTreeMap<DeviceId, Vec<RowAt>> = BTreeMap::new();
    for row in rows {
        by_device.entry(row.device).or_default().push(row);
    }
    let mut deleted = 0;
    let some = |(device, rows): (DeviceId, Vec<RowAt>)| {
        let some: Vec<_> = rows.chunks(COMMAND).map(|rows| (device, rows.to_vec())).collect();
        some
    };
    for (device, rows) in by_device.into_iter().flat_map(some) {
        let outcomes = match place.agent_of(device) {
            Ok(agent) => agent.delete(place.stamp, rows).await.map_err(SiteError::from),
            Err(error) => Err(error),
        };
        match outcomes {
            Ok(outcomes) => {
                let gone =
                    |outcome: &Result<(), AgentError>| matches!(outcome, Ok(()) | Err(AgentError::NotFound));
                deleted += outcomes.iter().filter(|outcome| gone(outcome)).count() as u64;
            }
            Err(error) => {
                tracing::info!(place = %place.name, %device, %error, "rows that are not asked for any more stay as orphans");
            }
        }
    }
    deleted
}
