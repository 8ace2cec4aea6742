//! The nodes of a site: looked at all the time, told the epoch, and written down as the placement map. The active site does
//! the same with the outside nodes.
//!
//! ```text
//!            answers                    silent for node_dead_after
//!   Live ◄──────────── Live (silent) ───────────────────────────────► Dead
//!     ▲                                                                 │
//!     └──────────────────────── answers again ──────────────────────────┘
//! ```
//!
//! A live one, or devices of it, that a person wants emptied is Draining instead, as far as the rest can do without
//! (`core::moving`).

mod map;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, View, Write};
use diptych_core::ids::{DeviceId, Epoch, ExtentId, Generation, InstanceId, NodeName, Row, SiteName, Stamp};
use diptych_core::keys;
use diptych_core::latency::Slowness;
use diptych_core::moving::{self, Coding, Stuck};
use diptych_core::placement::{MapDevice, MapDeviceState, MapNode, NodeState, PlacementMap};
use diptych_core::planner::Survive;
use diptych_core::records::{self, CodingPlan, Record};
use diptych_wire::agent::{AgentStatus, DeviceFacts, DeviceTakes};
use tokio::sync::watch;

use crate::agents::{Agents, NodeEndpoint};
use crate::context::Standing;
use crate::drain;
use crate::error::SiteError;
use crate::outside;
use map::map_nodes;

/// How long an agent may take to say how it is.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A row that an agent found rotten.
pub type Rotten = (ExtentId, Row, InstanceId);

/// What was last seen of the nodes.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By node, whether or not it still answers.
    pub nodes: BTreeMap<NodeName, NodeSeen>,
    /// What a person wants emptied, and why it is not, if it can't be.
    pub drains: BTreeMap<NodeName, Option<Stuck>>,
    /// Devices that take many times what the others take.
    pub slow: BTreeSet<DeviceId>,
}

/// A device is slow of which 99 of 100 requests take so much longer than its peers'. One that is slow now and then is no trouble, and it
/// takes a while until one that was is trusted again.
const SLOW: Slowness = Slowness { from: 5, until: 2, least: Duration::from_millis(50) };

/// What was last seen of one node.
#[derive(Debug, Clone)]
pub struct NodeSeen {
    /// Its last answer; None: never since this keeper began.
    pub status: Option<AgentStatus>,
    /// When it answered, or when this keeper began.
    pub answered: Instant,
    /// Whether it answered the last look.
    pub answers: bool,
}

impl Seen {
    /// Everything that agents found rotten.
    pub fn rotten(&self) -> BTreeSet<Rotten> {
        let devices =
            self.nodes.values().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.devices);
        let findings = devices.flat_map(|device| &device.findings);
        findings.map(|finding| (finding.extent, finding.row, finding.instance)).collect()
    }

    /// Looks which devices are slow for reads or for writes. Those that don't say what they take are not.
    fn judge(&mut self) {
        let statuses =
            self.nodes.values().filter(|node| node.answers).filter_map(|node| node.status.as_ref());
        let devices: Vec<&DeviceFacts> = statuses.flat_map(|status| &status.devices).collect();
        let slow_for = |takes: fn(DeviceTakes) -> Option<Duration>| {
            let known = devices.iter().filter_map(|facts| Some((facts.device?, takes(facts.takes)?)));
            SLOW.judge(&known.collect(), &self.slow)
        };
        let mut slow = slow_for(|takes| takes.read);
        slow.extend(slow_for(|takes| takes.write));
        for device in slow.symmetric_difference(&self.slow) {
            if slow.contains(device) {
                tracing::warn!(%device, "the device takes many times what the others take");
            } else {
                tracing::info!(%device, "the device is as fast as the others again");
            }
        }
        self.slow = slow;
    }

    /// When each device ended its last whole round of scrub.
    pub fn scrubbed(&self) -> Vec<(Option<DeviceId>, u64)> {
        let statuses = self.nodes.values().filter_map(|node| node.status.as_ref());
        let devices = statuses.flat_map(|status| &status.devices);
        devices.map(|facts| (facts.device, facts.scrub.finished_ms)).collect()
    }
}

/// Which nodes are watched.
enum Watched {
    /// Those of the site, in either role, and what their rows must survive.
    Own(Vec<NodeEndpoint>, Survive),
    /// Those that the catalog declares outside, while the site is active.
    Outside,
}

/// Who is looked at now, and by which right.
struct Charge {
    nodes: Vec<NodeEndpoint>,
    stamp: Stamp,
    /// The map is written under it.
    epoch: Option<Epoch>,
}

impl Charge {
    /// The least generation of a map that is written now. The outside map passes from site to site, and what the last writer
    /// wrote may be unknown here: each epoch's generations are above all earlier ones.
    fn least_generation(&self) -> Generation {
        Generation(self.epoch.map_or(0, |epoch| epoch.0 << 32))
    }
}

/// Watches the nodes of one place.
pub struct NodeWatch {
    place: SiteName,
    catalog: Arc<dyn Catalog>,
    agents: Arc<Agents>,
    watched: Watched,
    standing: watch::Receiver<Standing>,
    dead_after: Duration,
    seen: watch::Sender<Arc<Seen>>,
    map: watch::Sender<Arc<PlacementMap>>,
}

impl NodeWatch {
    /// Begins with the map that the catalog has.
    pub async fn begin(
        catalog: Arc<dyn Catalog>,
        agents: Arc<Agents>,
        declared: Vec<NodeEndpoint>,
        standing: watch::Receiver<Standing>,
        dead_after: Duration,
        survive: Survive,
    ) -> Result<Self, SiteError> {
        let place = catalog.site().clone();
        let begun = Instant::now();
        let fresh = |node: &NodeEndpoint| {
            (node.name.clone(), NodeSeen { status: None, answered: begun, answers: false })
        };
        let seen = Seen {
            nodes: declared.iter().map(fresh).collect(),
            drains: BTreeMap::new(),
            slow: BTreeSet::new(),
        };
        let map = read_map(catalog.view().await?.as_ref(), &place)?;
        let (seen, map) = (watch::Sender::new(Arc::new(seen)), watch::Sender::new(Arc::new(map)));
        let watched = Watched::Own(declared, survive);
        Ok(Self { place, catalog, agents, watched, standing, dead_after, seen, map })
    }

    /// Of the outside nodes.
    pub async fn begin_outside(
        catalog: Arc<dyn Catalog>,
        agents: Arc<Agents>,
        standing: watch::Receiver<Standing>,
        dead_after: Duration,
    ) -> Result<Self, SiteError> {
        let place = SiteName::outside();
        let map = watch::Sender::new(Arc::new(read_map(catalog.view().await?.as_ref(), &place)?));
        let (watched, seen) = (Watched::Outside, watch::Sender::default());
        Ok(Self { place, catalog, agents, watched, standing, dead_after, seen, map })
    }

    /// The map, as it changes.
    pub fn map(&self) -> watch::Receiver<Arc<PlacementMap>> {
        self.map.subscribe()
    }

    /// What was seen, after each look.
    pub fn seen(&self) -> watch::Receiver<Arc<Seen>> {
        self.seen.subscribe()
    }

    /// Looks again and again.
    pub async fn run(self, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.look().await {
                tracing::warn!(place = %self.place, %error, "the placement map could not be renewed");
            }
        }
    }

    /// Asks every agent how it is, and writes the map where it has changed.
    pub async fn look(&self) -> Result<(), SiteError> {
        let Some(charge) = self.charge().await? else { return Ok(()) };
        let stamp = charge.stamp;
        let looks = charge.nodes.iter().map(|node| async move { (node, self.look_at(node, stamp).await) });
        let answers = futures::future::join_all(looks).await;
        let mut seen = Seen::clone(&self.seen.borrow());
        seen.nodes.retain(|name, _| charge.nodes.iter().any(|node| node.name == *name));
        for (node, answer) in answers {
            let known = seen.nodes.entry(node.name.clone());
            let known =
                known.or_insert_with(|| NodeSeen { status: None, answered: Instant::now(), answers: false });
            note(known, node, answer);
        }
        seen.judge();
        let old = self.map.borrow().clone();
        let nodes = map_nodes(&charge.nodes, &seen, &old, self.dead_after, Instant::now());
        let mut now = PlacementMap { generation: old.generation, nodes };
        let marked = self.drain(&mut now, &old).await;
        if let Ok(drains) = &marked {
            seen.drains.clone_from(drains);
        }
        self.seen.send_replace(Arc::new(seen));
        // Who answers is told without the catalog too; a map can't be written then.
        marked?;
        let nodes = now.nodes;
        let least = charge.least_generation();
        if nodes != old.nodes || (old.generation < least && !nodes.is_empty()) {
            let map = PlacementMap { generation: Generation(old.generation.0 + 1).max(least), nodes };
            self.write(&old, &map, charge.epoch).await?;
            self.map.send_replace(Arc::new(map));
        }
        Ok(())
    }

    /// None: the other site looks.
    ///
    /// FENCING: role and stamp are of one moment, see `SiteContext::outside_nodes`.
    async fn charge(&self) -> Result<Option<Charge>, SiteError> {
        let standing = *self.standing.borrow();
        let nodes = match &self.watched {
            Watched::Own(nodes, _) => {
                return Ok(Some(Charge { nodes: nodes.clone(), stamp: standing.stamp(), epoch: None }));
            }
            Watched::Outside => {
                let view = self.catalog.view().await?;
                let known = Arc::new(read_map(view.as_ref(), &self.place)?);
                self.map.send_if_modified(|map| std::mem::replace(map, Arc::clone(&known)) != known);
                outside::endpoints(view.as_ref(), &known)?
            }
        };
        if standing.active {
            return Ok(Some(Charge { nodes, stamp: standing.stamp(), epoch: Some(standing.epoch) }));
        }
        // What was seen in an earlier term says nothing of how long a node has been silent.
        self.seen.send_if_modified(|seen| !std::mem::take(seen).nodes.is_empty());
        Ok(None)
    }

    /// Marks what a person wants emptied.
    async fn drain(
        &self,
        map: &mut PlacementMap,
        old: &PlacementMap,
    ) -> Result<BTreeMap<NodeName, Option<Stuck>>, SiteError> {
        let view = self.catalog.view().await?;
        let asked = drain::asked(view.as_ref(), &self.place)?;
        let Some(coding) = self.coding(view.as_ref())? else { return Ok(BTreeMap::new()) };
        let refused = moving::drain(map, old, &asked, coding);
        Ok(asked.into_keys().map(|name| (name.clone(), refused.get(&name).copied())).collect())
    }

    /// None: nothing is written yet.
    fn coding(&self, view: &dyn View) -> Result<Option<Coding>, SiteError> {
        let Watched::Own(_, survive) = &self.watched else { return Ok(Some(Coding::MARGIN)) };
        let Some((_, plan)) = view.last(&keys::plans())? else { return Ok(None) };
        let plan = CodingPlan::decode(&plan)?;
        let rows = plan.rows.iter().find(|(site, _)| *site == self.place);
        Ok(rows.map(|&(_, rows)| Coding { needed: plan.needed, rows, survive: *survive }))
    }

    async fn look_at(&self, node: &NodeEndpoint, stamp: Stamp) -> Result<AgentStatus, String> {
        let client = self.agents.declare(node).map_err(|error| error.to_string())?;
        let look = async {
            let status = client.status().await.map_err(|error| error.to_string())?;
            // An agent takes no command before it has heard its site's epoch.
            if stamp > status.stamp || !status.ready {
                client.raise(stamp).await.map_err(|error| error.to_string())?;
            }
            Ok(status)
        };
        tokio::time::timeout(LOOK_LIMIT, look).await.unwrap_or_else(|_| Err("no answer in 2 s".to_owned()))
    }

    async fn write(
        &self,
        old: &PlacementMap,
        map: &PlacementMap,
        epoch: Option<Epoch>,
    ) -> Result<(), SiteError> {
        let key = keys::map(&self.place);
        let expect = match self.catalog.view().await?.get(&key)? {
            Some(bytes) if PlacementMap::decode(&bytes)?.generation == old.generation => Expect::Value(bytes),
            None => Expect::Absent,
            Some(_) => {
                tracing::warn!(place = %self.place, "another keeper wrote the placement map");
                return Ok(());
            }
        };
        let mut writes = vec![Write::Put(key.clone(), map.encode().into())];
        writes.extend(self.device_writes(map));
        let change = Change { guards: vec![Guard { key, expect }], writes };
        self.catalog.commit(Batch::one(epoch, change)).await?;
        tracing::info!(place = %self.place, generation = %map.generation, "new placement map");
        Ok(())
    }

    fn device_writes(&self, map: &PlacementMap) -> Vec<Write> {
        let seen = self.seen.borrow().clone();
        let facts = |device: DeviceId| {
            let statuses = seen.nodes.values().filter_map(|node| node.status.as_ref());
            statuses.flat_map(|status| &status.devices).find(|facts| facts.device == Some(device)).cloned()
        };
        let write = |(_, node, device): (usize, &MapNode, &MapDevice)| -> Option<Write> {
            let facts = facts(device.id)?;
            let state = match (node.state, device.state) {
                (NodeState::Dead, _) | (_, MapDeviceState::Dead) => records::DeviceState::Dead,
                (NodeState::Draining, _) | (_, MapDeviceState::Draining) => records::DeviceState::Draining,
                (NodeState::Live, MapDeviceState::Live | MapDeviceState::Full) => records::DeviceState::Live,
            };
            let record = records::Device {
                node: node.name.clone(),
                path: facts.path.display().to_string(),
                generation: facts.generation,
                state,
                capacity: facts.capacity,
                used: facts.used,
            };
            Some(Write::Put(keys::device(&self.place, device.id), Bytes::from(record.encode())))
        };
        map.devices().filter_map(write).collect()
    }
}

fn read_map(view: &dyn View, place: &SiteName) -> Result<PlacementMap, SiteError> {
    let known = view.get(&keys::map(place))?;
    Ok(known.map(|bytes| PlacementMap::decode(&bytes)).transpose()?.unwrap_or_default())
}

fn note(known: &mut NodeSeen, node: &NodeEndpoint, answer: Result<AgentStatus, String>) {
    match answer {
        Ok(status) => {
            if !known.answers {
                tracing::info!(node = %node.name, "the node answers");
            }
            *known = NodeSeen { status: Some(status), answered: Instant::now(), answers: true };
        }
        Err(reason) => {
            if known.answers {
                tracing::warn!(node = %node.name, reason, "the node does not answer");
            }
            known.answers = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use diptych_wire::agent::{DeviceState, ScrubProgress};

    use super::*;

    /// A node with one device, that takes so many milliseconds for writes.
    fn node(device: u32, write: Option<u64>) -> (NodeName, NodeSeen) {
        let name: NodeName = format!("n{device}").parse().expect("a name");
        let facts = DeviceFacts {
            device: Some(DeviceId(device)),
            path: "/d".into(),
            state: DeviceState::Ok,
            capacity: 1,
            used: 0,
            rows: 0,
            generation: Generation(1),
            takes: DeviceTakes { read: None, write: write.map(Duration::from_millis) },
            scrub: ScrubProgress::default(),
            findings: vec![],
        };
        let status = AgentStatus {
            site: "east".parse().expect("a name"),
            node: name.clone(),
            version: String::new(),
            stamp: Stamp::default(),
            ready: true,
            devices: vec![facts],
        };
        (name, NodeSeen { status: Some(status), answered: Instant::now(), answers: true })
    }

    fn slow(seen: &mut Seen, writes: [Option<u64>; 4]) -> Vec<u32> {
        seen.nodes = (0..).zip(writes).map(|(device, write)| node(device, write)).collect();
        seen.judge();
        seen.slow.iter().map(|device| device.0).collect()
    }

    #[test]
    fn a_device_is_slow_from_five_times_its_peers_until_it_takes_no_more_than_twice_as_long() {
        let mut seen = Seen::default();
        assert_eq!(slow(&mut seen, [Some(20), Some(20), Some(90), Some(25)]), [0; 0]);
        assert_eq!(slow(&mut seen, [Some(20), Some(20), Some(400), Some(25)]), [2]);
        assert_eq!(slow(&mut seen, [Some(20), Some(20), Some(90), Some(25)]), [2], "it is not trusted yet");
        assert_eq!(slow(&mut seen, [Some(20), Some(20), Some(35), Some(25)]), [0; 0]);
        assert_eq!(slow(&mut seen, [Some(400), Some(500), Some(400), Some(450)]), [0; 0], "the load is");
        assert_eq!(slow(&mut seen, [Some(2), Some(2), Some(40), Some(2)]), [0; 0], "40 ms are not slow");
        assert_eq!(slow(&mut seen, [None, None, Some(400), Some(2)]), [0; 0], "of two it can't be told");
    }
}
