//! Repair: rows that are missing are made anew by the agents that shall hold them, from k others.
//!
//! It is one act for any reason: an agent reads k rows, decodes, checks the extent's hash, writes, syncs and reads the row
//! back from its device; then the placement is exchanged by compare-and-set. Who loses that race deletes what it made.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Write};
use diptych_core::ids::{DeviceId, Row};
use diptych_core::keys;
use diptych_core::placement::{self, PlacementMap};
use diptych_core::records::{PlacedRow, Placement, Record};
use diptych_wire::agent::{ReadItem, Rebuild, RowAt, Source};
use futures::{StreamExt, stream};
use std::sync::Arc;

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::Need;

/// Longest time for one row: 16 MiB at a slow disk's pace, from slow neighbours.
const REBUILD_LIMIT: Duration = Duration::from_mins(2);

/// What a round of repair did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Rows that are whole again.
    pub rows: u64,
    /// Extents that could not be helped now.
    pub failed: u64,
}

/// Repairs in the order given, a few at once, and stops early when the map changes: the order may be another then.
pub async fn repair_all(context: &SiteContext, needs: &[Need]) -> Repaired {
    let mut map_changes = context.map.clone();
    map_changes.mark_unchanged();
    let map = context.map();
    let repairs = needs.iter().map(|need| {
        let map = Arc::clone(&map);
        async move { (need, repair(context, &map, need).await) }
    });
    let mut running = stream::iter(repairs).buffer_unordered(context.options.repairs_at_once);
    let mut done = Repaired::default();
    loop {
        tokio::select! {
            next = running.next() => match next {
                Some((_, Ok(rows))) => done.rows += rows,
                Some((need, Err(error))) => {
                    done.failed += 1;
                    tracing::warn!(site = %context.site, extent = %need.facts.extent, %error, "could not be repaired now");
                }
                None => return done,
            },
            _ = map_changes.changed() => return done,
        }
    }
}

/// Makes all missing rows of one extent; how many.
async fn repair(context: &SiteContext, map: &PlacementMap, need: &Need) -> Result<u64, SiteError> {
    let extent = need.facts.extent;
    if need.margin() < 0 {
        look_again(context, map, need).await;
        let present = need.readable.len();
        return Err(SiteError::TooFewRows { extent, present, needed: need.facts.needed });
    }
    let staying: Vec<(Row, DeviceId)> =
        need.readable.iter().map(|placed| (placed.row, placed.device)).collect();
    let targets = placement::replace(map, extent, &staying, &need.missing)?;
    let rebuilt = targets.rows.iter().map(|&(row, device)| rebuild(context, map, need, row, device));
    let outcomes = futures::future::join_all(rebuilt).await;
    let (made, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    let made: Vec<PlacedRow> = made.into_iter().flatten().collect();
    if !made.is_empty() && exchange(context, need, &made).await? {
        delete_old(context, map, need).await;
    }
    match failed.into_iter().find_map(Result::err) {
        Some(error) => Err(error),
        None => Ok(made.len() as u64),
    }
}

/// An agent looks at a record in quarantine again when it is read: what was put right counts with the next survey.
async fn look_again(context: &SiteContext, map: &PlacementMap, need: &Need) {
    for placed in &need.rotten {
        let extent = need.facts.extent;
        let (device, row, instance) = (placed.device, placed.row, Some(placed.instance));
        if let Ok(agent) = context.agents.of_device(map, device) {
            let _ =
                agent.read(ReadItem { at: RowAt { device, extent, row, instance }, offset: 0, len: 1 }).await;
        }
    }
}

async fn rebuild(
    context: &SiteContext,
    map: &PlacementMap,
    need: &Need,
    row: Row,
    device: DeviceId,
) -> Result<PlacedRow, SiteError> {
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
    Ok(PlacedRow { row, device, instance: rebuilt.instance })
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
        delete_rows(context, &context.map(), need, made).await;
    }
    Ok(committed.all_applied())
}

/// Deletes the rotten records whose rows were made anew; one that can't be reached now is an orphan.
async fn delete_old(context: &SiteContext, map: &PlacementMap, need: &Need) {
    delete_rows(context, map, need, &need.rotten).await;
}

async fn delete_rows(context: &SiteContext, map: &PlacementMap, need: &Need, rows: &[PlacedRow]) {
    for placed in rows {
        let extent = need.facts.extent;
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
