//! Clients of other agents and of the other site's doors, kept with their connections.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use diptych_core::ids::{NodeName, SiteName};
use diptych_wire::agent::{AgentError, Door};
use diptych_wire::client::{AgentClient, CallError, ClientOptions, Endpoint};
use diptych_wire::http::HttpClient;
use diptych_wire::identity::Expected;
use diptych_wire::tls::Credentials;

/// One client for each agent and door that was ever asked; what moves gets another.
pub(crate) struct Siblings {
    credentials: Credentials,
    clients: Mutex<HashMap<(SiteName, NodeName, String), AgentClient>>,
    doors: Mutex<HashMap<(SiteName, String), HttpClient>>,
}

impl Siblings {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, clients: Mutex::default(), doors: Mutex::default() }
    }

    pub(crate) fn client(
        &self,
        site: &SiteName,
        node: &NodeName,
        address: &str,
    ) -> Result<AgentClient, AgentError> {
        let key = (site.clone(), node.clone(), address.to_owned());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let endpoint =
            Endpoint { site: site.clone(), node: node.clone(), address: address.to_owned(), socket: None };
        let client = AgentClient::new(endpoint, &self.credentials, ClientOptions::default())
            .map_err(|error| AgentError::Internal { reason: error.to_string() })?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// A listener of the other site, where nobody else may answer. A handshake costs more than a small extent does.
    pub(crate) fn door(&self, door: &Door) -> Result<HttpClient, AgentError> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (door.site.clone(), door.address.clone());
        if let Some(client) = doors.get(&key) {
            return Ok(client.clone());
        }
        let expected = Expected::gateway(self.credentials.identity().cluster, door.site.clone());
        let client = HttpClient::new(door.address.clone(), &self.credentials, expected)
            .map_err(|error| AgentError::Internal { reason: error.to_string() })?;
        doors.insert(key, client.clone());
        Ok(client)
    }
}

/// What a sibling's answer means to whoever asked this agent.
pub(crate) fn sibling_error(node: &NodeName, error: CallError) -> AgentError {
    match error {
        CallError::Agent(error) => error,
        other => {
            AgentError::Unreachable { what: format!("the agent of node {node}"), reason: other.to_string() }
        }
    }
}
