//! Crossing: extents that this site was told of and lacks are fetched from the other one, once, by an agent that makes this
//! site's rows of them without any key.
//!
//! ```text
//! wanted ──oldest first──► on their way (a bounded number, each by itself) ──► whole here ──together──► l/ written, n/ gone
//! ```
//! While one commit is under way the next one gathers: many extents cost one commit when the catalog is slow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Limits, Outcome, View, Write};
use diptych_core::ids::{ExtentId, Row, SiteName};
use diptych_core::keys;
use diptych_core::placement::{self, PlacementMap};
use diptych_core::records::{Extent, ExtentState, PlacedRow, Placement, Record, Wanted};
use diptych_wire::agent::{AgentError, Cross, CrossTarget, Door};
use diptych_wire::client::CallError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::{each, facts_of, rows_of};

/// Extents on their way at once: large ones hold a few MiB in an agent each, and an agent takes a few at once.
const AT_ONCE: usize = 32;
/// Extents that wait here for their turn.
const LOOKED_UP: usize = 256;
/// Longest time for one: 64 MiB over a slow link.
const CROSS_LIMIT: Duration = Duration::from_mins(2);
/// What did not cross is tried again so soon, and `n/` is looked at so often whatever wakes it.
const AGAIN: Duration = Duration::from_millis(500);

/// An extent that is wanted, as the catalog has it.
struct Lacking {
    extent: ExtentId,
    record: Extent,
    /// `n/` as it was read: what the commit compares with.
    wanted: Bytes,
}

/// An extent whose rows are durable here.
struct Whole {
    extent: ExtentId,
    wanted: Bytes,
    rows: Vec<PlacedRow>,
}

/// Fetches what is wanted, for ever. `wanted` wakes it, and `crossed` is told when extents have become whole here.
pub async fn run(context: Arc<SiteContext>, wanted: Arc<Notify>, crossed: Arc<Notify>) {
    let (whole, arrived) = mpsc::channel(AT_ONCE);
    let (committed, under_commit) = mpsc::unbounded_channel();
    tokio::join!(
        fetch(&context, &wanted, whole, under_commit),
        record(&context, arrived, &crossed, &committed),
    );
}

/// Keeps as many extents on their way as may be; hands on what has arrived.
async fn fetch(
    context: &SiteContext,
    wanted: &Notify,
    whole: mpsc::Sender<Whole>,
    mut recorded: mpsc::UnboundedReceiver<Vec<ExtentId>>,
) {
    // On its way, or arrived and not recorded yet, or failed a moment ago.
    let mut under_way: BTreeSet<ExtentId> = BTreeSet::new();
    let mut failed: Vec<ExtentId> = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut waiting: Vec<Lacking> = Vec::new();
    let mut look = true;
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if look && waiting.is_empty() && running.len() < AT_ONCE {
            match lacking(context, &under_way).await {
                Ok(found) => waiting = found,
                Err(error) => tracing::warn!(site = %context.site, %error, "what is wanted is not known now"),
            }
            // A full list: there may be more behind it.
            look = waiting.len() == LOOKED_UP;
        }
        while running.len() < AT_ONCE
            && let Some(next) = waiting.pop()
        {
            under_way.insert(next.extent);
            running.push(async move {
                let extent = next.extent;
                (extent, cross(context, next).await)
            });
        }
        tokio::select! {
            Some((extent, outcome)) = running.next() => match outcome {
                Ok(Some(arrived)) => if whole.send(arrived).await.is_err() { return },
                Ok(None) => failed.push(extent),
                Err(error) => {
                    tracing::info!(site = %context.site, %extent, %error, "does not cross now");
                    failed.push(extent);
                }
            },
            Some(extents) = recorded.recv() => for extent in extents { under_way.remove(&extent); },
            () = wanted.notified() => look = true,
            _ = again.tick() => {
                for extent in failed.drain(..) {
                    under_way.remove(&extent);
                }
                look = true;
            }
        }
    }
}

/// The oldest last: the confirmed position waits for them.
async fn lacking(context: &SiteContext, under_way: &BTreeSet<ExtentId>) -> Result<Vec<Lacking>, SiteError> {
    let view = context.catalog.view().await?;
    let mut found = Vec::new();
    for (extent, wanted) in oldest_wanted(view.as_ref(), &context.site, under_way)? {
        // Its record stands in the same transaction as `n/`, or is gone: the feed will take `n/` away too.
        if let Some(raw) = view.get(&keys::extent(extent))? {
            let record = Extent::decode(&raw)?;
            if record.state != ExtentState::Condemned {
                found.push(Lacking { extent, record, wanted });
            }
        }
    }
    found.reverse();
    Ok(found)
}

fn oldest_wanted(
    view: &dyn View,
    site: &SiteName,
    under_way: &BTreeSet<ExtentId>,
) -> Result<Vec<(ExtentId, Bytes)>, SiteError> {
    let mut by_revision: BTreeMap<(u64, ExtentId), Bytes> = BTreeMap::new();
    each(view, &keys::all_wanted(site), |key, value| {
        if let Some(extent) = keys::extent_of(key).filter(|extent| !under_way.contains(extent)) {
            by_revision.insert((Wanted::decode(value)?.revision, extent), value.clone());
            if by_revision.len() > LOOKED_UP {
                by_revision.pop_last();
            }
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(by_revision.into_iter().map(|((_, extent), raw)| (extent, raw)).collect())
}

/// One extent; None: the other site no longer has it.
async fn cross(context: &SiteContext, next: Lacking) -> Result<Option<Whole>, SiteError> {
    let Lacking { extent, record, wanted } = next;
    let crossed = bring_over(context, &context.map(), &context.doors, extent, &record).await;
    match crossed {
        Ok(rows) => Ok(Some(Whole { extent, wanted, rows })),
        // It was replaced over there; the feed will say so.
        Err(SiteError::Agent(CallError::Agent(AgentError::Gone))) => {
            tracing::info!(site = %context.site, %extent, "the other site no longer has it");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Has an agent fetch an extent through the other site's doors and make all of this site's rows anew; where they are.
pub(crate) async fn bring_over(
    context: &SiteContext,
    map: &PlacementMap,
    doors: &[Door],
    extent: ExtentId,
    record: &Extent,
) -> Result<Vec<PlacedRow>, SiteError> {
    let rows: Vec<Row> = rows_of(record, &context.site).collect();
    let placed = placement::place(map, extent, &rows)?;
    let Some((_, first)) = placed.rows.first().copied() else { return Ok(Vec::new()) };
    let agent = context.agents.of_device(map, first)?;
    let asked = map.find(first).map(|(_, node, _)| node.name.clone());
    let targets = placed.rows.iter().filter_map(|&(row, device)| {
        let (_, node, _) = map.find(device)?;
        let address = (Some(&node.name) != asked.as_ref()).then(|| node.address.clone());
        Some(CrossTarget { row, node: node.name.clone(), address, device })
    });
    let command = Cross {
        stamp: context.stamp(),
        map_generation: map.generation,
        extent: facts_of(extent, record),
        doors: doors.to_vec(),
        targets: targets.collect(),
        budget: None,
    };
    let crossed = agent.cross(&command, CROSS_LIMIT).await?;
    let mut rows: Vec<PlacedRow> = crossed
        .into_iter()
        .map(|row| PlacedRow { row: row.row, device: row.device, instance: row.instance })
        .collect();
    rows.sort_by_key(|row| row.row);
    Ok(rows)
}

/// Writes down what has arrived: all that came while the last commit was under way, in one.
async fn record(
    context: &SiteContext,
    mut arrived: mpsc::Receiver<Whole>,
    crossed: &Notify,
    done: &mpsc::UnboundedSender<Vec<ExtentId>>,
) {
    let mut together = Vec::new();
    while arrived.recv_many(&mut together, Limits::UNFENCED.changes).await > 0 {
        let extents: Vec<ExtentId> = together.iter().map(|whole| whole.extent).collect();
        match place_all(context, &together).await {
            Ok(placed) => {
                if placed > 0 {
                    crossed.notify_one();
                }
            }
            // They are still wanted, and cross again: what was written now are orphans, and the inventory finds them.
            Err(error) => {
                tracing::warn!(site = %context.site, %error, "what crossed could not be written down");
            }
        }
        together.clear();
        if done.send(extents).is_err() {
            return;
        }
    }
}

/// How many of them were still wanted.
///
/// FENCING ("gone" only when whole): each `n/` goes in the change that writes its `l/`, after every row of it was synced.
async fn place_all(context: &SiteContext, together: &[Whole]) -> Result<usize, SiteError> {
    let changes = together.iter().map(|Whole { extent, wanted, rows }| {
        let record = Placement { rows: rows.clone(), verified_day: 0 };
        let (wanted_key, placement_key) =
            (keys::wanted(&context.site, *extent), keys::placement(&context.site, *extent));
        Change {
            guards: vec![
                Guard { key: wanted_key.clone(), expect: Expect::Value(wanted.clone()) },
                Guard { key: placement_key.clone(), expect: Expect::Absent },
            ],
            writes: vec![Write::Put(placement_key, Bytes::from(record.encode())), Write::Delete(wanted_key)],
        }
    });
    let committed = context.catalog.commit(Batch { epoch: None, changes: changes.collect() }).await?;
    let mut placed = 0;
    for (whole, outcome) in together.iter().zip(&committed.outcomes) {
        match outcome {
            Outcome::Applied => placed += 1,
            // What loses this race is an orphan; the inventory finds it.
            Outcome::Refused { .. } => {
                tracing::info!(site = %context.site, extent = %whole.extent, "it crossed, and is not wanted any more");
            }
        }
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::{DeviceId, InstanceId};

    use super::*;
    use crate::testing::west;

    fn wanted(since_ms: u64) -> Bytes {
        Bytes::from(Wanted { bytes: 1, since_ms, revision: 1 }.encode())
    }

    #[tokio::test]
    async fn extents_that_arrive_together_cost_one_commit_and_only_those_still_wanted_are_placed() {
        let (context, _folder) = west();
        let extents: Vec<ExtentId> = (0..20).map(|number| ExtentId([number; 16])).collect();
        let puts = extents.iter().map(|extent| Write::Put(keys::wanted(&context.site, *extent), wanted(1)));
        let change = Change::blind(puts.collect());
        context.catalog.commit(Batch::one(None, change)).await.expect("it commits");
        let before = context.catalog.position().await.expect("a position");
        let row = PlacedRow { row: Row(6), device: DeviceId(1), instance: InstanceId([1; 8]) };
        // The last one was wanted anew meanwhile.
        let whole = |(index, extent): (usize, &ExtentId)| Whole {
            extent: *extent,
            wanted: wanted(if index == 19 { 2 } else { 1 }),
            rows: vec![row],
        };
        let together: Vec<Whole> = extents.iter().enumerate().map(whole).collect();
        assert_eq!(place_all(&context, &together).await.expect("it commits"), 19);
        let view = context.catalog.view().await.expect("a view");
        assert_eq!(view.position().revision, before.revision + 1);
        for extent in &extents {
            let placed = view.get(&keys::placement(&context.site, *extent)).expect("it reads").is_some();
            let lacking = view.get(&keys::wanted(&context.site, *extent)).expect("it reads").is_some();
            assert!(placed != lacking, "{extent}: n/ goes with l/");
        }
    }
}
