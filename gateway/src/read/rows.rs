//! A range of an extent from its rows: the data rows that hold it, or any k.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use diptych_core::erasure::Decoder;
use diptych_core::ids::{NodeName, Row};
use diptych_core::layout::{DecodeRange, RowRange, StripeLayout};
use diptych_core::records::PlacedRow;
use diptych_wire::agent::{ReadItem, RowAt};
use diptych_wire::client::CallError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::extent::ExtentPlace;
use crate::agents::Agents;
use crate::context::Context;
use crate::error::{GatewayError, Result};

/// After this other rows are asked for besides.
const HEDGE_AFTER: Duration = Duration::from_millis(200);

/// Why rows were not used, by row.
#[derive(Debug, Default)]
struct Trouble {
    reasons: Mutex<BTreeMap<Row, String>>,
    waiting: Mutex<BTreeSet<Row>>,
}

impl Trouble {
    fn note(&self, row: Row, reason: String) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).insert(row, reason);
    }

    fn is_bad(&self, row: Row) -> bool {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&row)
    }

    fn set_waiting(&self, rows: impl Iterator<Item = Row>, waiting: bool) {
        let mut set = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if waiting {
                set.insert(row)
            } else {
                set.remove(&row)
            };
        }
    }

    fn slow(&self) -> BTreeSet<Row> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads one range of one extent.
pub(crate) struct RangeReader<'a> {
    context: &'a Context,
    place: &'a ExtentPlace,
    agents: &'a Agents,
    trouble: Trouble,
}

/// A range of a row that is wanted.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    row: PlacedRow,
    offset: u32,
    len: u32,
}

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
        Self { context, place, agents, trouble }
    }

    /// The bytes of `range`.
    pub(crate) async fn read(&self, range: std::ops::Range<u64>) -> Result<Bytes> {
        let layout = StripeLayout::new(self.place.record.needed, u64::from(self.place.record.length));
        if range.end > layout.extent_len() {
            return Err(GatewayError::Corrupt(format!(
                "extent {} ends before byte {}",
                self.place.id, range.end
            )));
        }
        let runs: Vec<RowRange> = layout.locate(range.clone()).collect();
        let wanted: Option<Vec<Wanted>> =
            runs.iter().map(|run| self.wanted(run.row, run.row_offset, run.len)).collect();
        let Some(wanted) = wanted else { return self.decode(layout, range).await };
        let direct = self.fetch(&wanted);
        tokio::pin!(direct);
        let hedged = tokio::select! {
            read = &mut direct => Some(read),
            () = tokio::time::sleep(HEDGE_AFTER) => None,
        };
        if let Some(read) = hedged {
            return match read {
                Some(parts) => Ok(join(parts)),
                None => self.decode(layout, range).await,
            };
        }
        let decode = self.decode(layout, range);
        tokio::pin!(decode);
        tokio::select! {
            read = &mut direct => match read {
                Some(parts) => Ok(join(parts)),
                None => decode.await,
            },
            decoded = &mut decode => match decoded {
                Ok(bytes) => Ok(bytes),
                // Slow is better than nothing.
                Err(error) => direct.await.map(join).ok_or(error),
            },
        }
    }

    /// Where a row can be read, if it seems that it can.
    fn wanted(&self, row: Row, offset: u64, len: u32) -> Option<Wanted> {
        let placed = self.place.placed.iter().find(|placed| placed.row == row)?;
        let likely = !self.trouble.is_bad(row) && !self.is_far(placed);
        likely.then_some(Wanted { row: *placed, offset: offset as u32, len })
    }

    /// Whether its node could not be reached lately, or is gone.
    fn is_far(&self, placed: &PlacedRow) -> bool {
        let node = self.agents.node_of(placed.device);
        node.is_none_or(|node| self.agents.client(node).is_none() || self.context.is_unreachable(node))
    }

    /// All of the ranges, in order; None: some could not be read, and `trouble` says which.
    async fn fetch(&self, wanted: &[Wanted]) -> Option<Vec<Bytes>> {
        let mut by_node: BTreeMap<&NodeName, Vec<usize>> = BTreeMap::new();
        for (index, item) in wanted.iter().enumerate() {
            match self.agents.node_of(item.row.device) {
                Some(node) => by_node.entry(node).or_default().push(index),
                None => self.trouble.note(item.row.row, format!("device {} is unknown", item.row.device)),
            }
        }
        self.trouble.set_waiting(wanted.iter().map(|item| item.row.row), true);
        let mut calls: FuturesUnordered<_> =
            by_node.into_iter().map(|(node, indices)| self.fetch_from(node, wanted, indices)).collect();
        let mut parts: Vec<Option<Bytes>> = vec![None; wanted.len()];
        while let Some(read) = calls.next().await {
            for (index, bytes) in read {
                self.trouble.set_waiting(std::iter::once(wanted[index].row.row), false);
                parts[index] = bytes;
            }
        }
        parts.into_iter().collect()
    }

    async fn fetch_from(
        &self,
        node: &NodeName,
        wanted: &[Wanted],
        indices: Vec<usize>,
    ) -> Vec<(usize, Option<Bytes>)> {
        let item = |index: &usize| {
            let Wanted { row, offset, len } = wanted[*index];
            let at = RowAt {
                device: row.device,
                extent: self.place.id,
                row: row.row,
                instance: Some(row.instance),
            };
            ReadItem { at, offset, len }
        };
        let items = indices.iter().map(item).collect();
        let read = match self.agents.client(node) {
            Some(client) => client.read_many(items).await,
            None => Err(CallError::Unreachable {
                node: node.to_string(),
                reason: "the map calls it dead".to_owned(),
            }),
        };
        match read {
            Ok(parts) => {
                self.context.note_reachable(node);
                let noted =
                    |(index, part): (usize, Result<Bytes, diptych_wire::agent::AgentError>)| match part {
                        Ok(bytes) => (index, Some(bytes)),
                        Err(error) => {
                            self.unreadable(&wanted[index].row, node, error.category(), &error.to_string());
                            (index, None)
                        }
                    };
                indices.into_iter().zip(parts).map(noted).collect()
            }
            Err(error) => {
                self.context.note(node, &error);
                for index in &indices {
                    self.unreadable(&wanted[*index].row, node, "unreachable", &error.to_string());
                }
                indices.into_iter().map(|index| (index, None)).collect()
            }
        }
    }

    fn unreadable(&self, row: &PlacedRow, node: &NodeName, category: &str, reason: &str) {
        self.context.metrics().rows_unreadable.with_label_values(&[category]).inc();
        tracing::debug!(extent = %self.place.id, row = %row.row, %node, reason, "a row does not read");
        self.trouble.note(row.row, format!("row {} on {node}, device {}: {reason}", row.row, row.device));
    }

    /// The bytes of `range` from any k rows.
    pub(crate) async fn decode(&self, layout: StripeLayout, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.context.metrics().degraded_reads.inc();
        let mut joined = BytesMut::with_capacity((range.end - range.start) as usize);
        for part in layout.locate_decode(range) {
            self.decode_part(&part, &mut joined).await?;
        }
        Ok(joined.freeze())
    }

    async fn decode_part(&self, part: &DecodeRange, joined: &mut BytesMut) -> Result<()> {
        loop {
            let chosen = self.choose()?;
            let wanted: Vec<Wanted> = chosen
                .iter()
                .map(|row| Wanted { row: *row, offset: part.row_offset as u32, len: part.len })
                .collect();
            // Rows that did not read are noted: the next choice is without them.
            let Some(shards) = self.fetch(&wanted).await else { continue };
            let rows: Vec<Row> = chosen.iter().map(|placed| placed.row).collect();
            let targets: BTreeSet<Row> = part.wanted.iter().map(|run| run.row).collect();
            let targets: Vec<Row> = targets.into_iter().collect();
            let failed =
                |error: diptych_core::erasure::ErasureError| GatewayError::Internal(error.to_string());
            let decoder = Decoder::new(self.place.record.needed, &rows, &targets).map_err(failed)?;
            let inputs: Vec<&[u8]> = shards.iter().map(Bytes::as_ref).collect();
            let decoded = decoder.decode(&inputs).map_err(failed)?;
            for run in &part.wanted {
                let at = targets.iter().position(|row| *row == run.row).unwrap_or_default();
                let start = (run.row_offset - part.row_offset) as usize;
                joined.extend_from_slice(&decoded[at][start..start + run.len as usize]);
            }
            return Ok(());
        }
    }

    /// k rows to decode from: those that are not waited for already first, then in order of their numbers. A node that
    /// could not be reached lately is asked again before the read is given up.
    fn choose(&self) -> Result<Vec<PlacedRow>> {
        let needed = usize::from(self.place.record.needed);
        let slow = self.trouble.slow();
        let untried = self.place.placed.iter().filter(|row| !self.trouble.is_bad(row.row));
        let mut usable: Vec<PlacedRow> = untried.copied().collect();
        usable.sort_by_key(|row| (self.is_far(row), slow.contains(&row.row), row.row));
        usable.truncate(needed);
        if usable.len() == needed { Ok(usable) } else { Err(self.insufficient()) }
    }

    fn insufficient(&self) -> GatewayError {
        let reasons = self.trouble.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let present =
            self.place.placed.iter().filter(|row| !reasons.contains_key(&row.row)).map(|row| row.row.0);
        GatewayError::InsufficientFragments {
            extent: self.place.id,
            needed: self.place.record.needed,
            present: present.collect(),
            unreadable: self.place.describe_missing(self.context, self.agents, &reasons),
        }
    }
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
