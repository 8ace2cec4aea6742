//! Rows of one extent on their way to the agents: whole where they are small, streamed where they are not.

mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::durability::{self, Down, DurableRow};
use diptych_core::ids::{DeviceId, ExtentId, Hlc, InstanceId, NodeName, Row};
use diptych_core::lease::SubLease;
use diptych_core::placement::{self, MapDeviceState, NodeState, PlacementMap, Promise};
use diptych_core::records::{Holds, PlacedRow};
use diptych_wire::agent::{AgentError, Begin, BeginRow};
use diptych_wire::client::{CallError, RowStream};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::coder::{CodedExtent, Shards};
use super::refusals::Refusals;
use crate::agents::Agents;
use crate::authority::stamp_of;
use crate::context::Context;
use crate::error::{GatewayError, Result};

/// Rows that have not begun after this are begun once on another device.
const BEGUN_WITHIN: Duration = Duration::from_secs(2);
/// A stream of rows that takes no more bytes for this long is given up.
const STALLED_AFTER: Duration = Duration::from_secs(15);

/// An extent that is being written: its coding, and where its rows go.
pub(crate) struct RowWriter {
    context: Arc<Context>,
    lease: SubLease,
    agents: Arc<Agents>,
    extent: ExtentId,
    born: Hlc,
    needed: u8,
    rows: Vec<Row>,
    /// Most bytes that a row can get.
    reserve: u32,
    held: Vec<Vec<Bytes>>,
    held_bytes: usize,
    lanes: Vec<Lane>,
    refusals: Refusals,
}

/// The rows of an extent that became durable.
#[derive(Debug, Clone)]
pub(crate) struct DurableExtent {
    /// Where they are.
    pub placed: Vec<PlacedRow>,
}

/// Rows on one node, streamed by a task of its own so that a slow node holds up only itself, up to its window.
struct Lane {
    rows: Vec<(usize, Row, DeviceId)>,
    node: NodeName,
    pieces: mpsc::Sender<LanePiece>,
    task: JoinHandle<Vec<Result<InstanceId, CallError>>>,
}

enum LanePiece {
    Append(Vec<(u16, Bytes)>),
    Seal { length: u32, hash: [u8; 32] },
}

impl RowWriter {
    /// `reserve`: the most bytes that a row can get.
    pub(crate) fn new(
        context: Arc<Context>,
        lease: SubLease,
        extent: ExtentId,
        coding: (u8, Vec<Row>),
        reserve: u32,
    ) -> Self {
        let born = context.clock().tick(Hlc(0));
        let agents = context.agents();
        let (needed, rows) = coding;
        let held = rows.iter().map(|_| Vec::new()).collect();
        Self {
            context,
            lease,
            agents,
            extent,
            born,
            needed,
            rows,
            reserve,
            held,
            held_bytes: 0,
            lanes: Vec::new(),
            refusals: Refusals::default(),
        }
    }

    /// When the extent was born.
    pub(crate) fn born(&self) -> Hlc {
        self.born
    }

    /// Sends a stripe. Waits while too much is on its way.
    pub(crate) async fn push(&mut self, shards: Shards) -> Result<()> {
        if self.lanes.is_empty() {
            for (held, shard) in self.held.iter_mut().zip(shards) {
                self.held_bytes += shard.len();
                held.push(shard);
            }
            if self.held_bytes > self.context.limits().whole_rows {
                self.open_lanes().await?;
            }
            return Ok(());
        }
        self.send(&shards).await
    }

    async fn send(&self, shards: &[Bytes]) -> Result<()> {
        let sends = self.lanes.iter().map(|lane| {
            let piece = lane
                .rows
                .iter()
                .enumerate()
                .map(|(at, (index, ..))| (at as u16, shards[*index].clone()))
                .collect();
            // A lane that has failed takes nothing more; its rows are missing at the end.
            lane.pieces.send(LanePiece::Append(piece))
        });
        let taken = join_all(sends).await;
        let alive: usize = self
            .lanes
            .iter()
            .zip(&taken)
            .filter(|(_, taken)| taken.is_ok())
            .map(|(lane, _)| lane.rows.len())
            .sum();
        if alive >= usize::from(self.needed) {
            return Ok(());
        }
        Err(GatewayError::NotDurable {
            durable: alive,
            wanted: self.rows.len(),
            reason: self.refusals.explain("nodes failed meanwhile".to_owned()),
        })
    }

    /// Begins the rows on their nodes; what can't begin there is begun once on another device.
    async fn open_lanes(&mut self) -> Result<()> {
        let placed = self.place(&self.agents.map().clone(), &[], &self.rows)?;
        let (mut lanes, failed) = self.begin(&placed).await;
        if !failed.is_empty() {
            let map = without(self.agents.map(), &failed);
            let staying: Vec<(Row, DeviceId)> = lanes
                .iter()
                .flat_map(|lane| lane.rows.iter().map(|(_, row, device)| (*row, *device)))
                .collect();
            let missing: Vec<Row> = self
                .rows
                .iter()
                .copied()
                .filter(|row| !staying.iter().any(|(there, _)| there == row))
                .collect();
            if let Ok(placed) = self.place(&map, &staying, &missing) {
                self.context.metrics().rows_written_elsewhere(missing.len());
                lanes.extend(self.begin(&placed).await.0);
            }
        }
        self.lanes = lanes;
        let held = std::mem::take(&mut self.held);
        let stripes = held.first().map_or(0, Vec::len);
        for stripe in 0..stripes {
            let shards: Vec<Bytes> = held.iter().map(|row| row[stripe].clone()).collect();
            self.send(&shards).await?;
        }
        Ok(())
    }

    fn place(
        &self,
        map: &PlacementMap,
        staying: &[(Row, DeviceId)],
        rows: &[Row],
    ) -> Result<Vec<(Row, DeviceId)>> {
        let promise = Promise::new(self.needed, self.context.survive());
        let placed = placement::replace(map, promise, self.extent, staying, rows);
        let refused = |error: placement::PlaceError| GatewayError::NotDurable {
            durable: 0,
            wanted: self.rows.len(),
            reason: self.refusals.explain(error.to_string()),
        };
        Ok(placed.map_err(refused)?.rows)
    }

    async fn begin(&self, placed: &[(Row, DeviceId)]) -> (Vec<Lane>, Vec<Failure>) {
        let by_node = self.by_node(placed);
        let begun = join_all(by_node.into_iter().map(|(node, rows)| self.begin_on(node, rows))).await;
        let mut lanes = Vec::new();
        let mut failures = Vec::new();
        for (lane, failed) in begun {
            lanes.extend(lane);
            failures.extend(failed);
        }
        (lanes, failures)
    }

    async fn begin_on(
        &self,
        node: NodeName,
        rows: Vec<(usize, Row, DeviceId)>,
    ) -> (Option<Lane>, Vec<Failure>) {
        let Some(client) = self.agents.client(&node) else { return (None, vec![Failure::Node(node)]) };
        let begin = Begin {
            stamp: stamp_of(&self.lease),
            map_generation: self.agents.generation(),
            extent: self.extent,
            needed: self.needed,
            holds: Holds::Data,
            birth_epoch: self.lease.epoch,
            birth_hlc: self.born,
            rows: rows
                .iter()
                .map(|&(_, row, device)| BeginRow { device, row, reserve: self.reserve })
                .collect(),
        };
        match tokio::time::timeout(BEGUN_WITHIN, client.begin(&begin)).await {
            Ok(Ok((stream, begun))) => {
                let mut failed = Vec::new();
                for ((_, row, device), begun) in rows.iter().zip(&begun) {
                    if let Err(error) = begun {
                        tracing::warn!(%node, %row, %error, "a row could not be begun");
                        self.refusals.note(error);
                        failed.push(Failure::Device(*device));
                    }
                }
                let kept = rows.iter().zip(&begun).enumerate().filter(|(_, (_, begun))| begun.is_ok());
                let (at, rows): (Vec<usize>, Vec<_>) = kept.map(|(at, (row, _))| (at, *row)).unzip();
                (Some(Lane::spawn(node, rows, at, stream)), failed)
            }
            Ok(Err(error)) => {
                self.context.note(&node, &error);
                self.failed(&node, &error);
                (None, vec![Failure::Node(node)])
            }
            Err(_) => (None, vec![Failure::Node(node)]),
        }
    }

    fn failed(&self, node: &NodeName, error: &CallError) {
        tracing::warn!(%node, extent = %self.extent, %error, "rows could not be written");
        self.refusals.note(error);
        if let Some(AgentError::StaleMap { .. } | AgentError::StaleStamp { .. }) = error.agent() {
            self.context.want_refresh();
        }
    }

    fn by_node(&self, placed: &[(Row, DeviceId)]) -> BTreeMap<NodeName, Vec<(usize, Row, DeviceId)>> {
        let mut by_node: BTreeMap<NodeName, Vec<_>> = BTreeMap::new();
        for &(row, device) in placed {
            let index = self.rows.iter().position(|other| *other == row);
            if let (Some(node), Some(index)) = (self.agents.node_of(device), index) {
                by_node.entry(node.clone()).or_default().push((index, row, device));
            }
        }
        by_node
    }

    /// Makes all rows durable, and checks that enough of them are.
    pub(crate) async fn seal(mut self, coded: CodedExtent) -> Result<DurableExtent> {
        let (length, hash) = (coded.length, coded.hash);
        if let Some(last) = coded.last {
            self.push(last).await?;
        }
        let placed = if self.lanes.is_empty() {
            self.write_whole(length, hash).await?
        } else {
            self.seal_lanes(length, hash).await
        };
        let durable = placed.len();
        let metrics = &self.context.metrics().rows_written;
        metrics.with_label_values(&["durable"]).inc_by(durable as u64);
        metrics.with_label_values(&["failed"]).inc_by(self.rows.len().saturating_sub(durable) as u64);
        self.enough(&placed)?;
        Ok(DurableExtent { placed })
    }

    fn enough(&self, placed: &[PlacedRow]) -> Result<()> {
        self.survives(placed).map_err(|reason| {
            tracing::warn!(extent = %self.extent, reason, "too few rows are durable, the write is refused");
            let reason = self.refusals.explain(reason);
            GatewayError::NotDurable { durable: placed.len(), wanted: self.rows.len(), reason }
        })
    }

    /// Err: which loss would be too much.
    fn survives(&self, placed: &[PlacedRow]) -> std::result::Result<(), String> {
        let rows = DurableRow::of(self.agents.map(), placed);
        let down = Down::of(self.agents.map(), |node| self.context.is_unreachable(node));
        durability::check(&rows, self.needed, self.context.survive(), down)
    }

    async fn seal_lanes(&mut self, length: u32, hash: [u8; 32]) -> Vec<PlacedRow> {
        let lanes = std::mem::take(&mut self.lanes);
        let sealed = join_all(lanes.into_iter().map(|lane| lane.seal(length, hash))).await;
        let mut placed = Vec::new();
        for (node, rows) in sealed {
            for (row, device, instance) in rows {
                match instance {
                    Ok(instance) => placed.push(PlacedRow { row, device, instance }),
                    Err(error) => self.note(&node, row, &error),
                }
            }
        }
        placed.sort_by_key(|row| row.row);
        placed
    }

    fn note(&self, node: &NodeName, row: Row, error: &CallError) {
        self.context.note(node, error);
        self.refusals.note(error);
        tracing::warn!(%node, %row, extent = %self.extent, %error, "a row did not become durable");
    }
}

impl Lane {
    /// `at` are the indices by which the stream knows the rows.
    fn spawn(
        node: NodeName,
        rows: Vec<(usize, Row, DeviceId)>,
        at: Vec<usize>,
        mut stream: RowStream,
    ) -> Self {
        let (pieces, mut incoming) = mpsc::channel::<LanePiece>(1);
        let task = tokio::spawn(async move {
            let all = |error: CallError, count: usize| vec![Err(error); count];
            while let Some(piece) = incoming.recv().await {
                let step = async {
                    match piece {
                        LanePiece::Append(pieces) => {
                            let name = |(index, bytes): (u16, Bytes)| (at[usize::from(index)] as u16, bytes);
                            stream.append(pieces.into_iter().map(name).collect()).await.map(|()| Some(stream))
                        }
                        LanePiece::Seal { length, hash } => {
                            let sealed = stream.seal(length, hash).await?;
                            return Err(Ended::Sealed(at.iter().map(|&at| sealed[at].clone()).collect()));
                        }
                    }
                    .map_err(Ended::Failed)
                };
                match tokio::time::timeout(STALLED_AFTER, step).await {
                    Ok(Ok(Some(open))) => stream = open,
                    Ok(Ok(None)) => break,
                    Ok(Err(Ended::Sealed(rows))) => {
                        return rows.into_iter().map(|row| row.map_err(CallError::Agent)).collect();
                    }
                    Ok(Err(Ended::Failed(error))) => return all(error, at.len()),
                    Err(_) => return all(CallError::Agent(AgentError::Busy), at.len()),
                }
            }
            all(CallError::Agent(AgentError::NoSuchStream), at.len())
        });
        Self { rows, node, pieces, task }
    }

    async fn seal(
        self,
        length: u32,
        hash: [u8; 32],
    ) -> (NodeName, Vec<(Row, DeviceId, Result<InstanceId, CallError>)>) {
        // If the lane has failed, its task's answer says how.
        let _: Result<(), _> = self.pieces.send(LanePiece::Seal { length, hash }).await;
        let lost = |_| vec![Err(CallError::Agent(AgentError::ShuttingDown)); self.rows.len()];
        let instances = self.task.await.unwrap_or_else(lost);
        let rows =
            self.rows.into_iter().zip(instances).map(|((_, row, device), instance)| (row, device, instance));
        (self.node, rows.collect())
    }
}

enum Ended {
    Sealed(Vec<Result<InstanceId, AgentError>>),
    Failed(CallError),
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

/// What did not take its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    Node(NodeName),
    Device(DeviceId),
}

/// The map as if what failed took no rows.
fn without(map: &PlacementMap, failures: &[Failure]) -> PlacementMap {
    let mut map = map.clone();
    for failure in failures {
        for node in &mut map.nodes {
            match failure {
                Failure::Node(name) if *name == node.name => node.state = NodeState::Draining,
                Failure::Device(id) => {
                    for device in node.devices.iter_mut().filter(|device| device.id == *id) {
                        device.state = MapDeviceState::Full;
                    }
                }
                Failure::Node(_) => {}
            }
        }
    }
    map
}
