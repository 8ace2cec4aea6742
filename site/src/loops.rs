//! The loops, put together: one task each, ended together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Write};
use diptych_core::keys;
use diptych_core::placement::{MapNode, NodeState};
use diptych_wire::agent::{DeviceFacts, DeviceState};
use tokio::sync::{Notify, watch};

use crate::collector::Collector;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::nodes::{NodeSeen, NodeWatch, Seen};
use crate::peer::exposure::{Progress, exposure};
use crate::repair::repair_all;
use crate::status::{DeviceStatus, Exposure, NodeStatus, SiteStatus};
use crate::survey::{Health, survey};

/// A survey is made at least so often, and at once when the map changes or something rots.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
const COLLECT_EVERY: Duration = Duration::from_secs(5);
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// What the loops tell each other.
#[derive(Default)]
struct Shared {
    health: watch::Sender<Health>,
    queue: AtomicU64,
    repaired: AtomicU64,
    look_again: Notify,
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
        status_loop(&context, seen, &shared, progress),
    );
}

async fn repair_loop(context: &SiteContext, mut seen: watch::Receiver<Arc<Seen>>, shared: &Shared) {
    let mut map = context.map.clone();
    let mut rotten = std::collections::BTreeSet::new();
    loop {
        match repair_round(context, &seen, shared).await {
            // What could be made was made; there may be more behind it.
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(site = %context.site, %error, "a round of repair failed"),
        }
        let news = async {
            loop {
                if seen.changed().await.is_err() {
                    return std::future::pending().await;
                }
                let found = seen.borrow().rotten();
                if found != rotten {
                    return found;
                }
            }
        };
        tokio::select! {
            found = news => rotten = found,
            changed = map.changed() => if changed.is_err() { return },
            () = shared.look_again.notified() => {}
            () = tokio::time::sleep(SURVEY_EVERY) => {}
        }
    }
}

/// Surveys and repairs once; true: something was repaired.
async fn repair_round(
    context: &SiteContext,
    seen: &watch::Receiver<Arc<Seen>>,
    shared: &Shared,
) -> Result<bool, SiteError> {
    let view = context.catalog.view().await?;
    let rotten = seen.borrow().rotten();
    let map = context.map();
    let found = survey(view.as_ref(), &context.site, &map, &rotten)?;
    drop(view);
    shared.health.send_replace(found.health);
    shared.queue.store(found.needs.len() as u64, Ordering::Relaxed);
    if found.needs.is_empty() {
        return Ok(false);
    }
    let done = repair_all(context, &found.needs).await;
    shared.repaired.fetch_add(done.rows, Ordering::Relaxed);
    tracing::info!(site = %context.site, rows = done.rows, failed = done.failed, "repaired");
    Ok(done.rows > 0)
}

async fn collect_loop(context: &SiteContext) {
    let mut collector = Collector::default();
    loop {
        match collector.pass(context).await {
            Ok(done) if done != crate::collector::Collected::default() => {
                tracing::info!(site = %context.site, ?done, "collected");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(site = %context.site, %error, "a pass of the collector failed"),
        }
        tokio::time::sleep(COLLECT_EVERY).await;
    }
}

async fn status_loop(
    context: &SiteContext,
    seen: watch::Receiver<Arc<Seen>>,
    shared: &Shared,
    progress: Option<watch::Receiver<Progress>>,
) {
    let mut written = None;
    loop {
        let exposure = exposed(context, progress.as_ref()).await;
        let status = status(context, &seen.borrow(), shared, exposure);
        // The time alone is no news.
        let news = SiteStatus { seen_ms: 0, ..status.clone() };
        if written.as_ref() != Some(&news) {
            match write(context, &status).await {
                Ok(()) => written = Some(news),
                Err(error) => tracing::warn!(site = %context.site, %error, "the status could not be written"),
            }
        }
        tokio::time::sleep(STATUS_EVERY).await;
    }
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
    let map = context.map();
    let nodes = map.nodes.iter().map(|node| node_status(node, seen.nodes.get(&node.name)));
    SiteStatus {
        site: context.site.clone(),
        role: if standing.active { "active" } else { "passive" }.to_owned(),
        epoch: standing.epoch,
        map_generation: map.generation,
        nodes: nodes.collect(),
        health: shared.health.borrow().clone(),
        repair_queue: shared.queue.load(Ordering::Relaxed),
        rows_repaired: shared.repaired.load(Ordering::Relaxed),
        exposure,
        seen_ms: now_ms(),
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
