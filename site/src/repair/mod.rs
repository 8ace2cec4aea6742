//! Repair: rows that are missing are made anew by the agents that shall hold them, from k others.
//!
//! It is one act for any reason: an agent reads k rows, decodes, checks the extent's hash, writes, syncs and reads the row
//! back from its device; then the placement is exchanged by compare-and-set. Who loses that race deletes what it made.

mod queue;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Write};
use diptych_core::ids::{DeviceId, ExtentId, Row};
use diptych_core::keys;
use diptych_core::placement::{self, PlacementMap};
use diptych_core::records::{PlacedRow, Placement, Record};
use diptych_wire::agent::{ReadItem, Rebuild, RowAt, Source};

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::peer::cross::bring_over;
use crate::survey::Need;

pub use queue::{Ended, Repairs};

/// Longest time for one row: 16 MiB at a slow disk's pace, from slow neighbours.
const REBUILD_LIMIT: Duration = Duration::from_mins(2);

/// Makes an extent whole in this site: from its own rows, or anew from the other's where they are too few. Rows made.
async fn repair(context: &SiteContext, map: &PlacementMap, need: &Need) -> Result<u64, SiteError> {
    if need.margin_here() >= 0 {
        repair_here(context, map, need).await
    } else {
        bring_back(context, map, need).await
    }
}

/// From k rows of this site. A source that turns out to lie is missing too, and made anew with the others.
async fn repair_here(context: &SiteContext, map: &PlacementMap, need: &Need) -> Result<u64, SiteError> {
    let extent = need.facts.extent;
    let mut need = need.clone();
    let mut made: Vec<PlacedRow> = Vec::new();
    let mut failure = None;
    while let (false, None) = (need.missing.is_empty(), &failure) {
        if need.margin_here() < 0 {
            failure = Some(too_few(&need));
            break;
        }
        let staying = need.readable.iter().chain(&made).map(|placed| (placed.row, placed.device));
        let targets = placement::replace(map, extent, &staying.collect::<Vec<_>>(), &need.missing)?;
        need.missing.clear();
        let rebuilt = targets.rows.iter().map(|&(row, device)| rebuild(context, map, &need, row, device));
        let mut lying = BTreeSet::new();
        for outcome in futures::future::join_all(rebuilt).await {
            match outcome {
                Ok((row, liars)) => {
                    made.push(row);
                    lying.extend(liars.into_iter().map(|liar| (liar.row, liar.instance)));
                }
                Err(error) => failure = Some(error),
            }
        }
        let (liars, honest): (Vec<_>, Vec<_>) =
            need.readable.into_iter().partition(|placed| lying.contains(&(placed.row, placed.instance)));
        need.missing.extend(liars.iter().map(|placed| placed.row));
        need.rotten.extend(liars);
        need.readable = honest;
    }
    if !made.is_empty() && exchange(context, &need, &made).await? {
        delete_rows(context, map, extent, replaced(&need, &made)).await;
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(made.len() as u64),
    }
}

/// Rotten records whose rows were made anew.
fn replaced<'a>(need: &'a Need, made: &'a [PlacedRow]) -> impl Iterator<Item = &'a PlacedRow> {
    need.rotten.iter().filter(|old| made.iter().any(|new| new.row == old.row))
}

fn too_few(need: &Need) -> SiteError {
    let (extent, needed) = (need.facts.extent, need.facts.needed);
    SiteError::TooFewRows { extent, present: need.readable.len(), needed }
}

/// Fewer than k rows are left here, and enough in both sites together: it crosses again.
///
/// FENCING: all of this site's rows are made anew, and durable, before the placement names them instead of the old ones;
/// what it named until then is deleted only afterwards.
async fn bring_back(context: &SiteContext, map: &PlacementMap, need: &Need) -> Result<u64, SiteError> {
    if context.doors.is_empty() {
        return Err(too_few(need));
    }
    let extent = need.facts.extent;
    let made = bring_over(context, map, &context.doors, extent, &need.record).await?;
    if exchange(context, need, &made).await? {
        let old = Placement::decode(&need.placement)?;
        let there = old.rows.iter().filter(|old| {
            let device = map.find(old.device);
            let anew = made.iter().any(|new| new.row == old.row);
            anew && device.is_some_and(|(_, node, device)| node.readable(device))
        });
        delete_rows(context, map, extent, there).await;
    }
    Ok(made.len() as u64)
}

/// An agent looks at a record in quarantine again when it is read: what was put right counts with the next survey.
pub async fn look_again(context: &SiteContext, needs: &[Need]) {
    let map = context.map();
    for (need, placed) in needs.iter().flat_map(|need| need.rotten.iter().map(move |placed| (need, placed))) {
        let (device, row, instance) = (placed.device, placed.row, Some(placed.instance));
        let at = RowAt { device, extent: need.facts.extent, row, instance };
        if let Ok(agent) = context.agents.of_device(&map, device) {
            let _ = agent.read(ReadItem { at, offset: 0, len: 1 }).await;
        }
    }
}

async fn rebuild(
    context: &SiteContext,
    map: &PlacementMap,
    need: &Need,
    row: Row,
    device: DeviceId,
) -> Result<(PlacedRow, Vec<Source>), SiteError> {
    let agent = context.agents.of_device(map, device)?;
    let target_node = map.find(device).map(|(_, node, _)| node.name.clone());
    let sources = need.readable.iter().filter_map(|placed| {
        let (_, node, _) = map.find(placed.device)?;
        let address = (Some(&node.name) != target_node.as_ref()).then(|| node.address.clone());
        Some(Source {
            address,
            site: context.site.clone(),
            node: node.name.clone(),
            device: placed.device,
            row: placed.row,
            instance: placed.instance,
        })
    });
    let mut sources: Vec<Source> = sources.collect();
    // What lies on the same node needs no network.
    sources.sort_by_key(|source| source.address.is_some());
    let command = Rebuild {
        stamp: context.stamp(),
        map_generation: map.generation,
        extent: need.facts.clone(),
        row,
        device,
        sources,
        budget: None,
    };
    // FENCING: the agent answers only after it has read the row back from its device, not from its cache.
    let rebuilt = agent.rebuild(&command, REBUILD_LIMIT).await?;
    for liar in &rebuilt.liars {
        tracing::error!(site = %context.site, extent = %need.facts.extent, ?liar, "a row is wrong although its checksums are right");
    }
    Ok((PlacedRow { row, device, instance: rebuilt.instance }, rebuilt.liars))
}

/// Puts the new rows into the placement, if it is still the one that was repaired. False: somebody else was faster, and
/// the rows made here are deleted.
async fn exchange(context: &SiteContext, need: &Need, made: &[PlacedRow]) -> Result<bool, SiteError> {
    let key = keys::placement(&context.site, need.facts.extent);
    let anew: BTreeSet<Row> = made.iter().map(|placed| placed.row).collect();
    let old = Placement::decode(&need.placement)?;
    let mut rows: Vec<PlacedRow> =
        old.rows.into_iter().filter(|placed| !anew.contains(&placed.row)).collect();
    rows.extend_from_slice(made);
    rows.sort_by_key(|placed| placed.row);
    let record = Placement { rows, verified_day: old.verified_day };
    let guard = Guard { key: key.clone(), expect: Expect::Value(need.placement.clone()) };
    let change = Change { guards: vec![guard], writes: vec![Write::Put(key, Bytes::from(record.encode()))] };
    let committed = context.catalog.commit(Batch::one(None, change)).await?;
    if !committed.all_applied() {
        delete_rows(context, &context.map(), need.facts.extent, made.iter()).await;
    }
    Ok(committed.all_applied())
}

/// Deletes records that the placement no longer names; one that can't be reached now is an orphan.
async fn delete_rows(
    context: &SiteContext,
    map: &PlacementMap,
    extent: ExtentId,
    rows: impl Iterator<Item = &PlacedRow>,
) {
    for placed in rows {
        let item = RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
        let deleted = match context.agents.of_device(map, placed.device) {
            Ok(agent) => agent.delete(context.stamp(), vec![item]).await.map(drop).map_err(SiteError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::info!(site = %context.site, %extent, row = %placed.row, %error, "an old record stays as an orphan");
        }
    }
}
