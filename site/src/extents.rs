//! Extents that a keeper writes and reads itself, small enough to be in memory: journals, checkpoints, and what compaction makes.

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, View, Write};
use diptych_core::durability::{self, Down, DurableRow};
use diptych_core::ids::{BlobId, DeviceId, Epoch, ExtentId, Hlc, NodeName, Row};
use diptych_core::journal::{Document, Fresh, seal};
use diptych_core::keyring::Keyring;
use diptych_core::keys;
use diptych_core::layout::StripeLayout;
use diptych_core::placement::{self, PlacementMap, Promise};
use diptych_core::records::{CodingPlan, Extent, ExtentState, PlacedRow, Placement, Record};
use diptych_core::whole;
use diptych_wire::agent::{ExtentFacts, ReadItem, RowAt};
use diptych_wire::client::CallError;

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::facts_of;

/// An extent whose rows are durable, and which is not in the catalog yet.
pub(crate) struct Written {
    pub(crate) extent: ExtentId,
    pub(crate) record: Extent,
    placement: Placement,
}

/// With what documents are written.
pub(crate) struct Pen {
    keyring: Keyring,
    plan: CodingPlan,
}

/// What could not be reached while rows were written.
#[derive(Default)]
struct Trouble {
    devices: Vec<DeviceId>,
    unreachable: Vec<NodeName>,
    reasons: Vec<String>,
}

impl Pen {
    /// The keyring and the plan that are in force.
    pub(crate) fn find(context: &SiteContext, view: &dyn View) -> Result<Self, SiteError> {
        let sealed = view.get(&keys::keyring())?.ok_or(SiteError::NothingYet("keyring"))?;
        let (_, plan) = view.last(&keys::plans())?.ok_or(SiteError::NothingYet("coding plan"))?;
        Ok(Self { keyring: context.cluster_keys.open(&sealed)?, plan: CodingPlan::decode(&plan)? })
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(crate) fn plan(&self) -> &CodingPlan {
        &self.plan
    }

    /// Seals a document and makes its rows durable; `born` says until when it tells all.
    ///
    /// # Errors
    /// `NotDurable` where fewer rows became durable than a client's write must have; those that can be reached are deleted again.
    pub(crate) async fn write(
        &self,
        context: &SiteContext,
        epoch: Epoch,
        born: Hlc,
        document: Document,
    ) -> Result<Written, SiteError> {
        let fresh =
            Fresh { extent: ExtentId(rand::random()), blob: BlobId(rand::random()), nonce: rand::random() };
        let (ring_key, holds) = (self.keyring.current().clone(), document.holds());
        let sealed = tokio::task::spawn_blocking(move || {
            let sealed = seal(&document, &ring_key, &fresh)?;
            let hash = *blake3::hash(&sealed.bytes).as_bytes();
            Ok::<_, SiteError>((sealed, hash))
        });
        let (sealed, hash) = sealed.await.map_err(|_| SiteError::Stopped)??;
        let record = Extent {
            state: ExtentState::Live,
            holds,
            length: sealed.bytes.len() as u32,
            payload: sealed.payload,
            hash,
            needed: self.plan.needed,
            rows: self.plan.rows_by_site(&context.site),
            epoch,
            hlc: born,
        };
        let placed = make_rows(context, fresh.extent, &record, sealed.bytes).await?;
        let placement = Placement { rows: placed, verified_day: 0 };
        Ok(Written { extent: fresh.extent, record, placement })
    }
}

impl Written {
    /// Enters it into the catalog.
    pub(crate) fn entering(&self, context: &SiteContext) -> Change {
        let key = keys::extent(self.extent);
        let placement = keys::placement(&context.site, self.extent);
        Change {
            guards: vec![Guard { key: key.clone(), expect: Expect::Absent }],
            writes: vec![
                Write::Put(key, Bytes::from(self.record.encode())),
                Write::Put(placement, Bytes::from(self.placement.encode())),
            ],
        }
    }

    /// Enters it by itself.
    pub(crate) async fn enter(&self, context: &SiteContext, epoch: Epoch) -> Result<(), SiteError> {
        let batch = Batch::one(Some(epoch), self.entering(context));
        if context.catalog.commit(batch).await?.all_applied() { Ok(()) } else { Err(SiteError::Changed) }
    }
}

/// Makes this site's rows of an extent, which is all in `bytes`, durable; where they are.
///
/// # Errors
/// `NotDurable` where fewer rows became durable than a client's write must have; those that can be reached are deleted again.
pub(crate) async fn make_rows(
    context: &SiteContext,
    extent: ExtentId,
    record: &Extent,
    bytes: Vec<u8>,
) -> Result<Vec<PlacedRow>, SiteError> {
    let (needed, numbers): (u8, Vec<Row>) = (record.needed, record.rows_of(&context.site).collect());
    let rows = tokio::task::spawn_blocking(move || {
        let rows = whole::split(needed, &numbers, &bytes)?;
        Ok::<Vec<(Row, Bytes)>, SiteError>(numbers.into_iter().zip(rows).collect())
    });
    let rows = rows.await.map_err(|_| SiteError::Stopped)??;
    place(context, &facts_of(extent, record), &rows).await
}

/// Writes rows where the map says; what is not taken there is sent once to other devices.
async fn place(
    context: &SiteContext,
    facts: &ExtentFacts,
    rows: &[(Row, Bytes)],
) -> Result<Vec<PlacedRow>, SiteError> {
    let map = context.map();
    let mut open = map.for_kind(facts.holds.kind()).into_owned();
    let mut placed: Vec<PlacedRow> = Vec::new();
    let mut trouble = Trouble::default();
    let promise = Promise::new(facts.needed, context.survive);
    for _ in 0..2 {
        let is_there = |row: &Row| placed.iter().any(|there| there.row == *row);
        let missing: Vec<Row> = rows.iter().map(|(row, _)| *row).filter(|row| !is_there(row)).collect();
        if missing.is_empty() {
            break;
        }
        let staying: Vec<(Row, DeviceId)> = placed.iter().map(|row| (row.row, row.device)).collect();
        let targets = match placement::replace(&open, promise, facts.extent, &staying, &missing) {
            Ok(targets) => targets,
            Err(error) => {
                trouble.reasons.push(error.to_string());
                break;
            }
        };
        let written = targets.rows.iter().map(|&(row, device)| {
            let bytes = rows.iter().find(|(other, _)| *other == row).map(|(_, bytes)| bytes.clone());
            let map = &map;
            async move { (device, place_one(context, map, facts, row, device, bytes).await) }
        });
        for (device, outcome) in futures::future::join_all(written).await {
            match outcome {
                Ok(row) => placed.push(row),
                Err(error) => trouble.note(&map, device, &error),
            }
        }
        for device in &trouble.devices {
            open.leave_out(*device);
        }
    }
    placed.sort_by_key(|row| row.row);
    let down = Down::of(&map, |node| trouble.unreachable.contains(node));
    let durable = DurableRow::of(&map, &placed);
    let Err(reason) = durability::check(&durable, facts.needed, context.survive, down) else {
        return Ok(placed);
    };
    take_back(context, &map, facts.extent, &placed).await;
    let reason = [vec![reason], trouble.reasons].concat().join("; ");
    Err(SiteError::NotDurable { extent: facts.extent, reason })
}

/// Deletes rows that nothing will name; where that fails the inventory finds them.
async fn take_back(context: &SiteContext, map: &PlacementMap, extent: ExtentId, placed: &[PlacedRow]) {
    let deleted = placed.iter().map(|placed| async move {
        let at = RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
        context.agents.of_device(map, placed.device)?.delete(context.stamp(), vec![at]).await?;
        Ok::<_, SiteError>(())
    });
    for error in futures::future::join_all(deleted).await.into_iter().filter_map(Result::err) {
        tracing::info!(site = %context.site, %extent, %error, "a row that is not wanted stays as an orphan");
    }
}

async fn place_one(
    context: &SiteContext,
    map: &PlacementMap,
    facts: &ExtentFacts,
    row: Row,
    device: DeviceId,
    bytes: Option<Bytes>,
) -> Result<PlacedRow, SiteError> {
    let agent = context.agents.of_device(map, device)?;
    let bytes = bytes.unwrap_or_default();
    let head = facts.head(device, row, bytes.len() as u32);
    let mut answers = agent.place_rows(context.stamp(), map.generation, vec![(head, bytes)]).await?;
    let instance = answers.pop().ok_or(SiteError::Stopped)?.map_err(CallError::Agent)?;
    Ok(PlacedRow { row, device, instance })
}

impl Trouble {
    fn note(&mut self, map: &PlacementMap, device: DeviceId, error: &SiteError) {
        self.devices.push(device);
        self.reasons.push(error.to_string());
        if let (
            SiteError::Agent(CallError::Unreachable { .. } | CallError::Disconnected { .. }),
            Some(found),
        ) = (error, map.find(device))
        {
            self.unreachable.push(found.1.name.clone());
        }
    }
}

/// An extent that the catalog names, and its bytes.
pub(crate) async fn read(context: &SiteContext, extent: ExtentId) -> Result<(Extent, Vec<u8>), SiteError> {
    let view = context.catalog.view().await?;
    let record = view.get(&keys::extent(extent))?.ok_or(SiteError::Changed)?;
    let placement = view.get(&keys::placement(&context.site, extent))?.ok_or(SiteError::Changed)?;
    drop(view);
    let record = Extent::decode(&record)?;
    let rows = Placement::decode(&placement)?.rows;
    let bytes = read_rows(context, &facts_of(extent, &record), &rows).await?;
    Ok((record, bytes))
}

/// The bytes of an extent from rows of this site: k of them, more where some do not read or lie.
async fn read_rows(
    context: &SiteContext,
    facts: &ExtentFacts,
    placed: &[PlacedRow],
) -> Result<Vec<u8>, SiteError> {
    let (extent, needed, length) = (facts.extent, facts.needed, u64::from(facts.length));
    let len = StripeLayout::new(needed, length).row_len() as u32;
    let map = context.map();
    let mut rows: Vec<(Row, Bytes)> = Vec::new();
    let mut rest = placed;
    while !rest.is_empty() {
        let (some, others) = rest.split_at(usize::from(needed).min(rest.len()));
        rest = others;
        let reads = some.iter().map(|placed| {
            let PlacedRow { row, device, instance } = *placed;
            let at = RowAt { device, extent, row, instance: Some(instance) };
            let agent = context.agents.of_device(&map, device);
            async move {
                let bytes = agent?.read(ReadItem { at, offset: 0, len }).await?;
                Ok::<_, SiteError>((row, bytes))
            }
        });
        for read in futures::future::join_all(reads).await {
            match read {
                Ok(read) => rows.push(read),
                Err(error) => tracing::info!(%extent, %error, "a row does not read"),
            }
        }
        if let Some(found) = whole::recover(needed, length, &facts.hash, &rows) {
            return Ok(found);
        }
    }
    match rows.len() {
        present if present < usize::from(needed) => Err(SiteError::TooFewRows { extent, present, needed }),
        _ => Err(SiteError::WrongExtent { extent }),
    }
}
