//! A range of an extent from its rows: the data rows that hold it, or any k; those of the other site where too few are left
//! in this one, and those outside where both sites have too few.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use diptych_core::erasure::{Decoder, ErasureError};
use diptych_core::ids::{DeviceId, ExtentId, NodeName, Row};
use diptych_core::latency::doublings;
use diptych_core::layout::{DecodeRange, StripeLayout};
use diptych_core::records::PlacedRow;
use diptych_wire::agent::{AgentError, ReadItem, RowAt};
use diptych_wire::client::{AgentClient, CallError};
use diptych_wire::peer::RowSpan;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::extent::{ExtentPlace, gone};
use super::trouble::Trouble;
use crate::agents::Agents;
use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::latency::{self, DeviceLatency, Operation, Size, Wait};

/// Reads one range of one extent.
pub(crate) struct RangeReader<'a> {
    context: &'a Context,
    place: &'a ExtentPlace,
    agents: &'a Agents,
    outside: Arc<Agents>,
    trouble: Trouble,
}

/// Where a row is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Home {
    /// On a device of this site.
    Here(PlacedRow),
    /// Through the other site's door.
    Peer(Row),
    /// On a device of an outside node.
    Outside(PlacedRow),
}

impl Home {
    pub(super) fn row(&self) -> Row {
        match self {
            Self::Here(placed) | Self::Outside(placed) => placed.row,
            Self::Peer(row) => *row,
        }
    }
}

/// Agents whose names are their own: the site's, or those outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Here,
    Outside,
}

/// A range of a row that is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) home: Home,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Wanted {
    /// What is decoded from.
    pub(super) fn of(home: Home, part: &DecodeRange) -> Self {
        Self { home, offset: part.row_offset as u32, len: part.len }
    }

    /// The record, if it is on a device of this site.
    pub(super) fn at(&self, extent: ExtentId) -> Option<RowAt> {
        match self.home {
            Home::Here(PlacedRow { row, device, instance }) => {
                Some(RowAt { device, extent, row, instance: Some(instance) })
            }
            Home::Peer(_) | Home::Outside(_) => None,
        }
    }

    fn row(&self) -> Row {
        self.home.row()
    }
}

/// What became of ranges, by their indices; None: it did not read, and `trouble` says why.
type Parts = Vec<(usize, Option<Bytes>)>;

impl<'a> RangeReader<'a> {
    /// `avoid`: rows that are not to be used, since with them nothing right comes out.
    pub(crate) fn new(
        context: &'a Context,
        agents: &'a Agents,
        place: &'a ExtentPlace,
        avoid: &[Row],
    ) -> Self {
        let trouble = Trouble::default();
        for row in avoid {
            trouble.note(*row, "it was wrong although its checksums were right".to_owned());
        }
        Self { context, place, agents, outside: context.outside_agents(), trouble }
    }

    pub(super) fn layout(&self) -> StripeLayout {
        StripeLayout::new(self.place.record.needed, u64::from(self.place.record.length))
    }

    /// The runs of data rows that hold `range`, if it seems that all can be read, and in good time.
    pub(super) fn direct(&self, range: &Range<u64>) -> Option<Vec<Wanted>> {
        let runs = self.layout().locate(range.clone());
        runs.map(|run| self.wanted(run.row, run.row_offset, run.len)).collect()
    }

    /// The bytes of `range`.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.end > self.layout().extent_len() {
            return Err(GatewayError::Corrupt(format!(
                "extent {} ends before byte {}",
                self.place.id, range.end
            )));
        }
        self.context.hedges().note_read();
        let Some(wanted) = self.direct(&range) else { return self.decode(range).await };
        let direct = self.fetch(&wanted);
        tokio::pin!(direct);
        let in_time = tokio::select! {
            read = &mut direct => Some(read),
            () = self.others_are_due(&wanted) => None,
        };
        if let Some(read) = in_time {
            return match read {
                Some(parts) => Ok(join(parts)),
                None => self.decode(range).await,
            };
        }
        let decode = self.decode(range);
        tokio::pin!(decode);
        tokio::select! {
            read = &mut direct => match read {
                Some(parts) => Ok(join(parts)),
                None => decode.await,
            },
            decoded = &mut decode => match decoded {
                Ok(bytes) => {
                    self.context.metrics().hedges.with_label_values(&["first"]).inc();
                    Ok(bytes)
                }
                // Slow is better than nothing.
                Err(error) => direct.await.map(join).ok_or(error),
            },
        }
    }

    /// Waits until rows should have been read, and other rows may be asked for besides.
    pub(super) async fn others_are_due(&self, wanted: &[Wanted]) {
        let after = |wanted: &Wanted| {
            let latency = self.latency(&wanted.home)?;
            Some(latency::hedge_after(latency, Size::of(wanted.len as usize)))
        };
        let after = wanted.iter().filter_map(after).max().unwrap_or(latency::HEDGE_LATEST);
        tokio::time::sleep(after).await;
        let hedges = &self.context.metrics().hedges;
        while !self.context.hedges().spend() {
            hedges.with_label_values(&["denied"]).inc();
            tokio::time::sleep(latency::HEDGE_LATEST).await;
        }
        hedges.with_label_values(&["sent"]).inc();
    }

    /// Where a row can be read, if it seems that it can, and in good time.
    fn wanted(&self, row: Row, offset: u64, len: u32) -> Option<Wanted> {
        let placed = self.place.placed.iter().find(|placed| placed.row == row)?;
        let home = Home::Here(*placed);
        let likely = !self.trouble.is_bad(row) && !self.is_far(placed);
        let around = likely && self.is_slow(&home) && self.has_fast_rows();
        (likely && !around).then_some(Wanted { home, offset: offset as u32, len })
    }

    /// What the device takes to answer; None: it is not known which one it is.
    pub(super) fn latency(&self, home: &Home) -> Option<&DeviceLatency> {
        match home {
            Home::Here(placed) => self.agents.latency(placed.device),
            Home::Outside(placed) => self.outside.latency(placed.device),
            Home::Peer(_) => None,
        }
    }

    fn is_slow(&self, home: &Home) -> bool {
        self.latency(home).is_some_and(DeviceLatency::is_slow)
    }

    /// Whether k rows of this site are on devices that are not slow.
    fn has_fast_rows(&self) -> bool {
        let fast = |placed: &&PlacedRow| {
            !self.trouble.is_bad(placed.row) && !self.is_far(placed) && !self.is_slow(&Home::Here(**placed))
        };
        self.place.placed.iter().filter(fast).count() >= usize::from(self.place.record.needed)
    }

    /// Ranges of this site's own rows, each by itself.
    pub(crate) async fn own(&self, spans: &[RowSpan]) -> Vec<Result<Bytes, String>> {
        let here = |span: &RowSpan| {
            let placed = self.place.placed.iter().find(|placed| placed.row == span.row)?;
            Some(Wanted { home: Home::Here(*placed), offset: span.offset, len: span.len })
        };
        let wanted: Vec<Option<Wanted>> = spans.iter().map(here).collect();
        let found: Vec<Wanted> = wanted.iter().copied().flatten().collect();
        let mut read = self.fetch_each(&found).await.into_iter();
        let reason = |row: Row| self.trouble.reason(row).unwrap_or_else(|| "it is not placed".to_owned());
        let one = |(span, wanted): (&RowSpan, Option<Wanted>)| {
            wanted.and_then(|_| read.next().flatten()).ok_or_else(|| reason(span.row))
        };
        spans.iter().zip(wanted).map(one).collect()
    }

    /// Asks the other site and the outside nodes which of their rows can be read; refuses where they and what is here are
    /// too few.
    pub(crate) async fn probe(&self) -> Result<()> {
        for placed in &self.place.placed {
            if let Some(reason) = gone(placed, self.agents) {
                self.trouble.note(placed.row, reason);
            }
        }
        let elsewhere = self.untried().filter(|home| !matches!(home, Home::Here(_)));
        let wanted: Vec<Wanted> = elsewhere.map(|home| Wanted { home, offset: 0, len: 1 }).collect();
        self.fetch_each(&wanted).await;
        self.choose().map(drop)
    }

    /// Whether its node could not be reached lately, or is gone.
    fn is_far(&self, placed: &PlacedRow) -> bool {
        let node = self.agents.node_of(placed.device);
        node.is_none_or(|node| self.agents.client(node).is_none() || self.context.is_unreachable(node))
    }

    /// All of the ranges, in order; None: some could not be read, and `trouble` says which.
    async fn fetch(&self, wanted: &[Wanted]) -> Option<Vec<Bytes>> {
        self.fetch_each(wanted).await.into_iter().collect()
    }

    /// The ranges, in order; None: `trouble` says why it could not be read.
    async fn fetch_each(&self, wanted: &[Wanted]) -> Vec<Option<Bytes>> {
        // Of rows in one frame none comes before the slowest: those of a slow device go by themselves.
        let mut by_node: BTreeMap<(Side, &NodeName, Option<DeviceId>), Vec<usize>> = BTreeMap::new();
        let mut peers = Vec::new();
        for (index, item) in wanted.iter().enumerate() {
            let (side, placed) = match item.home {
                Home::Peer(_) => {
                    peers.push(index);
                    continue;
                }
                Home::Here(placed) => (Side::Here, placed),
                Home::Outside(placed) => (Side::Outside, placed),
            };
            match self.agents_of(side).node_of(placed.device) {
                Some(node) => {
                    let alone = self.latency(&item.home).is_some_and(DeviceLatency::goes_apart);
                    let apart = alone.then_some(placed.device);
                    by_node.entry((side, node, apart)).or_default().push(index);
                }
                None => self.trouble.note(placed.row, format!("device {} is unknown", placed.device)),
            }
        }
        self.trouble.set_waiting(wanted.iter().map(Wanted::row), true);
        let nodes = by_node
            .into_iter()
            .map(|((side, node, _), indices)| self.fetch_from((side, node), wanted, indices).boxed());
        let peers = (!peers.is_empty()).then(|| self.fetch_from_peer(wanted, peers).boxed());
        let mut calls: FuturesUnordered<_> = nodes.chain(peers).collect();
        let mut parts: Vec<Option<Bytes>> = vec![None; wanted.len()];
        while let Some(read) = calls.next().await {
            for (index, bytes) in read {
                self.trouble.set_waiting(std::iter::once(wanted[index].row()), false);
                parts[index] = bytes;
            }
        }
        parts
    }

    fn agents_of(&self, side: Side) -> &Agents {
        match side {
            Side::Here => self.agents,
            Side::Outside => &self.outside,
        }
    }

    /// Rows of the other site, all in one request.
    async fn fetch_from_peer(&self, wanted: &[Wanted], indices: Vec<usize>) -> Parts {
        let span = |&index: &usize| {
            let Wanted { offset, len, .. } = wanted[index];
            RowSpan { row: wanted[index].row(), offset, len }
        };
        let spans = indices.iter().map(span).collect();
        let read = match self.context.peer_rows() {
            Some(peer) => peer.read(self.place.id, spans).await,
            None => Err("there is no other site".to_owned()),
        };
        let read = match read {
            Ok(parts) if parts.len() == indices.len() => parts,
            Ok(_) => vec![Err("not one answer for each row".to_owned()); indices.len()],
            Err(reason) => vec![Err(reason); indices.len()],
        };
        let one = |(index, part): (usize, Result<Bytes, String>)| match part {
            Ok(bytes) if bytes.len() == wanted[index].len as usize => (index, Some(bytes)),
            Ok(_) => (index, self.unreadable_there(wanted[index].row(), "it has another length")),
            Err(reason) => (index, self.unreadable_there(wanted[index].row(), &reason)),
        };
        indices.into_iter().zip(read).map(one).collect()
    }

    fn unreadable_there(&self, row: Row, reason: &str) -> Option<Bytes> {
        self.context.metrics().rows_unreadable.with_label_values(&["peer"]).inc();
        let sites = self.place.record.rows.iter();
        let mut sites = sites.filter(|(_, first, count)| (first.0..first.0 + count).contains(&row.0));
        let site = sites.next().map_or("the other site", |(site, ..)| site.as_str());
        self.trouble.note(row, format!("row {row} in {site}: {reason}"));
        None
    }

    async fn fetch_from(
        &self,
        (side, node): (Side, &NodeName),
        wanted: &[Wanted],
        indices: Vec<usize>,
    ) -> Parts {
        let here = indices.iter().filter_map(|&index| match wanted[index].home {
            Home::Here(placed) | Home::Outside(placed) => Some((index, placed)),
            Home::Peer(_) => None,
        });
        let here: Vec<(usize, PlacedRow)> = here.collect();
        let item = |&(index, placed): &(usize, PlacedRow)| {
            let PlacedRow { row, device, instance } = placed;
            let at = RowAt { device, extent: self.place.id, row, instance: Some(instance) };
            ReadItem { at, offset: wanted[index].offset, len: wanted[index].len }
        };
        let items = here.iter().map(item).collect();
        let wait = self.wait_for(wanted, &indices);
        let read = match self.agents_of(side).client(node) {
            Some(client) => client.read_many(items).await,
            None => Err(CallError::Unreachable {
                node: node.to_string(),
                reason: "the map calls it dead".to_owned(),
            }),
        };
        match read {
            Ok(parts) => {
                drop(wait);
                if side == Side::Here {
                    self.context.note_reachable(node);
                }
                let noted =
                    |((index, placed), part): ((usize, PlacedRow), Result<Bytes, AgentError>)| match part {
                        Ok(bytes) => (index, Some(bytes)),
                        Err(error) => {
                            self.unreadable(&placed, node, error.category(), &error.to_string());
                            (index, None)
                        }
                    };
                here.into_iter().zip(parts).map(noted).collect()
            }
            Err(error) => {
                if !matches!(error, CallError::TimedOut { .. }) {
                    wait.failed();
                }
                // What a write must survive hangs on the site's own nodes alone.
                if side == Side::Here {
                    self.context.note(node, &error);
                }
                for (_, placed) in &here {
                    self.unreadable(placed, node, "unreachable", &error.to_string());
                }
                here.into_iter().map(|(index, _)| (index, None)).collect()
            }
        }
    }

    /// Begins to measure what the devices of these ranges take.
    fn wait_for(&self, wanted: &[Wanted], indices: &[usize]) -> Wait<'_> {
        let mut devices: Vec<&DeviceLatency> =
            indices.iter().filter_map(|&index| self.latency(&wanted[index].home)).collect();
        devices.dedup_by(|one, other| std::ptr::eq(*one, *other));
        let longest = indices.iter().map(|&index| wanted[index].len).max().unwrap_or_default();
        Wait::begin(devices, Operation::Read, Size::of(longest as usize))
    }

    fn unreadable(&self, row: &PlacedRow, node: &NodeName, category: &str, reason: &str) {
        self.context.metrics().rows_unreadable.with_label_values(&[category]).inc();
        tracing::debug!(extent = %self.place.id, row = %row.row, %node, reason, "a row does not read");
        self.trouble.note(row.row, format!("row {} on {node}, device {}: {reason}", row.row, row.device));
    }

    /// The bytes of `range` from any k rows.
    async fn decode(&self, range: Range<u64>) -> Result<Bytes> {
        self.context.metrics().degraded_reads.inc();
        let mut joined = BytesMut::with_capacity((range.end - range.start) as usize);
        for part in self.layout().locate_decode(range) {
            self.decode_part(&part, &mut joined).await?;
        }
        Ok(joined.freeze())
    }

    async fn decode_part(&self, part: &DecodeRange, joined: &mut BytesMut) -> Result<()> {
        loop {
            let chosen = self.choose()?;
            let wanted: Vec<Wanted> = chosen.iter().map(|home| Wanted::of(*home, part)).collect();
            // Rows that did not read are noted: the next choice is without them.
            let Some(shards) = self.fetch(&wanted).await else { continue };
            let rows: Vec<Row> = chosen.iter().map(Home::row).collect();
            let shards: Vec<&[u8]> = shards.iter().map(Bytes::as_ref).collect();
            let decoded = decode_into(joined, part, self.place.record.needed, &rows, &shards);
            return decoded.map_err(|error| GatewayError::Internal(error.to_string()));
        }
    }

    /// k rows to decode from: this site's before the other's, these before those outside; those that are not waited for
    /// already first, then those whose devices are not slow, the nearest by measured round-trip time, and in order of their
    /// numbers. A node that could not be reached lately is asked again before the read is given up.
    pub(super) fn choose(&self) -> Result<Vec<Home>> {
        let needed = usize::from(self.place.record.needed);
        let slow = self.trouble.slow();
        let mut usable: Vec<Home> = self.untried().collect();
        usable.sort_by_key(|home| {
            let distance = match home {
                Home::Here(placed) if !self.is_far(placed) => 0,
                Home::Peer(_) => 1,
                Home::Outside(_) => 2,
                Home::Here(_) => 3,
            };
            (distance, slow.contains(&home.row()), self.is_slow(home), self.way_to(home), home.row())
        });
        usable.truncate(needed);
        if usable.len() == needed { Ok(usable) } else { Err(self.insufficient()) }
    }

    /// How far away it is.
    fn way_to(&self, home: &Home) -> u32 {
        let (side, device) = match home {
            Home::Here(placed) => (Side::Here, placed.device),
            Home::Outside(placed) => (Side::Outside, placed.device),
            Home::Peer(_) => return 0,
        };
        let agents = self.agents_of(side);
        let client = agents.node_of(device).and_then(|node| agents.client(node));
        client.and_then(AgentClient::round_trip).map_or(0, doublings)
    }

    /// Rows of both sites and outside of which nothing bad is known.
    fn untried(&self) -> impl Iterator<Item = Home> {
        let here = self.place.placed.iter().map(|placed| Home::Here(*placed));
        let peers = self.place.peer_rows(self.context).map(|(_, row)| Home::Peer(row));
        let outside = self.place.outside.iter().map(|placed| Home::Outside(*placed));
        here.chain(peers).chain(outside).filter(|home| !self.trouble.is_bad(home.row()))
    }

    fn insufficient(&self) -> GatewayError {
        let present = self.untried().map(|home| home.row().0).collect();
        let reasons = self.trouble.reasons();
        GatewayError::InsufficientFragments {
            extent: self.place.id,
            needed: self.place.record.needed,
            present,
            unreadable: self.place.describe_missing(self.context, self.agents, &reasons),
        }
    }
}

/// Adds the wanted bytes of a part, made from its range of k rows.
pub(super) fn decode_into(
    joined: &mut BytesMut,
    part: &DecodeRange,
    needed: u8,
    rows: &[Row],
    shards: &[&[u8]],
) -> Result<(), ErasureError> {
    let targets: BTreeSet<Row> = part.wanted.iter().map(|run| run.row).collect();
    let targets: Vec<Row> = targets.into_iter().collect();
    let decoded = Decoder::new(needed, rows, &targets)?.decode(shards)?;
    for run in &part.wanted {
        let at = targets.iter().position(|row| *row == run.row).unwrap_or_default();
        let start = (run.row_offset - part.row_offset) as usize;
        joined.extend_from_slice(&decoded[at][start..start + run.len as usize]);
    }
    Ok(())
}

fn join(parts: Vec<Bytes>) -> Bytes {
    let mut parts = parts;
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        joined.extend_from_slice(&part);
    }
    joined.freeze()
}
