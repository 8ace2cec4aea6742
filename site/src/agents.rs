//! The clients of a site's node-agents, by node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::RwLock;

use diptych_core::ids::{DeviceId, NodeName, SiteName};
use diptych_core::placement::{NodeShare, PlacementMap};
use diptych_wire::client::{AgentClient, ClientOptions, Endpoint};
use diptych_wire::tls::{Credentials, TlsError};

use crate::error::SiteError;

/// A node as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// Its name.
    pub name: NodeName,
    /// `host:port` of its agent.
    pub address: String,
    /// Unix socket of its agent, where that may be on this machine.
    pub socket: Option<PathBuf>,
    /// Its domain and weights.
    pub share: NodeShare,
}

/// Clients of one site's agents.
pub struct Agents {
    site: SiteName,
    credentials: Credentials,
    clients: RwLock<BTreeMap<NodeName, AgentClient>>,
}

impl Agents {
    /// None are known at first.
    pub fn new(site: SiteName, credentials: Credentials) -> Self {
        Self { site, credentials, clients: RwLock::default() }
    }

    /// Whom they are spoken to as.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Makes a client, or replaces it where the address has changed.
    pub fn declare(&self, node: &NodeEndpoint) -> Result<AgentClient, TlsError> {
        let endpoint = Endpoint {
            site: self.site.clone(),
            node: node.name.clone(),
            address: node.address.clone(),
            socket: node.socket.clone(),
        };
        let mut clients = self.clients.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = clients.get(&node.name).filter(|client| *client.endpoint() == endpoint) {
            return Ok(client.clone());
        }
        let client = AgentClient::new(endpoint, &self.credentials, ClientOptions::default())?;
        clients.insert(node.name.clone(), client.clone());
        Ok(client)
    }

    /// The client of a node.
    pub fn of_node(&self, node: &NodeName) -> Result<AgentClient, SiteError> {
        let clients = self.clients.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        clients.get(node).cloned().ok_or_else(|| SiteError::UnknownNode(node.to_string()))
    }

    /// The client of the node that has a device.
    pub fn of_device(&self, map: &PlacementMap, device: DeviceId) -> Result<AgentClient, SiteError> {
        let (_, node, _) =
            map.find(device).ok_or_else(|| SiteError::UnknownNode(format!("of device {device}")))?;
        self.of_node(&node.name)
    }
}
