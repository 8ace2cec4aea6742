//! Feeds: order, completeness, what is left out, where they may begin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::keys::{self, Key};
use diptych_core::records::Position;
use futures::StreamExt;

use super::{Bench, DEADLINE, expect, feed_from, key, put, put_all, take_until};
use diptych_catalog::{Batch, Change, Expect, FeedEntry, FeedStart, Write};

fn changes(entries: &[FeedEntry]) -> Vec<(Key, Option<Bytes>)> {
    entries.iter().flat_map(|entry| entry.changes.clone()).collect()
}

fn assert_in_order(entries: &[FeedEntry]) {
    assert!(entries.windows(2).all(|pair| pair[0].position < pair[1].position), "{entries:?}");
}

/// Each with its position; of a batch only what was applied.
pub(crate) async fn a_feed_carries_every_commit_in_order(bench: &Bench) {
    let start = bench.first().position().await.unwrap();
    let mut live = feed_from(bench.last(), start).await;
    let one = put_all(bench.first(), None, vec![put("a", "1"), put("b", "1")]).await.position;
    let refused = Change { guards: vec![expect("a", Expect::Absent)], writes: vec![put("c", "2")] };
    let batch = Batch { epoch: None, changes: vec![refused, Change::blind(vec![put("d", "2")])] };
    let two = bench.last().commit(batch).await.unwrap().position;
    let deletes = vec![Write::Delete(key("a")), Write::Delete(key("never"))];
    let three = put_all(bench.first(), None, deletes).await.position;

    let later = feed_from(bench.first(), start).await;
    for mut feed in [std::mem::replace(&mut live, futures::stream::empty().boxed()), later] {
        let entries = take_until(&mut feed, three).await;
        assert_in_order(&entries);
        let with_changes: Vec<&FeedEntry> =
            entries.iter().filter(|entry| !entry.changes.is_empty()).collect();
        assert_eq!(with_changes.iter().map(|entry| entry.position).collect::<Vec<_>>(), [one, two, three]);
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let mut first = with_changes[0].changes.clone();
        first.sort();
        assert_eq!(first, [(key("a"), text("1")), (key("b"), text("1"))]);
        assert_eq!(with_changes[1].changes, [(key("d"), text("2"))]);
        assert_eq!(with_changes[2].changes, [(key("a"), None)]);
    }
}

/// From each position on: just what came after it.
pub(crate) async fn a_feed_resumes_where_it_was_left(bench: &Bench) {
    let mut positions = vec![bench.first().position().await.unwrap()];
    for number in 0..10 {
        positions.push(put_all(bench.first(), None, vec![put(&format!("k{number}"), "1")]).await.position);
    }
    let newest = positions[10];
    for (number, position) in positions.iter().enumerate().take(10) {
        let mut feed = feed_from(bench.last(), *position).await;
        let found: Vec<Key> =
            changes(&take_until(&mut feed, newest).await).into_iter().map(|(key, _)| key).collect();
        let expected: Vec<Key> = (number..10).map(|number| key(&format!("k{number}"))).collect();
        assert_eq!(found, expected);
    }
}

/// The position of such a commit comes all the same.
pub(crate) async fn what_a_site_keeps_to_itself_is_not_fed(bench: &Bench) {
    let start = bench.first().position().await.unwrap();
    let site = bench.site();
    let kept = Write::Put(keys::site_vote(&site), Bytes::from_static(b"vote"));
    let mixed = vec![kept.clone(), Write::Put(keys::map(&site), Bytes::from_static(b"map"))];
    let first = put_all(bench.first(), None, mixed).await.position;
    let second = put_all(bench.first(), None, vec![kept]).await.position;
    for handle in &bench.handles {
        let mut feed = feed_from(handle, start).await;
        let entries = take_until(&mut feed, second).await;
        assert_in_order(&entries);
        assert_eq!(entries.last().map(|entry| entry.position), Some(second));
        assert_eq!(entries[0].position, first);
        assert_eq!(changes(&entries), [(keys::map(&site), Some(Bytes::from_static(b"map")))]);
    }
}

/// It says nothing until there is something, and then it does.
pub(crate) async fn a_feed_waits_for_the_next_commit(bench: &Bench) {
    let start = put_all(bench.first(), None, vec![put("k", "1")]).await.position;
    let mut feed = feed_from(bench.last(), start).await;
    let early = tokio::time::timeout(Duration::from_millis(50), feed.next()).await;
    assert!(early.is_err(), "{early:?}");
    let catalog = Arc::clone(bench.first());
    let writer = tokio::spawn(async move { put_all(&catalog, None, vec![put("k", "2")]).await.position });
    let entry = tokio::time::timeout(DEADLINE, feed.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(entry.position, writer.await.unwrap());
    assert_eq!(entry.changes, [(key("k"), Some(Bytes::from_static(b"2")))]);
}

/// Below what was kept; from there on nothing is missing.
pub(crate) async fn a_compacted_feed_asks_for_a_snapshot(bench: &Bench) {
    let catalog = bench.first();
    let start = catalog.position().await.unwrap();
    put_all(catalog, None, vec![put("a", "1")]).await;
    let keep = put_all(catalog, None, vec![put("b", "1")]).await.position;
    let newest = put_all(catalog, None, vec![put("c", "1")]).await.position;
    catalog.compact_feed(keep).await.unwrap();
    match catalog.feed(start).await.unwrap() {
        FeedStart::Compacted { oldest } => assert_eq!(oldest, keep),
        FeedStart::From(_) => panic!("{start:?} was compacted away"),
    }
    let mut feed = feed_from(catalog, keep).await;
    let found = changes(&take_until(&mut feed, newest).await);
    assert_eq!(found, [(key("c"), Some(Bytes::from_static(b"1")))]);
    catalog.compact_feed(keep).await.unwrap();
    catalog.compact_feed(start).await.unwrap();
    assert!(matches!(catalog.feed(keep).await.unwrap(), FeedStart::From(_)));
}

/// And a position that this catalog has not reached.
pub(crate) async fn another_incarnation_asks_for_a_snapshot(bench: &Bench) {
    let catalog = bench.first();
    let position = put_all(catalog, None, vec![put("a", "1")]).await.position;
    let other = Position { incarnation: position.incarnation ^ 1, ..position };
    let never = Position { revision: position.revision + 1_000_000, ..position };
    for strange in [other, never, Position::default()] {
        match catalog.feed(strange).await.unwrap() {
            FeedStart::Compacted { oldest } => assert_eq!(oldest.incarnation, position.incarnation),
            FeedStart::From(_) => panic!("{strange:?} is no position of this catalog"),
        }
    }
}

/// Commits from all processes at once, followed live.
pub(crate) async fn a_follower_that_applies_the_feed_has_the_same_keys(bench: &Bench) {
    let start = bench.first().position().await.unwrap();
    let mut feed = feed_from(bench.first(), start).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let catalog = Arc::clone(&bench.handles[writer % bench.handles.len()]);
            tokio::spawn(async move {
                for number in 0..50 {
                    let name = format!("k{}", (number * 7 + writer) % 20);
                    let write = if number % 5 == 4 {
                        Write::Delete(key(&name))
                    } else {
                        put(&name, &format!("{writer}-{number}"))
                    };
                    put_all(&catalog, None, vec![write]).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let newest = put_all(bench.first(), None, vec![put("end", "")]).await.position;
    let entries = take_until(&mut feed, newest).await;
    assert_in_order(&entries);
    let mut followed = BTreeMap::new();
    for (key, value) in changes(&entries) {
        match value {
            Some(value) => drop(followed.insert(key, value)),
            None => drop(followed.remove(&key)),
        }
    }
    let view = bench.last().view().await.unwrap();
    let page = view.scan(&keys::buckets(), 1000).unwrap();
    assert_eq!(followed.into_iter().collect::<Vec<_>>(), page.entries);
}

/// A snapshot and the feed from its position make the whole.
pub(crate) async fn a_view_and_the_feed_after_it_miss_nothing(bench: &Bench) {
    let catalog = Arc::clone(bench.first());
    let writer = tokio::spawn(async move {
        for number in 0..200 {
            put_all(&catalog, None, vec![put(&format!("{number:03}"), "1")]).await;
        }
        catalog.position().await.unwrap()
    });
    let watched = key("020");
    let view = loop {
        let view = bench.last().view().await.unwrap();
        if view.get(&watched).unwrap().is_some() {
            break view;
        }
    };
    let mut found: Vec<Key> = Vec::new();
    found.extend(view.scan(&keys::buckets(), 1000).unwrap().entries.into_iter().map(|(key, _)| key));
    let mut feed = feed_from(bench.last(), view.position()).await;
    let newest = writer.await.unwrap();
    if view.position() < newest {
        found.extend(changes(&take_until(&mut feed, newest).await).into_iter().map(|(key, _)| key));
    }
    assert_eq!(found, (0..200).map(|number| key(&format!("{number:03}"))).collect::<Vec<_>>());
}
