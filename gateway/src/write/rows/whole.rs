//! Whole rows, in one frame a node. What is not durable in time goes elsewhere besides.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{DeviceId, NodeName, Row};
use diptych_core::records::{Holds, PlacedRow};
use diptych_wire::agent::{PlaceRows, RowHead};
use diptych_wire::client::CallError;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::{Failure, RowWriter, without};
use crate::authority::stamp_of;
use crate::error::Result;
use crate::latency::{self, DeviceLatency, Operation, Size, Wait};

/// A frame that has not been answered after this failed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of rows in one frame.
const FRAME_BYTES: usize = 6 << 20;

/// Length and hash of the extent.
type Extent = (u32, [u8; 32]);

/// Rows that go to one node together.
#[derive(Debug, Clone)]
struct Frame {
    node: NodeName,
    rows: Vec<(usize, Row, DeviceId)>,
}

impl Frame {
    /// What to leave out if it is late: the device, if it is the only one of the frame; else it is not known which one is slow.
    fn suspect(&self) -> Failure {
        let (.., first) = self.rows[0];
        if self.rows.iter().all(|(.., device)| *device == first) {
            Failure::Device(first)
        } else {
            Failure::Node(self.node.clone())
        }
    }
}

/// What became of a frame.
type Written = (Vec<PlacedRow>, Vec<Failure>);

/// Where the rows of a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    AsPlaced,
    Elsewhere,
}

/// What is durable so far, and what failed.
#[derive(Default)]
struct Gathered {
    durable: BTreeMap<Row, PlacedRow>,
    failures: Vec<Failure>,
}

impl Gathered {
    /// A row that is durable twice is where it was placed at first: nothing survives more than that. The other record is an orphan: no
    /// placement names it, so the inventory finds and frees it.
    fn take(&mut self, sent: Sent, (rows, failures): Written) {
        for placed in rows {
            let there = self.durable.entry(placed.row).or_insert(placed);
            if sent == Sent::AsPlaced {
                *there = placed;
            }
        }
        self.failures.extend(failures);
    }

    fn placed(&self) -> Vec<PlacedRow> {
        self.durable.values().copied().collect()
    }
}

impl RowWriter {
    /// What is not durable after three times its device's p99 is sent once to another device. What is late is not given up: where no
    /// other place meets what was declared, it is waited for.
    pub(super) async fn write_whole(&self, length: u32, hash: [u8; 32]) -> Result<Vec<PlacedRow>> {
        let placed = self.place(&self.agents.map().clone(), &[], &self.rows)?;
        let mut gathered = Gathered::default();
        let mut open = self.write_in_time(&placed, (length, hash), &mut gathered).await;
        let missing: Vec<Row> =
            self.rows.iter().copied().filter(|row| !gathered.durable.contains_key(row)).collect();
        if missing.is_empty() {
            return Ok(gathered.placed());
        }
        let map = without(self.agents.map(), &gathered.failures);
        let staying: Vec<(Row, DeviceId)> =
            gathered.durable.values().map(|placed| (placed.row, placed.device)).collect();
        if let Ok(placed) = self.place(&map, &staying, &missing) {
            self.context.metrics().rows_written_elsewhere(missing.len());
            let again = self.frames(&placed).into_iter().map(|frame| self.write_on(frame, (length, hash)));
            open.extend(again.map(|written| written.map(|written| (Sent::Elsewhere, written)).boxed()));
        }
        while !self.is_whole(&gathered) {
            let Some((sent, written)) = open.next().await else { break };
            gathered.take(sent, written);
        }
        Ok(gathered.placed())
    }

    /// Every row is durable somewhere, and they survive what was declared.
    fn is_whole(&self, gathered: &Gathered) -> bool {
        gathered.durable.len() == self.rows.len() && self.survives(&gathered.placed()).is_ok()
    }

    /// Writes until each frame was answered or is late; those that are late stay open.
    async fn write_in_time(
        &self,
        placed: &[(Row, DeviceId)],
        extent: Extent,
        gathered: &mut Gathered,
    ) -> FuturesUnordered<BoxFuture<'_, (Sent, Written)>> {
        let frames = self.frames(placed);
        let write = |frame: &Frame| {
            let (suspect, after) = (frame.suspect(), self.late_after(frame));
            let devices: Vec<DeviceId> = frame.rows.iter().map(|(.., device)| *device).collect();
            let written = self.write_on(frame.clone(), extent).boxed();
            let timed = select(written, Box::pin(tokio::time::sleep(after)));
            timed.map(move |ended| (ended, suspect, devices))
        };
        let mut calls: FuturesUnordered<_> = frames.iter().map(write).collect();
        let late = FuturesUnordered::new();
        while let Some((ended, suspect, devices)) = calls.next().await {
            match ended {
                Either::Left((written, _)) => gathered.take(Sent::AsPlaced, written),
                Either::Right(((), open)) => {
                    tracing::warn!(extent = %self.extent, ?suspect, "rows are late and go elsewhere besides");
                    devices
                        .iter()
                        .filter_map(|id| self.agents.latency(*id))
                        .for_each(DeviceLatency::note_late);
                    gathered.failures.push(suspect);
                    late.push(open.map(|written| (Sent::AsPlaced, written)).boxed());
                }
            }
        }
        late
    }

    fn late_after(&self, frame: &Frame) -> Duration {
        let size = Size::of(self.row_bytes());
        let devices = frame.rows.iter().filter_map(|(.., device)| self.agents.latency(*device));
        let after = devices.map(|device| latency::elsewhere_after(device, size)).max();
        after.unwrap_or(ANSWERED_WITHIN)
    }

    fn row_bytes(&self) -> usize {
        self.held.first().map_or(0, |row| row.iter().map(Bytes::len).sum())
    }

    /// One a node, as far as bytes fit; rows on a device that was late lately go by themselves, so that it is known who is slow.
    fn frames(&self, placed: &[(Row, DeviceId)]) -> Vec<Frame> {
        let most = (FRAME_BYTES / self.row_bytes().max(1)).max(1);
        let mut frames = Vec::new();
        for (node, rows) in self.by_node(placed) {
            let apart = |(.., device): &(usize, Row, DeviceId)| {
                self.agents.latency(*device).is_some_and(DeviceLatency::goes_apart).then_some(*device)
            };
            let mut groups: BTreeMap<Option<DeviceId>, Vec<_>> = BTreeMap::new();
            for row in rows {
                groups.entry(apart(&row)).or_default().push(row);
            }
            let groups = groups.into_values();
            frames.extend(groups.flat_map(|rows| {
                let frame = |rows: &[_]| Frame { node: node.clone(), rows: rows.to_vec() };
                rows.chunks(most).map(frame).collect::<Vec<Frame>>()
            }));
        }
        frames
    }

    async fn write_on(&self, frame: Frame, (length, hash): Extent) -> Written {
        let Frame { node, rows } = frame;
        let Some(client) = self.agents.client(&node) else { return (Vec::new(), vec![Failure::Node(node)]) };
        let head = |&(index, row, device): &(usize, Row, DeviceId)| RowHead {
            device,
            extent: self.extent,
            row,
            needed: self.needed,
            holds: Holds::Data,
            extent_len: length,
            extent_hash: hash,
            birth_epoch: self.lease.epoch,
            birth_hlc: self.born,
            len: self.held[index].iter().map(|shard| shard.len() as u32).sum(),
        };
        let request = PlaceRows {
            stamp: stamp_of(&self.lease),
            map_generation: self.agents.generation(),
            rows: rows.iter().map(head).collect(),
        };
        let payload = rows.iter().flat_map(|(index, ..)| self.held[*index].iter().cloned()).collect();
        let devices = rows.iter().filter_map(|(.., device)| self.agents.latency(*device)).collect();
        let wait = Wait::begin(devices, Operation::Write, Size::of(self.row_bytes()));
        let answers = match client.call(&request, payload, 0, ANSWERED_WITHIN).await {
            Ok((answers, _)) if answers.len() == rows.len() => answers,
            Ok(_) => return (Vec::new(), vec![Failure::Node(node)]),
            Err(error) => {
                if !matches!(error, CallError::TimedOut { .. }) {
                    wait.failed();
                }
                self.context.note(&node, &error);
                self.failed(&node, &error);
                return (Vec::new(), vec![Failure::Node(node)]);
            }
        };
        drop(wait);
        self.context.note_reachable(&node);
        let mut durable = Vec::new();
        let mut failed = Vec::new();
        for ((_, row, device), answer) in rows.into_iter().zip(answers) {
            match answer {
                Ok(instance) => durable.push(PlacedRow { row, device, instance }),
                Err(error) => {
                    self.note(&node, row, &CallError::Agent(error));
                    failed.push(Failure::Device(device));
                }
            }
        }
        (durable, failed)
    }
}
