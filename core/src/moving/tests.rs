use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::ids::Generation;
use crate::placement::{MapDevice, MapNode};

const SURVIVE: Survive = Survive { sites: 0, nodes: 1, devices: 1 };
/// What three nodes of two devices are planned for.
const CODING: Coding = Coding { needed: 4, rows: 6, survive: SURVIVE };

fn promise() -> Promise {
    Promise::new(CODING.needed, SURVIVE)
}

fn name(index: usize) -> NodeName {
    format!("n{index}").parse().expect("a name")
}

/// Node i with so many devices: i × 100, i × 100 + 1, …
fn map(devices: &[usize]) -> PlacementMap {
    let device = |node: usize, number: usize| MapDevice {
        id: DeviceId((node * 100 + number) as u32),
        weight: 10,
        state: MapDeviceState::Live,
    };
    let node = |(index, &count): (usize, &usize)| MapNode {
        name: name(index),
        address: String::new(),
        socket: None,
        state: NodeState::Live,
        domain: None,
        weight: None,
        distance: None,
        devices: (0..count).map(|number| device(index, number)).collect(),
    };
    PlacementMap { generation: Generation(1), nodes: devices.iter().enumerate().map(node).collect() }
}

fn all_of(nodes: &[usize]) -> BTreeMap<NodeName, Drain> {
    nodes.iter().map(|&index| (name(index), Drain::default())).collect()
}

fn extent(number: u32) -> ExtentId {
    let mut id = [0; ExtentId::LEN];
    id[..4].copy_from_slice(&number.to_be_bytes());
    ExtentId(id)
}

fn placed(map: &PlacementMap, number: u32) -> Vec<(Row, DeviceId)> {
    let rows: Vec<Row> = (0..CODING.rows).map(Row).collect();
    place(map, promise(), extent(number), &rows).expect("there is room").rows
}

fn apply(rows: &[(Row, DeviceId)], moves: &[Move]) -> Vec<(Row, DeviceId)> {
    let to = |row: Row| moves.iter().find(|step| step.row == row).map(|step| step.to);
    rows.iter().map(|&(row, device)| (row, to(row).unwrap_or(device))).collect()
}

#[test]
fn a_node_that_the_others_can_do_without_is_emptied_and_the_next_is_not() {
    let mut drained = map(&[2, 2, 2, 2]);
    let refused = drain(&mut drained, &PlacementMap::default(), &all_of(&[1, 2]), CODING);
    assert_eq!(drained.nodes[1].state, NodeState::Draining);
    assert_eq!(drained.nodes[2].state, NodeState::Live);
    assert_eq!(
        refused[&name(2)].to_string(),
        "4 devices on 2 other nodes take rows: 6 rows on them, of which 4 are needed, survive the loss of 0 nodes or 1 devices, \
         and 1 nodes and 1 devices are declared: add a node, free room, or declare less"
    );
}

#[test]
fn what_was_being_emptied_goes_on_before_what_is_asked_later() {
    let mut before = map(&[2, 2, 2, 2]);
    drain(&mut before, &PlacementMap::default(), &all_of(&[2]), CODING);
    let mut now = map(&[2, 2, 2, 2]);
    let refused = drain(&mut now, &before, &all_of(&[1, 2]), CODING);
    assert_eq!(now, before);
    assert!(refused.contains_key(&name(1)));
}

#[test]
fn a_dead_node_is_not_emptied_and_what_is_emptied_waits_while_it_is_missed() {
    let mut without_one = map(&[2, 2, 2, 2]);
    without_one.nodes[0].state = NodeState::Dead;
    let dead = without_one.clone();
    assert!(drain(&mut without_one, &dead, &all_of(&[0]), CODING).is_empty());
    assert_eq!(without_one, dead);
    let refused = drain(&mut without_one, &dead, &all_of(&[1]), CODING);
    assert_eq!((without_one, refused.len()), (dead, 1));
}

#[test]
fn a_device_is_emptied_alone() {
    let mut drained = map(&[3, 3, 3]);
    let asked = BTreeMap::from([(name(1), Drain { devices: vec![DeviceId(101)] })]);
    assert!(drain(&mut drained, &PlacementMap::default(), &asked, CODING).is_empty());
    assert_eq!(drained.nodes[1].state, NodeState::Live);
    assert!(drains(&drained, &name(1)) && !drains(&drained, &name(0)));
    assert!(is_draining(&drained, DeviceId(101)) && !is_draining(&drained, DeviceId(100)));
}

#[test]
fn an_extent_that_was_coded_for_more_devices_stays_where_it_survives() {
    let wide: Vec<Row> = (0..8).map(Row).collect();
    let full = map(&[2, 2, 2, 2]);
    let rows = place(&full, promise(), extent(1), &wide).expect("there is room").rows;
    let mut drained = full;
    drain(&mut drained, &PlacementMap::default(), &all_of(&[3]), CODING);
    let stuck = moves(&drained, extent(1), &rows, 6, SURVIVE).expect_err("six of eight are needed");
    assert!(matches!(stuck, Stuck::SurvivesLess { nodes: 3, devices: 6, rows: 8, .. }), "{stuck:?}");
    assert_eq!(moves(&drained, extent(1), &rows, 4, SURVIVE).expect("four of eight").len(), 2);
}

#[test]
fn an_outside_node_is_emptied_while_another_takes_its_rows() {
    let mut two = map(&[1, 1]);
    assert!(drain(&mut two, &PlacementMap::default(), &all_of(&[0]), Coding::MARGIN).is_empty());
    let refused = drain(&mut two, &PlacementMap::default(), &all_of(&[1]), Coding::MARGIN);
    assert_eq!(refused[&name(1)], Stuck::NoDevice);
}

proptest! {
    /// What is emptied loses its own rows and moves no other: the least that there is. A second look finds nothing.
    #[test]
    fn only_the_rows_of_what_is_emptied_move_and_then_all_is_at_rest(
        devices in prop::collection::vec(1_usize..4, 4..9), number: u32, chosen: prop::sample::Index,
    ) {
        let full = map(&devices);
        let chosen = chosen.index(devices.len());
        let rows = placed(&full, number);
        let mut drained = full.clone();
        if !drain(&mut drained, &full, &all_of(&[chosen]), CODING).is_empty() {
            return Ok(());
        }
        let there: BTreeSet<Row> =
            rows.iter().filter(|(_, device)| device.0 as usize / 100 == chosen).map(|&(row, _)| row).collect();
        let Ok(steps) = moves(&drained, extent(number), &rows, CODING.needed, SURVIVE) else { return Ok(()) };
        prop_assert_eq!(steps.iter().map(|step| step.row).collect::<BTreeSet<_>>(), there);
        let after = apply(&rows, &steps);
        prop_assert_eq!(moves(&drained, extent(number), &after, CODING.needed, SURVIVE), Ok(vec![]));
    }

    /// Whatever comes, goes, drains or fills up: a move leaves the extent surviving what it did, or what is declared.
    #[test]
    fn no_move_makes_an_extent_survive_less(
        devices in prop::collection::vec(1_usize..4, 3..8), number: u32, states in prop::collection::vec(0_u8..6, 24),
    ) {
        let before = map(&devices);
        let rows = placed(&before, number);
        let mut after = before;
        let mut states = states.into_iter();
        for node in &mut after.nodes {
            node.state = if states.next() == Some(0) { NodeState::Draining } else { NodeState::Live };
            for device in &mut node.devices {
                device.state = match states.next() {
                    Some(0) => MapDeviceState::Draining,
                    Some(1) => MapDeviceState::Full,
                    _ => MapDeviceState::Live,
                };
            }
        }
        let Ok(steps) = moves(&after, extent(number), &rows, CODING.needed, SURVIVE) else { return Ok(()) };
        let (was, is) = (survived(&after, &rows, CODING.needed), survived(&after, &apply(&rows, &steps), CODING.needed));
        prop_assert!(is.nodes >= was.nodes.min(SURVIVE.nodes) && is.devices >= was.devices.min(SURVIVE.devices), "{:?} {:?}", was, is);
    }
}
