//! Reading: what a view shows, and ranges.

use std::sync::Arc;
use std::time::Duration;

use diptych_core::ids::BucketId;
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::records::Position;

use super::{Bench, key, put, put_all};
use diptych_catalog::{Catalog, View, Write};

/// Whichever process committed it.
pub(crate) async fn a_view_shows_what_was_committed_before_it(bench: &Bench) {
    each_commit_shows(bench, async |reader, _| reader.view().await.unwrap()).await;
}

/// One from a position lacks nothing up to there, whichever process committed it.
pub(crate) async fn a_view_from_a_position_shows_what_was_committed_up_to_it(bench: &Bench) {
    each_commit_shows(bench, async |reader, committed| reader.view_from(committed).await.unwrap()).await;
}

async fn each_commit_shows(
    bench: &Bench,
    view_after: impl AsyncFn(&Arc<dyn Catalog>, Position) -> Box<dyn View>,
) {
    for number in 0..50 {
        let text = number.to_string();
        let writer = &bench.handles[number % bench.handles.len()];
        let committed = put_all(writer, None, vec![put("k", &text)]).await.position;
        for reader in &bench.handles {
            let view = view_after(reader, committed).await;
            assert!(view.position() >= committed);
            assert_eq!(view.get(&key("k")).unwrap().as_deref(), Some(text.as_bytes()));
        }
    }
}

/// A recent one lacks what is younger at most.
pub(crate) async fn a_recent_view_shows_what_is_old_enough(bench: &Bench) {
    for number in 0..20 {
        let text = number.to_string();
        put_all(bench.first(), None, vec![put("k", &text)]).await;
        for reader in &bench.handles {
            let view = reader.recent_view(Duration::ZERO).await.unwrap();
            assert_eq!(view.get(&key("k")).unwrap().as_deref(), Some(text.as_bytes()), "nothing may be late");
            let view = reader.recent_view(Duration::from_mins(1)).await.unwrap();
            assert_eq!(view.get(&key("k")).unwrap().as_deref(), Some(text.as_bytes()), "it was seen already");
        }
    }
}

/// Later commits do not show in it.
pub(crate) async fn a_view_stays_as_it_was(bench: &Bench) {
    let before = put_all(bench.first(), None, vec![put("k", "old")]).await.position;
    let view = bench.first().view().await.unwrap();
    assert_eq!(view.position(), before);
    put_all(bench.first(), None, vec![put("k", "new"), put("k2", "new")]).await;
    assert_eq!(view.position(), before);
    assert_eq!(view.get(&key("k")).unwrap().as_deref(), Some(b"old".as_slice()));
    assert_eq!(view.get(&key("k2")).unwrap(), None);
    assert_eq!(view.scan(&keys::buckets(), 10).unwrap().entries.len(), 1);
}

/// With every size of page.
pub(crate) async fn pages_of_a_range_join_without_gap(bench: &Bench) {
    let names: Vec<String> = (0..23).map(|number| format!("{number:03}")).collect();
    put_all(bench.first(), None, names.iter().map(|name| put(name, name)).collect()).await;
    let view = bench.last().view().await.unwrap();
    let expected: Vec<Key> = names.iter().map(|name| key(name)).collect();
    for limit in [1, 2, 22, 23, 24, 1000] {
        assert_eq!(all_keys(view.as_ref(), keys::buckets(), limit), expected, "pages of {limit}");
    }
    let page = view.scan(&keys::buckets(), 23).unwrap();
    assert_eq!((page.entries.len(), page.next), (23, None));
    let page = view.scan(&keys::buckets(), 22).unwrap();
    assert_eq!((page.entries.len(), page.next), (22, Some(key("022"))));
}

fn all_keys(view: &dyn View, mut range: KeyRange, limit: usize) -> Vec<Key> {
    let mut found = Vec::new();
    loop {
        let page = view.scan(&range, limit).unwrap();
        assert!(page.entries.len() <= limit);
        found.extend(page.entries.into_iter().map(|(key, _)| key));
        match page.next {
            Some(next) => range.start = next,
            None => return found,
        }
    }
}

/// And a range that ends before it begins is empty.
pub(crate) async fn a_range_ends_before_its_end(bench: &Bench) {
    put_all(bench.first(), None, ["a", "b", "c", "d"].map(|name| put(name, name)).to_vec()).await;
    let view = bench.last().view().await.unwrap();
    let range = |start, end| KeyRange { start: key(start), end: key(end) };
    let found = |start, end| all_keys(view.as_ref(), range(start, end), 10);
    assert_eq!(found("b", "d"), [key("b"), key("c")]);
    assert_eq!(found("b", "b"), []);
    assert_eq!(found("d", "a"), []);
    assert_eq!(found("bb", "zz"), [key("c"), key("d")]);
    assert_eq!(view.last(&range("d", "a")).unwrap(), None);
}

/// Not what stands beyond it.
pub(crate) async fn the_last_key_of_a_range_is_found(bench: &Bench) {
    put_all(bench.first(), None, ["a1", "a2", "b1"].map(|name| put(name, name)).to_vec()).await;
    let view = bench.last().view().await.unwrap();
    let last = |prefix: &str| view.last(&keys::prefix_range(&key(prefix).0)).unwrap().map(|(key, _)| key);
    assert_eq!(last("a"), Some(key("a2")));
    assert_eq!(last(""), Some(key("b1")));
    assert_eq!(last("c"), None);
    assert_eq!(last("A"), None);
}

/// Object keys with every byte, in two buckets whose ids are neighbours.
pub(crate) async fn a_listing_by_prefix_keeps_to_its_bucket(bench: &Bench) {
    let (mine, next) = (BucketId([7, 7, 7, 7, 7, 7, 7, 0xff]), BucketId([7, 7, 7, 7, 7, 7, 8, 0]));
    let objects: [&[u8]; 6] = [b"", b"\0", b"a", b"a\0b", b"a\xff", b"b"];
    let heads = |bucket| objects.map(|object| Write::Put(keys::head(bucket, object), object.to_vec().into()));
    put_all(bench.first(), None, heads(mine).into_iter().chain(heads(next)).collect()).await;
    let view = bench.last().view().await.unwrap();
    let listed = |prefix: &[u8]| -> Vec<Vec<u8>> {
        let found = all_keys(view.as_ref(), keys::heads(mine, prefix), 2);
        found.iter().map(|key| keys::object_of_head(key).unwrap()).map(|(_, object)| object).collect()
    };
    assert_eq!(listed(b""), objects.map(<[u8]>::to_vec));
    assert_eq!(listed(b"a"), [b"a".to_vec(), b"a\0b".to_vec(), b"a\xff".to_vec()]);
    assert_eq!(listed(b"a\0"), [b"a\0b".to_vec()]);
    assert_eq!(listed(b"c"), Vec::<Vec<u8>>::new());
}
