//! Where the rows of a crossing extent go: this agent's devices, and those of its siblings.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_core::ids::{InstanceId, NodeName};
use diptych_wire::agent::{AgentError, Begin, BeginRow, Cross, CrossTarget, CrossedRow};

use crate::agent::Agent;
use crate::target::Target;

/// Rows of one node.
struct Sink {
    node: NodeName,
    /// By row of the sink: its index among the targets.
    rows: Vec<usize>,
    /// The error: it was given up.
    way: Result<Target, AgentError>,
}

pub(super) struct Sinks {
    sinks: Vec<Sink>,
    needed: u8,
}

impl Sinks {
    pub(super) async fn begin(agent: &Agent, command: &Cross, reserve: u32) -> Result<Self, AgentError> {
        let sinks = by_node(command).into_iter().map(|((node, address), rows)| async move {
            let begin = begin_of(command, &rows, reserve);
            let way = match address {
                None => Ok(Target::here(agent, &begin).await),
                Some(address) => Target::there(agent, (agent.site(), node, address), &begin).await,
            };
            Sink { node: node.clone(), rows, way }
        });
        let made = Self { sinks: futures::future::join_all(sinks).await, needed: command.extent.needed };
        made.enough()?;
        Ok(made)
    }

    /// A stripe's shard of each target.
    pub(super) async fn append(&mut self, shards: Vec<Bytes>) -> Result<(), AgentError> {
        let shards = &shards;
        futures::future::join_all(self.sinks.iter_mut().map(|sink| sink.append(shards))).await;
        self.enough()
    }

    /// Makes the rows durable; where they are. Those that could not be written are left out.
    pub(super) async fn seal(self, agent: &Agent, command: &Cross) -> Result<Vec<CrossedRow>, AgentError> {
        let (length, hash) = (command.extent.length, command.extent.hash);
        let sealed = self.sinks.into_iter().map(|sink| async move {
            let Sink { node, rows, way } = sink;
            let sealed = match way {
                Ok(target) => target.seal(agent, length, hash).await,
                Err(error) => Err(error),
            };
            (node, rows, sealed)
        });
        crossed(command, futures::future::join_all(sealed).await)
    }

    /// Whether k rows may still become durable; else going on is for nothing.
    fn enough(&self) -> Result<(), AgentError> {
        let alive = self.sinks.iter().filter_map(|sink| sink.way.as_ref().ok()).map(Target::alive);
        let present = alive.sum::<usize>();
        if present >= usize::from(self.needed) {
            return Ok(());
        }
        let reasons = self.sinks.iter().filter_map(|sink| {
            let error = sink.way.as_ref().err()?;
            Some(format!("{}: {error}", sink.node))
        });
        let reason = format!("rows can't be written: {}", reasons.collect::<Vec<_>>().join("; "));
        Err(AgentError::InsufficientRows { present: present as u8, needed: self.needed, reason })
    }
}

/// What became of one node's rows: the node, indices of its targets, and by target its record.
pub(super) type Written = (NodeName, Vec<usize>, Result<Vec<Result<InstanceId, AgentError>>, AgentError>);

/// Indices of a command's targets, by node and the address of its agent.
pub(super) fn by_node(command: &Cross) -> BTreeMap<(&NodeName, Option<&String>), Vec<usize>> {
    let mut nodes: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, CrossTarget { node, address, .. }) in command.targets.iter().enumerate() {
        nodes.entry((node, address.as_ref())).or_default().push(index);
    }
    nodes
}

/// The rows that are durable, if they are enough.
pub(super) fn crossed(command: &Cross, written: Vec<Written>) -> Result<Vec<CrossedRow>, AgentError> {
    let mut crossed = Vec::with_capacity(command.targets.len());
    let mut reasons = Vec::new();
    for (node, rows, sealed) in written {
        let sealed = sealed.unwrap_or_else(|error| rows.iter().map(|_| Err(error.clone())).collect());
        for (index, instance) in rows.into_iter().zip(sealed) {
            let CrossTarget { row, device, .. } = command.targets[index];
            match instance {
                Ok(instance) => crossed.push(CrossedRow { row, device, instance }),
                Err(error) => reasons.push(format!("row {row} on {node}: {error}")),
            }
        }
    }
    if !reasons.is_empty() {
        tracing::warn!(extent = %command.extent.extent, ?reasons, "rows of a crossing extent are missing");
    }
    let needed = command.extent.needed;
    if crossed.len() < usize::from(needed) {
        let present = crossed.len() as u8;
        return Err(AgentError::InsufficientRows { present, needed, reason: reasons.join("; ") });
    }
    crossed.sort_by_key(|row| row.row);
    Ok(crossed)
}

impl Sink {
    async fn append(&mut self, shards: &[Bytes]) {
        let pieces: Vec<_> =
            self.rows.iter().enumerate().map(|(row, &index)| (row as u16, shards[index].clone())).collect();
        if let Ok(target) = &mut self.way
            && let Err(error) = target.append(pieces).await
        {
            self.way = Err(error);
        }
    }
}

fn begin_of(command: &Cross, rows: &[usize], reserve: u32) -> Begin {
    let row = |&index: &usize| {
        let CrossTarget { device, row, .. } = command.targets[index];
        BeginRow { device, row, reserve }
    };
    command.extent.begin(command.stamp, command.map_generation, rows.iter().map(row).collect())
}
