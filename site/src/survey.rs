//! One pass over a site's extents: what is whole, what lacks rows, what has too few.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::View;
use diptych_core::ids::{DeviceId, ExtentId, Row, SiteName};
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::margin::{Margin, PlaceRows};
use diptych_core::placement::PlacementMap;
use diptych_core::records::{Extent, ExtentState, PlacedRow, Placement, Record};
use diptych_core::repair::{Lane, Repair, RepairPriority};
use diptych_wire::agent::ExtentFacts;
use serde::{Deserialize, Serialize};

use crate::error::SiteError;
use crate::nodes::Rotten;

/// Keys a scan takes at once.
const PAGE: usize = 1_000;

/// An extent that lacks rows in this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What a row is made from.
    pub facts: ExtentFacts,
    /// `x/`.
    pub record: Extent,
    /// Its placement as it was read: what a repair compares with.
    pub placement: Bytes,
    /// Rows that can be read.
    pub readable: Vec<PlacedRow>,
    /// Rows that are to be made.
    pub missing: Vec<Row>,
    /// Records on a device that still answers whose bytes are not right: deleted once their row is made anew.
    pub rotten: Vec<PlacedRow>,
    /// What it still survives, the other site's rows counted.
    pub margin: Margin,
}

impl Need {
    /// How many more rows of this site may be lost before it can't decode by itself.
    pub fn margin_here(&self) -> i32 {
        self.readable.len() as i32 - i32::from(self.facts.needed)
    }

    /// What its repair is, found at `since_ms` (milliseconds since 1970); None: fewer than k rows are left anywhere.
    pub fn repair(&self, since_ms: u64) -> Option<Repair> {
        self.margin.now?;
        let length = u64::from(self.facts.length);
        // k rows of a k-th of the extent are read for each row that is made; what crosses does so once.
        let (lane, bytes) = if self.margin_here() >= 0 {
            (Lane::Lan, length * self.missing.len() as u64)
        } else {
            (Lane::Wan, length)
        };
        let priority = RepairPriority::new(&self.margin, since_ms);
        Some(Repair { extent: self.facts.extent, priority, lane, bytes })
    }
}

/// What a pass found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Extents that this site has rows of.
    pub extents: u64,
    /// Their bytes of ciphertext.
    pub bytes: u64,
    /// Of these, with all rows.
    pub whole: u64,
    /// With rows missing, and enough left.
    pub degraded: u64,
    /// With fewer rows left in this site than are needed.
    pub unreadable_here: u64,
    /// Of these, with fewer than are needed in both sites together.
    #[serde(default)]
    pub unrecoverable: u64,
    /// Extents by rows that may still be lost here.
    pub margin: BTreeMap<i32, u64>,
    /// Extents that the site was told of and lacks.
    pub wanted: u64,
    /// Their bytes.
    pub wanted_bytes: u64,
}

/// A pass's result.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Counts.
    pub health: Health,
    /// What lacks rows, in the order of their names: `core::repair` says what comes first.
    pub needs: Vec<Need>,
}

/// Whose extents are looked at, and by what.
pub struct Scope<'a> {
    /// The site.
    pub site: &'a SiteName,
    /// The other one.
    pub peer: Option<&'a SiteName>,
    /// The site's placement map.
    pub map: &'a PlacementMap,
    /// Rows that are placed and do not read right: rotten, lying, or lost from their device.
    pub unreadable: &'a BTreeSet<Rotten>,
}

/// Looks at every extent of a site.
pub fn survey(view: &dyn View, scope: &Scope<'_>) -> Result<Survey, SiteError> {
    let peer = match scope.peer {
        Some(peer) => {
            Some((peer, view.get(&keys::map(peer))?.map(|raw| PlacementMap::decode(&raw)).transpose()?))
        }
        None => None,
    };
    let peer = peer.map(|(site, map)| (site, map.unwrap_or_default()));
    let devices = scope.map.devices().filter(|(_, node, device)| node.readable(device));
    let devices: BTreeSet<DeviceId> = devices.map(|(_, _, device)| device.id).collect();
    let mut survey = Survey::default();
    each(view, &keys::placements(scope.site), |key, value| {
        let Some(id) = keys::extent_of(key) else { return Ok(ControlFlow::Continue(())) };
        let Some(raw) = view.get(&keys::extent(id))? else { return Ok(ControlFlow::Continue(())) };
        let extent = Extent::decode(&raw)?;
        if extent.state != ExtentState::Condemned {
            survey.note(view, scope, peer.as_ref(), &devices, (id, extent, value))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    each(view, &keys::all_wanted(scope.site), |_, value| {
        survey.health.wanted += 1;
        survey.health.wanted_bytes += u64::from(diptych_core::records::Wanted::decode(value)?.bytes);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(survey)
}

impl Survey {
    fn note(
        &mut self,
        view: &dyn View,
        scope: &Scope<'_>,
        peer: Option<&(&SiteName, PlacementMap)>,
        devices: &BTreeSet<DeviceId>,
        (id, extent, raw): (ExtentId, Extent, &Bytes),
    ) -> Result<(), SiteError> {
        let on_live = Placement::decode(raw)?.rows.into_iter().filter(|row| devices.contains(&row.device));
        let (rotten, readable): (Vec<PlacedRow>, Vec<PlacedRow>) =
            on_live.partition(|placed| scope.unreadable.contains(&(id, placed.row, placed.instance)));
        let is_there = |row: &Row| readable.iter().any(|placed| placed.row == *row);
        let missing: Vec<Row> = rows_of(&extent, scope.site).filter(|row| !is_there(row)).collect();
        let spare = readable.len() as i32 - i32::from(extent.needed);
        let health = &mut self.health;
        health.extents += 1;
        health.bytes += u64::from(extent.length);
        *health.margin.entry(spare).or_default() += 1;
        if spare < 0 {
            health.unreadable_here += 1;
        } else if missing.is_empty() {
            health.whole += 1;
        } else {
            health.degraded += 1;
        }
        if missing.is_empty() {
            return Ok(());
        }
        let margin = margin(view, scope, peer, (id, &extent, &readable))?;
        health.unrecoverable += u64::from(margin.now.is_none());
        let facts = facts_of(id, &extent);
        let placement = raw.clone();
        self.needs.push(Need { facts, record: extent, placement, readable, missing, rotten, margin });
        Ok(())
    }
}

/// What an extent survives, with the rows of both sites.
fn margin(
    view: &dyn View,
    scope: &Scope<'_>,
    peer: Option<&(&SiteName, PlacementMap)>,
    (id, extent, readable): (ExtentId, &Extent, &[PlacedRow]),
) -> Result<Margin, SiteError> {
    let expected = |site: &SiteName| rows_of(extent, site).count() as u8;
    let of = |rows: &[PlacedRow]| rows.iter().map(|placed| (placed.row, placed.device)).collect::<Vec<_>>();
    let mut places =
        vec![PlaceRows::from_map(scope.site.clone(), expected(scope.site), scope.map, of(readable))];
    if let Some((site, map)) = peer {
        let there = view.get(&keys::placement(site, id))?.map(|raw| Placement::decode(&raw)).transpose()?;
        let rows = there.map(|placement| of(&placement.rows)).unwrap_or_default();
        places.push(PlaceRows::from_map((*site).clone(), expected(site), map, rows));
    }
    Ok(Margin::new(extent.needed, &places))
}

/// What agents must know of an extent.
pub(crate) fn facts_of(id: ExtentId, extent: &Extent) -> ExtentFacts {
    ExtentFacts {
        extent: id,
        needed: extent.needed,
        kind: extent.kind,
        length: extent.length,
        hash: extent.hash,
        birth_epoch: extent.epoch,
        birth_hlc: extent.hlc,
    }
}

/// The numbers of the rows that were made for a site.
pub fn rows_of<'a>(extent: &'a Extent, site: &'a SiteName) -> impl Iterator<Item = Row> + 'a {
    let own = extent.rows.iter().filter(move |(name, _, _)| name == site);
    own.flat_map(|(_, first, count)| (0..*count).map(move |index| Row(first.0 + index)))
}

/// Calls `visit` for each key of a range, page by page, until it breaks.
pub fn each(
    view: &dyn View,
    range: &KeyRange,
    mut visit: impl FnMut(&Key, &Bytes) -> Result<ControlFlow<()>, SiteError>,
) -> Result<(), SiteError> {
    let mut rest = range.clone();
    loop {
        let page = view.scan(&rest, PAGE)?;
        for (key, value) in &page.entries {
            if visit(key, value)?.is_break() {
                return Ok(());
            }
        }
        match page.next {
            Some(next) => rest.start = next,
            None => return Ok(()),
        }
    }
}
