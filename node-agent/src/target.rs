//! Where rows of one extent go on one node: this agent's devices, or those of another agent.

use bytes::Bytes;
use diptych_core::ids::{InstanceId, NodeName, SiteName};
use diptych_store::Purpose;
use diptych_wire::agent::{AgentError, Begin};
use diptych_wire::client::{AgentClient, RowStream};

use crate::agent::Agent;
use crate::siblings::sibling_error;
use crate::streams::OpenRows;

/// Rows that are being written on one node.
pub(crate) enum Target {
    Here(OpenRows),
    There(NodeName, RowStream),
}

impl Target {
    pub(crate) async fn here(agent: &Agent, begin: &Begin) -> Self {
        Self::Here(OpenRows::begin(agent, begin, Purpose::Repair).await)
    }

    pub(crate) async fn there(
        agent: &Agent,
        (site, node, address): (&SiteName, &NodeName, &str),
        begin: &Begin,
    ) -> Result<Self, AgentError> {
        let client: AgentClient = agent.siblings.client(site, node, address)?;
        let (stream, _) = client.begin(begin).await.map_err(|error| sibling_error(node, error))?;
        Ok(Self::There(node.clone(), stream))
    }

    /// Rows that may still become durable.
    pub(crate) fn alive(&self) -> usize {
        match self {
            Self::Here(open) => open.alive(),
            Self::There(_, stream) => stream.failed().iter().filter(|failed| failed.is_none()).count(),
        }
    }

    /// Why a row failed so far, if one did.
    pub(crate) fn failure(&self) -> Option<AgentError> {
        match self {
            Self::Here(open) => open.failure(),
            Self::There(_, stream) => stream.failed().iter().flatten().next().cloned(),
        }
    }

    /// Appends pieces, each to its row; rows that fail alone take nothing more.
    pub(crate) async fn append(&mut self, pieces: Vec<(u16, Bytes)>) -> Result<(), AgentError> {
        match self {
            Self::Here(open) => open.append(pieces).await.map(drop),
            Self::There(node, stream) => {
                stream.append(pieces).await.map_err(|error| sibling_error(node, error))
            }
        }
    }

    /// Makes the rows durable; by row, its instance.
    pub(crate) async fn seal(
        self,
        agent: &Agent,
        extent_len: u32,
        extent_hash: [u8; 32],
    ) -> Result<Vec<Result<InstanceId, AgentError>>, AgentError> {
        match self {
            Self::Here(open) => open.seal(agent, extent_len, extent_hash).await,
            Self::There(node, stream) => {
                stream.seal(extent_len, extent_hash).await.map_err(|error| sibling_error(&node, error))
            }
        }
    }
}
