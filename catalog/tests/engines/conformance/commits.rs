//! Batches: guards, the gate, limits, positions.

use std::sync::Arc;

use bytes::Bytes;
use diptych_core::ids::Epoch;
use diptych_core::keys::{self, Key};
use diptych_core::records::Gate;

use super::{Bench, expect, key, put, put_all, read, value};
use diptych_catalog::{Batch, Catalog, CatalogError, Change, Expect, Guard, Outcome, Write};

/// One change of a batch is refused, the others are done.
pub(crate) async fn a_guard_that_does_not_hold_refuses_its_change_only(bench: &Bench) {
    let catalog = bench.first();
    put_all(catalog, None, vec![put("taken", "1")]).await;
    let changes = vec![
        Change {
            guards: vec![expect("new", Expect::Absent)],
            writes: vec![put("new", "1"), put("new2", "1")],
        },
        Change {
            guards: vec![expect("other", Expect::Absent), expect("taken", value("2"))],
            writes: vec![put("taken", "3"), put("beside", "3")],
        },
        Change { guards: vec![expect("newer", Expect::Absent)], writes: vec![put("newer", "1")] },
    ];
    let committed = catalog.commit(Batch { epoch: None, changes }).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Applied, Outcome::Refused { guard: 1 }, Outcome::Applied]);
    assert_eq!(read(catalog, "new2").await.as_deref(), Some("1"));
    assert_eq!(read(catalog, "newer").await.as_deref(), Some("1"));
    assert_eq!(read(catalog, "taken").await.as_deref(), Some("1"));
    assert_eq!(read(catalog, "beside").await, None);
}

/// The three conditions, on a key that is there, one that is empty, and one that is not there.
pub(crate) async fn absent_present_and_value_mean_what_they_say(bench: &Bench) {
    let catalog = bench.first();
    put_all(catalog, None, vec![put("full", "x"), put("empty", "")]).await;
    let cases = [
        ("full", Expect::Absent, false),
        ("full", Expect::Present, true),
        ("full", value("x"), true),
        ("full", value(""), false),
        ("full", value("xx"), false),
        ("empty", Expect::Absent, false),
        ("empty", Expect::Present, true),
        ("empty", value(""), true),
        ("missing", Expect::Absent, true),
        ("missing", Expect::Present, false),
        ("missing", value(""), false),
    ];
    for (name, condition, holds) in cases {
        let guards = vec![expect(name, condition.clone())];
        let committed = catalog
            .commit(Batch::one(None, Change { guards, writes: vec![put("done", name)] }))
            .await
            .unwrap();
        let wanted = if holds { Outcome::Applied } else { Outcome::Refused { guard: 0 } };
        assert_eq!(committed.outcomes, [wanted], "{name} {condition:?}");
    }
}

/// Absent, closed, sealed and other epochs are refused by name.
pub(crate) async fn a_commit_passes_only_a_gate_open_at_its_epoch(bench: &Bench) {
    let catalog = bench.first();
    let epoch = Epoch(3);
    let commit = |writes| catalog.commit(Batch::one(Some(epoch), Change::blind(writes)));
    let refused = commit(vec![put("k", "0")]).await.unwrap_err();
    assert!(
        matches!(refused, CatalogError::GateClosed { epoch: Epoch(3), found: Gate::Closed }),
        "{refused:?}"
    );
    for gate in [Gate::Closed, Gate::Open(Epoch(2)), Gate::Open(Epoch(4)), Gate::Sealed(epoch)] {
        bench.set_gate(gate).await;
        let refused = commit(vec![put("k", "0")]).await.unwrap_err();
        assert!(
            matches!(refused, CatalogError::GateClosed { epoch: Epoch(3), found } if found == gate),
            "{gate:?}: {refused:?}"
        );
    }
    assert_eq!(read(catalog, "k").await, None);
    bench.set_gate(Gate::Open(epoch)).await;
    assert!(commit(vec![put("k", "1")]).await.unwrap().all_applied());
    assert_eq!(read(bench.last(), "k").await.as_deref(), Some("1"));
}

/// Commits that race with the closing are either before it or refused.
pub(crate) async fn no_commit_follows_the_closing_of_the_gate(bench: &Bench) {
    bench.set_gate(Gate::Open(Epoch(1))).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let catalog = Arc::clone(&bench.handles[writer % bench.handles.len()]);
            tokio::spawn(async move {
                let mut newest = None;
                loop {
                    let change = Change::blind(vec![put(&format!("w{writer}"), "x")]);
                    match catalog.commit(Batch::one(Some(Epoch(1)), change)).await {
                        Ok(committed) => newest = Some(committed.position),
                        Err(CatalogError::GateClosed { .. }) => return newest,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    let watched = key("w0");
    while bench.last().view().await.unwrap().get(&watched).unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let closed = bench.set_gate(Gate::Closed).await;
    for writer in writers {
        let newest = writer.await.unwrap();
        assert!(newest.is_none_or(|newest| newest < closed), "{newest:?} came after {closed:?}");
    }
}

/// What a site owns in either role does not ask the gate.
pub(crate) async fn a_batch_without_epoch_passes_a_closed_gate(bench: &Bench) {
    bench.set_gate(Gate::Closed).await;
    put_all(bench.first(), None, vec![Write::Put(keys::map(&bench.site()), Bytes::from_static(b"map"))])
        .await;
}

/// Written twice, in one change or two, or guarded by one and written by the other: refused. Guarded by both: fine.
pub(crate) async fn a_key_in_two_changes_is_refused(bench: &Bench) {
    let catalog = bench.first();
    let guarding =
        |name, other| Change { guards: vec![expect(name, Expect::Absent)], writes: vec![put(other, "1")] };
    let twice = [
        vec![Change::blind(vec![put("k", "1"), put("k", "2")])],
        vec![Change::blind(vec![put("k", "1"), Write::Delete(key("k"))])],
        vec![Change::blind(vec![put("k", "1")]), Change::blind(vec![put("k", "2")])],
        vec![Change::blind(vec![put("k", "1")]), guarding("k", "other")],
        vec![guarding("k", "other"), Change::blind(vec![put("k", "1")])],
    ];
    for changes in twice {
        let refused = catalog.commit(Batch { epoch: None, changes }).await.unwrap_err();
        assert!(matches!(&refused, CatalogError::KeyTwice { key } if key == "b/k"), "{refused:?}");
    }
    assert_eq!(read(catalog, "other").await, None);
    let changes = vec![guarding("k", "one"), guarding("k", "two"), guarding("three", "three")];
    assert!(catalog.commit(Batch { epoch: None, changes }).await.unwrap().all_applied());
}

/// 65 changes, or more than 1 MiB.
pub(crate) async fn a_batch_over_a_limit_is_refused(bench: &Bench) {
    let catalog = bench.first();
    bench.set_gate(Gate::Open(Epoch(1))).await;
    let changes = (0..65).map(|number| Change::blind(vec![put(&format!("k{number}"), "1")])).collect();
    let refused = catalog.commit(Batch { epoch: Some(Epoch(1)), changes }).await.unwrap_err();
    assert!(matches!(refused, CatalogError::TooLarge { changes: 65, .. }), "{refused:?}");
    let large = Write::Put(key("large"), Bytes::from(vec![0; 1 << 20]));
    let refused = catalog.commit(Batch::one(Some(Epoch(1)), Change::blind(vec![large]))).await.unwrap_err();
    assert!(matches!(refused, CatalogError::TooLarge { changes: 1, .. }), "{refused:?}");
    assert_eq!(read(catalog, "k0").await, None);
}

/// 64 changes of several guards and writes, near 1 MiB together.
pub(crate) async fn a_batch_at_the_limits_is_taken(bench: &Bench) {
    let catalog = bench.first();
    bench.set_gate(Gate::Open(Epoch(1))).await;
    let filling = Bytes::from(vec![0xa5; 3800]);
    let changes = (0..64).map(|number| {
        let name = |part: &str| Key([b"b/".as_slice(), format!("{number}-{part}").as_bytes()].concat());
        let guard = |part: u32| Guard { key: name(&part.to_string()), expect: Expect::Absent };
        let writes = (0..4).map(|part| Write::Put(name(&part.to_string()), filling.clone()));
        let deletes = (0..60).map(|part| Write::Delete(name(&format!("gone{part}"))));
        Change { guards: (0..8).map(guard).collect(), writes: writes.chain(deletes).collect() }
    });
    let batch = Batch { epoch: Some(Epoch(1)), changes: changes.collect() };
    assert!((900_000..=1 << 20).contains(&batch.bytes()), "{} bytes", batch.bytes());
    let committed = catalog.commit(batch).await.unwrap();
    assert!(committed.all_applied());
    let view = bench.last().view().await.unwrap();
    assert_eq!(view.scan(&keys::buckets(), 1000).unwrap().entries.len(), 256);
}

/// One change, all or nothing.
pub(crate) async fn a_mirror_writes_thousands_of_keys_at_once(bench: &Bench) {
    let catalog = bench.first();
    let writes: Vec<Write> =
        (0..3_500).map(|number| put(&format!("{number:05}"), "a value of some bytes")).collect();
    let batch = Batch::one(None, Change { guards: vec![expect("gate", Expect::Present)], writes });
    let refused = catalog.commit(batch.clone()).await.unwrap();
    assert_eq!(refused.outcomes, [Outcome::Refused { guard: 0 }]);
    put_all(catalog, None, vec![put("gate", "open")]).await;
    let committed = catalog.commit(batch).await.unwrap();
    assert!(committed.all_applied());
    let view = bench.last().view().await.unwrap();
    assert!(view.position() >= committed.position);
    assert_eq!(view.scan(&keys::buckets(), 5000).unwrap().entries.len(), 3_501);
}

/// From whichever process they come.
pub(crate) async fn positions_grow_with_each_commit(bench: &Bench) {
    let mut newest = bench.first().position().await.unwrap();
    for number in 0..20 {
        let catalog = &bench.handles[number % bench.handles.len()];
        let committed = put_all(catalog, None, vec![put("k", &number.to_string())]).await;
        assert_eq!(committed.position.incarnation, newest.incarnation);
        assert!(committed.position > newest, "{:?} after {newest:?}", committed.position);
        newest = committed.position;
        assert!(bench.last().position().await.unwrap() >= newest);
    }
}

/// Nothing is written, and the answer tells a position that holds what refused it.
pub(crate) async fn a_refused_batch_moves_nothing(bench: &Bench) {
    let catalog = bench.first();
    let before = put_all(catalog, None, vec![put("k", "1")]).await.position;
    let change = Change { guards: vec![expect("k", Expect::Absent)], writes: vec![put("k", "2")] };
    let committed = catalog.commit(Batch::one(None, change)).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Refused { guard: 0 }]);
    assert_eq!(committed.position, before);
    assert_eq!(catalog.position().await.unwrap(), before);
}

/// And a key that was deleted can be made again.
pub(crate) async fn a_delete_removes_and_a_second_one_does_nothing(bench: &Bench) {
    let catalog = bench.first();
    put_all(catalog, None, vec![put("k", "1")]).await;
    put_all(catalog, None, vec![Write::Delete(key("k"))]).await;
    assert_eq!(read(bench.last(), "k").await, None);
    put_all(catalog, None, vec![Write::Delete(key("k"))]).await;
    let change = Change { guards: vec![expect("k", Expect::Absent)], writes: vec![put("k", "2")] };
    assert!(catalog.commit(Batch::one(None, change)).await.unwrap().all_applied());
    assert_eq!(read(bench.last(), "k").await.as_deref(), Some("2"));
}

/// Four writers, each adds one by compare until it has done so 25 times.
pub(crate) async fn counting_by_compare_loses_no_update(bench: &Bench) {
    put_all(bench.first(), None, vec![put("count", "0")]).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let catalog = Arc::clone(&bench.handles[writer % bench.handles.len()]);
            tokio::spawn(async move {
                for _ in 0..25 {
                    while !count_once(&catalog).await {}
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(read(bench.last(), "count").await.as_deref(), Some("100"));
}

async fn count_once(catalog: &Arc<dyn Catalog>) -> bool {
    let found = read(catalog, "count").await.unwrap();
    let next = (found.parse::<u32>().unwrap() + 1).to_string();
    let change = Change { guards: vec![expect("count", value(&found))], writes: vec![put("count", &next)] };
    catalog.commit(Batch::one(None, change)).await.unwrap().all_applied()
}

/// Zero bytes, FF bytes, and empty values.
pub(crate) async fn any_byte_may_stand_in_keys_and_values(bench: &Bench) {
    let all: Vec<u8> = (0..=255).collect();
    let keys = [b"h/\0".as_slice(), b"h/\xff\xff", b"h/\0\xff\0\x01", &[b"h/".as_slice(), &all].concat()];
    let writes = keys.map(|key| Write::Put(Key(key.to_vec()), Bytes::from(all.clone())));
    put_all(bench.first(), None, writes.to_vec()).await;
    let view = bench.last().view().await.unwrap();
    for key in keys {
        assert_eq!(
            view.get(&Key(key.to_vec())).unwrap(),
            Some(Bytes::from(all.clone())),
            "{}",
            key.escape_ascii()
        );
    }
}
