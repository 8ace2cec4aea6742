//! Versions that are kept for readers: what the collector leaves, and what a merge makes of a version that was deleted by its name or
//! got other tags.

use diptych_core::ids::{BlobId, BucketId, Epoch, ExtentId, Hlc, RingKeyNumber, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Blob, Bucket, Content, Etag, Head, HeadBody, Kept, Layout, LedgerEntry, Noted, Object, Piece, Promise,
    Record, SettledAs, Settlement, VersionRef, Versioning,
};
use diptych_core::retention::RetainUntil;
use diptych_site::absorb::absorb;
use diptych_site::collector::Collector;
use diptych_wire::peer::UnseenTerm;

use crate::harness::{EPOCH, East, at_once, west};

const BUCKET: BucketId = BucketId([3; 8]);
const SEALED: u32 = 100_000;

fn version(number: u8, kept: Kept, extent: ExtentId) -> Head {
    let piece = Piece {
        extent,
        first_chunk: 0,
        offset: 0,
        sealed: SEALED,
        plain: SEALED - 16,
        last: true,
        layout: Layout::Plain,
    };
    let blob = Blob { id: BlobId([number; 16]), ring_key: RingKeyNumber(1), pieces: vec![piece] };
    let object = Object {
        size: u64::from(SEALED) - 16,
        etag: Etag { md5: [number; 16], parts: 0 },
        modified_ms: 0,
        headers: vec![],
        tags: vec![],
        content: Content::Inline(vec![blob]),
    };
    let at = VersionRef { epoch: EPOCH, hlc: Hlc(u64::from(number)), version: VersionId([number; 16]) };
    Head { kept, ..Head::new(at, None, HeadBody::Object(Box::new(object))) }
}

fn with_tag(head: &Head, value: &str, tagged: (Epoch, Hlc)) -> Head {
    let mut body = head.body.clone();
    if let HeadBody::Object(object) = &mut body {
        object.tags = vec![("colour".to_owned(), value.to_owned())];
    }
    Head { body, tagged: Some(tagged), ..head.clone() }
}

fn head_key() -> Key {
    keys::head(BUCKET, b"key")
}

fn older(head: &Head) -> Key {
    keys::older_version(BUCKET, b"key", head.at.epoch, head.at.hlc)
}

async fn found(east: &East, key: &Key) -> Option<Head> {
    east.get(key).await.map(|raw| Head::decode(&raw).expect("it reads"))
}

async fn versioned(east: &East) {
    let bucket = Bucket {
        id: BUCKET,
        namespace: "default".into(),
        created_ms: 1,
        versioning: Versioning::Enabled,
        promise: Promise::default(),
    };
    east.put(vec![(keys::bucket("bucket"), bucket.encode())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_kept_stays_with_its_bytes_and_a_discarded_one_goes_with_them() {
    let east = East::start(None, at_once()).await;
    versioned(&east).await;
    let (kept, gone) = (east.store(1, 100_000, &[]).await, east.store(2, 100_000, &[]).await);
    let below = [version(1, Kept::Numbered, kept.extent), version(2, Kept::Null, kept.extent)];
    let discarded = version(3, Kept::Discarded, gone.extent);
    // Replaced before its bucket kept versions, and not forgotten yet when that began.
    let replaced = version(4, Kept::No, gone.extent);
    let all = below.iter().chain([&discarded, &replaced]);
    east.put(all.map(|head| (older(head), head.encode())).collect()).await;
    let mut collector = Collector::default();
    for _ in 0..6 {
        collector.pass(&east.context).await.expect("a pass");
    }
    for head in &below {
        assert_eq!(found(&east, &older(head)).await.as_ref(), Some(head));
    }
    assert_eq!(found(&east, &older(&discarded)).await, None);
    assert_eq!(found(&east, &older(&replaced)).await, None);
    assert!(east.is_right(&kept).await);
    assert_eq!(east.get(&keys::extent(gone.extent)).await, None, "nothing names it any more");
}

async fn absorbed(east: &East, unseen: &[(Key, &Head)]) -> u64 {
    let versions = unseen.iter().map(|(key, head)| (key.clone(), head.encode())).collect();
    let term = UnseenTerm { site: west(), epoch: EPOCH, versions };
    absorb(east.context.catalog.as_ref(), EPOCH, &east.context.cluster_keys, &term)
        .await
        .expect("it is taken in")
}

/// The ledger: what each entry is about, says, and how it ended.
async fn noted(east: &East) -> Vec<(Option<VersionRef>, Noted, Option<SettledAs>)> {
    let view = east.context.catalog.view().await.expect("a view");
    let ledger = view.scan(&keys::ledger_entries(), 10).expect("it reads").entries;
    let entries = ledger.iter().map(|(_, raw)| LedgerEntry::decode(raw).expect("an entry"));
    let said =
        |entry: LedgerEntry| (entry.version, entry.what, entry.settled.map(|settlement| settlement.outcome));
    entries.map(said).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_of_the_newer_term_did_not_see_stands_in_the_ledger() {
    let east = East::start(Some(west()), at_once()).await;
    let after = |number: u8, replaces: &Head| Head {
        replaces: Some(replaces.at),
        ..version(number, Kept::No, ExtentId([number; 16]))
    };
    let first = version(1, Kept::No, ExtentId([1; 16]));
    let (second, third) = (after(2, &first), after(3, &after(2, &first)));
    east.put(vec![(head_key(), first.encode())]).await;
    let came_back = (Some(third.at), Noted::CameBack, Some(SettledAs::Restored));
    for _ in 0..2 {
        absorbed(&east, &[(older(&second), &second), (head_key(), &third)]).await;
        assert_eq!(found(&east, &head_key()).await.expect("a head").at.version, third.at.version);
        assert_eq!(
            noted(&east).await,
            std::slice::from_ref(&came_back),
            "the second was over before anybody missed it"
        );
    }
    // The newer term has changed the key, and so has the one that it never saw.
    let (fourth, fifth) = (after(4, &third), after(5, &third));
    east.put(vec![(older(&third), third.encode()), (head_key(), fourth.encode())]).await;
    for _ in 0..2 {
        absorbed(&east, &[(head_key(), &fifth)]).await;
        assert_eq!(found(&east, &head_key()).await.as_ref(), Some(&fourth));
        assert_eq!(noted(&east).await, [came_back.clone(), (Some(fifth.at), Noted::Conflict, None)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_conflicts_of_one_key_than_a_commit_holds_are_all_kept() {
    const MANY: u16 = 600;
    let east = East::start(Some(west()), at_once()).await;
    let here = version(1, Kept::No, ExtentId([1; 16]));
    east.put(vec![(head_key(), here.encode())]).await;
    let numbered = |number: u16| {
        let at =
            VersionRef { epoch: EPOCH, hlc: Hlc(1_000 + u64::from(number)), version: VersionId([7; 16]) };
        let mut id = [7; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        Head { at: VersionRef { version: VersionId(id), ..at }, ..version(2, Kept::No, ExtentId([2; 16])) }
    };
    let unseen: Vec<Head> = (0..MANY)
        .map(|number| Head {
            replaces: number.checked_sub(1).map(|last| numbered(last).at),
            ..numbered(number)
        })
        .collect();
    let named: Vec<(Key, &Head)> = unseen.iter().map(|head| (older(head), head)).collect();
    for taken in [u64::from(MANY), 0] {
        assert_eq!(absorbed(&east, &named).await, taken);
        assert_eq!(found(&east, &head_key()).await.as_ref(), Some(&here));
        let view = east.context.catalog.view().await.expect("a view");
        let kept = view.scan(&keys::conflicts(BUCKET, b"key"), 1_000).expect("it reads").entries.len();
        assert_eq!(kept, usize::from(MANY));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_a_person_discarded_in_an_unseen_term_is_discarded() {
    let east = East::start(Some(west()), at_once()).await;
    let kept = version(1, Kept::No, ExtentId([1; 16]));
    let key = keys::ledger(EPOCH, LedgerEntry::number(kept.at.version));
    let open = LedgerEntry {
        at_ms: 1,
        bucket: BUCKET,
        key: b"key".to_vec(),
        version: Some(kept.at),
        what: Noted::Conflict,
        settled: None,
    };
    let settled = |outcome| LedgerEntry { settled: Some(Settlement { at_ms: 2, outcome }), ..open.clone() };
    east.put(vec![
        (keys::conflict(BUCKET, b"key", kept.at.version), kept.encode()),
        (key.clone(), open.encode()),
    ])
    .await;
    for (outcome, taken) in [(SettledAs::Restored, 0), (SettledAs::Discarded, 1), (SettledAs::Discarded, 0)] {
        let versions = vec![(key.clone(), settled(outcome).encode())];
        let term = UnseenTerm { site: west(), epoch: EPOCH, versions };
        let (catalog, provider) = (east.context.catalog.as_ref(), &east.context.cluster_keys);
        assert_eq!(
            absorb(catalog, EPOCH, provider, &term).await.expect("it is taken in"),
            taken,
            "{outcome:?}"
        );
    }
    assert_eq!(east.get(&key).await, Some(settled(SettledAs::Discarded).encode().into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_deleted_by_name_in_an_unseen_term_never_becomes_head() {
    let east = East::start(Some(west()), at_once()).await;
    versioned(&east).await;
    let (first, second) =
        (version(1, Kept::Numbered, ExtentId([1; 16])), version(2, Kept::Numbered, ExtentId([2; 16])));
    east.put(vec![(head_key(), second.encode()), (older(&first), first.encode())]).await;
    // The returning site deleted the second, so that the first was head again; then it wrote a third and deleted that, too.
    let discarded = Head { kept: Kept::Discarded, ..second.clone() };
    let third = Head { replaces: Some(first.at), ..version(3, Kept::Discarded, ExtentId([3; 16])) };
    let unseen = [(head_key(), &first), (older(&discarded), &discarded), (older(&third), &third)];
    for _ in 0..2 {
        absorbed(&east, &unseen).await;
        assert_eq!(found(&east, &head_key()).await.as_ref(), Some(&second));
        assert_eq!(found(&east, &older(&first)).await.as_ref(), Some(&first));
        assert_eq!(found(&east, &older(&third)).await.as_ref(), Some(&third), "for the collector");
        assert_eq!(noted(&east).await, [(Some(second.at), Noted::DiscardNotDone, None)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_tags_that_were_set_in_both_terms_those_that_were_set_last_stay() {
    let east = East::start(Some(west()), at_once()).await;
    versioned(&east).await;
    let (first, second) =
        (version(1, Kept::Numbered, ExtentId([1; 16])), version(2, Kept::Numbered, ExtentId([2; 16])));
    let here = with_tag(&first, "of the newer term", (Epoch(2), Hlc(5)));
    east.put(vec![(head_key(), second.encode()), (older(&first), here.encode())]).await;
    let unseen_first = with_tag(&first, "of the older term", (Epoch(1), Hlc(9)));
    let unseen_second = with_tag(&second, "of the older term", (Epoch(1), Hlc(9)));
    for _ in 0..2 {
        absorbed(&east, &[(older(&first), &unseen_first), (head_key(), &unseen_second)]).await;
        assert_eq!(found(&east, &older(&first)).await.as_ref(), Some(&here));
        assert_eq!(found(&east, &head_key()).await.as_ref(), Some(&unseen_second));
    }
}

fn retained(head: &Head, until: RetainUntil) -> Head {
    Head { retained_until: Some(until), ..head.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unseen_term_neither_replaces_nor_deletes_what_is_retained_and_the_longer_retention_stays() {
    const SHORT: RetainUntil = RetainUntil(u64::MAX - 1);
    const LONG: RetainUntil = RetainUntil(u64::MAX);
    let east = East::start(Some(west()), at_once()).await;
    let first = version(1, Kept::No, ExtentId([1; 16]));
    east.put(vec![(head_key(), retained(&first, SHORT).encode())]).await;
    // The returning site heard of no retention, replaced the version and deleted what it had put.
    let put = Head { replaces: Some(first.at), ..version(2, Kept::No, ExtentId([2; 16])) };
    let at = VersionRef { hlc: Hlc(3), version: VersionId([3; 16]), ..put.at };
    let delete = Head::new(at, Some(put.at), HeadBody::Tombstone);
    for _ in 0..2 {
        absorbed(&east, &[(older(&first), &first), (older(&put), &put), (head_key(), &delete)]).await;
        assert_eq!(found(&east, &head_key()).await, Some(retained(&first, SHORT)));
        let conflict = keys::conflict(BUCKET, b"key", put.at.version);
        assert_eq!(found(&east, &conflict).await.as_ref(), Some(&put), "its bytes are kept, too");
    }
    // And one that retained it for longer.
    for _ in 0..2 {
        absorbed(&east, &[(head_key(), &retained(&first, LONG))]).await;
        assert_eq!(found(&east, &head_key()).await, Some(retained(&first, LONG)));
    }
    absorbed(&east, &[(head_key(), &retained(&first, SHORT))]).await;
    assert_eq!(found(&east, &head_key()).await, Some(retained(&first, LONG)), "never an earlier time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_came_after_its_version_was_replaced_in_the_newer_term_is_noted() {
    let east = East::start(Some(west()), at_once()).await;
    let first = version(1, Kept::No, ExtentId([1; 16]));
    let second = Head { replaces: Some(first.at), ..version(2, Kept::No, ExtentId([2; 16])) };
    east.put(vec![(older(&first), first.encode()), (head_key(), second.encode())]).await;
    for _ in 0..2 {
        absorbed(&east, &[(head_key(), &retained(&first, RetainUntil(u64::MAX)))]).await;
        assert_eq!(found(&east, &head_key()).await.as_ref(), Some(&second));
        assert_eq!(noted(&east).await, [(Some(first.at), Noted::MetadataNotDone, None)]);
    }
}
