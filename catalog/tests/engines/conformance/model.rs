//! Random batches against a map.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_core::keys::{self, Key};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

use super::{Bench, feed_from, key, take_until};
use diptych_catalog::{Batch, CatalogError, Change, Expect, FeedEntry, Guard, Outcome, Write};

type Model = BTreeMap<Key, Bytes>;

fn any_key() -> impl Strategy<Value = Key> {
    (0..8_u8).prop_map(|number| key(&number.to_string()))
}

fn any_value() -> impl Strategy<Value = Bytes> {
    (0..3_u8).prop_map(|number| Bytes::from(vec![number; usize::from(number)]))
}

fn any_guard() -> impl Strategy<Value = Guard> {
    let expect =
        prop_oneof![Just(Expect::Absent), Just(Expect::Present), any_value().prop_map(Expect::Value)];
    (any_key(), expect).prop_map(|(key, expect)| Guard { key, expect })
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (any_key(), any_value()).prop_map(|(key, value)| Write::Put(key, value)),
        1 => any_key().prop_map(Write::Delete),
    ]
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let change = (prop::collection::vec(any_guard(), 0..3), prop::collection::vec(any_write(), 0..3))
        .prop_map(|(guards, writes)| Change { guards, writes });
    prop::collection::vec(change, 0..4).prop_map(|changes| Batch { epoch: None, changes })
}

fn holds(model: &Model, guard: &Guard) -> bool {
    let found = model.get(&guard.key);
    match &guard.expect {
        Expect::Absent => found.is_none(),
        Expect::Present => found.is_some(),
        Expect::Value(value) => found == Some(value),
    }
}

fn apply(model: &mut Model, batch: &Batch) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for change in &batch.changes {
        let refusing = change.guards.iter().position(|guard| !holds(model, guard));
        outcomes.push(refusing.map_or(Outcome::Applied, |guard| Outcome::Refused { guard }));
        for write in change.writes.iter().filter(|_| refusing.is_none()) {
            match write {
                Write::Put(key, value) => drop(model.insert(key.clone(), value.clone())),
                Write::Delete(key) => drop(model.remove(key)),
            }
        }
    }
    outcomes
}

fn follow(model: &mut Model, entries: Vec<FeedEntry>) {
    for (key, value) in entries.into_iter().flat_map(|entry| entry.changes) {
        match value {
            Some(value) => drop(model.insert(key, value)),
            None => drop(model.remove(&key)),
        }
    }
}

/// Outcomes, contents and feed are those of the model, after each of many sequences.
pub(crate) async fn random_batches_do_what_the_model_does(bench: &Bench) {
    let runtime = tokio::runtime::Handle::current();
    let run = || {
        let mut runner =
            TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
        let sequences = prop::collection::vec(any_batch(), 1..24);
        runner.run(&sequences, |batches| runtime.block_on(compare(bench, batches)))
    };
    tokio::task::block_in_place(run).unwrap_or_else(|failure| panic!("{failure}"));
}

async fn compare(bench: &Bench, batches: Vec<Batch>) -> TestCaseResult {
    let before = bench.first().view().await.unwrap();
    let start = before.position();
    let mut model: Model = before.scan(&keys::buckets(), 1000).unwrap().entries.into_iter().collect();
    let mut followed = model.clone();
    for (number, batch) in batches.into_iter().enumerate() {
        let catalog = &bench.handles[number % bench.handles.len()];
        match catalog.commit(batch.clone()).await {
            Ok(committed) => prop_assert_eq!(committed.outcomes, apply(&mut model, &batch)),
            Err(CatalogError::KeyTwice { .. }) => prop_assert!(batch.check().is_err()),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
    let view = bench.last().view().await.unwrap();
    let found: Model = view.scan(&keys::buckets(), 1000).unwrap().entries.into_iter().collect();
    prop_assert_eq!(&found, &model);
    if view.position() > start {
        let mut feed = feed_from(bench.first(), start).await;
        follow(&mut followed, take_until(&mut feed, view.position()).await);
    }
    prop_assert_eq!(&followed, &model);
    Ok(())
}
