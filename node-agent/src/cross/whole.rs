//! A small extent crosses whole: nothing is begun before its hash is known, and each node gets its rows in one frame.

use bytes::{Bytes, BytesMut};
use diptych_store::Purpose;
use diptych_wire::agent::{AgentError, Cross, CrossTarget, CrossedRow, PlaceRows, RowHead};

use super::sink::{Written, by_node, crossed};
use crate::agent::Agent;
use crate::siblings::sibling_error;

/// Extents up to this are held in memory: batches of small objects, above all.
pub(super) const WHOLE: u32 = 2 << 20;

/// Refuses where too few rows could be written: each attempt would leave some that nothing names.
pub(super) async fn enough(agent: &Agent, command: &Cross) -> Result<(), AgentError> {
    let asked = by_node(command).into_iter().map(|((node, address), targets)| async move {
        let answers = match address {
            None => Ok(()),
            Some(address) => match agent.siblings.client(agent.site(), node, address) {
                Ok(client) => client.ping().await.map_err(|error| sibling_error(node, error)),
                Err(error) => Err(error),
            },
        };
        (node, targets.len(), answers)
    });
    let (mut present, mut reasons) = (0, Vec::new());
    for (node, rows, answers) in futures::future::join_all(asked).await {
        match answers {
            Ok(()) => present += rows,
            Err(error) => reasons.push(format!("{node}: {error}")),
        }
    }
    let needed = command.extent.needed;
    if present >= usize::from(needed) {
        return Ok(());
    }
    let reason = format!("rows can't be written: {}", reasons.join("; "));
    Err(AgentError::InsufficientRows { present: present as u8, needed, reason })
}

/// Writes the rows of an extent whose hash was checked; `stripes` are the shards of each stripe, by target.
pub(super) async fn place(
    agent: &Agent,
    command: &Cross,
    stripes: Vec<Vec<Bytes>>,
) -> Result<Vec<CrossedRow>, AgentError> {
    let rows: Vec<Bytes> = (0..command.targets.len()).map(|target| joined(&stripes, target)).collect();
    let written = by_node(command).into_iter().map(|((node, address), targets)| {
        let rows = targets.iter().map(|&index| (head(command, index, &rows[index]), rows[index].clone()));
        let rows: Vec<(RowHead, Bytes)> = rows.collect();
        async move {
            let placed = match address {
                None => place_here(agent, command, rows).await,
                Some(address) => match agent.siblings.client(agent.site(), node, address) {
                    Ok(client) => {
                        let placed = client.place_rows(command.stamp, command.map_generation, rows).await;
                        placed.map_err(|error| sibling_error(node, error))
                    }
                    Err(error) => Err(error),
                },
            };
            (node.clone(), targets, placed)
        }
    });
    let written: Vec<Written> = futures::future::join_all(written).await;
    crossed(command, written)
}

async fn place_here(
    agent: &Agent,
    command: &Cross,
    rows: Vec<(RowHead, Bytes)>,
) -> Result<Vec<Result<diptych_core::ids::InstanceId, AgentError>>, AgentError> {
    let (rows, bytes): (Vec<RowHead>, Vec<Bytes>) = rows.into_iter().unzip();
    let payload = bytes.concat();
    let command = PlaceRows { stamp: command.stamp, map_generation: command.map_generation, rows };
    agent.place_rows(command, payload.into(), Purpose::Repair).await
}

/// A target's row: its shards of all stripes.
fn joined(stripes: &[Vec<Bytes>], target: usize) -> Bytes {
    if let [only] = stripes {
        return only[target].clone();
    }
    let mut row = BytesMut::new();
    for shards in stripes {
        row.extend_from_slice(&shards[target]);
    }
    row.freeze()
}

fn head(command: &Cross, target: usize, bytes: &Bytes) -> RowHead {
    let CrossTarget { row, device, .. } = command.targets[target];
    command.extent.head(device, row, bytes.len() as u32)
}
