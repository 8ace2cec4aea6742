//! The site's node-agents: which are there, how to reach them, and which were found missing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use diptych_core::ids::{DeviceId, Generation, NodeName, SiteName};
use diptych_core::placement::{MapDevice, MapNode, NodeState, PlacementMap};
use diptych_wire::client::{AgentClient, ClientOptions, Endpoint};
use diptych_wire::tls::Credentials;

use crate::latency::DeviceLatency;

/// The placement map with a client for each node in it. Replaced whole when the map changes.
#[derive(Debug, Default)]
pub struct Agents {
    map: PlacementMap,
    clients: HashMap<NodeName, AgentClient>,
    devices: HashMap<DeviceId, KnownDevice>,
}

/// A device of the map.
#[derive(Debug)]
struct KnownDevice {
    node: NodeName,
    latency: Arc<DeviceLatency>,
}

impl Agents {
    /// Of a map; clients whose node has not moved are taken over with their connections, and what was measured of devices.
    fn of(map: PlacementMap, site: &SiteName, dial: &AgentDial, before: &Self) -> Self {
        let mut clients = HashMap::new();
        for node in map.nodes.iter().filter(|node| node.state != NodeState::Dead) {
            let endpoint = Endpoint {
                site: site.clone(),
                node: node.name.clone(),
                address: node.address.clone(),
                socket: node.socket.as_ref().map(PathBuf::from),
            };
            let kept =
                before.clients.get(&node.name).filter(|client| *client.endpoint() == endpoint).cloned();
            let made = || AgentClient::new(endpoint, &dial.credentials, dial.options.clone());
            match kept.map_or_else(made, Ok) {
                Ok(client) => drop(clients.insert(node.name.clone(), client)),
                Err(error) => {
                    tracing::error!(node = %node.name, %error, "no client for this node can be made");
                }
            }
        }
        let known = |(_, node, device): (usize, &MapNode, &MapDevice)| {
            let latency = before.devices.get(&device.id).map(|known| Arc::clone(&known.latency));
            (device.id, KnownDevice { node: node.name.clone(), latency: latency.unwrap_or_default() })
        };
        let devices = map.devices().map(known).collect();
        Self { map, clients, devices }
    }

    /// The map.
    pub fn map(&self) -> &PlacementMap {
        &self.map
    }

    /// Its generation: goes with every command.
    pub fn generation(&self) -> Generation {
        self.map.generation
    }

    /// Node of a device.
    pub fn node_of(&self, device: DeviceId) -> Option<&NodeName> {
        self.devices.get(&device).map(|known| &known.node)
    }

    /// What a device takes to answer.
    pub(crate) fn latency(&self, device: DeviceId) -> Option<&DeviceLatency> {
        self.devices.get(&device).map(|known| known.latency.as_ref())
    }

    /// What each device takes.
    pub(crate) fn latencies(&self) -> impl Iterator<Item = (DeviceId, &DeviceLatency)> {
        self.devices.iter().map(|(id, known)| (*id, known.latency.as_ref()))
    }

    /// Client of a node. None: the map does not know it, or calls it dead.
    pub fn client(&self, node: &NodeName) -> Option<&AgentClient> {
        self.clients.get(node)
    }

    /// All clients, by node.
    pub fn clients(&self) -> impl Iterator<Item = (&NodeName, &AgentClient)> {
        self.clients.iter()
    }
}

/// How agents are reached.
#[derive(Debug, Clone)]
pub struct AgentDial {
    /// Who this gateway is.
    pub credentials: Credentials,
    /// Times and numbers.
    pub options: ClientOptions,
}

/// The newest [`Agents`].
#[derive(Debug)]
pub struct AgentPool {
    site: SiteName,
    dial: AgentDial,
    current: ArcSwap<Agents>,
}

impl AgentPool {
    /// Without a map yet.
    pub fn new(site: SiteName, dial: AgentDial) -> Self {
        Self { site, dial, current: ArcSwap::from_pointee(Agents::default()) }
    }

    /// The newest.
    pub fn current(&self) -> Arc<Agents> {
        self.current.load_full()
    }

    /// Takes a map into use unless it is the one in use.
    pub fn take(&self, map: PlacementMap) {
        let before = self.current.load_full();
        if *before.map() != map {
            tracing::info!(generation = %map.generation, nodes = map.nodes.len(), "placement map");
            self.current.store(Arc::new(Agents::of(map, &self.site, &self.dial, &before)));
        }
    }
}
