//! An extent as the catalog knows it: its coding, and where this site's rows are.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use diptych_catalog::View;
use diptych_core::ids::{ExtentId, Row, SiteName};
use diptych_core::keys;
use diptych_core::records::{Extent, PlacedRow, Placement, Record};
use diptych_core::tail::{TAIL_GUESS, Tail, TailError};

use super::rows::RangeReader;
use crate::agents::Agents;
use crate::context::Context;
use crate::error::{GatewayError, Result};

/// Why a row can't be read, if its device is not there at all.
pub(super) fn gone(placed: &PlacedRow, agents: &Agents) -> Option<String> {
    let PlacedRow { row, device, .. } = placed;
    match agents.node_of(*device) {
        None => Some(format!("row {row} on device {device}: the device is gone")),
        Some(node) if agents.client(node).is_none() => Some(format!("row {row} on {node}: the node is dead")),
        Some(_) => None,
    }
}

/// An extent and its rows in this site.
#[derive(Debug, Clone)]
pub(crate) struct ExtentPlace {
    /// Which.
    pub id: ExtentId,
    /// Its coding, length and hash.
    pub record: Extent,
    /// Where this site's rows are.
    pub placed: Vec<PlacedRow>,
    /// Where rows outside are; none with `alone`.
    pub outside: Vec<PlacedRow>,
    /// Neither the other site's rows nor those outside are asked for.
    pub alone: bool,
}

impl ExtentPlace {
    /// As a view shows it.
    pub(crate) fn find(context: &Context, view: &dyn View, id: ExtentId) -> Result<Self> {
        let raw = view.get(&keys::extent(id))?;
        let raw =
            raw.ok_or_else(|| GatewayError::Corrupt(format!("extent {id} is named and not in the catalog")))?;
        let rows = |place: &SiteName| -> Result<Vec<PlacedRow>> {
            let placement = view.get(&keys::placement(place, id))?;
            let placed = placement.as_deref().map(Placement::decode).transpose()?;
            Ok(placed.map_or_else(Vec::new, |placement| placement.rows))
        };
        let has_outside = !context.outside_agents().map().nodes.is_empty();
        Ok(Self {
            id,
            record: Extent::decode(&raw)?,
            placed: rows(context.site())?,
            outside: if has_outside { rows(&SiteName::outside())? } else { Vec::new() },
            alone: false,
        })
    }

    /// The same, read from this site's own rows and no others.
    pub(super) fn alone(self) -> Self {
        Self { alone: true, outside: Vec::new(), ..self }
    }

    /// The rows that were made for the other site, where there is one that can be asked.
    pub(crate) fn peer_rows(&self, context: &Context) -> impl Iterator<Item = (&SiteName, Row)> {
        let own = context.site().clone();
        let asked = !self.alone && context.peer_rows().is_some();
        let others = self.record.rows.iter().filter(move |(site, ..)| asked && *site != own);
        others.flat_map(|(site, first, count)| (0..*count).map(move |index| (site, Row(first.0 + index))))
    }

    /// Refuses an extent of which too few rows are on devices that are there at all, wherever they are.
    pub(crate) async fn check(&self, context: &Context, agents: &Agents) -> Result<()> {
        let there = self.placed.iter().filter(|placed| gone(placed, agents).is_none()).count();
        if there >= usize::from(self.record.needed) {
            return Ok(());
        }
        RangeReader::new(context, agents, self, &[]).probe().await
    }

    /// Row by row what is wrong with those that can't be read.
    pub(crate) fn describe_missing(
        &self,
        context: &Context,
        agents: &Agents,
        reasons: &BTreeMap<Row, String>,
    ) -> String {
        let mine = self.record.rows.iter().find(|(site, ..)| site == context.site());
        let (first, count) = mine.map_or((0, 0), |(_, first, count)| (first.0, *count));
        let describe = |number: u8| {
            let Some(placed) = self.placed.iter().find(|placed| placed.row.0 == number) else {
                return Some(format!("row {number} is nowhere in {}", context.site()));
            };
            reasons.get(&placed.row).cloned().or_else(|| gone(placed, agents))
        };
        let here = (first..first.saturating_add(count)).filter_map(describe);
        let peers = self.peer_rows(context).filter_map(|(_, row)| reasons.get(&row).cloned());
        let outside = self.outside.iter().filter_map(|placed| reasons.get(&placed.row).cloned());
        here.chain(peers).chain(outside).collect::<Vec<String>>().join("; ")
    }

    /// Bytes of the extent. Where rows are gone, maps and placement are read again: repair may have moved them, to nodes that have
    /// just come.
    pub(crate) async fn read(&self, context: &Context, range: Range<u64>, avoid: &[Row]) -> Result<Bytes> {
        let first = RangeReader::new(context, &context.agents(), self, avoid).read(range.clone()).await;
        let Err(GatewayError::InsufficientFragments { .. }) = &first else { return first };
        context.refresh_now().await?;
        let view = context.catalog().view().await?;
        let found = Self::find(context, view.as_ref(), self.id)?;
        let moved = if self.alone { found.alone() } else { found };
        drop(view);
        if moved.placed == self.placed && moved.outside == self.outside {
            return first;
        }
        RangeReader::new(context, &context.agents(), &moved, avoid).read(range).await
    }

    /// The extent's tail, for the lengths of its chunks.
    pub(crate) async fn tail(&self, context: &Context) -> Result<Tail> {
        let length = u64::from(self.record.length);
        let mut wanted = TAIL_GUESS as u64;
        loop {
            let start = length.saturating_sub(wanted);
            let end = self.read(context, start..length, &[]).await?;
            match Tail::parse(&end) {
                Ok(tail) => return Ok(tail),
                Err(TailError::Cut { needed, .. }) if needed > wanted && needed <= length => wanted = needed,
                Err(error) => return Err(GatewayError::Corrupt(format!("extent {}: {error}", self.id))),
            }
        }
    }
}
