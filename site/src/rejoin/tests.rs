use std::sync::Arc;

use diptych_catalog::{Catalog, View};
use diptych_core::cipher::SecretKey;
use diptych_core::compaction::Recipe;
use diptych_core::ids::{BucketId, ExtentId, Generation, Hlc, Row, VersionId};
use diptych_core::keyring::{ClusterKey, Keyring, NewRingKey, RingKeyState};
use diptych_core::records::{Gate, Holds, Vote};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::keeper::KeeperState;
use crate::keys::find_keyring;
use crate::testing;

const EPOCH: Epoch = Epoch(2);

/// `west` is back, and `east` took over in its absence.
struct Return {
    west: SiteContext,
    east: Arc<dyn Catalog>,
    client: PeerClient,
    _folders: [TempDir; 2],
}

async fn write(catalog: &dyn Catalog, writes: Vec<Write>) {
    let committed = catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
    assert!(committed.all_applied());
}

fn put(name: &str) -> Write {
    Write::Put(keys::bucket(name), Bytes::copy_from_slice(name.as_bytes()))
}

fn delete(name: &str) -> Write {
    Write::Delete(keys::bucket(name))
}

fn buckets_in(view: &dyn View) -> Vec<String> {
    let page = view.scan(&keys::buckets(), 100).expect("it reads");
    page.entries.into_iter().map(|(_, value)| String::from_utf8(value.to_vec()).expect("a name")).collect()
}

async fn buckets(catalog: &dyn Catalog) -> Vec<String> {
    buckets_in(catalog.view().await.expect("a view").as_ref())
}

impl Return {
    /// Both had `both` and `old`. Unseen, `west` took `both` away and made `unseen`; `east`, in its term, took `old` away and
    /// made `newer`.
    async fn begin() -> Self {
        let (west, west_folder) = testing::west();
        let (east, east_folder, client) = testing::east(EPOCH).await;
        let site = east.site().clone();
        write(east.as_ref(), vec![put("both"), put("old")]).await;
        write(west.catalog.as_ref(), vec![put("both"), put("old")]).await;
        let left_at = west.catalog.position().await.expect("a position");
        write(west.catalog.as_ref(), vec![delete("both"), put("unseen")]).await;
        let term = Term {
            holder: site.clone(),
            taken_over_at: Some(left_at),
            begun_at: east.position().await.expect("a position"),
            begun_ms: 1,
        };
        let open = Write::Put(keys::site_gate(&site), Gate::Open(EPOCH).encode().into());
        let accounted =
            Write::Put(keys::site_accounted(&site), Bytes::copy_from_slice(&EPOCH.0.to_be_bytes()));
        let vote = Vote { epoch: EPOCH, backs: Some(site.clone()) };
        let vote = Write::Put(keys::site_vote(&site), vote.encode().into());
        let term = Write::Put(keys::term(EPOCH), term.encode().into());
        write(east.as_ref(), vec![vote, open, accounted, term]).await;
        write(east.as_ref(), vec![delete("old"), put("newer")]).await;
        Self { west, east, client, _folders: [west_folder, east_folder] }
    }

    async fn settle(&self) -> bool {
        let keeper =
            KeeperHandle::new(mpsc::unbounded_channel().0, watch::channel(KeeperState::at_start()).1);
        let label = self.client.snapshot(None).await.expect("a page").term.expect("it is active");
        let known = Position::default();
        let settled = settle(&self.west, self.east.site(), &self.client, label, &keeper, known).await;
        settled.expect("it is settled").copied
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_newer_term_never_saw_is_handed_over() {
    let back = Return::begin().await;
    assert!(!back.settle().await);
    assert_eq!(buckets(back.east.as_ref()).await, ["both", "newer", "unseen"], "what it deleted stays away");
    assert_eq!(
        buckets(back.west.catalog.as_ref()).await,
        ["both", "old", "unseen"],
        "the feed says the rest"
    );
    assert!(!back.settle().await, "it has rejoined");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extent_that_an_unseen_term_filled_is_not_handed_over_and_one_that_it_wrote_is() {
    let back = Return::begin().await;
    let entered = |number: u8, state: ExtentState| {
        let record = Extent {
            state,
            holds: Holds::Data,
            length: 1,
            payload: 1,
            hash: [0; 32],
            needed: 4,
            rows: vec![(back.west.site.clone(), Row(0), 6)],
            epoch: Epoch(1),
            hlc: Hlc(1),
        };
        Write::Put(keys::extent(ExtentId([number; 16])), Bytes::from(record.encode()))
    };
    let recipe = Recipe { ranges: Vec::new(), tail: Vec::new() };
    let unseen = vec![entered(1, ExtentState::Live), entered(2, ExtentState::Compacting(recipe))];
    write(back.west.catalog.as_ref(), unseen).await;
    assert!(!back.settle().await);
    for catalog in [&back.east, &back.west.catalog] {
        let view = catalog.view().await.expect("a view");
        let has = |number: u8| view.get(&keys::extent(ExtentId([number; 16]))).expect("it reads").is_some();
        assert_eq!((has(1), has(2)), (true, false), "{}", catalog.site());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_feed_does_not_say_what_was_unseen_everything_is_handed_over_and_copied() {
    let back = Return::begin().await;
    let now = back.west.catalog.position().await.expect("a position");
    back.west.catalog.compact_feed(now).await.expect("it forgets");
    assert!(back.settle().await);
    let there = buckets(back.east.as_ref()).await;
    assert_eq!(there, ["both", "newer", "old", "unseen"]);
    assert_eq!(buckets(back.west.catalog.as_ref()).await, there, "what it deleted is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_key_that_each_term_made_without_the_other_is_in_both_sites_afterwards() {
    let back = Return::begin().await;
    let provider = testing::cluster_keys();
    let fresh = |byte| NewRingKey { key: SecretKey::new([byte; 32]), nonce: [byte; 12], made_ms: 1 };
    let common = Keyring::create(testing::CLUSTER, fresh(1));
    let of =
        |epoch, byte| common.with_ring_key(Epoch(epoch), fresh(byte), RingKeyState::InUse).expect("a number");
    for (catalog, keyring) in [(back.west.catalog.as_ref(), of(1, 2)), (back.east.as_ref(), of(2, 3))] {
        let sealed = Bytes::from(keyring.seal(provider.keys().newest()));
        write(catalog, vec![Write::Put(keys::keyring(), sealed)]).await;
    }
    assert!(!back.settle().await);
    let east = find_keyring(back.east.as_ref(), &provider).await.expect("it opens").keyring;
    let west = find_keyring(back.west.catalog.as_ref(), &provider).await.expect("it opens").keyring;
    assert_eq!(east, west);
    let numbers: Vec<u32> = east.ring_keys().iter().map(|key| key.number().0).collect();
    assert_eq!(numbers, [1, 256, 512]);
    assert_eq!(east.generation(), Generation(3), "the devices of both take it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_that_does_not_open_keeps_the_whole_term_away() {
    let back = Return::begin().await;
    let new = NewRingKey { key: SecretKey::new([1; 32]), nonce: [1; 12], made_ms: 1 };
    let strange = Keyring::create(testing::CLUSTER, new).seal(&ClusterKey::new([7; 32]));
    write(back.west.catalog.as_ref(), vec![Write::Put(keys::keyring(), strange.clone().into())]).await;
    let keeper = KeeperHandle::new(mpsc::unbounded_channel().0, watch::channel(KeeperState::at_start()).1);
    let label = back.client.snapshot(None).await.expect("a page").term.expect("it is active");
    let settled =
        settle(&back.west, back.east.site(), &back.client, label, &keeper, Position::default()).await;
    assert!(settled.is_err(), "{settled:?}");
    assert_eq!(buckets(back.east.as_ref()).await, ["both", "newer"], "nothing of it was taken in");
    let kept = back.west.catalog.view().await.expect("a view").get(&keys::keyring()).expect("it reads");
    assert_eq!(kept, Some(strange.into()), "and nothing was put right");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_has_rejoined_the_term_hands_nothing_over() {
    let back = Return::begin().await;
    let rejoined = keys::site_rejoined(&back.west.site);
    let done = Write::Put(rejoined, Bytes::copy_from_slice(&EPOCH.0.to_be_bytes()));
    write(back.west.catalog.as_ref(), vec![done]).await;
    let now = back.west.catalog.position().await.expect("a position");
    back.west.catalog.compact_feed(now).await.expect("it forgets");
    assert!(!back.settle().await);
    assert_eq!(buckets(back.east.as_ref()).await, ["both", "newer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_takes_more_than_a_commit_does_and_what_is_absent_goes() {
    let back = Return::begin().await;
    let page = |number: u32| keys::reference_page(BucketId([1; 8]), VersionId([1; 16]), number);
    for number in 0..40 {
        let large = Write::Put(page(number), Bytes::from(vec![7; 200 << 10]));
        write(back.east.as_ref(), vec![large]).await;
    }
    for thousand in 1..6 {
        let few = |number: u32| Write::Put(page(1_000 * thousand + number), Bytes::from_static(b"old"));
        write(back.west.catalog.as_ref(), (0..1_000).map(few).collect()).await;
    }
    let other = snapshot::copy(&back.west, back.east.site(), &back.client, None).await;
    assert!(
        matches!(other, Err(snapshot::SnapshotError::Changed)),
        "it was not settled with this term: {other:?}"
    );
    snapshot::copy(&back.west, back.east.site(), &back.client, Some(EPOCH)).await.expect("it is copied");
    let (east, west) =
        (back.east.view().await.expect("a view"), back.west.catalog.view().await.expect("a view"));
    assert_eq!(buckets_in(west.as_ref()), buckets_in(east.as_ref()));
    let pages = |view: &dyn View| view.scan(&keys::prefix_range(b"p/"), 10_000).expect("it reads").entries;
    assert!(pages(west.as_ref()) == pages(east.as_ref()));
}
