//! The loops, put together: one task each, ended together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Write};
use diptych_core::keys;
use diptych_core::lease::BootTime;
use diptych_core::placement::{MapNode, NodeState};
use diptych_wire::agent::{DeviceFacts, DeviceState};
use tokio::sync::watch;

use crate::collector::Collector;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::fleet::Stands;
use crate::inventory::{Found, Inventory};
use crate::keeper::{KeeperState, boot_time};
use crate::nodes::{NodeSeen, NodeWatch, Rotten, Seen};
use crate::peer::exposure::{Progress, exposure};
use crate::repair::{Repairs, look_again};
use crate::status::{DeviceStatus, Exposure, LeaseStatus, NodeStatus, RepairStatus, SiteStatus};
use crate::survey::{Health, Scope, Survey, survey};

/// A survey is made at least so often, and at once when the map changes or something rots.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
const COLLECT_EVERY: Duration = Duration::from_secs(5);
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// Written at least so often, though there is no news.
const STATUS_AT_LEAST: Duration = Duration::from_secs(10);

/// What the loops tell each other.
#[derive(Default)]
struct Shared {
    health: watch::Sender<Health>,
    repair: watch::Sender<RepairStatus>,
    inventory: watch::Sender<Arc<Found>>,
}

/// Runs the loops of a site until it is dropped.
///
/// `progress`: how far the other site is, where there is one.
pub async fn run(context: Arc<SiteContext>, nodes: NodeWatch, progress: Option<watch::Receiver<Progress>>) {
    let shared = Shared::default();
    let seen = nodes.seen();
    let every = context.options.look_every;
    tokio::join!(
        nodes.run(every),
        repair_loop(&context, seen.clone(), &shared),
        collect_loop(&context),
        inventory_loop(&context, &shared),
        status_loop(&context, seen, &shared, progress),
    );
}

async fn repair_loop(context: &SiteContext, mut seen: watch::Receiver<Arc<Seen>>, shared: &Shared) {
    let mut map = context.map.clone();
    let mut inventory = shared.inventory.subscribe();
    let mut repairs = Repairs::new(context);
    loop {
        let unreadable = found_unreadable(&seen, &inventory);
        let begun = Instant::now();
        match look_over(context, &unreadable).await {
            Ok(found) => {
                shared.health.send_replace(found.health);
                look_again(context, &repairs.take(found.needs)).await;
            }
            Err(error) => tracing::warn!(site = %context.site, %error, "what lacks rows is not known now"),
        }
        let due = tokio::time::sleep(pause(SURVEY_EVERY, begun));
        tokio::pin!(due);
        loop {
            let budget = repairs.start();
            shared.repair.send_if_modified(|known| {
                let now = repairs.status();
                std::mem::replace(known, now.clone()) != now
            });
            let later = tokio::time::sleep(budget.unwrap_or(SURVEY_EVERY));
            tokio::select! {
                ended = repairs.ended() => {
                    let rows = ended.outcome.as_ref().copied().unwrap_or_default();
                    if let Err(error) = ended.outcome {
                        tracing::warn!(site = %context.site, extent = %ended.extent, %error, "could not be repaired now");
                    }
                    // What could be made was made: how it is now is told at once.
                    if repairs.is_idle() && rows > 0 {
                        break;
                    }
                }
                changed = map.changed() => if changed.is_err() { return } else { break },
                () = another(&mut seen, &mut inventory, &unreadable) => break,
                () = &mut due => break,
                () = later => {}
            }
        }
    }
}

/// A look over the whole catalog takes a tenth of the time at most, however many files there are.
fn pause(every: Duration, begun: Instant) -> Duration {
    every.max(begun.elapsed() * 10)
}

/// Until what does not read right is another.
async fn another(
    seen: &mut watch::Receiver<Arc<Seen>>,
    inventory: &mut watch::Receiver<Arc<Found>>,
    known: &BTreeSet<Rotten>,
) {
    loop {
        let ended = tokio::select! {
            changed = seen.changed() => changed.is_err(),
            changed = inventory.changed() => changed.is_err(),
        };
        if ended {
            return std::future::pending().await;
        }
        if found_unreadable(seen, inventory) != *known {
            return;
        }
    }
}

/// Rows that are placed and do not read right: rotten on their device, or lost from it.
fn found_unreadable(
    seen: &watch::Receiver<Arc<Seen>>,
    inventory: &watch::Receiver<Arc<Found>>,
) -> BTreeSet<Rotten> {
    let mut unreadable = seen.borrow().rotten();
    unreadable.extend(&inventory.borrow().lost);
    unreadable
}

async fn look_over(context: &SiteContext, unreadable: &BTreeSet<Rotten>) -> Result<Survey, SiteError> {
    let view = context.catalog.view().await?;
    let map = context.map();
    let scope = Scope { site: &context.site, peer: context.peer.as_ref(), map: &map, unreadable };
    survey(view.as_ref(), &scope)
}

/// Compares devices and catalog now and then, and soon after the map has changed: a device may have come back empty.
async fn inventory_loop(context: &SiteContext, shared: &Shared) {
    let mut inventory = Inventory::default();
    let mut map = context.map.clone();
    loop {
        match inventory.pass(context).await {
            Ok(found) => {
                if found.freed > 0 || !found.lost.is_empty() {
                    tracing::info!(site = %context.site, freed = found.freed, lost = found.lost.len(), "devices were compared with the catalog");
                }
                shared.inventory.send_replace(Arc::new(found));
            }
            Err(error) => {
                tracing::warn!(site = %context.site, %error, "devices can't be compared with the catalog now");
            }
        }
        tokio::select! {
            changed = map.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(context.options.inventory_every) => {}
        }
    }
}

async fn collect_loop(context: &SiteContext) {
    let mut collector = Collector::default();
    loop {
        let begun = Instant::now();
        match collector.pass(context).await {
            Ok(done) if done != crate::collector::Collected::default() => {
                tracing::info!(site = %context.site, ?done, "collected");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(site = %context.site, %error, "a pass of the collector failed"),
        }
        tokio::time::sleep(pause(COLLECT_EVERY, begun)).await;
    }
}

async fn status_loop(
    context: &SiteContext,
    seen: watch::Receiver<Arc<Seen>>,
    shared: &Shared,
    progress: Option<watch::Receiver<Progress>>,
) {
    let mut written: Option<(SiteStatus, Instant)> = None;
    loop {
        let exposure = exposed(context, progress.as_ref()).await;
        let status = status(context, &seen.borrow(), shared, exposure);
        let news = news(&status);
        let known = |(known, at): &(SiteStatus, Instant)| *known == news && at.elapsed() < STATUS_AT_LEAST;
        if !written.as_ref().is_some_and(known) {
            match write(context, &status).await {
                Ok(()) => written = Some((news, Instant::now())),
                Err(error) => tracing::warn!(site = %context.site, %error, "the status could not be written"),
            }
        }
        tokio::time::sleep(STATUS_EVERY).await;
    }
}

/// What is worth writing at once: times move all the time, and so does the room of a disk that others use too.
fn news(status: &SiteStatus) -> SiteStatus {
    let mut news = status.clone();
    news.seen_ms = 0;
    news.lease.until_ms = 0;
    for device in news.nodes.iter_mut().flat_map(|node| &mut node.devices) {
        device.capacity = 0;
        device.used = 0;
    }
    news
}

async fn write(context: &SiteContext, status: &SiteStatus) -> Result<(), SiteError> {
    let json = serde_json::to_vec(status).unwrap_or_default();
    let put = Write::Put(keys::site_status(&context.site), Bytes::from(json));
    context.catalog.commit(Batch::one(None, Change::blind(vec![put]))).await?;
    Ok(())
}

async fn exposed(context: &SiteContext, progress: Option<&watch::Receiver<Progress>>) -> Option<Exposure> {
    let (peer, progress) = (context.peer.as_ref()?, progress?.borrow().clone());
    match exposure(context.catalog.as_ref(), peer, &progress).await {
        Ok(exposure) => Some(exposure),
        Err(error) => {
            tracing::warn!(site = %context.site, %error, "the exposure is not known");
            None
        }
    }
}

fn status(context: &SiteContext, seen: &Seen, shared: &Shared, exposure: Option<Exposure>) -> SiteStatus {
    let standing = *context.standing.borrow();
    let lease = *context.lease.borrow();
    let role = match (standing.active, Stands::from(lease.role)) {
        (true, _) => "active",
        (false, Stands::Passive) => "passive",
        (false, Stands::Active | Stands::Fenced) => "fenced",
    };
    let map = context.map();
    let nodes = map.nodes.iter().map(|node| node_status(node, seen.nodes.get(&node.name)));
    SiteStatus {
        site: context.site.clone(),
        role: role.to_owned(),
        epoch: standing.epoch,
        map_generation: map.generation,
        nodes: nodes.collect(),
        health: shared.health.borrow().clone(),
        repair: shared.repair.borrow().clone(),
        inventory: shared.inventory.borrow().status.clone(),
        lease: lease_status(&lease),
        exposure,
        name_trouble: context.name_trouble.borrow().clone(),
        seen_ms: now_ms(),
    }
}

fn lease_status(lease: &KeeperState) -> LeaseStatus {
    let runs = lease.serves.filter(|(_, until)| *until != BootTime::NEVER);
    LeaseStatus {
        until_ms: runs.map_or(0, |(_, until)| now_ms() + boot_time().until(until).0),
        waiting: lease.waiting.map(|waiting| waiting.reason().to_owned()),
        waiting_for: lease.waiting.map(|waiting| waiting.sentence().to_owned()),
        peer_connected: lease.peer_connected,
        witness_reachable: lease.witness_reachable,
    }
}

fn node_status(node: &MapNode, seen: Option<&NodeSeen>) -> NodeStatus {
    let state = match node.state {
        NodeState::Live if seen.is_some_and(|seen| seen.answers) => "live",
        NodeState::Live => "silent",
        NodeState::Draining => "draining",
        NodeState::Dead => "dead",
    };
    let facts = seen
        .and_then(|seen| seen.status.as_ref())
        .map(|status| status.devices.as_slice())
        .unwrap_or_default();
    let devices = facts.iter().map(device_status).collect();
    NodeStatus { name: node.name.to_string(), state: state.to_owned(), devices }
}

fn device_status(facts: &DeviceFacts) -> DeviceStatus {
    let state = match &facts.state {
        DeviceState::Ok => "ok".to_owned(),
        DeviceState::Full => "full".to_owned(),
        DeviceState::Failed(reason) => reason.clone(),
        DeviceState::Missing => "missing".to_owned(),
        DeviceState::Unformatted => "unformatted".to_owned(),
    };
    DeviceStatus {
        id: facts.device.map_or(0, |device| device.0),
        path: facts.path.display().to_string(),
        state,
        capacity: facts.capacity,
        used: facts.used,
        rows: facts.rows,
        rotten: facts.findings.len() as u64,
        scrubbed_ms: facts.scrub.finished_ms,
    }
}
