//! What nothing names goes, and nothing goes that the other site has not confirmed.

use bytes::Bytes;
use diptych_core::ids::{BlobId, BucketId, Epoch, ExtentId, Hlc, RingKeyNumber, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Blob, Content, DeadMark, Etag, Extent, ExtentKind, ExtentState, Head, HeadBody, Holds, Layout,
    LedgerEntry, Noted, Object, Piece, Position, Record, SettledAs, Settlement, VersionRef, Wanted,
};
use diptych_site::collector::Collector;
use diptych_site::inventory::Inventory;

use crate::harness::{EPOCH, East, at_once, west};

const BUCKET: BucketId = BucketId([3; 8]);
const BLOB: BlobId = BlobId([4; 16]);

fn version(number: u8, extent: ExtentId, sealed: u32) -> Head {
    let piece = Piece {
        extent,
        first_chunk: 0,
        offset: 0,
        sealed,
        plain: sealed - 16,
        last: true,
        layout: Layout::Plain,
    };
    let object = Object {
        size: u64::from(sealed) - 16,
        etag: Etag { md5: [number; 16], parts: 0 },
        modified_ms: 0,
        headers: vec![],
        tags: vec![],
        content: Content::Inline(vec![Blob { id: BLOB, ring_key: RingKeyNumber(1), pieces: vec![piece] }]),
    };
    let at = VersionRef { epoch: EPOCH, hlc: Hlc(u64::from(number)), version: VersionId([number; 16]) };
    Head::new(at, None, HeadBody::Object(Box::new(object)))
}

fn older(head: &Head) -> Key {
    keys::older_version(BUCKET, b"key", head.at.epoch, head.at.hlc)
}

async fn passes(east: &East, collector: &mut Collector, count: usize) {
    for _ in 0..count {
        collector.pass(&east.context).await.expect("a pass");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_goes_leaves_the_dead_marks_that_a_crash_lost_and_its_bytes_are_freed() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let old = version(1, stored.extent, 100_000);
    east.put(vec![(older(&old), old.encode())]).await;
    let mut collector = Collector::default();
    passes(&east, &mut collector, 2).await;
    assert_eq!(east.get(&older(&old)).await, None);
    let mark = east.get(&keys::dead_mark(stored.extent, BLOB)).await.expect("a mark");
    assert_eq!(DeadMark::decode(&mark).expect("it reads"), DeadMark { sealed: 100_000 });
    passes(&east, &mut collector, 4).await;
    assert_eq!(east.records().await, 0);
    assert_eq!(east.get(&keys::extent(stored.extent)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_another_version_of_the_key_names_get_no_mark() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let (old, head) = (version(1, stored.extent, 100_000), version(2, stored.extent, 100_000));
    east.put(vec![(older(&old), old.encode()), (keys::head(BUCKET, b"key"), head.encode())]).await;
    passes(&east, &mut Collector::default(), 4).await;
    assert_eq!(east.get(&older(&old)).await, None);
    assert_eq!(east.get(&keys::dead_mark(stored.extent, BLOB)).await, None);
    assert!(east.is_right(&stored).await);
}

fn marked(extent: ExtentId) -> (Key, Vec<u8>) {
    (keys::dead_mark(extent, BLOB), DeadMark { sealed: 100_000 }.encode())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_a_conflict_version_names_stay_whatever_is_marked() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let kept = version(1, stored.extent, 100_000);
    let conflict = keys::conflict(BUCKET, b"key", kept.at.version);
    east.put(vec![(conflict.clone(), kept.encode()), marked(stored.extent)]).await;
    passes(&east, &mut Collector::default(), 4).await;
    assert!(east.is_right(&stored).await, "it may be restored");
    let discarded = Settlement { at_ms: 1, outcome: SettledAs::Discarded };
    let entry = LedgerEntry {
        at_ms: 1,
        bucket: BUCKET,
        key: b"key".to_vec(),
        version: Some(kept.at),
        what: Noted::Conflict,
        settled: Some(discarded),
    };
    let noted = keys::ledger(EPOCH, LedgerEntry::number(kept.at.version));
    east.put(vec![(noted, entry.encode())]).await;
    passes(&east, &mut Collector::default(), 6).await;
    assert_eq!((east.get(&conflict).await, east.records().await), (None, 0), "nobody wants it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extent_whose_mark_was_lifted_before_the_other_site_had_confirmed_stays() {
    let east = East::start(Some(west()), at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let (mark, dead) = marked(stored.extent);
    east.put(vec![(mark.clone(), dead)]).await;
    let mut collector = Collector::default();
    passes(&east, &mut collector, 1).await;
    let lifted = diptych_catalog::Change::blind(vec![diptych_catalog::Write::Delete(mark)]);
    east.context.catalog.commit(diptych_catalog::Batch::one(None, lifted)).await.expect("it commits");
    east.confirm().await;
    passes(&east, &mut collector, 3).await;
    assert!(east.is_right(&stored).await, "a version names it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_extent_the_catalog_no_longer_knows_are_freed() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let gone =
        diptych_catalog::Change::blind(vec![diptych_catalog::Write::Delete(keys::extent(stored.extent))]);
    east.context.catalog.commit(diptych_catalog::Batch::one(None, gone)).await.expect("it commits");
    passes(&east, &mut Collector::default(), 1).await;
    assert_eq!(east.records().await, 0);
    assert_eq!(east.get(&keys::placement(&crate::harness::east(), stored.extent)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_is_freed_after_its_hold_and_not_before_the_other_site_has_confirmed() {
    let mut east = East::start(Some(west()), at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let named = stored.placement.rows[1];
    let alone = diptych_core::records::Placement { rows: vec![named], verified_day: 0 };
    east.put(vec![(keys::placement(&crate::harness::east(), stored.extent), alone.encode())]).await;
    let mut inventory = Inventory::default();
    for _ in 0..2 {
        let found = inventory.pass(&east.context, &east.context.here()).await.expect("a pass");
        assert_eq!((found.status.orphans, found.freed), (5, 0), "the other site has not confirmed anything");
    }
    east.confirm().await;
    east.context.options.orphan_hold = std::time::Duration::from_hours(1);
    let found = inventory.pass(&east.context, &east.context.here()).await.expect("a pass");
    assert_eq!((found.status.orphans, found.freed), (5, 0), "the hold runs");
    east.context.options.orphan_hold = std::time::Duration::ZERO;
    let found = inventory.pass(&east.context, &east.context.here()).await.expect("a pass");
    assert_eq!((found.status.orphans, found.freed), (0, 5));
    assert_eq!(east.records().await, 1, "what is named stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn condemned_rows_wait_for_the_other_site() {
    let east = East::start(Some(west()), at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let raw: Bytes = east.get(&keys::extent(stored.extent)).await.expect("it is there");
    let mut record = diptych_core::records::Extent::decode(&raw).expect("it reads");
    record.state = diptych_core::records::ExtentState::Condemned;
    record.epoch = Epoch(1);
    east.put(vec![(keys::extent(stored.extent), record.encode())]).await;
    let mut collector = Collector::default();
    passes(&east, &mut collector, 2).await;
    assert_eq!(east.records().await, 6);
    east.confirm().await;
    passes(&east, &mut collector, 1).await;
    assert_eq!(east.records().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_checkpoint_stays_while_the_one_that_supersedes_it_is_on_its_way() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let raw = east.get(&keys::extent(stored.extent)).await.expect("it is there");
    let old = Extent {
        state: ExtentState::Condemned,
        holds: Holds::Checkpoint(Position::default()),
        ..Extent::decode(&raw).expect("it reads")
    };
    let kind = ExtentKind::Checkpoint;
    let wanted = Wanted { kind, bytes: 1, since_ms: 1, revision: 1 };
    let wanted_key = keys::wanted(&crate::harness::east(), ExtentId([9; 16]));
    east.put(vec![(keys::extent(stored.extent), old.encode()), (wanted_key.clone(), wanted.encode())]).await;
    let mut collector = Collector::default();
    passes(&east, &mut collector, 3).await;
    assert_eq!(east.records().await, 6, "a resurrection of this site would need it");
    let here = diptych_catalog::Change::blind(vec![diptych_catalog::Write::Delete(wanted_key)]);
    east.context.catalog.commit(diptych_catalog::Batch::one(None, here)).await.expect("it commits");
    passes(&east, &mut collector, 3).await;
    assert_eq!(east.records().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_its_device_lacks_is_found_lost() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let whole = Inventory::default().pass(&east.context, &east.context.here()).await.expect("a pass");
    assert!(whole.lost.is_empty() && whole.status.orphans == 0, "{whole:?}");
    let mut placement = stored.placement.clone();
    placement.rows[2].instance.0[0] ^= 1;
    east.put(vec![(keys::placement(&crate::harness::east(), stored.extent), placement.encode())]).await;
    let found = Inventory::default().pass(&east.context, &east.context.here()).await.expect("a pass");
    let lost = placement.rows[2];
    assert_eq!(found.lost.into_iter().collect::<Vec<_>>(), [(stored.extent, lost.row, lost.instance)]);
    assert_eq!(found.freed, 1, "the record that is there is another one");
}
