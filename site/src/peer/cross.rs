//! Crossing: extents that this site was told of and lacks are fetched from the other one, once, by an agent that makes this
//! site's rows of them without any key.
//!
//! ```text
//! wanted ──oldest first──► on their way (a bounded number, each by itself) ──► whole here ──together──► l/ written, n/ gone, confirmed
//! ```
//! While one commit is under way the next one gathers: many extents cost one commit when the catalog is slow. Journals and
//! checkpoints cross behind objects' bytes, a few at once: nobody waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Limits, View};
use diptych_core::ids::{ExtentId, Row, SiteName};
use diptych_core::keys;
use diptych_core::placement::{self, PlacementMap, Promise};
use diptych_core::records::{Extent, ExtentKind, ExtentState, Holds, PlacedRow, Position, Record, Wanted};
use diptych_wire::agent::{AgentError, Cross, CrossTarget, Door};
use diptych_wire::client::CallError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use super::reached::{Reached, Whole};
use crate::compaction::recipe;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::{each, facts_of};

/// Extents on their way at once: large ones hold a few MiB in an agent each, and an agent takes a few at once.
const AT_ONCE: usize = 32;
/// Of these, journals and parts of checkpoints.
const HISTORY_AT_ONCE: usize = 2;
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

impl Lacking {
    fn is_data(&self) -> bool {
        self.record.holds == Holds::Data
    }
}

/// Fetches what is wanted, for ever; woken by what `reached` takes in.
pub async fn run(context: Arc<SiteContext>, reached: Arc<Reached>) {
    let (whole, arrived) = mpsc::channel(AT_ONCE);
    let (committed, under_commit) = mpsc::unbounded_channel();
    tokio::join!(
        fetch(&context, reached.taken(), whole, under_commit),
        record(&context, arrived, &reached, &committed),
    );
}

/// Keeps as many extents on their way as may be; hands on what has arrived.
async fn fetch(
    context: &SiteContext,
    mut taken: watch::Receiver<Option<Position>>,
    whole: mpsc::Sender<Whole>,
    mut recorded: mpsc::UnboundedReceiver<Vec<ExtentId>>,
) {
    // On its way, or arrived and not recorded yet, or failed a moment ago.
    let mut under_way: BTreeSet<ExtentId> = BTreeSet::new();
    let mut failed: Vec<ExtentId> = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut waiting: Vec<Lacking> = Vec::new();
    let mut history = 0;
    let mut look = true;
    // The last that came did not cross: nothing new is begun until one does, or it is time to try again.
    let mut hindered = false;
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Nothing new is begun while a drill has cut the site off.
        context.cut.ended().await;
        if look && !waiting.last().is_some_and(Lacking::is_data) && running.len() < AT_ONCE {
            let from = *taken.borrow_and_update();
            match lacking(context, from, &under_way).await {
                Ok(found) => waiting = found,
                Err(error) => tracing::warn!(site = %context.site, %error, "what is wanted is not known now"),
            }
            // A full list: there may be more behind it.
            look = waiting.len() == LOOKED_UP && waiting.last().is_some_and(Lacking::is_data);
        }
        while !hindered
            && running.len() < AT_ONCE
            && let Some(next) = next(&mut waiting, history)
        {
            under_way.insert(next.extent);
            history += usize::from(!next.is_data());
            running.push(async move {
                let (extent, is_data) = (next.extent, next.is_data());
                (extent, is_data, cross(context, next).await)
            });
        }
        tokio::select! {
            Some((extent, is_data, outcome)) = running.next() => {
                history -= usize::from(!is_data);
                match outcome {
                    Ok(Some(arrived)) => {
                        hindered = false;
                        if whole.send(arrived).await.is_err() { return }
                    }
                    Ok(None) => failed.push(extent),
                    Err(error) => {
                        if !hindered {
                            tracing::info!(site = %context.site, %extent, %error, "does not cross now");
                        }
                        hindered = true;
                        failed.push(extent);
                    }
                }
            }
            Some(extents) = recorded.recv() => for extent in extents { under_way.remove(&extent); },
            Ok(()) = taken.changed() => look = true,
            _ = again.tick() => {
                for extent in failed.drain(..) {
                    under_way.remove(&extent);
                }
                (look, hindered) = (true, false);
            }
        }
    }
}

/// The next to begin, while `history` journals and parts of checkpoints are on their way.
fn next(waiting: &mut Vec<Lacking>, history: usize) -> Option<Lacking> {
    waiting.pop_if(|next| next.is_data() || history < HISTORY_AT_ONCE)
}

/// Objects' bytes last, the oldest of them at the end: the confirmed position waits for them.
async fn lacking(
    context: &SiteContext,
    from: Option<Position>,
    under_way: &BTreeSet<ExtentId>,
) -> Result<Vec<Lacking>, SiteError> {
    let view = match from {
        Some(position) => context.catalog.view_from(position).await?,
        None => context.catalog.view().await?,
    };
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
    let mut in_order: BTreeMap<(bool, u64, ExtentId), Bytes> = BTreeMap::new();
    each(view, &keys::all_wanted(site), |key, value| {
        if let Some(extent) = keys::extent_of(key).filter(|extent| !under_way.contains(extent)) {
            let wanted = Wanted::decode(value)?;
            in_order.insert((wanted.kind != ExtentKind::Data, wanted.revision, extent), value.clone());
            if in_order.len() > LOOKED_UP {
                in_order.pop_last();
            }
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(in_order.into_iter().map(|((.., extent), raw)| (extent, raw)).collect())
}

/// One extent; None: the other site no longer has it.
async fn cross(context: &SiteContext, next: Lacking) -> Result<Option<Whole>, SiteError> {
    let Lacking { extent, record, wanted } = next;
    if let ExtentState::Compacting(recipe) = &record.state {
        match recipe::make(context, extent, &record, recipe).await {
            Ok(rows) => return Ok(Some(Whole { extent, wanted, rows })),
            Err(error) => {
                tracing::info!(site = %context.site, %extent, %error, "it is not made of what is here, and crosses");
            }
        }
    }
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
    let rows: Vec<Row> = record.rows_of(&context.site).collect();
    let promise = Promise::new(record.needed, context.survive);
    let placed = placement::place(&map.for_kind(record.holds.kind()), promise, extent, &rows)?;
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
    reached: &Reached,
    done: &mpsc::UnboundedSender<Vec<ExtentId>>,
) {
    let mut together = Vec::new();
    while arrived.recv_many(&mut together, Limits::UNFENCED.changes).await > 0 {
        let extents: Vec<ExtentId> = together.iter().map(|whole| whole.extent).collect();
        // They are still wanted then, and cross again: what was written now are orphans, and the inventory finds them.
        if let Err(error) = reached.place(&together).await {
            tracing::warn!(site = %context.site, %error, "what crossed could not be written down");
        }
        together.clear();
        if done.send(extents).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use diptych_catalog::{Batch, Change, Write};
    use diptych_core::ids::{Epoch, Hlc};

    use super::*;
    use crate::testing::west;

    #[tokio::test]
    async fn objects_bytes_cross_first_and_two_of_a_checkpoint_at_once() {
        let (context, _folder) = west();
        let site = &context.site;
        let lacking = |number: u8, holds: Holds| {
            let record = Extent {
                state: ExtentState::Live,
                holds,
                length: 1,
                payload: 1,
                hash: [0; 32],
                needed: 4,
                rows: vec![(site.clone(), Row(6), 6)],
                epoch: Epoch(1),
                hlc: Hlc(1),
            };
            let wanted = Wanted { kind: holds.kind(), bytes: 1, since_ms: 1, revision: u64::from(number) };
            let extent = ExtentId([number; 16]);
            [
                Write::Put(keys::extent(extent), Bytes::from(record.encode())),
                Write::Put(keys::wanted(site, extent), Bytes::from(wanted.encode())),
            ]
        };
        let part = Holds::Checkpoint(Position::default());
        let all = [(1, part), (2, part), (3, part), (4, Holds::Data), (5, part), (6, Holds::Data)];
        let writes = all.into_iter().flat_map(|(number, holds)| lacking(number, holds)).collect();
        context.catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
        let mut waiting = super::lacking(&context, None, &BTreeSet::new()).await.expect("it reads");
        let (mut begun, mut history) = (Vec::new(), 0);
        while let Some(next) = next(&mut waiting, history) {
            history += usize::from(!next.is_data());
            begun.push(next.extent.0[0]);
        }
        assert_eq!(begun, [4, 6, 1, 2]);
        assert_eq!(next(&mut waiting, 1).map(|next| next.extent), Some(ExtentId([3; 16])), "one has come");
    }
}
