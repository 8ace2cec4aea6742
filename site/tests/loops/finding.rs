//! Extents that a resurrection finds and no journal knows: what was acknowledged is taken, what may have been is kept, and what was
//! deleted stays away.

use std::collections::BTreeMap;
use std::sync::Arc;

use diptych_core::chunk::ChunkSealer;
use diptych_core::cipher::RustCryptoAesGcm;
use diptych_core::ids::{BlobId, BucketId, ExtentId, Hlc, Row, VersionId};
use diptych_core::journal::{Document, Fresh, Journal, Writer, seal};
use diptych_core::keys;
use diptych_core::records::{
    Bucket, Content, DeadMark, Extent, Head, HeadBody, Holds, Placement, Position, Promise, Record, Span,
    VersionRef, Versioning,
};
use diptych_core::tail::{TailBuilder, TailEntry};
use diptych_wire::agent::ExtentFacts;
use md5::{Digest, Md5};

use crate::harness::{EPOCH, East, Journaling, NEEDED, ROWS, at_once, progress};
use crate::resurrecting::{commit, keyring, made};
use crate::support::{place, rows_of};

const BUCKET: BucketId = BucketId([5; 8]);

/// An extent of one small object that nobody entered into the catalog, born `later` milliseconds from now.
async fn orphan(east: &East, number: u8, key: &str, later: i64) -> (ExtentId, VersionId) {
    let (extent, blob, version) = (ExtentId([number; 16]), BlobId([number; 16]), VersionId([number; 16]));
    let keyring = keyring();
    let ring_key = keyring.current();
    let mut bytes = Vec::new();
    let mut tail = TailBuilder::new();
    add_object(&mut tail, &mut bytes, blob, key, version);
    bytes.extend(tail.finish(extent, ring_key, &[number; 12]).expect("it seals"));
    store_rows(east, extent, Holds::Data, &bytes, later).await;
    (extent, version)
}

/// Adds an object of one chunk to an extent.
fn add_object(tail: &mut TailBuilder, bytes: &mut Vec<u8>, blob: BlobId, key: &str, version: VersionId) {
    let keyring = keyring();
    let ring_key = keyring.current();
    let offset = bytes.len() as u32;
    let mut sealer = ChunkSealer::new(blob, ring_key.blob_key(blob), Arc::new(RustCryptoAesGcm));
    let plain = format!("content of {key}");
    let chunk = sealer.seal(plain.as_bytes(), true, bytes).expect("it seals");
    let entry = TailEntry {
        blob,
        ring_key: ring_key.number(),
        first_chunk: 0,
        offset,
        sealed: bytes.len() as u32 - offset,
        plain: plain.len() as u32,
        last: true,
        bucket: BUCKET,
        key: key.as_bytes().to_vec(),
        version,
        part: None,
        size: None,
        etag: None,
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
    };
    tail.add(entry, &[chunk]);
}

/// Places all rows of an extent that was born `later` milliseconds from now.
async fn store_rows(east: &East, extent: ExtentId, holds: Holds, bytes: &[u8], later: i64) {
    let facts = ExtentFacts {
        extent,
        needed: NEEDED,
        holds,
        length: bytes.len() as u32,
        hash: *blake3::hash(bytes).as_bytes(),
        birth_epoch: EPOCH,
        birth_hlc: born(later),
    };
    for (row, bytes) in (0..ROWS).zip(rows_of(NEEDED, bytes, ROWS)) {
        let client = east.site.gateway(usize::from(row) / 2);
        place(&client, &facts, u32::from(row), row, &bytes).await;
    }
}

fn born(later: i64) -> Hlc {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later");
    Hlc::from_milliseconds((now.as_millis() as i64 + later) as u64)
}

fn head(later: i64, body: HeadBody) -> Vec<u8> {
    let at = VersionRef { epoch: EPOCH, hlc: born(later), version: VersionId([99; 16]) };
    Head::new(at, None, body).encode()
}

fn bucket() -> Vec<u8> {
    Bucket {
        id: BUCKET,
        namespace: "default".into(),
        created_ms: 1,
        versioning: Versioning::Off,
        promise: Promise::default(),
    }
    .encode()
}

/// A site with a bucket and nothing in it, all of it journaled.
async fn with_a_bucket() -> East {
    let east = East::start(None, at_once()).await;
    east.seed().await;
    Journaling::default()
        .beside(&east.context, async {
            commit(&east, vec![(keys::bucket("files"), Some(bucket()))]).await;
            east.whole_checkpoint().await;
            east.all_journaled().await;
        })
        .await;
    east
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_after_the_journals_end_is_found_and_nothing_deleted_comes_back() {
    let east = East::start(None, at_once()).await;
    east.seed().await;
    let minutes = |minutes: i64| minutes * 60_000;
    Journaling::default()
        .beside(&east.context, async {
            commit(
                &east,
                vec![
                    (keys::bucket("files"), Some(bucket())),
                    (keys::head(BUCKET, b"deleted"), Some(head(0, HeadBody::Tombstone))),
                    (
                        keys::dead_mark(ExtentId([4; 16]), BlobId([4; 16])),
                        Some(DeadMark { sealed: 1 }.encode()),
                    ),
                ],
            )
            .await;
            east.whole_checkpoint().await;
            east.all_journaled().await;
        })
        .await;
    let (taken, version) = orphan(&east, 1, "new", 1_000).await;
    orphan(&east, 2, "deleted", -minutes(5)).await;
    orphan(&east, 3, "old", -minutes(20)).await;
    orphan(&east, 4, "refused", 1_000).await;

    let (made, report) = made(&east, false).await.expect("nothing is missing");
    let raw = made.get(&keys::head(BUCKET, b"new")).await.expect("it was found");
    let found = Head::decode(&raw).expect("it reads");
    assert_eq!(found.at.version, version);
    let HeadBody::Object(object) = found.body else { panic!("{found:?}") };
    assert_eq!((object.size, object.etag.md5), (14, Md5::digest(b"content of new").into()));
    let Content::Inline(blobs) = &object.content else { panic!("{object:?}") };
    assert_eq!(blobs[0].pieces[0].extent, taken);
    let record = Extent::decode(&made.get(&keys::extent(taken)).await.expect("it is entered"));
    assert_eq!(record.expect("it reads").rows, [(crate::harness::east(), Row(0), ROWS)]);
    let placed = made.get(&keys::placement(&crate::harness::east(), taken)).await.expect("it is placed");
    assert_eq!(Placement::decode(&placed).expect("it reads").rows.len(), usize::from(ROWS));

    let deleted = made.get(&keys::head(BUCKET, b"deleted")).await.expect("its tombstone");
    assert_eq!(Head::decode(&deleted).expect("it reads").body, HeadBody::Tombstone);
    for key in ["old", "refused"] {
        assert_eq!(made.get(&keys::head(BUCKET, key.as_bytes())).await, None, "{key}");
    }
    let left: BTreeMap<&str, Option<&str>> =
        report.found.iter().map(|found| (found.key.as_str(), found.left.as_deref())).collect();
    let wanted = BTreeMap::from([
        ("deleted", Some("it is older than what is there")),
        ("new", None),
        ("refused", Some("it was refused or replaced")),
    ]);
    assert_eq!(left, wanted);
    assert_eq!(report.stayed_away, 1, "the old one");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_versions_of_one_key_in_one_extent_the_later_one_is_head_and_the_other_is_dead() {
    let east = with_a_bucket().await;
    let extent = ExtentId([1; 16]);
    let (mut tail, mut bytes) = (TailBuilder::new(), Vec::new());
    for number in [1, 2] {
        add_object(&mut tail, &mut bytes, BlobId([number; 16]), "twice", VersionId([number; 16]));
    }
    bytes.extend(tail.finish(extent, keyring().current(), &[1; 12]).expect("it seals"));
    store_rows(&east, extent, Holds::Data, &bytes, 1_000).await;
    let (made, report) = made(&east, false).await.expect("nothing is missing");
    let head = made.get(&keys::head(BUCKET, b"twice")).await.expect("it was found");
    assert_eq!(Head::decode(&head).expect("it reads").at.version, VersionId([2; 16]), "{report:?}");
    assert!(made.get(&keys::dead_mark(extent, BlobId([1; 16]))).await.is_some());
    assert_eq!(made.get(&keys::dead_mark(extent, BlobId([2; 16]))).await, None);
}

/// A journal without changes, written `later` milliseconds from now.
async fn planted(east: &East, number: u8, span: Span, later: i64) {
    let writer = Writer { site: crate::harness::east(), epoch: EPOCH };
    let document = Document::Journal(Journal { writer, span, changes: Vec::new() });
    let fresh = Fresh { extent: ExtentId([number; 16]), blob: BlobId([number; 16]), nonce: [number; 12] };
    let sealed = seal(&document, keyring().current(), &fresh).expect("it seals");
    store_rows(east, fresh.extent, Holds::Journal(span), &sealed.bytes, later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_in_a_gap_is_kept_and_named_and_becomes_no_head() {
    let east = with_a_bucket().await;
    let end = progress(&east.context).await.expect("it has begun").upto;
    let at = |behind: u64| Position { revision: end.revision + behind, ..end };
    let minutes = |minutes: i64| minutes * 60_000;
    planted(&east, 20, Span { after: at(0), upto: at(100) }, 0).await;
    planted(&east, 21, Span { after: at(200), upto: at(210) }, minutes(60)).await;
    let (kept, version) = orphan(&east, 1, "lost", minutes(30)).await;
    orphan(&east, 2, "old", -minutes(20)).await;

    made(&east, false).await.map(|(_, report)| report).expect_err("a person is asked");
    let (made, report) = made(&east, true).await.expect("it was accepted");
    let left = report.found.iter().map(|found| (found.key.as_str(), found.left.as_deref()));
    let reason = "it was written in a stretch that is missing, and is kept as a conflict version";
    assert_eq!(left.collect::<Vec<_>>(), [("lost", Some(reason))]);
    assert_eq!(made.get(&keys::head(BUCKET, b"lost")).await, None, "it may have been deleted since");
    assert!(made.get(&keys::conflict(BUCKET, b"lost", version)).await.is_some());
    let placement = keys::placement(&crate::harness::east(), kept);
    assert!(made.get(&placement).await.is_some(), "the inventory knows it, and frees nothing of it");
    assert_eq!(report.stayed_away, 1, "the old one");
}
