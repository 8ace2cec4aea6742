use proptest::prelude::*;

use super::hash::uniform;
use super::*;
use crate::ids::SiteName;
use crate::planner::{SiteTopology, Survive, plan};

fn extent(number: u32) -> ExtentId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    ExtentId(id)
}

fn rows(count: u8) -> Vec<Row> {
    (0..count).map(Row).collect()
}

/// Node i, with devices i × 100, i × 100 + 1, …
fn node(index: u32, weights: &[u32]) -> MapNode {
    let device = |(number, &weight): (usize, &u32)| MapDevice {
        id: DeviceId(index * 100 + number as u32),
        weight,
        state: MapDeviceState::Live,
    };
    MapNode {
        name: format!("node-{index}").parse().expect("a name"),
        address: String::new(),
        socket: None,
        state: NodeState::Live,
        devices: weights.iter().enumerate().map(device).collect(),
    }
}

fn map(nodes: &[&[u32]]) -> PlacementMap {
    let nodes = nodes.iter().enumerate().map(|(index, weights)| node(index as u32, weights)).collect();
    PlacementMap { generation: Generation(1), nodes }
}

fn node_of(device: DeviceId) -> u32 {
    device.0 / 100
}

fn count<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    keys.fold(BTreeMap::new(), |mut counts, key| {
        *counts.entry(key).or_default() += 1;
        counts
    })
}

fn per_node(rows: &[(Row, DeviceId)]) -> BTreeMap<u32, usize> {
    count(rows.iter().map(|&(_, device)| node_of(device)))
}

fn per_device(rows: &[(Row, DeviceId)]) -> BTreeMap<DeviceId, usize> {
    count(rows.iter().map(|&(_, device)| device))
}

/// Rows that lie on another device than before, where each row keeps its device if it can.
fn moved(before: &[(Row, DeviceId)], after: &[(Row, DeviceId)]) -> usize {
    let before = per_device(before);
    let surplus =
        |(device, &rows): (&DeviceId, &usize)| rows.saturating_sub(before.get(device).copied().unwrap_or(0));
    per_device(after).iter().map(surplus).sum()
}

// ---- the oracle: slow, in floating point, obviously right ----

/// Scores every node and every device, and fills level by level, in order of the scores.
fn oracle(map: &PlacementMap, extent: ExtentId, rows: &[Row]) -> Vec<(Row, DeviceId)> {
    let score = |uniform: u64, weight: f64| -((uniform as f64 / 2_f64.powi(64)).ln()) / weight;
    let mut nodes: Vec<(f64, Vec<(f64, DeviceId)>)> = Vec::new();
    for node in map.nodes.iter().filter(|node| node.state == NodeState::Live) {
        let mut devices = Vec::new();
        let mut weight = 0.0;
        for device in &node.devices {
            if matches!(device.state, MapDeviceState::Live | MapDeviceState::Full) {
                weight += f64::from(device.weight);
            }
            if device.state == MapDeviceState::Live && device.weight > 0 {
                let hash = uniform(b'd', extent, &device.id.0.to_be_bytes());
                devices.push((score(hash, f64::from(device.weight)), device.id));
            }
        }
        devices.sort_by(|a, b| a.0.total_cmp(&b.0));
        nodes.push((score(uniform(b'n', extent, node.name.as_str().as_bytes()), weight), devices));
    }
    nodes.sort_by(|a, b| a.0.total_cmp(&b.0));

    let mut chosen: Vec<DeviceId> = Vec::new();
    let held =
        |chosen: &[DeviceId], device: DeviceId| chosen.iter().filter(|&&other| other == device).count();
    for limit in 1..=rows.len() {
        for level in 1..=rows.len() {
            for (_, devices) in &nodes {
                let on_node: usize = devices.iter().map(|&(_, device)| held(&chosen, device)).sum();
                let room = devices.iter().find(|&&(_, device)| held(&chosen, device) < limit);
                if let Some(&(_, device)) = room
                    && on_node < level
                    && chosen.len() < rows.len()
                {
                    chosen.push(device);
                }
            }
        }
    }
    rows.iter().copied().zip(chosen).collect()
}

fn node_state() -> impl Strategy<Value = NodeState> {
    prop_oneof![5 => Just(NodeState::Live), 1 => Just(NodeState::Draining), 1 => Just(NodeState::Dead)]
}

fn device_state() -> impl Strategy<Value = MapDeviceState> {
    use MapDeviceState::{Dead, Draining, Full, Live};
    prop_oneof![7 => Just(Live), 1 => Just(Draining), 1 => Just(Dead), 1 => Just(Full)]
}

fn any_map() -> impl Strategy<Value = PlacementMap> {
    let devices = prop::collection::vec((prop_oneof![1 => Just(0), 9 => 1_u32..5_000], device_state()), 0..5);
    prop::collection::vec((node_state(), devices), 0..8).prop_map(|nodes| {
        let build = |(index, (state, devices)): (usize, (NodeState, Vec<(u32, MapDeviceState)>))| {
            let weights: Vec<u32> = devices.iter().map(|&(weight, _)| weight).collect();
            let mut built = node(index as u32, &weights);
            built.state = state;
            for (device, (_, state)) in built.devices.iter_mut().zip(devices) {
                device.state = state;
            }
            built
        };
        PlacementMap { generation: Generation(1), nodes: nodes.into_iter().enumerate().map(build).collect() }
    })
}

proptest! {
    #[test]
    fn placement_is_what_the_naive_oracle_says(map in any_map(), number: u32, count in 1_u8..20) {
        let expected = oracle(&map, extent(number), &rows(count));
        match place(&map, extent(number), &rows(count)) {
            Ok(placed) => prop_assert_eq!(placed.rows, expected),
            Err(error) => prop_assert!(expected.is_empty(), "{}", error),
        }
    }

    #[test]
    fn rows_are_level_and_a_device_has_one_unless_crowded(map in any_map(), number: u32, count in 1_u8..20) {
        let Ok(placed) = place(&map, extent(number), &rows(count)) else { return Ok(()) };
        let room = map.devices().filter(|(_, node, device)| node.takes_rows(device)).count();
        prop_assert_eq!(placed.rows.len(), usize::from(count));
        prop_assert_eq!(placed.crowded, usize::from(count) > room);
        let on_device = per_device(&placed.rows);
        for device in on_device.keys() {
            let (_, node, device) = map.find(*device).expect("it is of the map");
            prop_assert!(node.takes_rows(device));
        }
        if placed.crowded {
            let fewest = usize::from(count) / room;
            prop_assert!(on_device.values().all(|&rows| rows == fewest || rows == fewest + 1));
            return Ok(());
        }
        let on_node = per_node(&placed.rows);
        let most = on_node.values().copied().max().unwrap_or(0);
        for (index, node) in map.nodes.iter().enumerate() {
            let devices = node.devices.iter().filter(|device| node.takes_rows(device)).count();
            let here = on_node.get(&(index as u32)).copied().unwrap_or(0);
            prop_assert!(here + 1 >= most || here == devices, "node {} has {} of at most {}", index, here, most);
        }
    }

    /// Whatever went missing, what stays is not touched, and no new row would lie more level elsewhere.
    #[test]
    fn missing_rows_go_where_they_are_most_level(map in any_map(), number: u32, count in 1_u8..12, lost: u16) {
        let Ok(placed) = place(&map, extent(number), &rows(count)) else { return Ok(()) };
        let missing: Vec<Row> = rows(count).into_iter().filter(|row| lost & (1 << row.0) != 0).collect();
        let staying: Vec<_> = placed.rows.iter().copied().filter(|(row, _)| !missing.contains(row)).collect();
        let again = replace(&map, extent(number), &staying, &missing).expect("there was room before");
        prop_assert_eq!(again.rows.len(), missing.len());
        let all = [staying, again.rows].concat();
        prop_assert_eq!(per_device(&all), per_device(&placed.rows));
        prop_assert_eq!(again.crowded, placed.crowded);
    }

    /// The order of nodes in the map and the rows' numbers change nothing.
    #[test]
    fn the_order_of_the_map_does_not_matter(map in any_map(), number: u32, count in 1_u8..12) {
        let mut turned = map.clone();
        turned.nodes.reverse();
        for node in &mut turned.nodes {
            node.devices.reverse();
        }
        prop_assert_eq!(place(&map, extent(number), &rows(count)), place(&turned, extent(number), &rows(count)));
    }

    /// A node that dies takes its own rows with it and moves no other.
    #[test]
    fn when_a_node_dies_only_its_rows_move(map in any_map(), number: u32, count in 1_u8..12, dead: prop::sample::Index) {
        let Ok(before) = place(&map, extent(number), &rows(count)) else { return Ok(()) };
        let mut after = map.clone();
        let dead = dead.index(map.nodes.len());
        after.nodes[dead].state = NodeState::Dead;
        let Ok(placed) = place(&after, extent(number), &rows(count)) else { return Ok(()) };
        let lost = per_node(&before.rows).get(&(dead as u32)).copied().unwrap_or(0);
        prop_assert_eq!(moved(&before.rows, &placed.rows), lost);
        let staying: Vec<_> = before.rows.into_iter().filter(|&(_, device)| node_of(device) != dead as u32).collect();
        prop_assert_eq!(rebalance(&after, extent(number), &staying).len(), 0);
    }

    /// A node that is added takes rows and moves no row between others.
    #[test]
    fn when_a_node_comes_rows_move_only_to_it(map in any_map(), number: u32, count in 1_u8..12, weights in prop::collection::vec(1_u32..5_000, 1..4)) {
        let Ok(before) = place(&map, extent(number), &rows(count)) else { return Ok(()) };
        let mut after = map.clone();
        let added = map.nodes.len() as u32;
        after.nodes.push(node(added, &weights));
        let moves = rebalance(&after, extent(number), &before.rows);
        prop_assert!(moves.iter().all(|step| node_of(step.to) == added), "{moves:?}");
        let target = place(&after, extent(number), &rows(count)).expect("there is more room than before");
        prop_assert_eq!(moves.len(), moved(&before.rows, &target.rows));
    }

    /// Draining devices are emptied, full ones keep what they have, and a second look finds nothing to do.
    #[test]
    fn a_rebalanced_extent_is_at_rest(before in any_map(), number: u32, count in 1_u8..12, states in prop::collection::vec(device_state(), 40)) {
        let Ok(placed) = place(&before, extent(number), &rows(count)) else { return Ok(()) };
        let mut map = before;
        let mut states = states.into_iter();
        for device in map.nodes.iter_mut().flat_map(|node| &mut node.devices) {
            device.state = states.next().unwrap_or(MapDeviceState::Live);
        }
        let moves = rebalance(&map, extent(number), &placed.rows);
        let mut rows: BTreeMap<Row, DeviceId> = placed.rows.iter().copied().collect();
        for step in &moves {
            prop_assert_eq!(rows.insert(step.row, step.to), Some(step.from));
            let (_, node, to) = map.find(step.to).expect("it is of the map");
            prop_assert!(node.keeps_rows(to));
        }
        let rows: Vec<_> = rows.into_iter().collect();
        prop_assert_eq!(rebalance(&map, extent(number), &rows), vec![]);
    }
}

#[test]
fn six_rows_on_three_nodes_of_two_devices_take_each_device_once() {
    let placed = place(&map(&[&[1, 1], &[1, 1], &[1, 1]]), extent(7), &rows(6)).expect("there is room");
    assert_eq!(per_node(&placed.rows), BTreeMap::from([(0, 2), (1, 2), (2, 2)]));
    assert_eq!(per_device(&placed.rows).len(), 6);
    assert!(!placed.crowded);
}

#[test]
fn with_too_few_nodes_all_rows_are_placed_even_so() {
    let placed = place(&map(&[&[1, 1], &[1, 1]]), extent(7), &rows(6)).expect("there is room");
    assert_eq!(per_node(&placed.rows), BTreeMap::from([(0, 3), (1, 3)]));
    assert!(placed.crowded);
}

#[test]
fn without_a_live_device_the_error_counts_what_there_is() {
    let mut dead = map(&[&[1, 1], &[1, 1]]);
    dead.nodes[0].state = NodeState::Dead;
    for device in &mut dead.nodes[1].devices {
        device.state = MapDeviceState::Full;
    }
    let error = place(&dead, extent(7), &rows(2)).expect_err("nothing takes rows");
    assert!(
        error.to_string().contains("none of 4 devices on 2 nodes in placement map 1 takes rows"),
        "{error}"
    );
}

#[test]
fn a_row_that_is_there_already_is_not_placed_again() {
    let map = map(&[&[1, 1]]);
    let staying = [(Row(1), DeviceId(0))];
    let error = replace(&map, extent(7), &staying, &[Row(0), Row(1)]).expect_err("row 1 is there");
    assert_eq!(error, PlaceError::RowTwice { extent: extent(7), row: Row(1) });
}

#[test]
fn a_row_on_a_full_device_stays_there() {
    let mut map = map(&[&[1, 1], &[1, 1], &[1, 1]]);
    let placed = place(&map, extent(7), &rows(3)).expect("there is room");
    for device in map.nodes.iter_mut().flat_map(|node| &mut node.devices) {
        if placed.rows.iter().any(|&(_, used)| used == device.id) {
            device.state = MapDeviceState::Full;
        }
    }
    assert_eq!(rebalance(&map, extent(7), &placed.rows), vec![]);
}

/// Found by `a_rebalanced_extent_is_at_rest`, when a node's rank still depended on the rows on its full devices.
#[test]
fn a_row_that_leaves_a_full_device_does_not_change_the_rank_of_its_node() {
    let mut map = map(&[&[1371, 1998, 1371], &[2551]]);
    map.nodes[0].devices[0].state = MapDeviceState::Full;
    for number in 0..2_000 {
        let first = [(Row(0), DeviceId(0))];
        let moves = rebalance(&map, extent(number), &first);
        let there: Vec<_> = moves.iter().map(|step| (step.row, step.to)).collect();
        assert_eq!(rebalance(&map, extent(number), &there), vec![], "extent {number} after {moves:?}");
    }
}

#[test]
fn a_place_is_chosen_as_often_as_its_weight_says() {
    let map = map(&[&[100, 300], &[200], &[400]]);
    let samples = 40_000;
    let first = |number| place(&map, extent(number), &rows(1)).expect("there is room").rows[0].1;
    let chosen = count((0..samples).map(first));
    for (device, weight) in [(0, 100), (1, 300), (100, 200), (200, 400)] {
        let share = chosen[&DeviceId(device)] as f64 / f64::from(samples);
        let expected = f64::from(weight) / 1_000.0;
        assert!((share / expected - 1.0).abs() < 0.05, "device {device} has {share}, {expected} is fair");
    }
}

#[test]
fn a_full_device_takes_journals_and_checkpoints_until_it_refuses_and_never_data() {
    let mut full = map(&[&[1, 1], &[1, 1]]);
    full.nodes
        .iter_mut()
        .flat_map(|node| &mut node.devices)
        .for_each(|device| device.state = MapDeviceState::Full);
    assert!(place(&full.for_kind(ExtentKind::Data), extent(1), &rows(2)).is_err());
    for kind in [ExtentKind::Journal, ExtentKind::Checkpoint] {
        let mut open = full.for_kind(kind).into_owned();
        assert!(!place(&open, extent(1), &rows(4)).expect("all take one").crowded);
        open.leave_out(DeviceId(0));
        let placed = place(&open, extent(1), &rows(4)).expect("three take them");
        assert!(placed.crowded && placed.rows.iter().all(|(_, device)| *device != DeviceId(0)));
    }
}

/// The least that makes a new node's share fair is rows / nodes of each extent.
#[test]
fn a_new_node_takes_its_fair_share_and_no_more_moves_than_that() {
    for (nodes, count) in [(4_u32, 6_u8), (5, 6), (9, 6), (20, 8), (40, 9)] {
        let before = map(&vec![&[1, 1][..]; nodes as usize]);
        let after = map(&vec![&[1, 1][..]; nodes as usize + 1]);
        let samples = 4_000;
        let moves = |number| {
            let placed = place(&before, extent(number), &rows(count)).expect("there is room");
            rebalance(&after, extent(number), &placed.rows).len()
        };
        let moved = (0..samples).map(moves).sum::<usize>() as f64 / f64::from(samples);
        let least = f64::from(count) / f64::from(nodes + 1);
        assert!(
            (moved / least - 1.0).abs() < 0.1,
            "{nodes} nodes: {moved} rows an extent, {least} is the least"
        );
    }
}

/// The least is what its share grows by; then all is at rest.
#[test]
fn a_device_that_grows_takes_what_its_share_grows_by_and_nothing_moves_between_others() {
    let before = map(&[&[100][..]; 10]);
    let mut after = before.clone();
    after.nodes[0].devices[0].weight = 200;
    let (mut moved, mut grown) = (0, 0);
    for number in 0..4_000 {
        let placed = |map| place(map, extent(number), &rows(6)).expect("there is room").rows;
        let on_it = |rows: &[(Row, DeviceId)]| rows.iter().filter(|(_, device)| device.0 == 0).count();
        let old = placed(&before);
        let steps = rebalance(&after, extent(number), &old);
        assert!(steps.iter().all(|step| step.to == DeviceId(0)), "{steps:?}");
        let to = |row: Row| steps.iter().find(|step| step.row == row).map(|step| step.to);
        let new: Vec<_> = old.iter().map(|&(row, device)| (row, to(row).unwrap_or(device))).collect();
        assert_eq!(rebalance(&after, extent(number), &new), vec![], "extent {number}");
        moved += steps.len();
        grown += on_it(&placed(&after)) - on_it(&old);
    }
    assert!(moved > 0);
    assert_eq!(moved, grown);
}

/// Planner and placement together: what is planned for is survived by what is placed, after a death for good as well
/// where a node is spare.
#[test]
fn what_was_planned_for_survives_as_placed() {
    for weights in [
        &[&[1, 1][..], &[1, 1], &[1, 1]][..],
        &[&[1, 2], &[3, 1]],
        &[&[1, 1, 1], &[5], &[1, 1], &[1, 1], &[9, 9]],
    ] {
        let map = map(weights);
        let nodes: Vec<u32> = weights.iter().map(|devices| devices.len() as u32).collect();
        let site: SiteName = "east".parse().expect("a name");
        let survive = Survive { sites: 0, nodes: 1, devices: 1 };
        let plan = plan(survive, &[SiteTopology { site, nodes }]).expect("it can be planned");
        let spare = map.nodes.len() >= 4;
        for number in 0..200 {
            for dead in 0..map.nodes.len() {
                let mut left = map.clone();
                if spare {
                    left.nodes[dead].state = NodeState::Dead;
                }
                let placed = place(&left, extent(number), &rows(plan.rows[0].1)).expect("there is room");
                assert!(!placed.crowded);
                let most = per_node(&placed.rows).into_values().max().unwrap_or(0);
                assert!(placed.rows.len() - most >= usize::from(plan.needed), "{plan}: {placed:?}");
            }
        }
    }
}
