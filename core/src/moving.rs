//! Rows that can be read and should lie elsewhere: what may be emptied, what moves, and the sum where it can't be.
//!
//! A move never makes an extent survive less than is declared, or than it does already: a node that the others can't do
//! without keeps its rows, takes new ones, and says why. A dead node is never emptied: its rows are made anew.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::ids::{DeviceId, ExtentId, NodeName, Row, SiteName};
use crate::margin::{Margin, PlaceRows};
use crate::placement::{MapDeviceState, Move, NodeState, PlacementMap, Promise, place, rebalance};
use crate::planner::Survive;
use crate::records::Drain;

/// How the extents of a place are coded now, and what they must survive there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    /// k.
    pub needed: u8,
    /// f.
    pub rows: u8,
    /// What is declared.
    pub survive: Survive,
}

impl Coding {
    /// Of outside nodes: rows of margin, of which nothing is declared. One of them needs a place.
    pub const MARGIN: Self = Self { needed: 1, rows: 1, survive: Survive { sites: 0, nodes: 0, devices: 0 } };
}

/// Why rows stay where they should not be: the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Stuck {
    /// No other device takes a row.
    #[error("no other device takes rows: add a node, or free room")]
    NoDevice,
    /// What is left would survive too little.
    #[error(
        "{devices} devices on {nodes} other nodes take rows: {rows} rows on them, of which {needed} are needed, survive the loss of \
         {after_nodes} nodes or {after_devices} devices, and {} nodes and {} devices are declared: add a node, free room, or declare less",
        .survive.nodes, .survive.devices
    )]
    SurvivesLess {
        /// Nodes that take rows.
        nodes: usize,
        /// Devices of theirs that do.
        devices: usize,
        /// Rows of an extent.
        rows: usize,
        /// k.
        needed: u8,
        /// Losses of nodes that the rows would survive.
        after_nodes: u32,
        /// Losses of devices that they would.
        after_devices: u32,
        /// What is declared.
        survive: Survive,
    },
}

/// Marks what is asked to be emptied, as far as the rest of the place takes whole extents that survive what is declared. What
/// was being emptied `before` comes first. What is refused is left as it is.
pub fn drain(
    map: &mut PlacementMap,
    before: &PlacementMap,
    asked: &BTreeMap<NodeName, Drain>,
    coding: Coding,
) -> BTreeMap<NodeName, Stuck> {
    let mut names: Vec<&NodeName> = asked.keys().collect();
    names.sort_by_key(|name| !drains(before, name));
    let mut refused = BTreeMap::new();
    for name in names {
        let mut without = map.clone();
        if !mark(&mut without, name, &asked[name]) {
            continue;
        }
        match takes_extents(&without, coding) {
            Ok(()) => *map = without,
            Err(stuck) => drop(refused.insert(name.clone(), stuck)),
        }
    }
    refused
}

/// Whether a node, or a device of it, is being emptied.
pub fn drains(map: &PlacementMap, name: &NodeName) -> bool {
    let mut nodes = map.nodes.iter().filter(|node| node.name == *name);
    nodes.any(|node| {
        let of_devices = || node.devices.iter().any(|device| device.state == MapDeviceState::Draining);
        node.state == NodeState::Draining || (node.state == NodeState::Live && of_devices())
    })
}

/// False: there is nothing to mark, for it is gone.
fn mark(map: &mut PlacementMap, name: &NodeName, drain: &Drain) -> bool {
    let Some(node) = map.nodes.iter_mut().find(|node| node.name == *name && node.state == NodeState::Live)
    else {
        return false;
    };
    if drain.devices.is_empty() {
        node.state = NodeState::Draining;
        return true;
    }
    let named = node.devices.iter_mut().filter(|device| drain.devices.contains(&device.id));
    let living = named.filter(|device| device.state != MapDeviceState::Dead);
    living.fold(false, |_, device| {
        device.state = MapDeviceState::Draining;
        true
    })
}

/// Whether a new extent of this coding would survive what is declared. Which one it is makes no difference: it decides which
/// nodes get one more row, and never whether so many rows can be lost.
fn takes_extents(map: &PlacementMap, coding: Coding) -> Result<(), Stuck> {
    let extent = ExtentId([0; ExtentId::LEN]);
    let rows: Vec<Row> = (0..coding.rows).map(Row).collect();
    let promise = Promise::new(coding.needed, coding.survive);
    let placed = place(map, promise, extent, &rows).map_err(|_| Stuck::NoDevice)?.rows;
    let survived = survived(map, &placed, coding.needed);
    let declared = Survived { nodes: coding.survive.nodes, devices: coding.survive.devices };
    if survived.reaches(declared) {
        return Ok(());
    }
    Err(survives_less(map, &placed, coding.needed, survived, coding.survive))
}

/// Rows of an extent that move, each with where to; none: all lie as they should.
///
/// # Errors
/// Where the rows would survive less, what lies in the wrong place stays there.
pub fn moves(
    map: &PlacementMap,
    extent: ExtentId,
    rows: &[(Row, DeviceId)],
    needed: u8,
    survive: Survive,
) -> Result<Vec<Move>, Stuck> {
    let moves = rebalance(map, Promise::new(needed, survive), extent, rows);
    if moves.is_empty() {
        return if rows.iter().any(|&(_, device)| is_draining(map, device)) {
            Err(Stuck::NoDevice)
        } else {
            Ok(moves)
        };
    }
    let moved = |&(row, device): &(Row, DeviceId)| {
        let to = moves.iter().find(|step| step.row == row).map_or(device, |step| step.to);
        (row, to)
    };
    let after: Vec<(Row, DeviceId)> = rows.iter().map(moved).collect();
    let (was, will_be) = (survived(map, rows, needed), survived(map, &after, needed));
    let least = Survived { nodes: was.nodes.min(survive.nodes), devices: was.devices.min(survive.devices) };
    if will_be.reaches(least) {
        return Ok(moves);
    }
    Err(survives_less(map, &after, needed, will_be, survive))
}

/// Whether rows on a device are to be moved away.
pub fn is_draining(map: &PlacementMap, device: DeviceId) -> bool {
    map.find(device).is_some_and(|(_, node, device)| {
        let either = node.state == NodeState::Draining || device.state == MapDeviceState::Draining;
        either && node.readable(device)
    })
}

/// Losses of one kind at a time that rows survive in their own place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Survived {
    nodes: u32,
    devices: u32,
}

impl Survived {
    const fn reaches(self, least: Self) -> bool {
        self.nodes >= least.nodes && self.devices >= least.devices
    }
}

fn survived(map: &PlacementMap, rows: &[(Row, DeviceId)], needed: u8) -> Survived {
    let place = PlaceRows::from_map(SiteName::outside(), 0, map, rows.iter().copied());
    let further = Margin::new(needed, &[place]).now;
    further.map_or(Survived { nodes: 0, devices: 0 }, |further| Survived {
        nodes: further.nodes,
        devices: further.devices,
    })
}

fn survives_less(
    map: &PlacementMap,
    after: &[(Row, DeviceId)],
    needed: u8,
    survived: Survived,
    survive: Survive,
) -> Stuck {
    let taking =
        |node: &&crate::placement::MapNode| node.devices.iter().any(|device| node.takes_rows(device));
    Stuck::SurvivesLess {
        nodes: map.nodes.iter().filter(taking).count(),
        devices: map.devices().filter(|(_, node, device)| node.takes_rows(device)).count(),
        rows: after.len(),
        needed,
        after_nodes: survived.nodes,
        after_devices: survived.devices,
        survive,
    }
}

#[cfg(test)]
mod tests;
