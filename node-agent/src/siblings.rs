//! Clients of other agents, kept while they are used.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use diptych_core::ids::{NodeName, SiteName};
use diptych_wire::agent::AgentError;
use diptych_wire::client::{AgentClient, CallError, ClientOptions, Endpoint};
use diptych_wire::tls::Credentials;

/// One client for each agent that was ever asked; a node that moves gets another.
#[derive(Debug)]
pub(crate) struct Siblings {
    credentials: Credentials,
    clients: Mutex<HashMap<(SiteName, NodeName, String), AgentClient>>,
}

impl Siblings {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, clients: Mutex::default() }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
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
