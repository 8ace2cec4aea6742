//! Crossing: extents that this site was told of and lacks are fetched from the other one, once, by an agent that makes this
//! site's rows of them without any key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, View, Write};
use diptych_core::ids::{ExtentId, Row, SiteName};
use diptych_core::keys;
use diptych_core::placement;
use diptych_core::records::{Extent, PlacedRow, Placement, Record, Wanted};
use diptych_wire::agent::{AgentError, Cross, CrossTarget, Door, ExtentFacts};
use diptych_wire::client::CallError;
use futures::{StreamExt, stream};
use tokio::sync::Notify;

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::{each, rows_of};

/// Extents on their way at once.
const AT_ONCE: usize = 16;
/// Extents of one round.
const ROUND: usize = 128;
/// Longest time for one: 64 MiB over a slow link.
const CROSS_LIMIT: Duration = Duration::from_mins(2);
/// Nothing is wanted: look again after.
const IDLE: Duration = Duration::from_millis(500);

/// Fetches what is wanted, for ever. `wanted` wakes it, and `crossed` is told of each extent that is whole here.
pub async fn run(
    context: Arc<SiteContext>,
    from: SiteName,
    doors: Vec<String>,
    wanted: Arc<Notify>,
    crossed: Arc<Notify>,
) {
    let doors: Vec<Door> = doors.into_iter().map(|address| Door { address, site: from.clone() }).collect();
    loop {
        match round(&context, &doors, &crossed).await {
            Ok(done) if done > 0 => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(site = %context.site, %error, "nothing crosses now"),
        }
        tokio::select! {
            () = wanted.notified() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }
}

async fn round(context: &SiteContext, doors: &[Door], crossed: &Notify) -> Result<usize, SiteError> {
    let view = context.catalog.view().await?;
    let wanted = oldest_wanted(view.as_ref(), &context.site)?;
    drop(view);
    let crossings = wanted
        .into_iter()
        .map(|(extent, raw)| async move { (extent, cross(context, doors, extent, raw).await) });
    let mut running = stream::iter(crossings).buffer_unordered(AT_ONCE);
    let mut done = 0;
    while let Some((extent, outcome)) = running.next().await {
        match outcome {
            Ok(true) => {
                done += 1;
                crossed.notify_one();
            }
            Ok(false) => {}
            Err(error) => tracing::info!(site = %context.site, %extent, %error, "does not cross now"),
        }
    }
    Ok(done)
}

/// The oldest first: the confirmed position waits for them.
fn oldest_wanted(view: &dyn View, site: &SiteName) -> Result<Vec<(ExtentId, Bytes)>, SiteError> {
    let mut by_revision: BTreeMap<(u64, ExtentId), Bytes> = BTreeMap::new();
    each(view, &keys::all_wanted(site), |key, value| {
        if let Some(extent) = keys::extent_of(key) {
            by_revision.insert((Wanted::decode(value)?.revision, extent), value.clone());
            if by_revision.len() > ROUND {
                by_revision.pop_last();
            }
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(by_revision.into_iter().map(|((_, extent), raw)| (extent, raw)).collect())
}

/// One extent; false: it is not wanted any more.
async fn cross(
    context: &SiteContext,
    doors: &[Door],
    extent: ExtentId,
    wanted: Bytes,
) -> Result<bool, SiteError> {
    let view = context.catalog.view().await?;
    let Some(record) = view.get(&keys::extent(extent))?.map(|raw| Extent::decode(&raw)).transpose()? else {
        return Ok(false);
    };
    drop(view);
    let rows: Vec<Row> = rows_of(&record, &context.site).collect();
    let map = context.map();
    let placed = placement::place(&map, extent, &rows)?;
    let Some((_, first)) = placed.rows.first().copied() else { return Ok(false) };
    let agent = context.agents.of_device(&map, first)?;
    let asked = map.find(first).map(|(_, node, _)| node.name.clone());
    let targets = placed.rows.iter().filter_map(|&(row, device)| {
        let (_, node, _) = map.find(device)?;
        let address = (Some(&node.name) != asked.as_ref()).then(|| node.address.clone());
        Some(CrossTarget { row, node: node.name.clone(), address, device })
    });
    let command = Cross {
        stamp: context.stamp(),
        map_generation: map.generation,
        extent: ExtentFacts {
            extent,
            needed: record.needed,
            kind: record.kind,
            length: record.length,
            hash: record.hash,
            birth_epoch: record.epoch,
            birth_hlc: record.hlc,
        },
        doors: doors.to_vec(),
        targets: targets.collect(),
        budget: None,
    };
    let crossed = match agent.cross(&command, CROSS_LIMIT).await {
        Ok(crossed) => crossed,
        // It was replaced over there; the feed will say so.
        Err(CallError::Agent(AgentError::Gone)) => {
            tracing::info!(site = %context.site, %extent, "the other site no longer has it");
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let mut rows: Vec<PlacedRow> = crossed
        .into_iter()
        .map(|row| PlacedRow { row: row.row, device: row.device, instance: row.instance })
        .collect();
    rows.sort_by_key(|row| row.row);
    let record = Placement { rows, verified_day: 0 };
    let (wanted_key, placement_key) =
        (keys::wanted(&context.site, extent), keys::placement(&context.site, extent));
    let change = Change {
        guards: vec![
            Guard { key: wanted_key.clone(), expect: Expect::Value(wanted) },
            Guard { key: placement_key.clone(), expect: Expect::Absent },
        ],
        writes: vec![Write::Put(placement_key, Bytes::from(record.encode())), Write::Delete(wanted_key)],
    };
    // What loses this race is an orphan; the inventory finds it.
    let committed = context.catalog.commit(Batch::one(None, change)).await?;
    if !committed.all_applied() {
        tracing::info!(site = %context.site, %extent, outcomes = ?committed.outcomes, "it crossed, and is not wanted any more");
    }
    Ok(committed.all_applied())
}
