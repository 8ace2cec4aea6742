//! The agent's state, shared by all its connections and loops.

use std::sync::Arc;

use diptych_core::ids::{NodeName, SiteName};
use diptych_wire::agent::{AgentStatus, DeviceFacts, DeviceState, Finding, HelloReply, ScrubProgress};
use diptych_wire::identity::Identity;
use diptych_wire::server::Counters;
use tokio::sync::Semaphore;

use crate::device::{Closed, Devices, Slot, State};
use crate::fence::Fence;
use crate::metrics::Metrics;
use crate::siblings::Siblings;
use crate::streams::Streams;

/// Bytes of answers that may wait to be sent, of all connections together.
const ANSWER_BYTES: usize = 48 << 20;
/// Rebuilds and crossings at once: each holds a few MiB of rows.
const TASKS: usize = 4;
/// Where clients' writes stop (docs/design.md, Room).
const FULL_PERCENT: u8 = 90;
/// Findings of a device that a status carries.
const FINDINGS: usize = 1000;

pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) node: NodeName,
    pub(crate) devices: Devices,
    pub(crate) fence: Fence,
    pub(crate) streams: Streams,
    pub(crate) siblings: Siblings,
    pub(crate) metrics: Metrics,
    pub(crate) answers: Arc<Semaphore>,
    pub(crate) tasks: Arc<Semaphore>,
}

impl Agent {
    pub(crate) fn new(identity: Identity, node: NodeName, devices: Devices, siblings: Siblings) -> Self {
        Self {
            identity,
            node,
            devices,
            fence: Fence::default(),
            streams: Streams::default(),
            siblings,
            metrics: Metrics::new(),
            answers: Arc::new(Semaphore::new(ANSWER_BYTES)),
            tasks: Arc::new(Semaphore::new(TASKS)),
        }
    }

    pub(crate) fn site(&self) -> &SiteName {
        &self.identity.site
    }

    pub(crate) async fn hello(&self) -> HelloReply {
        let status = self.status().await;
        let AgentStatus { site, node, version, stamp, ready, devices } = status;
        HelloReply { site, node, version, stamp, ready, devices }
    }

    pub(crate) async fn status(&self) -> AgentStatus {
        let devices = self.devices.slots().iter().map(device_facts);
        AgentStatus {
            site: self.site().clone(),
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stamp: self.fence.highest(),
            ready: self.fence.is_ready(),
            devices: futures::future::join_all(devices).await,
        }
    }

    /// Counters and gauges of the agent and of the server in front of it, as Prometheus text.
    pub(crate) async fn metrics_text(&self, server: Option<&Counters>) -> String {
        let status = self.status().await;
        self.metrics.text(&status, server)
    }
}

async fn device_facts(slot: &Arc<Slot>) -> DeviceFacts {
    let mut facts = DeviceFacts {
        device: slot.id(),
        path: slot.path().to_owned(),
        state: DeviceState::Ok,
        capacity: 0,
        used: 0,
        rows: 0,
        generation: diptych_core::ids::Generation(0),
        takes: slot.takes(),
        scrub: ScrubProgress::default(),
        findings: Vec::new(),
    };
    let look = slot.with(|device| {
        let room = device.room()?;
        Ok((
            room,
            device.record_count()?,
            device.scrub_state()?,
            device.findings()?,
            device.identity().generation,
        ))
    });
    match look.await {
        Ok((room, rows, scrub, findings, generation)) => {
            facts.state =
                if room.used_percent() >= FULL_PERCENT { DeviceState::Full } else { DeviceState::Ok };
            (facts.capacity, facts.used, facts.rows, facts.generation) =
                (room.capacity, room.used, rows, generation);
            facts.scrub = slot.scrub_progress(&scrub);
            facts.findings = findings.into_iter().take(FINDINGS).map(finding).collect();
        }
        Err(error) => {
            facts.state = match &*slot.state() {
                State::Closed(Closed::Missing) => DeviceState::Missing,
                State::Closed(Closed::Unformatted) => DeviceState::Unformatted,
                State::Closed(Closed::Failed(reason)) => DeviceState::Failed(reason.clone()),
                State::Open(_) => DeviceState::Failed(error.to_string()),
            };
        }
    }
    facts
}

fn finding(finding: diptych_store::Finding) -> Finding {
    let diptych_store::Finding { key, reason } = finding;
    Finding { extent: key.extent, row: key.row, instance: key.instance, reason }
}
