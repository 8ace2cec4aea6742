//! One pass over a site's extents: what is whole, what lacks rows, what has too few, whose rows lie where they should not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::View;
use diptych_core::ids::{DeviceId, ExtentId, Row, SiteName};
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::margin::{Margin, PlaceRows};
use diptych_core::moving;
use diptych_core::placement::{Move, PlacementMap};
use diptych_core::planner::Survive;
use diptych_core::records::{Extent, ExtentState, PlacedRow, Placement, Record};
use diptych_core::repair::{Cause, Lane, Repair, RepairPriority};
use diptych_wire::agent::ExtentFacts;
use serde::{Deserialize, Serialize};

use crate::error::SiteError;
use crate::nodes::Rotten;
use crate::peer::each_lacking;

/// Keys a scan takes at once.
const PAGE: usize = 1_000;
/// Extents whose rows move that one survey hands on, for each cause: a new node moves some rows of most of them.
const MOVES: usize = 10_000;

/// An extent that lacks rows, or whose rows shall lie elsewhere, in this site or, where this site sees to that, outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Where: the site, or `outside`.
    pub place: SiteName,
    /// What a row is made from.
    pub facts: ExtentFacts,
    /// `x/`.
    pub record: Extent,
    /// Its placement there as it was read: what a repair compares with. None: there is none yet.
    pub placement: Option<Bytes>,
    /// Rows of this site that can be read.
    pub readable: Vec<PlacedRow>,
    /// Rows outside that can be read.
    pub outside: Vec<PlacedRow>,
    /// Rows that are to be made.
    pub missing: Vec<Row>,
    /// Rows that are there and belong elsewhere; none while any is missing.
    pub moves: Vec<Move>,
    /// Records on a device that still answers whose bytes are not right: deleted once their row is made anew.
    pub rotten: Vec<PlacedRow>,
    /// What it still survives, the other site's rows counted.
    pub margin: Margin,
    /// Why it is touched.
    pub cause: Cause,
}

impl Need {
    /// How many more rows of this site may be lost before it can't decode by itself.
    pub fn margin_here(&self) -> i32 {
        self.readable.len() as i32 - i32::from(self.facts.needed)
    }

    /// The same with the rows outside.
    pub fn margin_with_outside(&self) -> i32 {
        self.margin_here() + self.outside.len() as i32
    }

    /// The rows that can be read in the place where some are lacking.
    pub fn held(&self) -> &[PlacedRow] {
        if self.is_outside() { &self.outside } else { &self.readable }
    }

    /// The same, to be changed.
    pub fn held_mut(&mut self) -> &mut Vec<PlacedRow> {
        if self.is_outside() { &mut self.outside } else { &mut self.readable }
    }

    /// Whether the rows are outside ones.
    pub fn is_outside(&self) -> bool {
        self.place == SiteName::outside()
    }

    /// What its repair is, found at `since_ms` (milliseconds since 1970); None: fewer than k rows are left anywhere.
    pub fn repair(&self, since_ms: u64) -> Option<Repair> {
        self.margin.now?;
        let length = u64::from(self.facts.length);
        let rows = (self.missing.len() + self.moves.len()) as u64;
        let of_rows = rows * length / u64::from(self.facts.needed.max(1));
        // k rows of a k-th of the extent are read for each row that is made, and only itself for one that moves; what crosses
        // does so once, and outside goes the new row alone.
        let (lane, bytes) = if self.is_outside() {
            (Lane::Wan, of_rows)
        } else if self.missing.is_empty() {
            (Lane::Lan, of_rows)
        } else if self.margin_here() >= 0 {
            (Lane::Lan, length * rows)
        } else {
            (Lane::Wan, length)
        };
        let priority = RepairPriority::new(self.cause, &self.margin, since_ms);
        Some(Repair { extent: self.facts.extent, priority, lane, bytes })
    }
}

/// What is left on a device that is being emptied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Rows that placements name there.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Extents of theirs that have no better place.
    pub stuck: u64,
    /// Why, of one of them.
    pub why: Option<String>,
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
    /// Rows outside that can be read.
    #[serde(default)]
    pub outside_rows: u64,
    /// Extents that lack rows outside, on the site that sees to them.
    #[serde(default)]
    pub outside_lacking: u64,
    /// Extents of which all rows are there and were all read and found right at some time.
    #[serde(default)]
    pub verified: u64,
    /// Days since 1970 of the one of these of which that is the longest ago; 0: there is none.
    #[serde(default)]
    pub verified_day: u32,
    /// Extents of which all rows are there, and some belong elsewhere.
    #[serde(default)]
    pub moving: u64,
    /// Bytes of those rows.
    #[serde(default)]
    pub moving_bytes: u64,
    /// What is left on each device of this site that is being emptied, by its number.
    #[serde(default)]
    pub leaving: BTreeMap<u32, Leaving>,
    /// The same of devices outside, on the site that sees to them.
    #[serde(default)]
    pub leaving_outside: BTreeMap<u32, Leaving>,
    /// Extents of objects' bytes that the site was told of and lacks.
    pub wanted: u64,
    /// Their bytes.
    pub wanted_bytes: u64,
    /// Milliseconds since 1970 when it was told of the oldest of them; None: it lacks nothing.
    #[serde(default)]
    pub wanted_since_ms: Option<u64>,
}

/// A pass's result.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Counts.
    pub health: Health,
    /// What lacks rows, and the first of what moves, in the order of their names: `core::repair` says what comes first.
    pub needs: Vec<Need>,
    /// Of `needs`, what only moves, by cause.
    kept: BTreeMap<Cause, usize>,
}

/// Whose extents are looked at, and by what.
pub struct Scope<'a> {
    /// The site.
    pub site: &'a SiteName,
    /// The other one.
    pub peer: Option<&'a SiteName>,
    /// The site's placement map.
    pub map: &'a PlacementMap,
    /// The outside nodes' placement map.
    pub outside: &'a PlacementMap,
    /// Rows that each extent shall have outside; None: the other site sees to them.
    pub outside_rows: Option<u8>,
    /// Rows that are placed and do not read right: rotten, lying, or lost from their device.
    pub unreadable: &'a BTreeSet<Rotten>,
    /// What rows in this site must survive wherever they move.
    pub survive: Survive,
    /// Whether it is looked for rows that belong elsewhere: where each belongs is a hash of all nodes.
    pub looks_for_moves: bool,
}

impl Scope<'_> {
    fn map_of(&self, is_outside: bool) -> &PlacementMap {
        if is_outside { self.outside } else { self.map }
    }
}

/// A place's rows of one extent.
struct Rows {
    placement: Option<Bytes>,
    verified_day: u32,
    readable: Vec<PlacedRow>,
    rotten: Vec<PlacedRow>,
}

impl Rows {
    /// Those of a placement that are on devices which can be read.
    fn of(
        id: ExtentId,
        placement: Option<Bytes>,
        devices: &BTreeSet<DeviceId>,
        unreadable: &BTreeSet<Rotten>,
    ) -> Result<Self, SiteError> {
        let placed = placement.as_deref().map(Placement::decode).transpose()?;
        let verified_day = placed.as_ref().map_or(0, |placement| placement.verified_day);
        let is_there = |row: &PlacedRow| devices.contains(&row.device);
        let there = placed.into_iter().flat_map(|placement| placement.rows).filter(is_there);
        let (rotten, readable) =
            there.partition(|placed| unreadable.contains(&(id, placed.row, placed.instance)));
        Ok(Self { placement, verified_day, readable, rotten })
    }

    /// Those that are named, whether or not they read right.
    fn named(&self) -> impl Iterator<Item = &PlacedRow> {
        self.readable.iter().chain(&self.rotten)
    }

    fn missing(&self, wanted: impl Iterator<Item = Row>) -> Vec<Row> {
        wanted.filter(|row| !self.readable.iter().any(|placed| placed.row == *row)).collect()
    }
}

/// Devices that can be read: the site's, and those outside.
struct Readable {
    here: BTreeSet<DeviceId>,
    outside: BTreeSet<DeviceId>,
}

impl Readable {
    fn of(scope: &Scope<'_>) -> Self {
        let readable = |map: &PlacementMap| {
            let devices = map.devices().filter(|(_, node, device)| node.readable(device));
            devices.map(|(_, _, device)| device.id).collect()
        };
        Self { here: readable(scope.map), outside: readable(scope.outside) }
    }
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
    let devices = Readable::of(scope);
    let mut survey = Survey::default();
    survey.health.leaving = emptied(scope.map);
    survey.health.leaving_outside = scope.outside_rows.map(|_| emptied(scope.outside)).unwrap_or_default();
    each(view, &keys::placements(scope.site), |key, value| {
        let Some(id) = keys::extent_of(key) else { return Ok(ControlFlow::Continue(())) };
        let Some(raw) = view.get(&keys::extent(id))? else { return Ok(ControlFlow::Continue(())) };
        let extent = Extent::decode(&raw)?;
        if extent.state != ExtentState::Condemned {
            survey.note(view, scope, peer.as_ref(), &devices, (id, extent, value))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    each_lacking(view, scope.site, |_, wanted| {
        let health = &mut survey.health;
        health.wanted += 1;
        health.wanted_bytes += u64::from(wanted.bytes);
        health.wanted_since_ms = health.wanted_since_ms.into_iter().chain([wanted.since_ms]).min();
    })?;
    Ok(survey)
}

impl Survey {
    fn note(
        &mut self,
        view: &dyn View,
        scope: &Scope<'_>,
        peer: Option<&(&SiteName, PlacementMap)>,
        devices: &Readable,
        (id, extent, raw): (ExtentId, Extent, &Bytes),
    ) -> Result<(), SiteError> {
        let here = Rows::of(id, Some(raw.clone()), &devices.here, scope.unreadable)?;
        let placed = if scope.outside.nodes.is_empty() {
            None
        } else {
            view.get(&keys::placement(&SiteName::outside(), id))?
        };
        let outside = Rows::of(id, placed, &devices.outside, scope.unreadable)?;
        let lacks_here = here.missing(extent.rows_of(scope.site));
        let lacks_outside = outside.missing(outside_rows(scope, &extent));
        self.health.count(&extent, here.readable.len(), lacks_here.is_empty());
        if lacks_here.is_empty() {
            self.health.note_verified(here.verified_day);
        }
        self.health.outside_rows += outside.readable.len() as u64;
        self.health.outside_lacking += u64::from(!lacks_outside.is_empty());
        self.health.note_leaving(&extent, &here, &outside);
        // Outside rows are margin: the site's own come first.
        let (is_outside, missing, moves) = if !lacks_here.is_empty() {
            (false, lacks_here, Vec::new())
        } else if !lacks_outside.is_empty() && takes_rows(scope.outside) {
            (true, lacks_outside, Vec::new())
        } else if let Some((is_outside, moves)) = self.moves(scope, (id, &extent), &here, &outside) {
            (is_outside, Vec::new(), moves)
        } else {
            return Ok(());
        };
        let cause = cause(scope.map_of(is_outside), &moves);
        if cause != Cause::Lacking && !self.keeps(cause) {
            return Ok(());
        }
        let (place, placement, rotten) = if is_outside {
            (SiteName::outside(), outside.placement, outside.rotten)
        } else {
            (scope.site.clone(), here.placement, here.rotten)
        };
        let (readable, outside) = (here.readable, outside.readable);
        let margin = margin(view, scope, peer, (id, &extent), (&readable, &outside))?;
        self.health.unrecoverable += u64::from(margin.now.is_none());
        self.needs.push(Need {
            place,
            facts: facts_of(id, &extent),
            record: extent,
            placement,
            readable,
            outside,
            missing,
            moves,
            rotten,
            margin,
            cause,
        });
        Ok(())
    }

    /// What moves of an extent that lacks nothing, and whether that is outside.
    fn moves(
        &mut self,
        scope: &Scope<'_>,
        (id, extent): (ExtentId, &Extent),
        here: &Rows,
        outside: &Rows,
    ) -> Option<(bool, Vec<Move>)> {
        if !scope.looks_for_moves {
            return None;
        }
        let kind = extent.holds.kind();
        let mut found = |is_outside: bool, rows: &Rows, survive: Survive| {
            let map = scope.map_of(is_outside).for_kind(kind);
            let at: Vec<_> = rows.readable.iter().map(|placed| (placed.row, placed.device)).collect();
            match moving::moves(&map, id, &at, extent.needed, survive) {
                Ok(moves) => (!moves.is_empty()).then_some((is_outside, moves)),
                Err(stuck) => {
                    self.health.note_stuck(is_outside, rows, stuck);
                    None
                }
            }
        };
        let of_site = found(false, here, scope.survive);
        let none = Survive { sites: 0, nodes: 0, devices: 0 };
        let (is_outside, moves) =
            of_site.or_else(|| scope.outside_rows.and_then(|_| found(true, outside, none)))?;
        self.health.moving += 1;
        self.health.moving_bytes += row_bytes(extent) * moves.len() as u64;
        Some((is_outside, moves))
    }

    /// Whether one more that moves for this cause is handed on.
    fn keeps(&mut self, cause: Cause) -> bool {
        let kept = self.kept.entry(cause).or_default();
        *kept += 1;
        *kept <= MOVES
    }
}

/// Nothing is left yet on any device of a map that is being emptied.
fn emptied(map: &PlacementMap) -> BTreeMap<u32, Leaving> {
    let drained = map.devices().filter(|(_, _, device)| moving::is_draining(map, device.id));
    drained.map(|(_, _, device)| (device.id.0, Leaving::default())).collect()
}

/// Why rows are touched that move so, or that are missing.
fn cause(map: &PlacementMap, moves: &[Move]) -> Cause {
    if moves.is_empty() {
        Cause::Lacking
    } else if moves.iter().any(|step| moving::is_draining(map, step.from)) {
        Cause::Draining
    } else {
        Cause::Levelling
    }
}

fn row_bytes(extent: &Extent) -> u64 {
    u64::from(extent.length) / u64::from(extent.needed.max(1))
}

impl Health {
    /// An extent with so many rows here that can be read.
    fn count(&mut self, extent: &Extent, readable: usize, is_whole: bool) {
        let spare = readable as i32 - i32::from(extent.needed);
        self.extents += 1;
        self.bytes += u64::from(extent.length);
        *self.margin.entry(spare).or_default() += 1;
        if spare < 0 {
            self.unreadable_here += 1;
        } else if is_whole {
            self.whole += 1;
        } else {
            self.degraded += 1;
        }
    }

    /// Nothing lies where it should not.
    pub fn is_level(&self) -> bool {
        let leaving = self.leaving.values().chain(self.leaving_outside.values());
        self.moving == 0 && leaving.map(|left| left.rows).sum::<u64>() == 0
    }

    /// A whole extent of which all rows were read and found right on that day; 0: never.
    fn note_verified(&mut self, day: u32) {
        if day > 0 {
            self.verified += 1;
            let known = Some(self.verified_day).filter(|day| *day > 0);
            self.verified_day = known.map_or(day, |known| known.min(day));
        }
    }

    /// What of an extent lies on devices that are being emptied.
    fn note_leaving(&mut self, extent: &Extent, here: &Rows, outside: &Rows) {
        for (leaving, rows) in [(&mut self.leaving, here), (&mut self.leaving_outside, outside)] {
            for placed in rows.named() {
                if let Some(left) = leaving.get_mut(&placed.device.0) {
                    left.rows += 1;
                    left.bytes += row_bytes(extent);
                }
            }
        }
    }

    /// Rows of an extent stay on devices that are being emptied.
    fn note_stuck(&mut self, is_outside: bool, rows: &Rows, stuck: moving::Stuck) {
        let leaving = if is_outside { &mut self.leaving_outside } else { &mut self.leaving };
        let devices: BTreeSet<u32> = rows.readable.iter().map(|placed| placed.device.0).collect();
        for device in devices {
            if let Some(left) = leaving.get_mut(&device) {
                left.stuck += 1;
                left.why = Some(stuck.to_string());
            }
        }
    }
}

/// The rows that an extent shall have outside. An upload's may still be given up: its extents get theirs when it is complete.
fn outside_rows(scope: &Scope<'_>, extent: &Extent) -> impl Iterator<Item = Row> + use<> {
    let is_live = extent.state == ExtentState::Live;
    extent.outside_rows(scope.outside_rows.filter(|_| is_live).unwrap_or(0))
}

fn takes_rows(map: &PlacementMap) -> bool {
    map.devices().any(|(_, node, device)| node.takes_rows(device))
}

/// What an extent survives, with the rows of both sites and those outside.
fn margin(
    view: &dyn View,
    scope: &Scope<'_>,
    peer: Option<&(&SiteName, PlacementMap)>,
    (id, extent): (ExtentId, &Extent),
    (here, outside): (&[PlacedRow], &[PlacedRow]),
) -> Result<Margin, SiteError> {
    let expected = |site: &SiteName| extent.rows_of(site).count() as u8;
    let of = |rows: &[PlacedRow]| rows.iter().map(|placed| (placed.row, placed.device)).collect::<Vec<_>>();
    let mut places = vec![
        PlaceRows::from_map(scope.site.clone(), expected(scope.site), scope.map, of(here)),
        PlaceRows::from_map(SiteName::outside(), 0, scope.outside, of(outside)),
    ];
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
        holds: extent.holds,
        length: extent.length,
        hash: extent.hash,
        birth_epoch: extent.epoch,
        birth_hlc: extent.hlc,
    }
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
