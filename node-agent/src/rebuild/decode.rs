//! Reading k rows a few stripes at a time, and what comes out of them.

use std::sync::Arc;

use bytes::Bytes;
use diptych_core::erasure::Decoder;
use diptych_core::ids::{NodeName, Row};
use diptych_core::layout::{SHARD, StripeLayout};
use diptych_wire::agent::{AgentError, ExtentFacts, ReadItem, RowAt, Source};
use diptych_wire::client::AgentClient;
use futures::future::join_all;

use super::place_of;
use crate::agent::Agent;
use crate::device::Slot;
use crate::pace::Pace;
use crate::siblings::sibling_error;

/// Bytes of the extent that are in memory at a time, in about three copies.
pub(super) const GROUP: usize = 4 << 20;

/// Why a set of rows did not do.
#[derive(Debug)]
pub(super) enum Failure {
    /// All rows could be read, and the extent's hash does not come out.
    WrongHash,
    /// One (by its index in the set) can't be read.
    Row(usize, AgentError),
    /// The new row can't be written, or the command is not valid.
    Target(AgentError),
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::Target(error)
    }
}

/// Reads one row, here or on a sibling.
pub(super) struct RowReader {
    pub(super) source: Source,
    at: RowAt,
    way: Way,
}

enum Way {
    Local(Arc<Slot>),
    /// The device is not there; found out when it is read.
    Missing(AgentError),
    Sibling(NodeName, AgentClient),
}

impl RowReader {
    pub(super) fn new(agent: &Agent, extent: &ExtentFacts, source: &Source) -> Result<Self, AgentError> {
        let way = match &source.address {
            None => {
                agent.devices.find(source.device).map_or_else(Way::Missing, |slot| Way::Local(slot.clone()))
            }
            Some(address) => {
                let client = agent.siblings.client(&source.site, &source.node, address)?;
                Way::Sibling(source.node.clone(), client)
            }
        };
        Ok(Self { source: source.clone(), at: place_of(extent.extent, source), way })
    }

    pub(super) async fn read(&self, offset: u64, len: u32) -> Result<Bytes, AgentError> {
        match &self.way {
            Way::Local(slot) => {
                let RowAt { extent, row, instance, .. } = self.at;
                let range = offset..offset + u64::from(len);
                slot.with(move |device| device.read(extent, row, instance, range)).await
            }
            Way::Missing(error) => Err(error.clone()),
            Way::Sibling(node, client) => {
                let item = ReadItem { at: self.at, offset: offset as u32, len };
                client.read(item).await.map_err(|error| sibling_error(node, error))
            }
        }
    }

    /// Whether this row is what `good` rows make of it.
    pub(super) async fn agrees(
        &self,
        extent: &ExtentFacts,
        good: &[&Self],
        budget: Option<u64>,
    ) -> Result<bool, Failure> {
        let mut set = RowSet::new(extent, good, &[self.source.row], budget)?;
        while let Some(group) = set.next(false).await? {
            let said = self.read(group.offset, group.len).await?;
            if group.made.first() != Some(&said) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A few stripes of the rows that were wanted.
pub(super) struct Group {
    /// Where in each row.
    pub(super) offset: u64,
    /// Bytes of each row.
    pub(super) len: u32,
    /// The wanted rows' bytes.
    pub(super) made: Vec<Bytes>,
}

/// k rows, read side by side from the first stripe to the last.
pub(super) struct RowSet<'a> {
    /// In the decoder's order.
    readers: &'a [&'a RowReader],
    layout: StripeLayout,
    decoder: Arc<Decoder>,
    /// By data row: where it is found, among the read rows or the made ones.
    data: Arc<Vec<Place>>,
    /// Rows that are made after the missing data rows.
    wanted: Vec<Place>,
    stripe: u32,
    hasher: blake3::Hasher,
    pace: Pace,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Read(usize),
    Made(usize),
}

impl<'a> RowSet<'a> {
    pub(super) fn new(
        extent: &ExtentFacts,
        readers: &'a [&'a RowReader],
        wanted: &[Row],
        budget: Option<u64>,
    ) -> Result<Self, AgentError> {
        let have: Vec<Row> = readers.iter().map(|reader| reader.source.row).collect();
        let mut make: Vec<Row> = (0..extent.needed).map(Row).filter(|row| !have.contains(row)).collect();
        make.extend(wanted.iter().filter(|row| row.0 >= extent.needed));
        let place = |row: Row| match have.iter().position(|other| *other == row) {
            Some(index) => Place::Read(index),
            None => Place::Made(make.iter().position(|other| *other == row).unwrap_or_default()),
        };
        let decoder = Decoder::new(extent.needed, &have, &make)
            .map_err(|error| AgentError::Invalid { reason: error.to_string() })?;
        Ok(Self {
            layout: StripeLayout::new(extent.needed, u64::from(extent.length)),
            data: Arc::new((0..extent.needed).map(|row| place(Row(row))).collect()),
            wanted: wanted.iter().map(|row| place(*row)).collect(),
            decoder: Arc::new(decoder),
            readers,
            stripe: 0,
            hasher: blake3::Hasher::new(),
            pace: Pace::new(budget),
        })
    }

    /// The next stripes; None after the last. With `hash` their data goes into the extent's hash.
    pub(super) async fn next(&mut self, hash: bool) -> Result<Option<Group>, Failure> {
        let first = self.stripe;
        let count = (GROUP / (usize::from(self.layout.needed()) * SHARD)).max(1) as u32;
        let end = (first + count).min(self.layout.stripes());
        if first >= end {
            return Ok(None);
        }
        self.stripe = end;
        let offset = self.layout.shard_offset(first);
        let len =
            (self.layout.shard_offset(end - 1) + u64::from(self.layout.shard_len(end - 1)) - offset) as u32;
        self.pace.spend(u64::from(len) * self.readers.len() as u64).await;
        let read = join_all(self.readers.iter().map(|reader| reader.read(offset, len))).await;
        let mut rows = Vec::with_capacity(read.len());
        for (index, bytes) in read.into_iter().enumerate() {
            rows.push(bytes.map_err(|error| Failure::Row(index, error))?);
        }
        let (decoder, data, layout) = (self.decoder.clone(), self.data.clone(), self.layout);
        let hasher = hash.then(|| std::mem::take(&mut self.hasher));
        let work = move || {
            let made = decode(&decoder, &rows)?;
            let hasher = hasher.map(|mut hasher| {
                let row = |place: &Place| match *place {
                    Place::Read(index) => &rows[index],
                    Place::Made(index) => &made[index],
                };
                let data: Vec<&Bytes> = data.iter().map(row).collect();
                (first..end).for_each(|stripe| hash_stripe(&mut hasher, &layout, stripe, offset, &data));
                hasher
            });
            Ok::<_, AgentError>((rows, made, hasher))
        };
        let done = tokio::task::spawn_blocking(work).await;
        let (rows, made, hasher) =
            done.map_err(|error| AgentError::Internal { reason: error.to_string() })??;
        if let Some(hasher) = hasher {
            self.hasher = hasher;
        }
        let wanted = self.wanted.iter().map(|place| match *place {
            Place::Read(index) => rows[index].clone(),
            Place::Made(index) => made[index].clone(),
        });
        Ok(Some(Group { offset, len, made: wanted.collect() }))
    }

    /// BLAKE3 of all that was decoded.
    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

fn decode(decoder: &Decoder, rows: &[Bytes]) -> Result<Vec<Bytes>, AgentError> {
    let shards: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
    let made = decoder.decode(&shards).map_err(|error| AgentError::Internal { reason: error.to_string() })?;
    Ok(made.into_iter().map(Bytes::from).collect())
}

/// A stripe's shards, one data row after the other, without what fills up the last.
fn hash_stripe(
    hasher: &mut blake3::Hasher,
    layout: &StripeLayout,
    stripe: u32,
    offset: u64,
    data: &[&Bytes],
) {
    let range = layout.stripe_range(stripe);
    let mut rest = (range.end - range.start) as usize;
    let shard = layout.shard_len(stripe) as usize;
    let start = (layout.shard_offset(stripe) - offset) as usize;
    for row in data {
        let len = shard.min(rest);
        hasher.update(&row[start..start + len]);
        rest -= len;
    }
}
