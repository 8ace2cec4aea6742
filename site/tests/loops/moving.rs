//! Rows that can be read and should lie elsewhere: drained nodes and devices, new ones, crowded rows.

use std::collections::BTreeMap;
use std::time::Duration;

use diptych_core::ids::{DeviceId, NodeName, Row};
use diptych_core::keys;
use diptych_core::moving::Stuck;
use diptych_core::placement::{MapDeviceState, NodeShare, NodeState, PlacementMap};
use diptych_core::records::{CodingPlan, Drain, PlacedRow, Placement, Record};
use diptych_core::repair::Cause;
use diptych_site::agents::NodeEndpoint;
use diptych_site::context::LoopOptions;
use diptych_site::drain;
use diptych_site::nodes::NodeWatch;
use diptych_site::repair::Repairs;
use diptych_site::survey::Need;

use crate::harness::{East, NEEDED, ROWS, Stored, at_once, endpoint};
use crate::support::Site;

/// Four nodes of two devices each: devices 0 to 7.
async fn four_nodes(options: LoopOptions) -> East {
    East::start_on(Site::start(4).await, None, options).await
}

/// The map as it is, with this changed.
fn changed(east: &East, change: impl FnOnce(&mut PlacementMap)) {
    let mut map = PlacementMap::clone(&east.context.map());
    map.generation.0 += 1;
    change(&mut map);
    east.set_map(map);
}

async fn placement(east: &East, stored: &Stored) -> Placement {
    let raw = east.get(&keys::placement(&east.context.site, stored.extent)).await.expect("it is placed");
    Placement::decode(&raw).expect("it reads")
}

/// Carries out what a survey finds, until it finds nothing; rows moved and made.
async fn heal(east: &East) -> u64 {
    let mut rows = 0;
    loop {
        let needs = east.survey(&[]).await.needs;
        if needs.is_empty() {
            return rows;
        }
        let mut repairs = Repairs::new(&east.context);
        assert!(repairs.take(needs).is_empty());
        while !repairs.is_idle() {
            repairs.start();
            rows += repairs.ended().await.outcome.expect("it is done");
        }
    }
}

fn devices(placement: &Placement) -> Vec<u32> {
    placement.rows.iter().map(|placed| placed.device.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_emptied_row_by_row_and_its_old_records_go() {
    let east = four_nodes(at_once()).await;
    let stored = east.store(1, 3_000_000, &[]).await;
    heal(&east).await;
    let before = placement(&east, &stored).await;
    let emptied = (0..4)
        .find(|number| devices(&before).iter().any(|device| *device as usize / 2 == *number))
        .expect("a node with rows");
    changed(&east, |map| map.nodes[emptied].state = NodeState::Draining);
    let survey = east.survey(&[]).await;
    let there = devices(&before).iter().filter(|device| **device as usize / 2 == emptied).count() as u64;
    let left: u64 = survey.health.leaving.values().map(|left| left.rows).sum();
    assert_eq!((survey.health.whole, left, survey.needs.len()), (1, there, 1));
    assert_eq!(survey.needs[0].cause, Cause::Draining);
    assert_eq!(heal(&east).await, there, "no row moves that need not");
    assert!(east.is_right(&stored).await);
    let after = placement(&east, &stored).await;
    assert!(devices(&after).iter().all(|device| *device as usize / 2 != emptied), "{after:?}");
    assert_eq!(east.records().await, usize::from(ROWS), "the old records are gone");
    let survey = east.survey(&[]).await;
    assert!(survey.health.leaving.values().all(|left| left.rows == 0));
    assert_eq!(survey.health.leaving.len(), 2, "both devices were looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_not_be_copied_is_made_anew_where_it_belongs() {
    let east = four_nodes(at_once()).await;
    let stored = east.store(1, 3_000_000, &[]).await;
    heal(&east).await;
    // What the catalog says to be there and is not: the copy fails, and k others make the row.
    let placed = placement(&east, &stored).await.rows[0];
    let at = crate::support::at(stored.extent, placed.device.0, placed.row.0, Some(placed.instance));
    let agent = east.site.operator(placed.device.0 as usize / 2);
    agent.delete(crate::support::stamp(1, 1), vec![at]).await.expect("an answer");
    let drained = placed.device.0 as usize / 2;
    changed(&east, |map| map.nodes[drained].state = NodeState::Draining);
    heal(&east).await;
    assert!(east.is_right(&stored).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_gets_its_share_behind_every_repair_and_then_all_is_at_rest() {
    let options = LoopOptions { repairs_at_once: 1, ..at_once() };
    let east = four_nodes(options).await;
    changed(&east, |map| map.nodes[3].state = NodeState::Dead);
    let mut stored = Vec::new();
    for number in 1..=8 {
        stored.push(east.store(number, 100_000, &[]).await);
    }
    assert_eq!(heal(&east).await, 0, "three nodes have a row on each device");
    changed(&east, |map| map.nodes[3].state = NodeState::Live);
    let hurt = &stored[7];
    let lost = (hurt.extent, hurt.placement.rows[5].row, hurt.placement.rows[5].instance);
    let found = east.survey(&[lost]).await;
    assert!(found.health.moving > 0 && found.needs.len() > 1, "{:?}", found.health);
    let mut repairs = Repairs::new(&east.context);
    repairs.take(found.needs);
    let status = repairs.status();
    assert_eq!((status.queue(), status.moving), (1, found.health.moving), "only one is damaged: {status:?}");
    repairs.start();
    assert_eq!(repairs.ended().await.extent, hurt.extent, "what lacks a row comes first");
    while !repairs.is_idle() {
        repairs.start();
        repairs.ended().await.outcome.expect("it moves");
    }
    heal(&east).await;
    let found = east.survey(&[]).await;
    assert_eq!((found.needs, found.health.moving), (Vec::<Need>::new(), 0), "a second look finds nothing");
    let mut on_new = 0;
    for stored in &stored {
        assert!(east.is_right(stored).await);
        let rows = devices(&placement(&east, stored).await);
        on_new += rows.iter().filter(|device| **device >= 6).count();
    }
    assert!(on_new >= 8, "{on_new} rows of 48 are on the new node");
}

#[tokio::test(flavor = "multi_thread")]
async fn crowded_rows_are_spread_as_soon_as_there_is_room() {
    let east = four_nodes(at_once()).await;
    changed(&east, |map| map.nodes[3].state = NodeState::Dead);
    let stored = east.store(1, 100_000, &[]).await;
    // Two rows on one device, as a write leaves them while another is away.
    let mut crowded = placement(&east, &stored).await;
    let bytes = &crate::support::rows_of(NEEDED, &stored.bytes, ROWS)[5];
    let facts = crate::support::facts(stored.extent, NEEDED, &stored.bytes);
    let instance = crate::support::place(&east.site.gateway(0), &facts, 0, 5, bytes).await;
    crowded.rows[5] = PlacedRow { row: Row(5), device: DeviceId(0), instance };
    east.put(vec![(keys::placement(&east.context.site, stored.extent), crowded.encode())]).await;
    assert_eq!(heal(&east).await, 1);
    let mut rows = devices(&placement(&east, &stored).await);
    rows.sort_unstable();
    assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
    assert!(east.is_right(&stored).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_better_place_stays_and_says_why() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    changed(&east, |map| map.nodes[1].state = NodeState::Draining);
    let survey = east.survey(&[]).await;
    assert!(survey.needs.is_empty());
    let left = &survey.health.leaving[&2];
    assert_eq!((left.rows, left.stuck), (1, 1));
    let why = left.why.as_deref().expect("a sum");
    assert!(why.starts_with("4 devices on 2 other nodes take rows: 6 rows on them"), "{why}");
    assert!(east.is_right(&stored).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_keeper_has_placed_meanwhile_stays_and_the_copy_goes() {
    let east = four_nodes(at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    heal(&east).await;
    let before = placement(&east, &stored).await;
    let drained = before.rows[0].device.0 as usize / 2;
    changed(&east, |map| map.nodes[drained].state = NodeState::Draining);
    let needs = east.survey(&[]).await.needs;
    let other = Placement { verified_day: 7, ..before };
    east.put(vec![(keys::placement(&east.context.site, stored.extent), other.encode())]).await;
    let mut repairs = Repairs::new(&east.context);
    repairs.take(needs);
    repairs.start();
    repairs.ended().await.outcome.expect("it was tried");
    assert_eq!(placement(&east, &stored).await, other);
    assert!(east.is_right(&stored).await);
    assert_eq!(east.records().await, usize::from(ROWS), "the copies are gone");
}

/// Watches the agents; its map is what they and the catalog say.
async fn watch(east: &mut East) -> NodeWatch {
    let declared = east.site.agents.iter().map(endpoint).collect();
    watch_declared(east, declared).await
}

async fn watch_declared(east: &mut East, declared: Vec<NodeEndpoint>) -> NodeWatch {
    let (catalog, agents) = (east.context.catalog.clone(), east.context.agents.clone());
    let (standing, survive) = (east.context.standing.clone(), east.context.survive);
    let watch = NodeWatch::begin(catalog, agents, declared, standing, Duration::from_mins(1), survive).await;
    let watch = watch.expect("it begins");
    east.context.map = watch.map();
    watch.look().await.expect("a look");
    watch
}

fn states(map: &PlacementMap) -> BTreeMap<String, NodeState> {
    map.nodes.iter().map(|node| (node.name.to_string(), node.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_wants_emptied_drains_as_far_as_the_rest_can_do_without_until_it_is_taken_back() {
    let mut east = four_nodes(at_once()).await;
    let plan = CodingPlan { needed: NEEDED, rows: vec![(east.context.site.clone(), ROWS)] };
    east.put(vec![(keys::plan(0), plan.encode())]).await;
    let watch = watch(&mut east).await;
    let names: Vec<NodeName> = east.context.map().nodes.iter().map(|node| node.name.clone()).collect();
    let (first, second) = (&names[2], &names[1]);
    let (catalog, site) = (east.context.catalog.clone(), east.context.site.clone());
    let ask = async |name: &NodeName, drain: Option<Drain>| {
        drain::ask(catalog.as_ref(), &site, name, drain.as_ref(), None).await.expect("it is written");
        watch.look().await.expect("a look");
        states(&east.context.map())
    };
    assert_eq!(ask(first, Some(Drain::default())).await[first.as_str()], NodeState::Draining);
    let both = ask(second, Some(Drain::default())).await;
    assert_eq!((both[first.as_str()], both[second.as_str()]), (NodeState::Draining, NodeState::Live));
    let refused = watch.seen().borrow().drains[second];
    assert!(matches!(refused, Some(Stuck::SurvivesLess { nodes: 2, devices: 4, .. })), "{refused:?}");
    assert_eq!(ask(first, None).await[second.as_str()], NodeState::Draining, "it is its turn");
    let one = Drain { devices: vec![east.context.map().nodes[1].devices[0].id] };
    let alone = ask(second, Some(one)).await;
    assert_eq!(alone[second.as_str()], NodeState::Live);
    let devices: Vec<MapDeviceState> =
        east.context.map().devices().map(|(_, _, device)| device.state).collect();
    assert_eq!(devices.iter().filter(|state| **state == MapDeviceState::Draining).count(), 1);
}

/// Two racks of one node and one of two: without them each of the four nodes is as likely to hold one row more.
#[tokio::test(flavor = "multi_thread")]
async fn rows_move_until_they_are_level_over_the_domains_that_are_declared() {
    let mut east = four_nodes(at_once()).await;
    let mut stored = Vec::new();
    for number in 1..=8 {
        stored.push(east.store(number, 100_000, &[]).await);
    }
    heal(&east).await;
    let racks = ["rack-1", "rack-2", "rack-3", "rack-3"];
    let in_rack = |(node, rack): (NodeEndpoint, &str)| {
        let domain = Some(rack.parse().expect("a name"));
        NodeEndpoint { share: NodeShare { domain, ..NodeShare::default() }, ..node }
    };
    let declared = east.site.agents.iter().map(endpoint).zip(racks).map(in_rack).collect();
    watch_declared(&mut east, declared).await;
    assert!(heal(&east).await > 0, "some lay otherwise");
    for one in &stored {
        let placed = placement(&east, one).await;
        let rows_in = |rack: &str| {
            let nodes = devices(&placed).into_iter().map(|device| racks[device as usize / 2]);
            nodes.filter(|there| *there == rack).count()
        };
        assert_eq!(["rack-1", "rack-2", "rack-3"].map(rows_in), [2, 2, 2], "{placed:?}");
        assert!(east.is_right(one).await);
    }
    assert!(east.survey(&[]).await.needs.is_empty(), "a second look finds nothing");
}
