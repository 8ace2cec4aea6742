//! One pass over a site's extents: what is whole, what lacks rows, what has too few.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::View;
use diptych_core::ids::{DeviceId, ExtentId, Row, SiteName};
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::placement::PlacementMap;
use diptych_core::records::{Extent, ExtentState, PlacedRow, Placement, Record};
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
    /// Its placement as it was read: what a repair compares with.
    pub placement: Bytes,
    /// Rows that can be read.
    pub readable: Vec<PlacedRow>,
    /// Rows that are to be made.
    pub missing: Vec<Row>,
    /// Records that are rotten on a device that still answers: deleted once their row is made anew.
    pub rotten: Vec<PlacedRow>,
}

impl Need {
    /// How many more rows of this site may be lost before it can't decode by itself.
    pub fn margin(&self) -> i32 {
        self.readable.len() as i32 - i32::from(self.facts.needed)
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
    /// What to repair: the smallest margin first, then the oldest.
    pub needs: Vec<Need>,
}

/// Looks at every extent of a site. `rotten` rows count as missing.
pub fn survey(
    view: &dyn View,
    site: &SiteName,
    map: &PlacementMap,
    rotten: &BTreeSet<Rotten>,
) -> Result<Survey, SiteError> {
    let readable: BTreeSet<DeviceId> = map
        .devices()
        .filter(|(_, node, device)| node.readable(device))
        .map(|(_, _, device)| device.id)
        .collect();
    let mut survey = Survey::default();
    each(view, &keys::placements(site), |key, value| {
        let Some(id) = keys::extent_of(key) else { return Ok(ControlFlow::Continue(())) };
        let Some(raw) = view.get(&keys::extent(id))? else { return Ok(ControlFlow::Continue(())) };
        let extent = Extent::decode(&raw)?;
        if extent.state != ExtentState::Condemned {
            let need = need_of(id, &extent, site, value, &readable, rotten)?;
            survey.count(&extent, need);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    each(view, &keys::all_wanted(site), |_, value| {
        survey.health.wanted += 1;
        survey.health.wanted_bytes += u64::from(diptych_core::records::Wanted::decode(value)?.bytes);
        Ok(ControlFlow::Continue(()))
    })?;
    survey.needs.sort_by_key(|need| (need.margin(), need.facts.birth_hlc));
    Ok(survey)
}

impl Survey {
    fn count(&mut self, extent: &Extent, need: Need) {
        let health = &mut self.health;
        health.extents += 1;
        health.bytes += u64::from(extent.length);
        *health.margin.entry(need.margin()).or_default() += 1;
        if need.margin() < 0 {
            health.unreadable_here += 1;
        } else if need.missing.is_empty() {
            health.whole += 1;
        } else {
            health.degraded += 1;
        }
        if !need.missing.is_empty() {
            self.needs.push(need);
        }
    }
}

fn need_of(
    id: ExtentId,
    extent: &Extent,
    site: &SiteName,
    raw: &Bytes,
    devices: &BTreeSet<DeviceId>,
    rotten: &BTreeSet<Rotten>,
) -> Result<Need, SiteError> {
    let placed = Placement::decode(raw)?.rows;
    let is_rotten = |placed: &PlacedRow| rotten.contains(&(id, placed.row, placed.instance));
    let on_live: Vec<PlacedRow> = placed.into_iter().filter(|row| devices.contains(&row.device)).collect();
    let (rotten_rows, readable): (Vec<_>, Vec<_>) = on_live.into_iter().partition(is_rotten);
    let missing =
        rows_of(extent, site).filter(|row| readable.iter().all(|placed| placed.row != *row)).collect();
    let facts = ExtentFacts {
        extent: id,
        needed: extent.needed,
        kind: extent.kind,
        length: extent.length,
        hash: extent.hash,
        birth_epoch: extent.epoch,
        birth_hlc: extent.hlc,
    };
    Ok(Need { facts, placement: raw.clone(), readable, missing, rotten: rotten_rows })
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
