//! The coding in force follows what is declared.

use diptych_core::ids::Epoch;
use diptych_core::keys;
use diptych_core::records::{CodingPlan, Record};
use diptych_site::bootstrap;
use diptych_site::error::SiteError;

use crate::harness::{EPOCH, East, at_once};

/// The numbers of all plans, and the last plan.
async fn plans(east: &East) -> (Vec<u32>, CodingPlan) {
    let view = east.context.catalog.view().await.expect("a view");
    let all = view.scan(&keys::plans(), 100).expect("it reads").entries;
    let numbers = all.iter().filter_map(|(key, _)| keys::plan_number(key)).collect();
    let (_, last) = all.last().expect("a plan");
    (numbers, CodingPlan::decode(last).expect("it reads"))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_coding_is_added_once_and_only_under_the_epoch() {
    let east = East::start(None, at_once()).await;
    east.seed().await;
    let catalog = east.context.catalog.as_ref();
    let (before, first) = plans(&east).await;
    assert!(!bootstrap::put_in_force(catalog, EPOCH, &first).await.expect("it reads"), "it is in force");
    let second = CodingPlan { needed: 2, rows: vec![(east.context.site.clone(), 4)] };
    let stale = bootstrap::put_in_force(catalog, Epoch(2), &second).await;
    assert!(matches!(stale, Err(SiteError::Catalog(_))), "{stale:?}");
    assert!(bootstrap::put_in_force(catalog, EPOCH, &second).await.expect("it commits"));
    assert!(!bootstrap::put_in_force(catalog, EPOCH, &second).await.expect("it reads"));
    let (after, last) = plans(&east).await;
    assert_eq!((after.len(), last), (before.len() + 1, second));
    assert!(bootstrap::put_in_force(catalog, EPOCH, &first).await.expect("it commits"), "and back");
    assert_eq!(plans(&east).await.1, first);
}
