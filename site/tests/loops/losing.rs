//! A takeover by a site that lacks bytes: the last whole versions are head again, the ledger says what was lost, and what comes
//! back is settled.

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Write};
use diptych_core::ids::{
    BlobId, BucketId, DeviceId, Epoch, ExtentId, Hlc, InstanceId, RingKeyNumber, Row, VersionId,
};
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Blob, Bucket, Content, Cursor, Etag, Extent, ExtentKind, ExtentState, Head, HeadBody, Holds, Layout,
    LedgerEntry, Noted, Object, Piece, PlacedRow, Placement, Position, Promise, Record, SettledAs,
    Settlement, Term, VersionRef, Versioning, Wanted,
};
use diptych_site::absorb::absorb;
use diptych_site::collector::Collector;
use diptych_site::lost::lacking::lacking;
use diptych_site::lost::{self, is_accounted};
use diptych_wire::peer::UnseenTerm;

use crate::harness::{EPOCH, East, NEEDED, ROWS, at_once, east, west};

const BUCKET: BucketId = BucketId([3; 8]);
const KEY: &[u8] = b"key";
const TOOK_OVER: Epoch = Epoch(2);
const BYTES: u32 = 1_000;

fn at(number: u8) -> VersionRef {
    VersionRef { epoch: EPOCH, hlc: Hlc(u64::from(number)), version: VersionId([number; 16]) }
}

fn extent(number: u8) -> ExtentId {
    ExtentId([number; 16])
}

/// A version of the other site's term, with an extent of its own.
fn version(number: u8, replaces: Option<u8>) -> Head {
    let piece = Piece {
        extent: extent(number),
        first_chunk: 0,
        offset: 0,
        sealed: BYTES,
        plain: BYTES - 16,
        last: true,
        layout: Layout::Plain,
    };
    let blob = Blob { id: BlobId([number; 16]), ring_key: RingKeyNumber(1), pieces: vec![piece] };
    let object = Object {
        size: u64::from(BYTES) - 16,
        etag: Etag { md5: [number; 16], parts: 0 },
        modified_ms: 0,
        headers: vec![],
        tags: vec![],
        content: Content::Inline(vec![blob]),
    };
    Head::new(at(number), replaces.map(at), HeadBody::Object(Box::new(object)))
}

fn record(state: ExtentState) -> Vec<u8> {
    let record = Extent {
        state,
        holds: Holds::Data,
        length: BYTES,
        payload: BYTES,
        hash: [0; 32],
        needed: NEEDED,
        rows: vec![(west(), Row(0), ROWS), (east(), Row(ROWS), ROWS)],
        epoch: EPOCH,
        hlc: Hlc(1),
    };
    record.encode()
}

fn older(version: &Head) -> Key {
    keys::older_version(BUCKET, KEY, version.at.epoch, version.at.hlc)
}

fn mark(number: u8) -> (Key, Vec<u8>) {
    let mark = diptych_core::records::DeadMark { sealed: u64::from(BYTES) };
    (keys::dead_mark(extent(number), BlobId([number; 16])), mark.encode())
}

async fn delete(east: &East, key: Key) {
    let gone = Change::blind(vec![Write::Delete(key)]);
    east.context.catalog.commit(Batch::one(None, gone)).await.expect("it commits");
}

/// East was told of an extent, and has it.
async fn has(east: &East, number: u8) {
    let placed = PlacedRow { row: Row(ROWS), device: DeviceId(0), instance: InstanceId([1; 8]) };
    let placement = Placement { rows: vec![placed], verified_day: 0 };
    east.put(vec![
        (keys::extent(extent(number)), record(ExtentState::Live)),
        (keys::placement(&crate::harness::east(), extent(number)), placement.encode()),
    ])
    .await;
    delete(east, keys::wanted(&crate::harness::east(), extent(number))).await;
}

/// East was told of an extent, and lacks it.
async fn lacks(east: &East, number: u8) {
    let wanted = Wanted { kind: ExtentKind::Data, bytes: BYTES, since_ms: 77, revision: 1 };
    east.put(vec![
        (keys::extent(extent(number)), record(ExtentState::Live)),
        (keys::wanted(&crate::harness::east(), extent(number)), wanted.encode()),
    ])
    .await;
}

/// East follows west: version 1, which it has, was replaced by version 2, which it lacks.
async fn told() -> East {
    let east = East::start(Some(west()), at_once()).await;
    let (first, second) = (version(1, None), version(2, Some(1)));
    let bucket = Bucket {
        id: BUCKET,
        namespace: "default".to_owned(),
        created_ms: 0,
        versioning: Versioning::Off,
        promise: Promise::default(),
    };
    has(&east, 1).await;
    lacks(&east, 2).await;
    east.put(vec![
        (keys::bucket("files"), bucket.encode()),
        (older(&first), first.encode()),
        (keys::head(BUCKET, KEY), second.encode()),
        mark(1),
    ])
    .await;
    east
}

async fn took_over() -> East {
    let mut east = told().await;
    east.take_over(TOOK_OVER).await;
    east
}

async fn pass(east: &East) -> lost::Done {
    lost::pass(&east.context).await.expect("a pass")
}

async fn head(east: &East) -> Option<Head> {
    head_of(east, KEY).await
}

async fn head_of(east: &East, key: &[u8]) -> Option<Head> {
    let raw = east.get(&keys::head(BUCKET, key)).await?;
    Some(Head::decode(&raw).expect("it reads"))
}

async fn entry(east: &East, number: u8) -> LedgerEntry {
    let key = keys::ledger(TOOK_OVER, LedgerEntry::number(at(number).version));
    LedgerEntry::decode(&east.get(&key).await.expect("an entry")).expect("it reads")
}

async fn is_done(east: &East) -> bool {
    let view = east.context.catalog.view().await.expect("a view");
    is_accounted(view.as_ref(), &east.context.site, TOOK_OVER).expect("it reads")
}

/// As west hands it over when it is back.
async fn returns_with(east: &East, versions: Vec<Head>) {
    let versions = versions.into_iter().map(|head| (keys::head(BUCKET, KEY), head.encode())).collect();
    let term = UnseenTerm { site: west(), epoch: TOOK_OVER, versions };
    absorb(east.context.catalog.as_ref(), TOOK_OVER, &east.context.cluster_keys, &term)
        .await
        .expect("it is taken in");
}

fn outcome(entry: &LedgerEntry) -> Option<SettledAs> {
    entry.settled.map(|Settlement { outcome, .. }| outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_names_each_object_whose_bytes_are_not_here_page_by_page() {
    let east = told().await;
    for number in 3..6_u8 {
        lacks(&east, number).await;
        east.put(vec![(keys::head(BUCKET, &[number]), version(number, None).encode())]).await;
    }
    let view = east.context.catalog.view().await.expect("a view");
    let page = |after: Option<String>| {
        lacking(view.as_ref(), &east.context.site, after.as_deref(), 3).expect("it reads")
    };
    let first = page(None);
    let second = page(first.next.clone());
    assert_eq!((first.objects.len(), second.objects.len(), second.next), (3, 1, None));
    let named = second.objects.last().expect("one");
    assert_eq!((&*named.bucket, &*named.key), ("files", "key"));
    assert_eq!(named.version, at(2).version.to_string());
    assert_eq!((named.size, named.lacking, named.since_ms), (u64::from(BYTES) - 16, u64::from(BYTES), 77));
    drop(view);
    for number in 2..6 {
        has(&east, number).await;
    }
    let view = east.context.catalog.view().await.expect("a view");
    assert!(lacking(view.as_ref(), &east.context.site, None, 3).expect("it reads").objects.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_whole_version_is_head_again_and_the_ledger_says_what_was_lost() {
    let east = took_over().await;
    assert_eq!(pass(&east).await, lost::Done { lost: 1, settled: 0 });
    let now = head(&east).await.expect("a head");
    assert_eq!((now.at.version, now.at.epoch, now.replaces), (at(1).version, TOOK_OVER, Some(at(2))));
    assert_eq!(now.body, version(1, None).body);
    assert_eq!(east.get(&older(&version(1, None))).await, None, "it stands there once");
    assert_eq!(east.get(&mark(1).0).await, None, "it is not dead any more");
    let kept = east.get(&keys::conflict(BUCKET, KEY, at(2).version)).await.expect("it is kept");
    assert_eq!(Head::decode(&kept).expect("it reads"), version(2, Some(1)));
    let entry = entry(&east, 2).await;
    assert_eq!((entry.bucket, &entry.key[..], entry.version), (BUCKET, KEY, Some(at(2))));
    let size = u64::from(BYTES) - 16;
    assert_eq!(entry.what, Noted::Lost { size, instead: Some(now.at), accepted_ms: None });
    assert_eq!(entry.settled, None);
    assert!(is_done(&east).await);
    assert_eq!(pass(&east).await, lost::Done::default(), "there is nothing more to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_whole_version_is_left_readers_see_nothing() {
    let east = took_over().await;
    delete(&east, keys::placement(&crate::harness::east(), extent(1))).await;
    pass(&east).await;
    let now = head(&east).await.expect("a head");
    assert_eq!((&now.body, now.replaces), (&HeadBody::Tombstone, Some(at(2))));
    assert!(matches!(entry(&east, 2).await.what, Noted::Lost { instead: None, .. }));
    has(&east, 2).await;
    assert_eq!(pass(&east).await.settled, 1);
    assert_eq!(head(&east).await.expect("a head").at.version, at(2).version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_a_person_accepted_says_when() {
    let east = told().await;
    lost::accept(east.context.catalog.as_ref()).await.expect("it is kept");
    let begun_ms = diptych_site::context::now_ms() + 1_000;
    let begun_at = east.position().await;
    let term = Term { holder: crate::harness::east(), taken_over_at: None, begun_at, begun_ms };
    east.put(vec![(keys::term(TOOK_OVER), term.encode())]).await;
    let mut east = east;
    east.take_over(TOOK_OVER).await;
    pass(&east).await;
    let Noted::Lost { accepted_ms, .. } = entry(&east, 2).await.what else { panic!("it is lost") };
    assert!(accepted_ms.is_some_and(|at| at <= begun_ms), "{accepted_ms:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_that_was_cut_short_is_accounted_for_by_the_next_keeper() {
    let east = took_over().await;
    for number in 3..6_u8 {
        lacks(&east, number).await;
        east.put(vec![(keys::head(BUCKET, &[number]), version(number, None).encode())]).await;
    }
    pass(&east).await;
    // As if the keeper had died with one head left and nothing marked.
    delete(&east, keys::site_accounted(&east.context.site)).await;
    east.put(vec![(keys::head(BUCKET, &[5]), version(5, None).encode())]).await;
    let before = head(&east).await;
    assert!(!is_done(&east).await);
    assert_eq!(pass(&east).await.lost, 1, "what gave way before does so once");
    assert_eq!(head(&east).await, before);
    assert_eq!(head_of(&east, &[5]).await.expect("a head").body, HeadBody::Tombstone);
    assert!(is_done(&east).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_when_a_site_follows_itself_is_not_lost() {
    let mut east = told().await;
    let begun_at = east.position().await;
    let term = Term { holder: crate::harness::east(), taken_over_at: None, begun_at, begun_ms: 1 };
    east.put(vec![(keys::term(EPOCH), term.encode())]).await;
    east.take_over(TOOK_OVER).await;
    assert_eq!(pass(&east).await, lost::Done::default());
    assert_eq!(head(&east).await, Some(version(2, Some(1))));
    assert!(is_done(&east).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_whose_term_is_over_changes_nothing() {
    let mut east = told().await;
    east.take_over(TOOK_OVER).await;
    let gate = diptych_core::records::Gate::Open(Epoch(9)).encode();
    east.put(vec![(keys::site_gate(&east.context.site), gate)]).await;
    let refused = lost::pass(&east.context).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(head(&east).await, Some(version(2, Some(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_collected_before_the_loss_is_in_the_ledger() {
    let east = took_over().await;
    let mut collector = Collector::default();
    let confirmed = async || {
        let all = Position { revision: 1 << 40, ..east.position().await };
        let cursor = Cursor { applied: all, confirmed: all };
        east.put(vec![(keys::cursor(&west()), cursor.encode())]).await;
    };
    confirmed().await;
    for _ in 0..4 {
        collector.pass(&east.context).await.expect("a pass");
    }
    let first = version(1, None);
    assert!(east.get(&older(&first)).await.is_some(), "the version that is to be head again is there");
    pass(&east).await;
    for _ in 0..4 {
        collector.pass(&east.context).await.expect("a pass");
    }
    let raw = east.get(&keys::extent(extent(1))).await.expect("its bytes are named");
    assert_eq!(Extent::decode(&raw).expect("it reads").state, ExtentState::Live);
    assert!(east.get(&keys::extent(extent(2))).await.is_some(), "what is lost may come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_head_again_once_it_has_come() {
    let east = took_over().await;
    pass(&east).await;
    assert_eq!(pass(&east).await.settled, 0, "it has not come yet");
    has(&east, 2).await;
    assert_eq!(pass(&east).await, lost::Done { lost: 0, settled: 1 });
    let now = head(&east).await.expect("a head");
    assert_eq!((now.at.version, now.body), (at(2).version, version(2, Some(1)).body));
    assert_eq!(outcome(&entry(&east, 2).await), Some(SettledAs::Restored));
    assert_eq!(east.get(&keys::conflict(BUCKET, KEY, at(2).version)).await, None);
    assert_eq!(pass(&east).await, lost::Done::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_stays_a_conflict_where_the_key_was_changed_meanwhile() {
    let east = took_over().await;
    pass(&east).await;
    let newer =
        Head { at: VersionRef { epoch: TOOK_OVER, hlc: Hlc(1 << 63), ..at(9) }, ..version(9, Some(1)) };
    east.put(vec![(keys::head(BUCKET, KEY), newer.encode())]).await;
    has(&east, 2).await;
    assert_eq!(pass(&east).await.settled, 1);
    assert_eq!(head(&east).await, Some(newer));
    assert!(east.get(&keys::conflict(BUCKET, KEY, at(2).version)).await.is_some());
    assert_eq!(outcome(&entry(&east, 2).await), Some(SettledAs::KeptConflict));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_site_built_on_a_lost_version_is_head_when_it_returns() {
    let east = took_over().await;
    pass(&east).await;
    let (second, third) = (version(2, Some(1)), version(3, Some(2)));
    returns_with(&east, vec![third.clone()]).await;
    let now = head(&east).await.expect("a head");
    assert_eq!((now.at.version, now.body), (at(3).version, third.body.clone()));
    assert_eq!(outcome(&entry(&east, 2).await), Some(SettledAs::Restored));
    assert_eq!(now.replaces.map(|at| at.version), Some(second.at.version));
    // The same once more, and what was lost comes.
    returns_with(&east, vec![second, third]).await;
    has(&east, 2).await;
    assert_eq!(pass(&east).await, lost::Done::default());
    assert_eq!(head(&east).await.expect("a head").at.version, at(3).version);
    assert_eq!(east.get(&keys::conflict(BUCKET, KEY, at(3).version)).await, None::<Bytes>);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_version_that_another_term_brought_back_is_closed() {
    let east = took_over().await;
    pass(&east).await;
    east.put(vec![(keys::head(BUCKET, KEY), version(2, Some(1)).encode())]).await;
    assert_eq!(pass(&east).await.settled, 1);
    assert_eq!(outcome(&entry(&east, 2).await), Some(SettledAs::Restored));
    assert_eq!(east.get(&keys::conflict(BUCKET, KEY, at(2).version)).await, None);
    assert_eq!(head(&east).await, Some(version(2, Some(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_was_discarded_is_freed_once_the_other_site_knows() {
    let east = took_over().await;
    pass(&east).await;
    let open = entry(&east, 2).await;
    let settled = Some(Settlement { at_ms: 1, outcome: SettledAs::Discarded });
    let key = keys::ledger(TOOK_OVER, LedgerEntry::number(at(2).version));
    east.put(vec![(key, LedgerEntry { settled, ..open }.encode())]).await;
    let (kept, mut collector) = (keys::conflict(BUCKET, KEY, at(2).version), Collector::default());
    for _ in 0..3 {
        collector.pass(&east.context).await.expect("a pass");
    }
    assert!(east.get(&kept).await.is_some(), "the other site does not know yet");
    let all = Position { revision: 1 << 40, ..east.position().await };
    let cursor = Cursor { applied: all, confirmed: all };
    east.put(vec![(keys::cursor(&west()), cursor.encode())]).await;
    for _ in 0..3 {
        collector.pass(&east.context).await.expect("a pass");
    }
    assert_eq!(east.get(&kept).await, None);
    assert!(east.get(&mark(2).0).await.is_some(), "its bytes are dead");
    let wanted = keys::wanted(&crate::harness::east(), extent(2));
    assert_eq!(east.get(&wanted).await, None, "and nobody waits for them any more");
    assert_eq!(east.get(&mark(1).0).await, None, "those of the head are not");
}

/// Another number than the version's: that is for what becomes of it.
fn downgraded(epoch: Epoch) -> Key {
    keys::ledger(epoch, 7)
}

fn acknowledged_by_one(version: VersionRef, position: Position) -> LedgerEntry {
    let what = Noted::Downgraded { position };
    LedgerEntry { at_ms: 1, bucket: BUCKET, key: KEY.to_vec(), version: Some(version), what, settled: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_site_acknowledged_for_both_is_merged_as_any_other_version_when_that_site_returns() {
    let east = told().await;
    has(&east, 2).await;
    let mut east = east;
    east.take_over(TOOK_OVER).await;
    pass(&east).await;
    // West had acknowledged it alone, and hands the ledger over before the versions.
    let theirs = Position { incarnation: 99, revision: 5 };
    let third = version(3, Some(2));
    let versions = vec![
        (downgraded(EPOCH), acknowledged_by_one(third.at, theirs).encode()),
        (keys::extent(extent(3)), record(ExtentState::Live)),
        (keys::head(BUCKET, KEY), third.encode()),
    ];
    let term = UnseenTerm { site: west(), epoch: TOOK_OVER, versions };
    absorb(east.context.catalog.as_ref(), TOOK_OVER, &east.context.cluster_keys, &term)
        .await
        .expect("it is taken in");
    assert_eq!(head(&east).await.expect("a head").at.version, third.at.version);
    let kept = async || {
        let raw = east.get(&downgraded(EPOCH)).await.expect("the entry came with it");
        LedgerEntry::decode(&raw).expect("it reads")
    };
    pass(&east).await;
    assert_eq!(outcome(&kept().await), None, "its bytes are on their way");
    has(&east, 3).await;
    assert_eq!(pass(&east).await.settled, 1);
    assert_eq!(outcome(&kept().await), Some(SettledAs::Confirmed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_one_site_acknowledged_and_a_takeover_lost_comes_back_as_any_other() {
    let east = told().await;
    let mut east = east;
    let theirs = Position { incarnation: 99, revision: 5 };
    east.put(vec![(downgraded(EPOCH), acknowledged_by_one(at(2), theirs).encode())]).await;
    east.take_over(TOOK_OVER).await;
    assert_eq!(pass(&east).await, lost::Done { lost: 1, settled: 0 });
    has(&east, 2).await;
    assert_eq!(pass(&east).await, lost::Done { lost: 0, settled: 2 }, "the loss, and what was acknowledged");
    assert_eq!(outcome(&entry(&east, 2).await), Some(SettledAs::Restored));
    assert_eq!(head(&east).await.expect("a head").at.version, at(2).version);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_downgraded_write_is_closed_when_the_other_site_has_confirmed_it() {
    let east = took_over().await;
    pass(&east).await;
    let position = east.position().await;
    east.put(vec![(downgraded(TOOK_OVER), acknowledged_by_one(at(9), position).encode())]).await;
    let confirm = async |revision| {
        let confirmed = Position { revision, ..position };
        let cursor = Cursor { applied: confirmed, confirmed };
        east.put(vec![(keys::cursor(&west()), cursor.encode())]).await;
    };
    confirm(position.revision - 1).await;
    assert_eq!(pass(&east).await.settled, 0);
    confirm(position.revision).await;
    assert_eq!(pass(&east).await.settled, 1);
    let raw = east.get(&downgraded(TOOK_OVER)).await.expect("it stays");
    assert_eq!(outcome(&LedgerEntry::decode(&raw).expect("it reads")), Some(SettledAs::Confirmed));
    assert_eq!(pass(&east).await, lost::Done::default());
}
