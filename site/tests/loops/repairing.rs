//! What is missing is made anew: in order, within budgets, from this site or from the other.

use diptych_core::keys;
use diptych_core::records::{Placement, Record};
use diptych_site::context::LoopOptions;
use diptych_site::nodes::Rotten;
use diptych_site::repair::Repairs;
use diptych_site::survey::Need;

use crate::harness::{East, Stored, at_once, west};

/// What a survey finds when these rows do not read.
async fn needs(east: &East, unreadable: &[Rotten]) -> Vec<Need> {
    east.survey(unreadable).await.needs
}

fn rows(stored: &Stored, rows: &[u8]) -> Vec<Rotten> {
    let placed = stored.placement.rows.iter().filter(|placed| rows.contains(&placed.row.0));
    placed.map(|placed| (stored.extent, placed.row, placed.instance)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_lies_is_made_anew_together_with_the_one_that_is_lost() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 3_000_000, &[1]).await;
    let needs = needs(&east, &rows(&stored, &[0])).await;
    let mut repairs = Repairs::new(&east.context);
    assert!(repairs.take(needs).is_empty());
    assert_eq!(repairs.start(), None);
    assert_eq!(repairs.ended().await.outcome.expect("it is repaired"), 2);
    assert!(east.is_right(&stored).await);
    assert_eq!(east.records().await, 6, "the old records are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_rows_here_an_extent_crosses_again() {
    let mut east = East::start(Some(west()), at_once()).await;
    let stored = east.store(1, 3_000_000, &[]).await;
    east.open_door(&stored.bytes).await;
    let lost = rows(&stored, &[0, 1, 2]);
    let hopeless = needs(&east, &lost).await;
    assert_eq!(Repairs::new(&east.context).take(hopeless).len(), 1, "nobody has enough of it");
    east.whole_in_west(stored.extent).await;
    let needs = needs(&east, &lost).await;
    let mut repairs = Repairs::new(&east.context);
    assert!(repairs.take(needs).is_empty(), "the other site has enough");
    repairs.start();
    assert_eq!(repairs.ended().await.outcome.expect("it crosses"), 6);
    assert!(east.is_right(&stored).await);
    assert_eq!(east.records().await, 6, "the old records are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_cross_leaves_the_rows_that_are_named() {
    let mut east = East::start(Some(west()), at_once()).await;
    let stored = east.store(1, 3_000_000, &[]).await;
    east.whole_in_west(stored.extent).await;
    let mut other = stored.bytes.clone();
    other[7] ^= 1;
    east.open_door(&other).await;
    let needs = needs(&east, &rows(&stored, &[0, 1, 2])).await;
    let mut repairs = Repairs::new(&east.context);
    repairs.take(needs);
    repairs.start();
    repairs.ended().await.outcome.expect_err("the bytes are not the extent's");
    let raw = east.get(&keys::placement(&crate::harness::east(), stored.extent)).await.expect("it is placed");
    assert_eq!(Placement::decode(&raw).expect("it reads"), stored.placement);
    assert!(east.is_right(&stored).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fewest_further_losses_come_first() {
    let options = LoopOptions { repairs_at_once: 1, ..at_once() };
    let east = East::start(None, options).await;
    let (first, second) = (east.store(1, 100_000, &[]).await, east.store(2, 100_000, &[]).await);
    let mut lost = rows(&first, &[0]);
    lost.extend(rows(&second, &[0, 1]));
    let needs = needs(&east, &lost).await;
    let mut repairs = Repairs::new(&east.context);
    repairs.take(needs);
    let status = repairs.status();
    assert_eq!((status.waiting, status.bytes), (2, 300_000));
    repairs.start();
    let ended = repairs.ended().await;
    assert_eq!((ended.extent, ended.outcome.expect("it is repaired")), (second.extent, 2));
    repairs.start();
    assert_eq!(repairs.ended().await.extent, first.extent);
    assert!(repairs.is_idle());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_spent_is_waited_for_and_one_of_zero_moves_nothing() {
    let options = LoopOptions { repair_lan: 50_000, repairs_at_once: 4, ..at_once() };
    let mut east = East::start(None, options).await;
    let (first, second) = (east.store(1, 100_000, &[]).await, east.store(2, 100_000, &[]).await);
    let lost = [rows(&first, &[0]), rows(&second, &[0])].concat();
    let found = needs(&east, &lost).await;
    {
        let mut repairs = Repairs::new(&east.context);
        repairs.take(found.clone());
        let wait = repairs.start().expect("the first one spent what there is");
        assert!(wait > std::time::Duration::from_millis(500), "{wait:?}");
        repairs.ended().await.outcome.expect("it is repaired");
        assert_eq!(repairs.status().waiting, 1);
    }
    east.context.options.repair_lan = 0;
    let mut repairs = Repairs::new(&east.context);
    repairs.take(found);
    assert_eq!(repairs.start(), None);
    let status = repairs.status();
    assert_eq!((status.running, status.seconds_left), (0, None), "{status:?}");
}
