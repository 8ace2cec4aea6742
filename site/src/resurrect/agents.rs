//! Fragments as running agents give them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use diptych_core::ids::{DeviceId, Epoch, SiteName};
use diptych_core::placement::PlacementMap;
use diptych_core::records::{ExtentKind, PlacedRow};
use diptych_wire::agent::{ExtentFacts, InventoryRecord, ReadItem, RowAt};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::fragments::{Fragment, Fragments, Place};
use crate::agents::Agents;
use crate::context::SiteContext;
use crate::error::SiteError;

/// Records of one page.
const PAGE: u32 = 1_000;

/// The agents of a site, as its map has them.
pub struct AgentFragments {
    site: SiteName,
    agents: Arc<Agents>,
    map: Arc<PlacementMap>,
}

impl AgentFragments {
    /// Of a keeper's site.
    pub fn new(context: &SiteContext) -> Self {
        Self { site: context.site.clone(), agents: Arc::clone(&context.agents), map: context.map() }
    }

    fn devices(&self) -> impl Iterator<Item = DeviceId> {
        let readable = self.map.devices().filter(|(_, node, device)| node.readable(device));
        readable.map(|(_, _, device)| device.id)
    }

    async fn page(
        &self,
        device: DeviceId,
        after: Option<InventoryRecord>,
        kind: ExtentKind,
    ) -> Result<(Vec<InventoryRecord>, bool), SiteError> {
        let agent = self.agents.of_device(&self.map, device)?;
        let after = after.map(|record| (record.extent, record.row, record.instance));
        let page = agent.inventory(device, after, Some(kind), PAGE).await?;
        Ok((page.records, page.last))
    }

    async fn describe(&self, device: DeviceId, record: InventoryRecord) -> Result<Fragment, SiteError> {
        let InventoryRecord { extent, row, instance, .. } = record;
        let at = RowAt { device, extent, row, instance: Some(instance) };
        let head = self.agents.of_device(&self.map, device)?.describe(at).await?.head;
        let facts = ExtentFacts {
            extent,
            needed: head.needed,
            holds: head.holds,
            length: head.extent_len,
            hash: head.extent_hash,
            birth_epoch: head.birth_epoch,
            birth_hlc: head.birth_hlc,
        };
        let placed = PlacedRow { row, device, instance };
        Ok(Fragment { site: self.site.clone(), facts, placed, place: Place::default() })
    }

    fn of_device(&self, device: DeviceId, kind: ExtentKind) -> BoxStream<'_, Result<Fragment, String>> {
        let named = move |error: SiteError| format!("device {device}: {error}");
        let pages = stream::try_unfold(Some(None), move |after| async move {
            let Some(after) = after else { return Ok::<_, SiteError>(None) };
            let (records, last) = self.page(device, after, kind).await?;
            let next = if last { None } else { records.last().copied().map(Some) };
            Ok(Some((stream::iter(records.into_iter().map(Ok)), next)))
        });
        let records = pages.try_flatten().try_filter(|record| std::future::ready(!record.quarantined));
        records.and_then(move |record| self.describe(device, record)).map_err(named).boxed()
    }
}

#[async_trait]
impl Fragments for AgentFragments {
    async fn keyrings(&self) -> Vec<Vec<u8>> {
        let asked = self
            .map
            .nodes
            .iter()
            .map(|node| async move { self.agents.of_node(&node.name).ok()?.get_keyrings().await.ok() });
        let kept = futures::future::join_all(asked).await.into_iter().flatten().flatten();
        kept.filter_map(|kept| Some(kept.keyring?.sealed)).collect()
    }

    async fn highest_epoch(&self) -> Epoch {
        let asked = self.map.nodes.iter().map(|node| async move {
            Some(self.agents.of_node(&node.name).ok()?.status().await.ok()?.stamp.epoch)
        });
        futures::future::join_all(asked).await.into_iter().flatten().max().unwrap_or_default()
    }

    fn records(&self, kind: ExtentKind) -> BoxStream<'_, Result<Fragment, String>> {
        let devices: Vec<DeviceId> = self.devices().collect();
        stream::iter(devices).flat_map(move |device| self.of_device(device, kind)).boxed()
    }

    async fn read(&self, fragment: &Fragment) -> Result<Bytes, String> {
        let PlacedRow { row, device, instance } = fragment.placed;
        let facts = &fragment.facts;
        let layout = diptych_core::layout::StripeLayout::new(facts.needed, u64::from(facts.length));
        let at = RowAt { device, extent: facts.extent, row, instance: Some(instance) };
        let item = ReadItem { at, offset: 0, len: layout.row_len() as u32 };
        let read = async { Ok::<_, SiteError>(self.agents.of_device(&self.map, device)?.read(item).await?) };
        read.await.map_err(|error| format!("row {row} on device {device}: {error}"))
    }
}
