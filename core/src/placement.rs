//! Where the rows of an extent lie in a site: level over failure domains, then nodes, then devices, by weighted rendezvous
//! hashing.
//!
//! Nothing is promised of domains, and they never cost what is promised of nodes. Domains come first as long as each node
//! can be held to so few rows that any `Promise::nodes` of them can be lost; else nodes get as many rows as they would
//! without domains, and domains only decide which of equal nodes gets one more. A node of no domain is one by itself.
//!
//! The operator keeps a `PlacementMap` in the catalog; each writer places by it without asking anybody, and what was
//! placed is recorded with the extent. So `place` needs to be no more than fair and repeatable: a row that is written
//! stays where its record says, and moves only when `replace` or `rebalance` says so.
//!
//! Where it is known how far nodes are (those in neither site), the near ones get their row before the far ones, wherever the
//! level leaves the choice; rows that lie there already stay, for each that moves is one that crosses.
//!
//! What moves is the least there is. Nodes are ranked for each extent by a hash of both, so a node that comes or goes
//! leaves the order of the others alone, and only rows to or from it change device. *Which* row lies on which of the chosen
//! devices is not a function of the map: no such function keeps all the other rows in place when one device of a set is
//! exchanged. That is why the functions that follow a change take the existing placement.

mod fill;
mod hash;
mod share;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{DeviceId, DomainName, ExtentId, Generation, NodeName, Row};
use crate::planner::Survive;
use crate::records::ExtentKind;

use fill::Fill;
pub use share::NodeShare;

/// `s/map/<site>`: the nodes and devices of a site that rows are placed on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlacementMap {
    /// Grows with each change; agents refuse a command that was placed by an older one.
    pub generation: Generation,
    /// In any order: placement does not depend on it.
    pub nodes: Vec<MapNode>,
}

/// A node of a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapNode {
    /// Unique in its site.
    pub name: NodeName,
    /// `host:port` of its agent.
    pub address: String,
    /// Path of its agent's unix socket, for processes on the same node.
    pub socket: Option<String>,
    /// Whether rows may be placed on it.
    pub state: NodeState,
    /// Its failure domain; None: it falls alone.
    #[serde(skip)]
    pub domain: Option<DomainName>,
    /// Its share of the extra rows among nodes, where a person gave it one; None: the sum of its devices'.
    #[serde(skip)]
    pub weight: Option<u32>,
    /// How far it is from who places, in doublings (`latency::doublings`); None: as near as any. Each site measures it for
    /// itself, so it is not kept with the map.
    #[serde(skip)]
    pub distance: Option<u32>,
    /// Its devices.
    pub devices: Vec<MapDevice>,
}

/// A device of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDevice {
    /// Unique in its site.
    pub id: DeviceId,
    /// Its share of the rows among the devices of its node, and of the extra rows among nodes: its size in GiB, or what a
    /// person gave it. 0: takes none.
    pub weight: u32,
    /// Whether rows may be placed on it.
    pub state: MapDeviceState,
}

/// Whether rows may be placed on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// Reads and writes.
    Live,
    /// Reads; its rows are moved away.
    Draining,
    /// Gone; its rows are rebuilt elsewhere.
    Dead,
}

/// Whether rows may be placed on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MapDeviceState {
    /// Reads and writes.
    Live,
    /// Reads; its rows are moved away.
    Draining,
    /// Gone; its rows are rebuilt elsewhere.
    Dead,
    /// Reads; its rows stay, and it takes no others but those of journals and checkpoints.
    Full,
}

impl PlacementMap {
    /// A device and its node; the number of the node is its index in `nodes`.
    pub fn find(&self, device: DeviceId) -> Option<(usize, &MapNode, &MapDevice)> {
        self.devices().find(|(_, _, found)| found.id == device)
    }

    /// All devices, with their nodes and the nodes' indices in `nodes`.
    pub fn devices(&self) -> impl Iterator<Item = (usize, &MapNode, &MapDevice)> {
        let numbered = self.nodes.iter().enumerate();
        numbered.flat_map(|(index, node)| node.devices.iter().map(move |device| (index, node, device)))
    }

    /// The map by which rows of an extent of this kind are placed: a device that is full for all others takes journals and
    /// checkpoints. Nothing is freed before they are written.
    pub fn for_kind(&self, kind: ExtentKind) -> Cow<'_, Self> {
        match kind {
            ExtentKind::Data => Cow::Borrowed(self),
            ExtentKind::Journal | ExtentKind::Checkpoint => {
                let mut map = self.clone();
                for device in map.nodes.iter_mut().flat_map(|node| &mut node.devices) {
                    if device.state == MapDeviceState::Full {
                        device.state = MapDeviceState::Live;
                    }
                }
                Cow::Owned(map)
            }
        }
    }

    /// A device takes no more rows.
    pub fn leave_out(&mut self, id: DeviceId) {
        for device in self.nodes.iter_mut().flat_map(|node| &mut node.devices) {
            if device.id == id {
                device.state = MapDeviceState::Full;
            }
        }
    }
}

impl MapNode {
    /// Whether what lies on a device of this node can be read.
    pub fn readable(&self, device: &MapDevice) -> bool {
        self.state != NodeState::Dead && device.state != MapDeviceState::Dead
    }

    /// Whether a device of this node takes rows that it does not hold.
    pub fn takes_rows(&self, device: &MapDevice) -> bool {
        self.state == NodeState::Live && device.state == MapDeviceState::Live && device.weight > 0
    }

    /// Its share of the extra rows among nodes. A full device counts, whatever it holds: were the rank of a node to depend on
    /// the rows that lie there, moving one would change the rank, and rows would be moved again and again.
    fn share(&self) -> u64 {
        let here = |device: &&MapDevice| matches!(device.state, MapDeviceState::Live | MapDeviceState::Full);
        let of_devices = || self.devices.iter().filter(here).map(|device| u64::from(device.weight)).sum();
        self.weight.map_or_else(of_devices, u64::from)
    }

    /// What its distance costs in a ranking; one where rows lie already costs nothing.
    fn remoteness(&self) -> u32 {
        self.distance.map_or(0, |distance| distance.saturating_add(1))
    }

    /// Whether rows on a device of this node may stay.
    fn keeps_rows(&self, device: &MapDevice) -> bool {
        let device_keeps = matches!(device.state, MapDeviceState::Live | MapDeviceState::Full);
        self.state == NodeState::Live && device_keeps && device.weight > 0
    }
}

/// What stays true of the rows of an extent in a place, however they are spread over domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// k: rows that must be left.
    pub needed: u8,
    /// Nodes that may be lost, whichever they are.
    pub nodes: u32,
}

impl Promise {
    /// Of an extent that needs so many rows, where that is declared.
    pub const fn new(needed: u8, survive: Survive) -> Self {
        Self { needed, nodes: survive.nodes }
    }

    /// Most rows on each node, so that it is kept whichever nodes are lost.
    fn most_on_node(self, rows: usize) -> usize {
        let spare = rows.saturating_sub(usize::from(self.needed));
        spare.checked_div(self.nodes as usize).unwrap_or(usize::MAX)
    }
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// In the order in which the rows were given.
    pub rows: Vec<(Row, DeviceId)>,
    /// A device holds more than one row: there are too few live devices, and the margin is less than planned.
    pub crowded: bool,
}

/// A row that lies on one device and belongs on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The row.
    pub row: Row,
    /// Where it is.
    pub from: DeviceId,
    /// Where it belongs.
    pub to: DeviceId,
}

/// Why rows can't be placed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// Nothing is live.
    #[error(
        "{extent} can't be placed: none of {devices} devices on {nodes} nodes in placement map {generation} takes rows. \
         Nothing was written; bring a node back, or free room on a device"
    )]
    NoDevice {
        /// The extent.
        extent: ExtentId,
        /// Generation of the map.
        generation: Generation,
        /// Nodes in the map.
        nodes: usize,
        /// Devices in the map.
        devices: usize,
    },
    /// A row of one extent is asked for twice, or is there already.
    #[error("row {row} of {extent} is to be placed twice")]
    RowTwice {
        /// The extent.
        extent: ExtentId,
        /// The row.
        row: Row,
    },
}

/// Places all rows of a new extent.
///
/// Domains, and in them live nodes, get as many rows each, give or take one, as far as they have devices and `promise`
/// allows; a device gets one row, and more only where there are fewer live devices than rows (`crowded`).
///
/// # Errors
/// Where no device takes rows, or a row is named twice.
pub fn place(
    map: &PlacementMap,
    promise: Promise,
    extent: ExtentId,
    rows: &[Row],
) -> Result<Placed, PlaceError> {
    replace(map, promise, extent, &[], rows)
}

/// Chooses devices for `missing` rows, given those that stay where they are.
///
/// What stays counts for the level wherever it lies, also on full or draining devices. `crowded` tells of the extent as it
/// will be, with what stays.
///
/// # Errors
/// Where no device takes rows, or a row is named twice.
pub fn replace(
    map: &PlacementMap,
    promise: Promise,
    extent: ExtentId,
    staying: &[(Row, DeviceId)],
    missing: &[Row],
) -> Result<Placed, PlaceError> {
    refuse_row_twice(extent, staying.iter().map(|&(row, _)| row).chain(missing.iter().copied()))?;
    let mut fill = Fill::new(map, extent, staying, MapNode::takes_rows, MapNode::remoteness);
    fill.domains_first(missing.len(), promise.most_on_node(staying.len() + missing.len()));
    let rows = missing.iter().map(|&row| fill.take().map(|device| (row, device))).collect::<Option<Vec<_>>>();
    let no_device = PlaceError::NoDevice {
        extent,
        generation: map.generation,
        nodes: map.nodes.len(),
        devices: map.devices().count(),
    };
    let rows = rows.ok_or(no_device)?;
    let mut used = BTreeSet::new();
    let crowded = !staying.iter().chain(&rows).all(|&(_, device)| used.insert(device));
    Ok(Placed { rows, crowded })
}

/// Rows that can be read and should lie elsewhere, for they drain or because the map has changed since, each with where
/// to: as few moves as make the placement what `place` would choose.
///
/// Rows on dead or unknown devices are not moved but made anew (`replace`). Rows on full devices may stay.
pub fn rebalance(
    map: &PlacementMap,
    promise: Promise,
    extent: ExtentId,
    existing: &[(Row, DeviceId)],
) -> Vec<Move> {
    let readable: Vec<(Row, DeviceId)> = existing
        .iter()
        .copied()
        .filter(|&(_, device)| map.find(device).is_some_and(|(_, node, device)| node.readable(device)))
        .collect();
    let held: BTreeSet<DeviceId> = readable.iter().map(|&(_, device)| device).collect();
    let takes = |node: &MapNode, device: &MapDevice| {
        node.takes_rows(device) || (held.contains(&device.id) && node.keeps_rows(device))
    };
    let remoteness = |node: &MapNode| {
        let holds = node.devices.iter().any(|device| held.contains(&device.id));
        if holds { 0 } else { node.remoteness() }
    };
    let mut fill = Fill::new(map, extent, &[], takes, remoteness);
    fill.domains_first(readable.len(), promise.most_on_node(readable.len()));
    let mut wanted: BTreeMap<DeviceId, usize> = BTreeMap::new();
    let Some(target) = readable.iter().map(|_| fill.take()).collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    for device in target {
        *wanted.entry(device).or_default() += 1;
    }
    let mut surplus = Vec::new();
    for (row, device) in readable {
        match wanted.get_mut(&device) {
            Some(count) if *count > 0 => *count -= 1,
            _ => surplus.push((row, device)),
        }
    }
    let room = wanted.into_iter().flat_map(|(device, count)| std::iter::repeat_n(device, count));
    surplus.into_iter().zip(room).map(|((row, from), to)| Move { row, from, to }).collect()
}

fn refuse_row_twice(extent: ExtentId, rows: impl Iterator<Item = Row>) -> Result<(), PlaceError> {
    let mut seen = BTreeSet::new();
    for row in rows {
        if !seen.insert(row) {
            return Err(PlaceError::RowTwice { extent, row });
        }
    }
    Ok(())
}
