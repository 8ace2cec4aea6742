//! When a write may be acknowledged: its durable rows survive what was declared.

use std::collections::BTreeMap;

use crate::ids::{DeviceId, NodeName};
use crate::placement::{MapDeviceState, NodeState, PlacementMap};
use crate::planner::Survive;
use crate::records::PlacedRow;

/// A row that is durable, and on what it depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableRow {
    /// Its device.
    pub device: DeviceId,
    /// The device's node.
    pub node: NodeName,
}

impl DurableRow {
    /// Those of a placement whose devices a map knows.
    pub fn of(map: &PlacementMap, placed: &[PlacedRow]) -> Vec<Self> {
        let row = |placed: &PlacedRow| {
            let (_, node, device) = map.find(placed.device)?;
            Some(Self { device: device.id, node: node.name.clone() })
        };
        placed.iter().filter_map(row).collect()
    }
}

/// What is down already: it counts against what is to be survived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Down {
    /// Nodes.
    pub nodes: u32,
    /// Devices, those of nodes that are down left out.
    pub devices: u32,
}

impl Down {
    /// What a map calls dead, and the nodes that can't be reached.
    pub fn of(map: &PlacementMap, unreachable: impl Fn(&NodeName) -> bool) -> Self {
        let mut down = Self::default();
        for node in &map.nodes {
            let gone = node.state == NodeState::Dead || unreachable(&node.name);
            if gone && !node.devices.is_empty() {
                down.nodes += 1;
            } else {
                let dead = node.devices.iter().filter(|device| device.state == MapDeviceState::Dead);
                down.devices += dead.count() as u32;
            }
        }
        down
    }
}

/// Whether `rows` survive any `survive.nodes` nodes, and likewise any `survive.devices` devices, less those that are
/// down already, with `needed` rows left. Err says which loss would be too much.
pub fn check(rows: &[DurableRow], needed: u8, survive: Survive, down: Down) -> Result<(), String> {
    let needed = usize::from(needed);
    if rows.len() < needed {
        return Err(format!("{needed} rows are needed to read it at all"));
    }
    let nodes = survive.nodes.saturating_sub(down.nodes) as usize;
    let left = left_after(rows.iter().map(|row| &row.node), nodes);
    if left < needed {
        return Err(format!("the loss of {nodes} more nodes would leave {left} rows, {needed} are needed"));
    }
    // A node that is down has taken more than one device.
    let devices = survive.devices.saturating_sub(down.devices + down.nodes) as usize;
    let left = left_after(rows.iter().map(|row| row.device), devices);
    if left < needed {
        return Err(format!(
            "the loss of {devices} more devices would leave {left} rows, {needed} are needed"
        ));
    }
    Ok(())
}

/// Rows that are left when the `losses` fullest of what they lie on are gone.
fn left_after<T: Ord>(places: impl Iterator<Item = T>, losses: usize) -> usize {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for place in places {
        *counts.entry(place).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.into_iter().skip(losses).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SURVIVE: Survive = Survive { sites: 0, nodes: 1, devices: 1 };

    fn rows(devices_by_node: &[&[u32]]) -> Vec<DurableRow> {
        let node = |index: usize| format!("n{index}").parse().expect("a name");
        let of = |(index, devices): (usize, &&[u32])| {
            devices
                .iter()
                .map(move |&device| DurableRow { device: DeviceId(device), node: node(index) })
                .collect::<Vec<_>>()
        };
        devices_by_node.iter().enumerate().flat_map(of).collect()
    }

    #[test]
    fn all_rows_of_three_nodes_survive_one_node() {
        check(&rows(&[&[1, 2], &[3, 4], &[5, 6]]), 4, SURVIVE, Down::default()).expect("four are left");
    }

    #[test]
    fn one_missing_row_is_too_much_while_all_nodes_are_up() {
        let error =
            check(&rows(&[&[1, 2], &[3, 4], &[5]]), 4, SURVIVE, Down::default()).expect_err("three are left");
        assert_eq!(error, "the loss of 1 more nodes would leave 3 rows, 4 are needed");
    }

    #[test]
    fn a_node_that_is_down_is_one_of_those_to_survive() {
        let down = Down { nodes: 1, devices: 0 };
        check(&rows(&[&[1, 2], &[3, 4]]), 4, SURVIVE, down).expect("that node is the one");
        check(&rows(&[&[1, 2], &[3]]), 4, SURVIVE, down).expect_err("three do not read");
    }

    #[test]
    fn crowded_rows_fall_with_their_device() {
        let survive = Survive { sites: 0, nodes: 0, devices: 1 };
        check(&rows(&[&[1, 1, 2]]), 2, survive, Down::default()).expect_err("one device holds two of three");
        check(&rows(&[&[1, 2, 3]]), 2, survive, Down::default()).expect("two are left");
    }
}
