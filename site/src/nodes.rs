//! The nodes of a site: looked at all the time, told the epoch, and written down as the placement map.
//!
//! ```text
//!            answers                    silent for node_dead_after
//!   Live ◄──────────── Live (silent) ───────────────────────────────► Dead
//!     ▲                                                                 │
//!     └──────────────────────── answers again ──────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, Write};
use diptych_core::ids::{DeviceId, ExtentId, Generation, InstanceId, NodeName, Row, SiteName, Stamp};
use diptych_core::keys;
use diptych_core::placement::{MapDevice, MapDeviceState, MapNode, NodeState, PlacementMap};
use diptych_core::records::{self, Record};
use diptych_wire::agent::{AgentStatus, DeviceState};
use tokio::sync::watch;

use crate::agents::{Agents, NodeEndpoint};
use crate::context::Standing;
use crate::error::SiteError;

/// How long an agent may take to say how it is.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A row that an agent found rotten.
pub type Rotten = (ExtentId, Row, InstanceId);

/// What was last seen of the nodes.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By node, whether or not it still answers.
    pub nodes: BTreeMap<NodeName, NodeSeen>,
}

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
}

/// Watches the nodes.
pub struct NodeWatch {
    site: SiteName,
    catalog: Arc<dyn Catalog>,
    agents: Arc<Agents>,
    declared: Vec<NodeEndpoint>,
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
    ) -> Result<Self, SiteError> {
        let site = catalog.site().clone();
        let known = catalog.view().await?.get(&keys::map(&site))?;
        let map = known.map(|bytes| PlacementMap::decode(&bytes)).transpose()?.unwrap_or_default();
        let begun = Instant::now();
        let fresh = |node: &NodeEndpoint| {
            (node.name.clone(), NodeSeen { status: None, answered: begun, answers: false })
        };
        let seen = Seen { nodes: declared.iter().map(fresh).collect() };
        let (seen, map) = (watch::Sender::new(Arc::new(seen)), watch::Sender::new(Arc::new(map)));
        Ok(Self { site, catalog, agents, declared, standing, dead_after, seen, map })
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
                tracing::warn!(site = %self.site, %error, "the placement map could not be renewed");
            }
        }
    }

    /// Asks every agent how it is, and writes the map where it has changed.
    pub async fn look(&self) -> Result<(), SiteError> {
        let stamp = self.standing.borrow().stamp();
        let looks = self.declared.iter().map(|node| async move { (node, self.look_at(node, stamp).await) });
        let answers = futures::future::join_all(looks).await;
        let mut seen = Seen::clone(&self.seen.borrow());
        for (node, answer) in answers {
            let known = seen.nodes.entry(node.name.clone());
            let known =
                known.or_insert_with(|| NodeSeen { status: None, answered: Instant::now(), answers: false });
            note(known, node, answer);
        }
        let old = self.map.borrow().clone();
        let nodes = map_nodes(&self.declared, &seen, &old, self.dead_after, Instant::now());
        self.seen.send_replace(Arc::new(seen));
        if nodes != old.nodes {
            let map = PlacementMap { generation: Generation(old.generation.0 + 1), nodes };
            self.write(&old, &map).await?;
            self.map.send_replace(Arc::new(map));
        }
        Ok(())
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

    async fn write(&self, old: &PlacementMap, map: &PlacementMap) -> Result<(), SiteError> {
        let key = keys::map(&self.site);
        let expect = match self.catalog.view().await?.get(&key)? {
            Some(bytes) if PlacementMap::decode(&bytes)?.generation == old.generation => Expect::Value(bytes),
            None => Expect::Absent,
            Some(_) => {
                tracing::warn!(site = %self.site, "another keeper wrote the placement map");
                return Ok(());
            }
        };
        let mut writes = vec![Write::Put(key.clone(), map.encode().into())];
        writes.extend(self.device_writes(map));
        let change = Change { guards: vec![Guard { key, expect }], writes };
        self.catalog.commit(Batch::one(None, change)).await?;
        tracing::info!(site = %self.site, generation = %map.generation, "new placement map");
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
            Some(Write::Put(keys::device(&self.site, device.id), Bytes::from(record.encode())))
        };
        map.devices().filter_map(write).collect()
    }
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

/// The map's nodes as they should be. A node that was never seen is not in it: nothing is known of its devices.
fn map_nodes(
    declared: &[NodeEndpoint],
    seen: &Seen,
    old: &PlacementMap,
    dead_after: Duration,
    now: Instant,
) -> Vec<MapNode> {
    let node = |endpoint: &NodeEndpoint| -> Option<MapNode> {
        let seen = seen.nodes.get(&endpoint.name)?;
        let before = old.nodes.iter().find(|node| node.name == endpoint.name);
        let silent = now.saturating_duration_since(seen.answered);
        let was_dead = before.is_some_and(|node| node.state == NodeState::Dead);
        let state = if seen.answers || (silent < dead_after && !was_dead) {
            NodeState::Live
        } else {
            NodeState::Dead
        };
        let devices = match &seen.status {
            Some(status) => map_devices(status, before),
            None => before?.devices.clone(),
        };
        Some(MapNode {
            name: endpoint.name.clone(),
            address: endpoint.address.clone(),
            socket: endpoint.socket.as_ref().map(|path| path.display().to_string()),
            state,
            devices,
        })
    };
    declared.iter().filter_map(node).collect()
}

fn map_devices(status: &AgentStatus, before: Option<&MapNode>) -> Vec<MapDevice> {
    let now = status.devices.iter().filter_map(|facts| {
        let state = match facts.state {
            DeviceState::Ok => MapDeviceState::Live,
            DeviceState::Full => MapDeviceState::Full,
            DeviceState::Failed(_) | DeviceState::Missing => MapDeviceState::Dead,
            DeviceState::Unformatted => return None,
        };
        let id = facts.device?;
        let known = before.and_then(|node| node.devices.iter().find(|device| device.id == id));
        Some(MapDevice { id, weight: weight(facts.capacity, known.map(|device| device.weight)), state })
    });
    let mut devices: Vec<MapDevice> = now.collect();
    // A device that the agent no longer names had rows: it is gone, and they are rebuilt elsewhere.
    for gone in before.map(|node| node.devices.as_slice()).unwrap_or_default() {
        if !devices.iter().any(|device| device.id == gone.id) {
            devices.push(MapDevice { state: MapDeviceState::Dead, ..*gone });
        }
    }
    devices.sort_by_key(|device| device.id);
    devices
}

/// A device's share of the rows: its size in GiB. One that shares its file system changes all the time, so a weight stays
/// until it is a quarter off: each new map makes writers place again.
fn weight(capacity: u64, known: Option<u32>) -> u32 {
    let now = u32::try_from(capacity >> 30).unwrap_or(u32::MAX).max(1);
    known.filter(|known| known.abs_diff(now) <= known / 4).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use diptych_wire::agent::{DeviceFacts, ScrubProgress};

    use super::*;

    fn endpoint() -> NodeEndpoint {
        NodeEndpoint { name: "n1".parse().expect("a name"), address: "127.0.0.1:1".to_owned(), socket: None }
    }

    fn facts(device: u32, state: DeviceState) -> DeviceFacts {
        DeviceFacts {
            device: Some(DeviceId(device)),
            path: "/d".into(),
            state,
            capacity: 1,
            used: 0,
            rows: 0,
            generation: Generation(1),
            scrub: ScrubProgress::default(),
            findings: vec![],
        }
    }

    fn status(devices: Vec<DeviceFacts>) -> AgentStatus {
        AgentStatus {
            site: "east".parse().expect("a name"),
            node: endpoint().name,
            version: String::new(),
            stamp: Stamp::default(),
            ready: true,
            devices,
        }
    }

    fn nodes(seen: NodeSeen, old: &PlacementMap, now: Instant) -> Vec<MapNode> {
        let seen = Seen { nodes: BTreeMap::from([(endpoint().name, seen)]) };
        map_nodes(&[endpoint()], &seen, old, Duration::from_secs(10), now)
    }

    #[test]
    fn a_node_is_dead_only_after_its_silence_and_lives_again_when_it_answers() {
        let begun = Instant::now();
        let answer = status(vec![facts(1, DeviceState::Ok)]);
        let mut seen = NodeSeen { status: Some(answer), answered: begun, answers: false };
        let mut map = PlacementMap::default();
        map.nodes = nodes(seen.clone(), &map, begun + Duration::from_secs(9));
        assert_eq!(map.nodes[0].state, NodeState::Live);
        map.nodes = nodes(seen.clone(), &map, begun + Duration::from_secs(10));
        assert_eq!(map.nodes[0].state, NodeState::Dead);
        // A keeper that begins anew does not take a dead node for live before it answers.
        seen.answered = begun + Duration::from_secs(11);
        map.nodes = nodes(seen.clone(), &map, begun + Duration::from_secs(12));
        assert_eq!(map.nodes[0].state, NodeState::Dead);
        seen.answers = true;
        map.nodes = nodes(seen, &map, begun + Duration::from_secs(12));
        assert_eq!(map.nodes[0].state, NodeState::Live);
    }

    #[test]
    fn a_device_that_is_no_longer_named_is_dead_and_stays_in_the_map() {
        let begun = Instant::now();
        let both = status(vec![facts(1, DeviceState::Ok), facts(2, DeviceState::Ok)]);
        let mut map = PlacementMap::default();
        map.nodes = nodes(NodeSeen { status: Some(both), answered: begun, answers: true }, &map, begun);
        let one = status(vec![facts(2, DeviceState::Ok)]);
        map.nodes = nodes(NodeSeen { status: Some(one), answered: begun, answers: true }, &map, begun);
        let states: Vec<_> = map.nodes[0].devices.iter().map(|device| (device.id.0, device.state)).collect();
        assert_eq!(states, [(1, MapDeviceState::Dead), (2, MapDeviceState::Live)]);
    }

    #[test]
    fn a_weight_stays_until_the_size_is_a_quarter_off() {
        assert_eq!(weight(100 << 30, None), 100);
        assert_eq!(weight(76 << 30, Some(100)), 100);
        assert_eq!(weight(74 << 30, Some(100)), 74);
    }

    #[test]
    fn a_node_that_was_never_seen_is_not_in_the_map() {
        let begun = Instant::now();
        let seen = NodeSeen { status: None, answered: begun, answers: false };
        assert!(nodes(seen, &PlacementMap::default(), begun).is_empty());
    }
}
