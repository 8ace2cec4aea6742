//! Whole rows, in one frame a node. What is not durable in time goes elsewhere besides.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{DeviceId, InstanceId, NodeName, Row};
use diptych_core::placement::{MapNode, PlacementMap};
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

/// What is durable so far, what failed, and what is late.
#[derive(Default)]
struct Gathered {
    durable: BTreeMap<Row, PlacedRow>,
    failures: Vec<Failure>,
    late: Vec<Failure>,
}

/// A frame that is not answered yet.
struct Open<'a> {
    sent: Sent,
    /// What it is late for.
    suspect: Option<Failure>,
    written: BoxFuture<'a, Written>,
}

impl Open<'_> {
    async fn answered(self) -> (Sent, Option<Failure>, Written) {
        (self.sent, self.suspect, self.written.await)
    }
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

    fn places(&self) -> Vec<(Row, DeviceId)> {
        self.durable.values().map(|placed| (placed.row, placed.device)).collect()
    }

    fn placed(&self) -> Vec<PlacedRow> {
        self.durable.values().copied().collect()
    }
}

impl RowWriter {
    /// What is not durable after three times its device's p99 is sent once to another device, if what was declared is met there. What is
    /// late is not given up: it is waited for, and who answers after all takes rows again.
    pub(super) async fn write_whole(&self, length: u32, hash: [u8; 32]) -> Result<Vec<PlacedRow>> {
        let placed = self.place(&self.agents.map().clone(), &[], &self.rows)?;
        let mut gathered = Gathered::default();
        let late = self.write_in_time(&placed, (length, hash), &mut gathered).await;
        let mut open: FuturesUnordered<_> = late.into_iter().map(Open::answered).collect();
        let mut sent_elsewhere = false;
        while !self.is_whole(&gathered) {
            if !sent_elsewhere && let Some(frames) = self.elsewhere(&gathered, open.is_empty()) {
                sent_elsewhere = true;
                open.extend(frames.into_iter().map(|frame| {
                    let written = self.write_on(frame, (length, hash)).boxed();
                    Open { sent: Sent::Elsewhere, suspect: None, written }.answered()
                }));
            }
            let Some((sent, suspect, written)) = open.next().await else { break };
            gathered.late.retain(|late| Some(late) != suspect.as_ref());
            gathered.take(sent, written);
        }
        Ok(gathered.placed())
    }

    /// Other places for the rows that are missing, rather not on nodes where something is late or was lately: a device that does not
    /// answer may be a node that hangs. None: there are none, or they would not survive what was declared, and something is open that may;
    /// `nothing_open`: nothing is.
    fn elsewhere(&self, gathered: &Gathered, nothing_open: bool) -> Option<Vec<Frame>> {
        let avoided: Vec<Failure> = gathered.failures.iter().chain(&gathered.late).cloned().collect();
        let map = without(self.agents.map(), &avoided);
        let is_late = |node: &&MapNode| {
            let mut devices = node.devices.iter().map(|device| device.id);
            devices.any(|id| gathered.late.contains(&Failure::Device(id)) || self.was_late(id))
        };
        let late = map.nodes.iter().filter(is_late).map(|node| Failure::Node(node.name.clone()));
        let prompt = without(&map, &late.collect::<Vec<_>>());
        let placed = self.completed(gathered, &prompt).filter(|placed| self.is_enough(gathered, placed));
        let placed = placed.or_else(|| {
            let placed = self.completed(gathered, &map)?;
            (nothing_open || self.is_enough(gathered, &placed)).then_some(placed)
        })?;
        self.context.metrics().rows_written_elsewhere(placed.len());
        Some(self.frames(&placed))
    }

    /// Where the rows go that are missing.
    fn completed(&self, gathered: &Gathered, map: &PlacementMap) -> Option<Vec<(Row, DeviceId)>> {
        let missing: Vec<Row> =
            self.rows.iter().copied().filter(|row| !gathered.durable.contains_key(row)).collect();
        self.place(map, &gathered.places(), &missing).ok().filter(|placed| !placed.is_empty())
    }

    /// What is durable survives what was declared, once `placed` is, too.
    fn is_enough(&self, gathered: &Gathered, placed: &[(Row, DeviceId)]) -> bool {
        let as_if =
            |&(row, device): &(Row, DeviceId)| PlacedRow { row, device, instance: InstanceId([0; 8]) };
        let all: Vec<PlacedRow> = gathered.places().iter().chain(placed).map(as_if).collect();
        self.survives(&all).is_ok()
    }

    fn was_late(&self, device: DeviceId) -> bool {
        self.agents.latency(device).is_some_and(DeviceLatency::goes_apart)
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
    ) -> Vec<Open<'_>> {
        let frames = self.frames(placed);
        let write = |frame: &Frame| {
            let (suspect, after) = (frame.suspect(), self.late_after(frame));
            let devices: Vec<DeviceId> = frame.rows.iter().map(|(.., device)| *device).collect();
            let written = self.write_on(frame.clone(), extent).boxed();
            let timed = select(written, Box::pin(tokio::time::sleep(after)));
            timed.map(move |ended| (ended, suspect, devices))
        };
        let mut calls: FuturesUnordered<_> = frames.iter().map(write).collect();
        let mut late = Vec::new();
        while let Some((ended, suspect, devices)) = calls.next().await {
            match ended {
                Either::Left((written, _)) => gathered.take(Sent::AsPlaced, written),
                Either::Right(((), open)) => {
                    tracing::warn!(extent = %self.extent, ?suspect, "rows are late and go elsewhere besides");
                    devices
                        .iter()
                        .filter_map(|id| self.agents.latency(*id))
                        .for_each(DeviceLatency::note_late);
                    self.context.metrics().rows_late(devices.len());
                    gathered.late.push(suspect.clone());
                    late.push(Open { sent: Sent::AsPlaced, suspect: Some(suspect), written: open });
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
            let apart = |(.., device): &(usize, Row, DeviceId)| self.was_late(*device).then_some(*device);
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
