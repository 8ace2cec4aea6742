//! What the loops know, as a status.

use std::collections::BTreeMap;

use diptych_core::ids::NodeName;
use diptych_core::lease::{BootTime, Waiting};
use diptych_core::moving::Stuck;
use diptych_core::placement::{MapDevice, MapDeviceState, MapNode, NodeState};
use diptych_core::records::OutsideNode;
use diptych_wire::agent::{DeviceFacts, DeviceState};
use tokio::sync::watch;

use super::Shared;
use crate::context::{SiteContext, now_ms};
use crate::drill::{self, DrillSummary};
use crate::error::SiteError;
use crate::fleet::Stands;
use crate::keeper::witness::Witness;
use crate::keeper::{KeeperState, boot_time};
use crate::nodes::Seen;
use crate::outside;
use crate::peer::exposure::{Progress, exposure};
use crate::status::{
    DeviceStatus, DrainStatus, Exposure, LeaseStatus, NodeStatus, OutsideStatus, SiteStatus, WouldLose,
};
use crate::survey::Leaving;

pub(super) async fn exposed(
    context: &SiteContext,
    progress: Option<&watch::Receiver<Progress>>,
) -> Option<Exposure> {
    let (peer, progress) = (context.peer.as_ref()?, progress?.borrow().clone());
    match exposure(context.catalog.as_ref(), peer, &progress).await {
        Ok(exposure) => Some(exposure),
        Err(error) => {
            tracing::warn!(site = %context.site, %error, "the exposure is not known");
            None
        }
    }
}

pub(super) fn status(
    context: &SiteContext,
    seen: &Seen,
    shared: &Shared,
    exposure: Option<Exposure>,
) -> SiteStatus {
    let standing = *context.standing.borrow();
    let lease = *context.lease.borrow();
    let name = context.name.borrow().clone();
    let role = match (standing.active, Stands::from(lease.role)) {
        (true, _) => "active",
        (false, Stands::Passive) => "passive",
        (false, Stands::Active | Stands::Fenced) => "fenced",
    };
    let would_lose = shared.would_lose.borrow().clone();
    let map = context.map();
    let health = shared.health.borrow().clone();
    let nodes = map.nodes.iter().map(|node| node_status(node, seen, &health.leaving));
    SiteStatus {
        site: context.site.clone(),
        role: role.to_owned(),
        epoch: standing.epoch,
        generation: context.generation,
        map_generation: map.generation,
        nodes: nodes.collect(),
        health,
        repair: shared.repair.borrow().clone(),
        inventory: shared.inventory.borrow().status.clone(),
        compaction: shared.compaction.borrow().clone(),
        journal: shared.journal.borrow().clone(),
        keys: shared.keys.borrow().clone(),
        feed: shared.feed.borrow().clone(),
        lease: lease_status(&lease, context.witness.as_deref(), would_lose.as_ref()),
        exposure,
        would_lose,
        outside: None,
        prediction: None,
        last_drill: None,
        passed_drill: None,
        name_trouble: name.trouble.as_ref().map(|trouble| trouble.message.clone()),
        name_trouble_reason: name.trouble.as_ref().map(|trouble| trouble.reason.to_owned()),
        name_points_here: name.points_here,
        edge: context.edge.borrow().clone(),
        failback: context.failback.borrow().clone(),
        seen_ms: now_ms(),
    }
}

/// The outside nodes: those that are in the map, and those whose token nobody has spent.
pub(super) async fn of_outside(
    context: &SiteContext,
    seen: &Seen,
    status: &mut SiteStatus,
) -> Result<(), SiteError> {
    let declared = outside::declared(context.catalog.view().await?.as_ref())?;
    let (map, rows) = (context.outside.map.borrow().clone(), context.outside.config.rows);
    if declared.is_empty() && rows == 0 {
        return Ok(());
    }
    let looks = context.active_epoch().is_some();
    let mut nodes = Vec::new();
    for (name, (_, declared)) in &declared {
        nodes.push(match map.nodes.iter().find(|node| node.name == *name) {
            Some(node) if looks => node_status(node, seen, &status.health.leaving_outside),
            Some(node) if node.state == NodeState::Dead => with_no_devices(name, declared, "dead"),
            Some(_) => with_no_devices(name, declared, "live"),
            None => with_no_devices(name, declared, "waiting"),
        });
    }
    status.outside = Some(OutsideStatus { rows, nodes });
    Ok(())
}

/// Of a node that only the other site looks at, or nobody yet.
fn with_no_devices(name: &NodeName, declared: &OutsideNode, state: &str) -> NodeStatus {
    NodeStatus {
        name: name.to_string(),
        state: state.to_owned(),
        domain: declared.share.domain.clone(),
        drain: None,
        devices: Vec::new(),
    }
}

/// What a failover would be like, and what the last drills showed.
pub(super) async fn of_failover(context: &SiteContext, status: &mut SiteStatus) -> Result<(), SiteError> {
    let Some(peer) = &context.peer else { return Ok(()) };
    let view = context.catalog.view().await?;
    let log = drill::logs(view.as_ref(), &context.site, Some(peer))?;
    status.last_drill = log.last.as_ref().map(DrillSummary::from);
    status.passed_drill = log.passed;
    status.prediction = drill::predicted(context, status);
    Ok(())
}

fn lease_status(
    lease: &KeeperState,
    witness: Option<&dyn Witness>,
    would_lose: Option<&WouldLose>,
) -> LeaseStatus {
    let sentence = |waiting: Waiting| match would_lose.filter(|_| waiting == Waiting::Exposure) {
        Some(would_lose) => format!("{}; {}", waiting.sentence(), would_lose.sentence()),
        None => waiting.sentence().to_owned(),
    };
    let runs = lease.serves.filter(|(_, until)| *until != BootTime::NEVER);
    LeaseStatus {
        until_ms: runs.map_or(0, |(_, until)| now_ms() + boot_time().until(until).0),
        waiting: lease.waiting.map(|waiting| waiting.reason().to_owned()),
        waiting_for: lease.waiting.map(sentence),
        peer_connected: lease.peer_connected,
        witness_reachable: lease.witness_reachable,
        witness_trouble: witness.and_then(Witness::trouble),
    }
}

fn node_status(node: &MapNode, seen: &Seen, leaving: &BTreeMap<u32, Leaving>) -> NodeStatus {
    let known = seen.nodes.get(&node.name);
    let drain = seen.drains.get(&node.name).filter(|_| node.state != NodeState::Dead);
    let drain = drain.map(|refused| drain_status(node, *refused, leaving));
    let answers = known.is_some_and(|seen| seen.answers);
    let state = match node.state {
        NodeState::Live | NodeState::Draining if !answers => "silent",
        NodeState::Live => "live",
        NodeState::Draining if drain.as_ref().is_some_and(|drain| drain.done) => "drained",
        NodeState::Draining => "draining",
        NodeState::Dead => "dead",
    };
    let facts = known
        .and_then(|seen| seen.status.as_ref())
        .map(|status| status.devices.as_slice())
        .unwrap_or_default();
    let in_map = |facts: &DeviceFacts| node.devices.iter().find(|device| Some(device.id) == facts.device);
    let devices = facts.iter().map(|facts| DeviceStatus {
        slow: facts.device.is_some_and(|device| seen.slow.contains(&device)),
        ..device_status(facts, in_map(facts), leaving)
    });
    let devices = devices.collect();
    let (name, domain) = (node.name.to_string(), node.domain.clone());
    NodeStatus { name, state: state.to_owned(), domain, drain, devices }
}

/// What the last survey found on what is emptied of a node. It is done only where that survey knew what is to be emptied.
fn drain_status(node: &MapNode, refused: Option<Stuck>, leaving: &BTreeMap<u32, Leaving>) -> DrainStatus {
    let is_emptied = |device: &&MapDevice| {
        let either = node.state == NodeState::Draining || device.state == MapDeviceState::Draining;
        either && device.state != MapDeviceState::Dead
    };
    let emptied: Vec<&MapDevice> = node.devices.iter().filter(is_emptied).collect();
    let known: Vec<&Leaving> = emptied.iter().filter_map(|device| leaving.get(&device.id.0)).collect();
    let sum = |of: fn(&Leaving) -> u64| known.iter().map(|left| of(left)).sum::<u64>();
    let rows = sum(|left| left.rows);
    DrainStatus {
        done: refused.is_none() && known.len() == emptied.len() && rows == 0,
        rows,
        bytes: sum(|left| left.bytes),
        stuck: sum(|left| left.stuck),
        why: refused
            .map(|stuck| format!("nothing is moved: {stuck}"))
            .or_else(|| known.iter().find_map(|left| left.why.clone())),
    }
}

fn device_status(
    facts: &DeviceFacts,
    in_map: Option<&MapDevice>,
    leaving: &BTreeMap<u32, Leaving>,
) -> DeviceStatus {
    let is_emptied = in_map.is_some_and(|device| device.state == MapDeviceState::Draining);
    let left = facts.device.and_then(|device| leaving.get(&device.0));
    let state = match &facts.state {
        DeviceState::Ok | DeviceState::Full if is_emptied && left.is_some_and(|left| left.rows == 0) => {
            "drained".to_owned()
        }
        DeviceState::Ok | DeviceState::Full if is_emptied => "draining".to_owned(),
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
        slow: false,
        capacity: facts.capacity,
        used: facts.used,
        rows: facts.rows,
        rotten: facts.findings.len() as u64,
        scrubbed_ms: facts.scrub.finished_ms,
    }
}
