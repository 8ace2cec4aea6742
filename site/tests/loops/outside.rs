//! Rows outside: placed after all others, part of repair, freed, given up, and no site's whose term is over.

use diptych_core::ids::{Epoch, NodeName, Row, SiteName};
use diptych_core::keys;
use diptych_core::placement::{NodeShare, NodeState};
use diptych_core::records::{Extent, ExtentState, OutsideNode, Placement, Record};
use diptych_site::collector::Collector;
use diptych_site::inventory::Inventory;
use diptych_site::nodes::{NodeWatch, Rotten};
use diptych_site::repair::Repairs;
use std::sync::Arc;
use std::time::Duration;

use crate::harness::{East, NEEDED, Stored, at_once, west};
use crate::support::{Site, at, rows_of, whole};

const LENGTH: usize = 3_000_000;

/// Makes what a survey finds lacking; how many rows.
async fn repair(east: &East, unreadable: &[Rotten]) -> Result<u64, String> {
    let mut repairs = Repairs::new(&east.context);
    assert!(repairs.take(east.survey(unreadable).await.needs).is_empty(), "enough of it is left");
    repairs.start();
    repairs.ended().await.outcome.map_err(|error| error.to_string())
}

async fn placed(east: &East, stored: &Stored) -> Placement {
    let raw = east.get(&keys::placement(&SiteName::outside(), stored.extent)).await.expect("it is placed");
    Placement::decode(&raw).expect("it reads")
}

/// Whether each row of the placement is what the codeword has under its number.
async fn is_right(outside: &Site, stored: &Stored, placement: &Placement) -> bool {
    let wanted = rows_of(NEEDED, &stored.bytes, 14);
    for placed in &placement.rows {
        let client = outside.gateway(placed.device.0 as usize / 2);
        let at = at(stored.extent, placed.device.0, placed.row.0, Some(placed.instance));
        let row = &wanted[usize::from(placed.row.0)];
        if client.read(whole(at, row.len())).await.ok().as_deref() != Some(&row[..]) {
            return false;
        }
    }
    true
}

async fn records(outside: &Site) -> usize {
    let mut records = 0;
    for device in 0..4 {
        let client = outside.gateway(device / 2);
        let device = diptych_core::ids::DeviceId(device as u32);
        records += client.inventory(device, None, None, 100).await.expect("a page").records.len();
    }
    records
}

fn lost(stored: &Stored, rows: &[u8]) -> Vec<Rotten> {
    let placed = stored.placement.rows.iter().filter(|placed| rows.contains(&placed.row.0));
    placed.map(|placed| (stored.extent, placed.row, placed.instance)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_extent_gets_its_rows_outside_after_the_commit_at_the_cost_of_those_rows() {
    let mut east = East::start(None, at_once()).await;
    let stored = east.store(1, LENGTH, &[]).await;
    let outside = east.start_outside(2).await;
    let survey = east.survey(&[]).await;
    assert_eq!((survey.health.whole, survey.health.outside_lacking), (1, 1), "the site itself lacks nothing");
    assert_eq!(survey.needs[0].missing, [Row(12), Row(13)], "after the rows of both sites");
    let repair = survey.needs[0].repair(1).expect("it can be made");
    assert_eq!(repair.bytes, 2 * LENGTH as u64 / u64::from(NEEDED));
    assert_eq!(self::repair(&east, &[]).await, Ok(2));
    let placement = placed(&east, &stored).await;
    assert!(is_right(&outside, &stored, &placement).await);
    let nodes: Vec<u32> = placement.rows.iter().map(|placed| placed.device.0 / 2).collect();
    assert_ne!(nodes[0], nodes[1], "a node a row");
    let health = east.survey(&[]).await.health;
    assert_eq!((health.outside_rows, health.outside_lacking), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_outside_node_is_emptied_and_each_row_crosses_once() {
    let mut east = East::start(None, at_once()).await;
    let stored = east.store(1, LENGTH, &[]).await;
    let outside = east.start_outside(2).await;
    assert_eq!(repair(&east, &[]).await, Ok(2));
    east.outside_node_is(0, NodeState::Draining);
    let survey = east.survey(&[]).await;
    let left: u64 = survey.health.leaving_outside.values().map(|left| left.rows).sum();
    let moves = survey.needs[0].repair(1).expect("it can be moved");
    assert_eq!((left, moves.bytes), (1, LENGTH as u64 / u64::from(NEEDED)));
    assert_eq!(repair(&east, &[]).await, Ok(1));
    let placement = placed(&east, &stored).await;
    assert!(is_right(&outside, &stored, &placement).await);
    assert!(placement.rows.iter().all(|placed| placed.device.0 >= 2), "{placement:?}");
    assert_eq!(records(&outside).await, 2, "the old record is gone");
    assert!(east.survey(&[]).await.needs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_site_lacks_comes_before_what_is_lacking_outside() {
    let mut east = East::start(None, at_once()).await;
    let stored = east.store(1, LENGTH, &[]).await;
    let _outside = east.start_outside(2).await;
    let needs = east.survey(&lost(&stored, &[5])).await.needs;
    assert_eq!((needs.len(), needs[0].missing.as_slice()), (1, &[Row(5)][..]));
    assert!(!needs[0].is_outside());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_rows_in_the_site_and_no_other_site_rows_outside_make_up_k() {
    let mut east = East::start(None, at_once()).await;
    let stored = east.store(1, LENGTH, &[]).await;
    let _outside = east.start_outside(2).await;
    assert_eq!(repair(&east, &[]).await, Ok(2));
    let lost = lost(&stored, &[0, 1, 2]);
    assert_eq!(repair(&east, &lost).await, Ok(3));
    assert!(east.is_right(&stored).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_an_outside_node_that_died_are_made_on_another() {
    let mut east = East::start(None, at_once()).await;
    let stored = east.store(1, LENGTH, &[]).await;
    let outside = east.start_outside(2).await;
    assert_eq!(repair(&east, &[]).await, Ok(2));
    east.outside_node_is(0, NodeState::Dead);
    assert_eq!(repair(&east, &[]).await, Ok(1));
    let placement = placed(&east, &stored).await;
    assert!(placement.rows.iter().all(|placed| placed.device.0 / 2 == 1), "{placement:?}");
    assert!(is_right(&outside, &stored, &placement).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_outside_go_with_their_extent_and_orphans_after_their_hold() {
    let mut east = East::start(None, at_once()).await;
    let stored = east.store(1, LENGTH, &[]).await;
    let outside = east.start_outside(2).await;
    assert_eq!(repair(&east, &[]).await, Ok(2));
    let key = keys::extent(stored.extent);
    let live = Extent::decode(&east.get(&key).await.expect("it is there")).expect("it reads");
    east.put(vec![(key.clone(), Extent { state: ExtentState::Condemned, ..live }.encode())]).await;
    let mut collector = Collector::default();
    for _ in 0..3 {
        collector.pass(&east.context).await.expect("a pass");
    }
    assert_eq!((east.get(&key).await, records(&outside).await), (None, 0));

    let orphaned = east.store(2, 1_000, &[]).await;
    assert_eq!(repair(&east, &[]).await, Ok(2));
    let key = keys::placement(&SiteName::outside(), orphaned.extent);
    let forgotten = Placement { rows: Vec::new(), verified_day: 0 };
    east.put(vec![(key, forgotten.encode())]).await;
    let nodes = east.context.outside_nodes().expect("the site is active");
    let found = Inventory::default().pass(&east.context, &nodes).await.expect("a pass");
    assert_eq!((found.freed, records(&outside).await), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_term_is_over_makes_and_frees_nothing_outside() {
    let mut east = East::start(None, at_once()).await;
    let stored = east.store(1, LENGTH, &[]).await;
    let outside = east.start_outside(2).await;
    let needs = east.survey(&[]).await.needs;
    east.leave_office(Epoch(2)).await;
    assert!(east.survey(&[]).await.needs.is_empty(), "the other site sees to it");
    assert!(east.context.outside_nodes().is_none());
    let mut repairs = Repairs::new(&east.context);
    repairs.take(needs);
    repairs.start();
    repairs.ended().await.outcome.expect_err("it was found in a term that is over");
    assert_eq!(records(&outside).await, 0);
    assert!(east.get(&keys::placement(&SiteName::outside(), stored.extent)).await.is_none());
}

/// The outside nodes as their tokens were spent.
async fn declare(east: &East, outside: &Site) {
    let record = |node: &crate::support::Node| {
        let record = OutsideNode {
            address: node.address.to_string(),
            devices: Vec::new(),
            declared_by: east.context.site.clone(),
            token: node.name.clone(),
            spent_by: Some([1; 32]),
            share: NodeShare::default(),
        };
        (keys::outside_node(&node.name.parse::<NodeName>().expect("a name")), record.encode())
    };
    east.put(outside.agents.iter().map(record).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outside_map_is_the_active_sites_and_each_epochs_is_newer_than_all_before() {
    let mut east = East::start(None, at_once()).await;
    let outside = east.start_outside(2).await;
    declare(&east, &outside).await;
    let watch = NodeWatch::begin_outside(
        Arc::clone(&east.context.catalog),
        Arc::clone(&east.context.outside.agents),
        east.context.standing.clone(),
        Duration::from_secs(10),
    );
    let watch = watch.await.expect("it begins");
    watch.look().await.expect("it is written");
    let (map, seen) = (watch.map(), watch.seen());
    assert_eq!((map.borrow().generation.0, map.borrow().nodes.len()), (1 << 32, 2));
    east.take_office(Epoch(3)).await;
    watch.look().await.expect("it is written");
    assert_eq!(map.borrow().generation.0, 3 << 32, "nothing else has changed");
    assert_eq!(outside.operator(0).status().await.expect("a status").stamp.epoch, Epoch(3), "it was told");
    east.leave_office(Epoch(4)).await;
    watch.look().await.expect("the other site looks");
    assert!(seen.borrow().nodes.is_empty());
    assert_eq!(outside.operator(0).status().await.expect("a status").stamp.epoch, Epoch(3), "nobody told it");
}

/// An extent with two rows outside, of which one is asked for from now on.
async fn asked_for_one_of_two() -> (East, Site, Stored) {
    let mut east = East::start(Some(west()), at_once()).await;
    let stored = east.store(1, LENGTH, &[]).await;
    let outside = east.start_outside(2).await;
    assert_eq!(repair(&east, &[]).await, Ok(2));
    east.context.outside.config.rows = 1;
    (east, outside, stored)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_no_longer_asked_for_are_freed_once_the_other_site_knows_that_nothing_names_them() {
    let (east, outside, stored) = asked_for_one_of_two().await;
    let mut early = Collector::default();
    early.pass(&east.context).await.expect("a pass");
    assert_eq!(placed(&east, &stored).await.rows.len(), 2, "west has no rows of it yet");

    east.whole_in_west(stored.extent).await;
    let mut collector = Collector::default();
    for _ in 0..3 {
        assert_eq!(collector.pass(&east.context).await.expect("a pass").surplus, 0);
    }
    let placement = placed(&east, &stored).await;
    let rows: Vec<Row> = placement.rows.iter().map(|placed| placed.row).collect();
    assert_eq!((rows, records(&outside).await), (vec![Row(12)], 2), "west could still read the other one");
    east.confirm().await;
    assert_eq!(collector.pass(&east.context).await.expect("a pass").surplus, 1);
    assert_eq!(records(&outside).await, 1);
    assert!(is_right(&outside, &stored, &placement).await);
    assert_eq!(east.survey(&[]).await.health.outside_rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_asked_for_again_before_it_is_freed_is_another_one() {
    let (mut east, outside, stored) = asked_for_one_of_two().await;
    east.whole_in_west(stored.extent).await;
    let mut collector = Collector::default();
    collector.pass(&east.context).await.expect("a pass");
    east.context.outside.config.rows = 2;
    assert_eq!(repair(&east, &[]).await, Ok(1));
    east.confirm().await;
    assert_eq!(collector.pass(&east.context).await.expect("a pass").surplus, 1);
    let placement = placed(&east, &stored).await;
    assert_eq!((placement.rows.len(), records(&outside).await), (2, 2));
    assert!(is_right(&outside, &stored, &placement).await);
}
