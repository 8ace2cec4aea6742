use proptest::prelude::*;

use super::hash::uniform;
use super::*;
use crate::ids::SiteName;
use crate::planner::{SiteTopology, Survive, plan};
use crate::records::Record;

/// One node may be lost of what is placed without domains: it makes no difference there.
const ONE_NODE: Promise = Promise { needed: 1, nodes: 1 };

/// Domains always come first.
const NOTHING_OF_NODES: Promise = Promise { needed: 1, nodes: 0 };

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
        domain: None,
        weight: None,
        distance: None,
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

/// Nodes of a domain in order of their scores, each with its devices in order of theirs.
type Ranked = Vec<Vec<Vec<DeviceId>>>;

/// Scores every node and every device; a domain has the score of its best node.
fn ranked(map: &PlacementMap, extent: ExtentId) -> Ranked {
    let score = |uniform: u64, weight: f64| -((uniform as f64 / 2_f64.powi(64)).ln()) / weight;
    let mut domains: BTreeMap<String, Vec<(f64, Vec<DeviceId>)>> = BTreeMap::new();
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
        if devices.is_empty() {
            continue;
        }
        devices.sort_by(|a, b| a.0.total_cmp(&b.0));
        let score = score(
            uniform(b'n', extent, node.name.as_str().as_bytes()),
            node.weight.map_or(weight, f64::from),
        );
        let alone = format!("node {}", node.name);
        let domain = node.domain.as_ref().map_or(alone, |domain| format!("domain {domain}"));
        domains.entry(domain).or_default().push((score, devices.into_iter().map(|(_, id)| id).collect()));
    }
    let mut domains: Vec<_> = domains.into_values().collect();
    for nodes in &mut domains {
        nodes.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    domains.sort_by(|a, b| a[0].0.total_cmp(&b[0].0));
    let without_scores = |nodes: Vec<(f64, _)>| nodes.into_iter().map(|(_, devices)| devices).collect();
    domains.into_iter().map(without_scores).collect()
}

/// Puts a row on the first node of a domain that has room, level by level: fewer than `on_node` rows, and a device with fewer
/// than `on_device`.
fn put(chosen: &mut Vec<DeviceId>, nodes: &[Vec<DeviceId>], on_node: usize, on_device: usize) -> bool {
    let held = |devices: &[DeviceId]| chosen.iter().filter(|id| devices.contains(id)).count();
    let room = |devices: &Vec<DeviceId>| devices.iter().copied().find(|&id| held(&[id]) < on_device);
    let open = nodes.iter().filter(|devices| held(devices) < on_node).find_map(room);
    open.inspect(|&id| chosen.push(id)).is_some()
}

/// Fills level by level, in order of the scores: nodes first, or domains where so few rows on a node are enough.
fn oracle(map: &PlacementMap, promise: Promise, extent: ExtentId, rows: &[Row]) -> Vec<(Row, DeviceId)> {
    let domains = ranked(map, extent);
    let levels = 1..=rows.len();
    let held = |chosen: &[DeviceId], nodes: &[Vec<DeviceId>]| {
        chosen.iter().filter(|id| nodes.iter().any(|devices| devices.contains(id))).count()
    };
    let mut nodes_first: Vec<DeviceId> = Vec::new();
    for on_device in levels.clone() {
        for (on_node, in_domain) in
            levels.clone().flat_map(|node| levels.clone().map(move |domain| (node, domain)))
        {
            for nodes in &domains {
                if held(&nodes_first, nodes) < in_domain && nodes_first.len() < rows.len() {
                    put(&mut nodes_first, nodes, on_node, on_device);
                }
            }
        }
    }
    let most = promise.most_on_node(rows.len());
    let fullest = per_node(&rows.iter().copied().zip(nodes_first.iter().copied()).collect::<Vec<_>>());
    if fullest.values().any(|&rows| rows > most) {
        return rows.iter().copied().zip(nodes_first).collect();
    }
    let mut chosen: Vec<DeviceId> = Vec::new();
    for (on_device, in_domain) in
        levels.clone().flat_map(|device| levels.clone().map(move |domain| (device, domain)))
    {
        for nodes in &domains {
            if held(&chosen, nodes) < in_domain && chosen.len() < rows.len() {
                let _ = levels.clone().take(most).any(|on_node| put(&mut chosen, nodes, on_node, on_device));
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

fn domain_name(number: u8) -> DomainName {
    format!("zone-{number}").parse().expect("a name")
}

fn any_domain() -> impl Strategy<Value = Option<u8>> {
    prop::option::weighted(0.8, 0_u8..4)
}

fn any_map_with_domains() -> impl Strategy<Value = PlacementMap> {
    let weight = prop::option::weighted(0.3, 1_u32..5_000);
    (any_map(), prop::collection::vec((any_domain(), weight), 8)).prop_map(|(mut map, declared)| {
        for (node, (domain, weight)) in map.nodes.iter_mut().zip(declared) {
            (node.domain, node.weight) = (domain.map(domain_name), weight);
        }
        map
    })
}

fn any_promise() -> impl Strategy<Value = Promise> {
    (1_u8..12, 0_u32..4).prop_map(|(needed, nodes)| Promise { needed, nodes })
}

fn per_domain(map: &PlacementMap, rows: &[(Row, DeviceId)]) -> BTreeMap<Option<DomainName>, usize> {
    count(rows.iter().map(|&(_, device)| map.find(device).expect("it is of the map").1.domain.clone()))
}

/// Rows that are lost with the fullest nodes.
fn lost_with(nodes: u32, rows: &[(Row, DeviceId)]) -> usize {
    let mut on_node: Vec<usize> = per_node(rows).into_values().collect();
    on_node.sort_unstable_by(|one, other| other.cmp(one));
    on_node.into_iter().take(nodes as usize).sum()
}

proptest! {
    /// Whatever the domains: k rows are left after the loss of as many nodes as are promised, or as many as without domains.
    #[test]
    fn domains_never_cost_what_is_promised_of_nodes(map in any_map_with_domains(), promise in any_promise(), number: u32, count in 1_u8..20) {
        let Ok(placed) = place(&map, promise, extent(number), &rows(count)) else { return Ok(()) };
        let mut without = map;
        without.nodes.iter_mut().for_each(|node| node.domain = None);
        let plain = place(&without, promise, extent(number), &rows(count)).expect("there is as much room");
        let may_go = usize::from(count.saturating_sub(promise.needed));
        let goes = lost_with(promise.nodes, &placed.rows);
        prop_assert!(goes <= may_go.max(lost_with(promise.nodes, &plain.rows)), "{goes} rows go of {:?}", placed);
        prop_assert_eq!(placed.crowded, plain.crowded);
    }

    /// The best is: so level that no lower level would have room for all rows, with as few on a node as the promise asks.
    #[test]
    fn no_domain_holds_more_rows_than_the_best_level_spread(map in any_map_with_domains(), promise in any_promise(), number: u32, count in 1_u8..20) {
        let Ok(placed) = place(&map, promise, extent(number), &rows(count)) else { return Ok(()) };
        let most = promise.most_on_node(usize::from(count));
        let mut room: BTreeMap<String, usize> = BTreeMap::new();
        for node in &map.nodes {
            let devices = node.devices.iter().filter(|device| node.takes_rows(device)).count();
            let domain = node.domain.as_ref().map_or(format!("alone: {}", node.name), |domain| format!("in: {domain}"));
            *room.entry(domain).or_default() += devices.min(most);
        }
        let fits = |level: usize| room.values().map(|&room| room.min(level)).sum::<usize>() >= usize::from(count);
        let Some(best) = (1..=usize::from(count)).find(|&level| fits(level)) else { return Ok(()) };
        for (domain, rows) in per_domain(&map, &placed.rows) {
            prop_assert!(domain.is_none() || rows <= best, "{domain:?} has {rows}, {best} would do: {placed:?}");
        }
    }

    #[test]
    fn placement_is_what_the_naive_oracle_says(map in any_map_with_domains(), promise in any_promise(), number: u32, count in 1_u8..20) {
        let expected = oracle(&map, promise, extent(number), &rows(count));
        match place(&map, promise, extent(number), &rows(count)) {
            Ok(placed) => prop_assert_eq!(placed.rows, expected),
            Err(error) => prop_assert!(expected.is_empty(), "{}", error),
        }
    }

    #[test]
    fn rows_are_level_and_a_device_has_one_unless_crowded(map in any_map(), number: u32, count in 1_u8..20) {
        let Ok(placed) = place(&map, ONE_NODE, extent(number), &rows(count)) else { return Ok(()) };
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
    fn missing_rows_go_where_they_are_most_level(map in any_map_with_domains(), promise in any_promise(), number: u32, count in 1_u8..12, lost: u16) {
        let Ok(placed) = place(&map, promise, extent(number), &rows(count)) else { return Ok(()) };
        let missing: Vec<Row> = rows(count).into_iter().filter(|row| lost & (1 << row.0) != 0).collect();
        let staying: Vec<_> = placed.rows.iter().copied().filter(|(row, _)| !missing.contains(row)).collect();
        let again = replace(&map, promise, extent(number), &staying, &missing).expect("there was room before");
        prop_assert_eq!(again.rows.len(), missing.len());
        let all = [staying, again.rows].concat();
        prop_assert_eq!(per_device(&all), per_device(&placed.rows));
        prop_assert_eq!(again.crowded, placed.crowded);
    }

    /// The order of nodes in the map and the rows' numbers change nothing.
    #[test]
    fn the_order_of_the_map_does_not_matter(map in any_map_with_domains(), promise in any_promise(), number: u32, count in 1_u8..12) {
        let mut turned = map.clone();
        turned.nodes.reverse();
        for node in &mut turned.nodes {
            node.devices.reverse();
        }
        prop_assert_eq!(place(&map, promise, extent(number), &rows(count)), place(&turned, promise, extent(number), &rows(count)));
    }

    /// A node that dies takes its own rows with it and moves no other, and when they are made anew all is at rest.
    #[test]
    fn when_a_node_dies_only_its_rows_move(map in any_map_with_domains(), number: u32, count in 1_u8..12, dead: prop::sample::Index) {
        let Ok(before) = place(&map, NOTHING_OF_NODES, extent(number), &rows(count)) else { return Ok(()) };
        let mut after = map.clone();
        let dead = dead.index(map.nodes.len());
        after.nodes[dead].state = NodeState::Dead;
        let Ok(placed) = place(&after, NOTHING_OF_NODES, extent(number), &rows(count)) else { return Ok(()) };
        let lost = per_node(&before.rows).get(&(dead as u32)).copied().unwrap_or(0);
        prop_assert_eq!(moved(&before.rows, &placed.rows), lost);
        let (missing, staying): (Vec<_>, Vec<_>) = before.rows.into_iter().partition(|&(_, device)| node_of(device) == dead as u32);
        let missing: Vec<Row> = missing.into_iter().map(|(row, _)| row).collect();
        let made = replace(&after, NOTHING_OF_NODES, extent(number), &staying, &missing).expect("there is room");
        prop_assert_eq!(rebalance(&after, NOTHING_OF_NODES, extent(number), &[staying, made.rows].concat()), vec![]);
    }

    /// A node that is added takes rows and moves no row between others.
    #[test]
    fn when_a_node_comes_rows_move_only_to_it(map in any_map_with_domains(), number: u32, count in 1_u8..12, weights in prop::collection::vec(1_u32..5_000, 1..4), domain in any_domain()) {
        let Ok(before) = place(&map, NOTHING_OF_NODES, extent(number), &rows(count)) else { return Ok(()) };
        let mut after = map.clone();
        let added = map.nodes.len() as u32;
        after.nodes.push(MapNode { domain: domain.map(domain_name), ..node(added, &weights) });
        let moves = rebalance(&after, NOTHING_OF_NODES, extent(number), &before.rows);
        prop_assert!(moves.iter().all(|step| node_of(step.to) == added), "{moves:?}");
        let target = place(&after, NOTHING_OF_NODES, extent(number), &rows(count)).expect("there is more room than before");
        prop_assert_eq!(moves.len(), moved(&before.rows, &target.rows));
    }

    /// Draining devices are emptied, full ones keep what they have, and a second look finds nothing to do.
    #[test]
    fn a_rebalanced_extent_is_at_rest(before in any_map_with_domains(), promise in any_promise(), number: u32, count in 1_u8..12, states in prop::collection::vec(device_state(), 40)) {
        let Ok(placed) = place(&before, promise, extent(number), &rows(count)) else { return Ok(()) };
        let mut map = before;
        let mut states = states.into_iter();
        for device in map.nodes.iter_mut().flat_map(|node| &mut node.devices) {
            device.state = states.next().unwrap_or(MapDeviceState::Live);
        }
        let moves = rebalance(&map, promise, extent(number), &placed.rows);
        let mut rows: BTreeMap<Row, DeviceId> = placed.rows.iter().copied().collect();
        for step in &moves {
            prop_assert_eq!(rows.insert(step.row, step.to), Some(step.from));
            let (_, node, to) = map.find(step.to).expect("it is of the map");
            prop_assert!(node.keeps_rows(to));
        }
        let rows: Vec<_> = rows.into_iter().collect();
        prop_assert_eq!(rebalance(&map, promise, extent(number), &rows), vec![]);
    }
}

#[test]
fn six_rows_on_three_nodes_of_two_devices_take_each_device_once() {
    let placed =
        place(&map(&[&[1, 1], &[1, 1], &[1, 1]]), ONE_NODE, extent(7), &rows(6)).expect("there is room");
    assert_eq!(per_node(&placed.rows), BTreeMap::from([(0, 2), (1, 2), (2, 2)]));
    assert_eq!(per_device(&placed.rows).len(), 6);
    assert!(!placed.crowded);
}

#[test]
fn with_too_few_nodes_all_rows_are_placed_even_so() {
    let placed = place(&map(&[&[1, 1], &[1, 1]]), ONE_NODE, extent(7), &rows(6)).expect("there is room");
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
    let error = place(&dead, ONE_NODE, extent(7), &rows(2)).expect_err("nothing takes rows");
    assert!(
        error.to_string().contains("none of 4 devices on 2 nodes in placement map 1 takes rows"),
        "{error}"
    );
}

#[test]
fn a_row_that_is_there_already_is_not_placed_again() {
    let map = map(&[&[1, 1]]);
    let staying = [(Row(1), DeviceId(0))];
    let error = replace(&map, ONE_NODE, extent(7), &staying, &[Row(0), Row(1)]).expect_err("row 1 is there");
    assert_eq!(error, PlaceError::RowTwice { extent: extent(7), row: Row(1) });
}

#[test]
fn a_row_on_a_full_device_stays_there() {
    let mut map = map(&[&[1, 1], &[1, 1], &[1, 1]]);
    let placed = place(&map, ONE_NODE, extent(7), &rows(3)).expect("there is room");
    for device in map.nodes.iter_mut().flat_map(|node| &mut node.devices) {
        if placed.rows.iter().any(|&(_, used)| used == device.id) {
            device.state = MapDeviceState::Full;
        }
    }
    assert_eq!(rebalance(&map, ONE_NODE, extent(7), &placed.rows), vec![]);
}

/// Found by `a_rebalanced_extent_is_at_rest`, when a node's rank still depended on the rows on its full devices.
#[test]
fn a_row_that_leaves_a_full_device_does_not_change_the_rank_of_its_node() {
    let mut map = map(&[&[1371, 1998, 1371], &[2551]]);
    map.nodes[0].devices[0].state = MapDeviceState::Full;
    for number in 0..2_000 {
        let first = [(Row(0), DeviceId(0))];
        let moves = rebalance(&map, ONE_NODE, extent(number), &first);
        let there: Vec<_> = moves.iter().map(|step| (step.row, step.to)).collect();
        assert_eq!(
            rebalance(&map, ONE_NODE, extent(number), &there),
            vec![],
            "extent {number} after {moves:?}"
        );
    }
}

#[test]
fn a_place_is_chosen_as_often_as_its_weight_says() {
    let map = map(&[&[100, 300], &[200], &[400]]);
    let samples = 40_000;
    let first = |number| place(&map, ONE_NODE, extent(number), &rows(1)).expect("there is room").rows[0].1;
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
    assert!(place(&full.for_kind(ExtentKind::Data), ONE_NODE, extent(1), &rows(2)).is_err());
    for kind in [ExtentKind::Journal, ExtentKind::Checkpoint] {
        let mut open = full.for_kind(kind).into_owned();
        assert!(!place(&open, ONE_NODE, extent(1), &rows(4)).expect("all take one").crowded);
        open.leave_out(DeviceId(0));
        let placed = place(&open, ONE_NODE, extent(1), &rows(4)).expect("three take them");
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
            let placed = place(&before, ONE_NODE, extent(number), &rows(count)).expect("there is room");
            rebalance(&after, ONE_NODE, extent(number), &placed.rows).len()
        };
        let moved = (0..samples).map(moves).sum::<usize>() as f64 / f64::from(samples);
        let least = f64::from(count) / f64::from(nodes + 1);
        assert!(
            (moved / least - 1.0).abs() < 0.1,
            "{nodes} nodes: {moved} rows an extent, {least} is the least"
        );
    }
}

/// Six rows, two a zone: of the new node's zone its fair share is two rows over its nodes.
#[test]
fn a_new_node_of_a_domain_takes_its_share_of_the_domains_rows_and_no_more_moves_than_that() {
    for in_each in [2_u32, 3, 5, 12] {
        let mut before = map(&vec![&[1, 1][..]; 3 * in_each as usize]);
        for (index, node) in before.nodes.iter_mut().enumerate() {
            node.domain = Some(domain_name((index % 3) as u8));
        }
        let mut after = before.clone();
        after.nodes.push(MapNode { domain: Some(domain_name(0)), ..node(3 * in_each, &[1, 1]) });
        let samples = 4_000;
        let promise = Promise { needed: 4, nodes: 1 };
        let moves = |number| {
            let placed = place(&before, promise, extent(number), &rows(6)).expect("there is room");
            rebalance(&after, promise, extent(number), &placed.rows).len()
        };
        let moved = (0..samples).map(moves).sum::<usize>() as f64 / f64::from(samples);
        let least = 2.0 / f64::from(in_each + 1);
        assert!(
            (moved / least - 1.0).abs() < 0.1,
            "{in_each} nodes a zone: {moved} rows, {least} is the least"
        );
    }
}

/// Zones of 1, 1 and 4 nodes. A lone node may hold two rows where two may be lost with it; where only one may, the zone of
/// four takes the rest.
#[test]
fn domains_of_unequal_size_are_level_as_far_as_a_node_may_be_lost() {
    let mut map = map(&[&[1, 1][..]; 6]);
    for (node, domain) in map.nodes.iter_mut().zip([0, 1, 2, 2, 2, 2]) {
        node.domain = Some(domain_name(domain));
    }
    for number in 0..200 {
        let in_domains = |needed: u8| {
            let promise = Promise { needed, nodes: 1 };
            let placed = place(&map, promise, extent(number), &rows(6)).expect("there is room").rows;
            per_domain(&map, &placed).into_values().collect::<Vec<_>>()
        };
        assert_eq!(in_domains(4), [2, 2, 2]);
        assert_eq!(in_domains(5), [1, 1, 4]);
    }
}

#[test]
fn a_weight_that_a_person_gave_a_node_is_its_share() {
    let mut map = map(&[&[100], &[100], &[100]]);
    map.nodes[0].weight = Some(600);
    let samples = 40_000;
    let first = |number| place(&map, ONE_NODE, extent(number), &rows(1)).expect("there is room").rows[0].1;
    let chosen = count((0..samples).map(first));
    let share = chosen[&DeviceId(0)] as f64 / f64::from(samples);
    assert!((share / 0.75 - 1.0).abs() < 0.05, "{share}");
}

#[test]
fn a_map_of_before_domains_reads_as_it_was_and_is_still_written_so() {
    let mut map = map(&[&[1], &[2, 3]]);
    let old = [vec![1], postcard::to_allocvec(&map).expect("bytes")].concat();
    assert_eq!(PlacementMap::decode(&old).expect("it reads"), map);
    assert_eq!(map.encode(), old);
    map.nodes[1].domain = Some(domain_name(7));
    map.nodes[0].weight = Some(9);
    assert_eq!(PlacementMap::decode(&map.encode()).expect("it reads"), map);
}

/// The least is what its share grows by; then all is at rest.
#[test]
fn a_device_that_grows_takes_what_its_share_grows_by_and_nothing_moves_between_others() {
    let before = map(&[&[100][..]; 10]);
    let mut after = before.clone();
    after.nodes[0].devices[0].weight = 200;
    let (mut moved, mut grown) = (0, 0);
    for number in 0..4_000 {
        let placed = |map| place(map, ONE_NODE, extent(number), &rows(6)).expect("there is room").rows;
        let on_it = |rows: &[(Row, DeviceId)]| rows.iter().filter(|(_, device)| device.0 == 0).count();
        let old = placed(&before);
        let steps = rebalance(&after, ONE_NODE, extent(number), &old);
        assert!(steps.iter().all(|step| step.to == DeviceId(0)), "{steps:?}");
        let to = |row: Row| steps.iter().find(|step| step.row == row).map(|step| step.to);
        let new: Vec<_> = old.iter().map(|&(row, device)| (row, to(row).unwrap_or(device))).collect();
        assert_eq!(rebalance(&after, ONE_NODE, extent(number), &new), vec![], "extent {number}");
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
                let placed =
                    place(&left, ONE_NODE, extent(number), &rows(plan.rows[0].1)).expect("there is room");
                assert!(!placed.crowded);
                let most = per_node(&placed.rows).into_values().max().unwrap_or(0);
                assert!(placed.rows.len() - most >= usize::from(plan.needed), "{plan}: {placed:?}");
            }
        }
    }
}

/// Node i as far away as is said, with a device each.
fn at_distances(distances: &[u32]) -> PlacementMap {
    let mut map = map(&vec![&[1][..]; distances.len()]);
    for (node, distance) in map.nodes.iter_mut().zip(distances) {
        node.distance = Some(*distance);
    }
    map
}

/// Nodes that have rows of this extent, with so many rows.
fn nodes_of(map: &PlacementMap, number: u32, count: u8) -> BTreeSet<u32> {
    let placed = place(map, NOTHING_OF_NODES, extent(number), &rows(count)).expect("there is room");
    placed.rows.iter().map(|&(_, device)| node_of(device)).collect()
}

#[test]
fn near_nodes_get_rows_first_as_far_as_domains_and_the_level_allow() {
    let mut map = at_distances(&[5, 1, 1, 3]);
    let alone: BTreeSet<u32> = (0..50).flat_map(|number| nodes_of(&map, number, 1)).collect();
    assert_eq!(alone, BTreeSet::from([1, 2]), "what is about as near is as good");
    for number in 0..50 {
        assert_eq!(nodes_of(&map, number, 2), BTreeSet::from([1, 2]));
        assert_eq!(nodes_of(&map, number, 3), BTreeSet::from([1, 2, 3]));
    }
    for node in [1, 2] {
        map.nodes[node].domain = Some(domain_name(0));
    }
    for number in 0..50 {
        let of_two = nodes_of(&map, number, 2);
        assert!(of_two.contains(&3) && !of_two.contains(&0), "another domain, and its nearest: {of_two:?}");
    }
}

#[test]
fn a_row_on_a_far_node_stays_there_until_the_node_drains() {
    let mut map = at_distances(&[5, 1, 1, 3]);
    for number in 0..50 {
        let far = [(Row(0), DeviceId(0)), (Row(1), DeviceId(300))];
        assert_eq!(rebalance(&map, NOTHING_OF_NODES, extent(number), &far), []);
        map.nodes[0].state = NodeState::Draining;
        let moves = rebalance(&map, NOTHING_OF_NODES, extent(number), &far);
        assert!(matches!(moves[..], [Move { row: Row(0), to: DeviceId(100 | 200), .. }]), "{moves:?}");
        map.nodes[0].state = NodeState::Live;
        let crowded = [(Row(0), DeviceId(0)), (Row(1), DeviceId(0))];
        assert_eq!(rebalance(&map, NOTHING_OF_NODES, extent(number), &crowded).len(), 1, "level comes first");
    }
}
