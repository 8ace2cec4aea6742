//! A catalog that is made anew is the one that was lost; what is missing is named, and what was deleted stays away.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, RedbCatalog, RedbOptions, Write};
use diptych_core::cipher::SecretKey;
use diptych_core::ids::{DeviceId, Epoch, ExtentId};
use diptych_core::journal::is_recorded;
use diptych_core::keyring::{ClusterKey, ClusterKeys, Keyring, KeyringError, NewRingKey};
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::records::{ExtentKind, Holds, Placement, Record, Vote};
use diptych_site::context::LoopOptions;
use diptych_site::resurrect::{
    AgentFragments, Fragments, Options, Report, ResurrectError, rehearse, resurrect,
};
use diptych_site::survey::each;
use diptych_wire::agent::{RowAt, SealedKeyring};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::harness::{EPOCH, East, Journaling, at_once, east, progress};
use crate::support::{CLUSTER, stamp, until};

const ALL: usize = 100_000;

fn cluster_keys() -> ClusterKeys {
    ClusterKey::new([9; 32]).into()
}

/// As `East::seed` makes it.
pub(crate) fn keyring() -> Keyring {
    Keyring::create(CLUSTER, NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 })
}

pub(crate) struct Made {
    catalog: RedbCatalog,
    _folder: TempDir,
}

impl Made {
    fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("catalog.redb");
        let catalog = RedbCatalog::open(&path, east(), &RedbOptions::default()).expect("a catalog");
        Self { catalog, _folder: folder }
    }

    pub(crate) async fn get(&self, key: &Key) -> Option<Bytes> {
        self.catalog.view().await.expect("a view").get(key).expect("it reads")
    }
}

/// Makes a catalog of what the agents have.
pub(crate) async fn made(east: &East, accept_gap: bool) -> Result<(Made, Report), ResurrectError> {
    let made = Made::empty();
    let source = AgentFragments::new(&east.context);
    let report = resurrect(&source, &cluster_keys(), &made.catalog, Options { accept_gap }).await?;
    Ok((made, report))
}

/// Every key that a resurrection owes.
async fn recorded(catalog: &dyn Catalog) -> BTreeMap<Key, Bytes> {
    let view = catalog.view().await.expect("a view");
    let mut found = BTreeMap::new();
    let all = KeyRange { start: Key(Vec::new()), end: Key(vec![0xff; 64]) };
    each(view.as_ref(), &all, |key, value| {
        if is_recorded(key, Some(value))? {
            found.insert(key.clone(), value.clone());
        }
        Ok(ControlFlow::Continue(()))
    })
    .expect("it reads");
    found
}

pub(crate) async fn commit(east: &East, changes: Vec<(Key, Option<Vec<u8>>)>) {
    let write = |(key, value): (Key, Option<Vec<u8>>)| match value {
        Some(value) => Write::Put(key, Bytes::from(value)),
        None => Write::Delete(key),
    };
    let change = Change::blind(changes.into_iter().map(write).collect());
    let committed = east.context.catalog.commit(Batch::one(Some(EPOCH), change)).await;
    assert!(committed.expect("it commits").all_applied());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_committed_is_there_again_after_checkpoints_journals_and_merges() {
    let options =
        LoopOptions { checkpoint_least: 20_000, merge_every: Duration::from_millis(300), ..at_once() };
    let east = East::start(None, options).await;
    east.seed().await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    Journaling::default()
        .beside(&east.context, async {
            for _ in 0..150 {
                let changes = (0..dice.random_range(1..6)).map(|_| {
                    let name = format!("bucket-{}", dice.random_range(0..60));
                    let value = dice.random_bool(0.7).then(|| vec![dice.random(); dice.random_range(0..400)]);
                    (keys::access_key(&name), value)
                });
                let changes: BTreeMap<Key, Option<Vec<u8>>> = changes.collect();
                commit(&east, changes.into_iter().collect()).await;
                if dice.random_bool(0.3) {
                    east.all_journaled().await;
                }
            }
            east.all_journaled().await;
        })
        .await;
    let (made, report) = made(&east, false).await.expect("nothing is missing");
    let mut wanted = recorded(east.context.catalog.as_ref()).await;
    let mut found = recorded(&made.catalog).await;
    // Sealed anew: the same keys, maybe other bytes.
    wanted.remove(&keys::keyring());
    found.remove(&keys::keyring());
    assert_eq!(found, wanted);
    assert!(
        report.checkpoint.is_some() && report.gaps.is_empty() && report.troubles.is_empty(),
        "{report:?}"
    );
    let vote = Vote::decode(&made.get(&keys::site_vote(&crate::harness::east())).await.expect("it has one"));
    assert_eq!(
        vote.expect("it reads").epoch,
        Epoch(EPOCH.0 + 1),
        "what it commits is newer than all that was"
    );

    let source = AgentFragments::new(&east.context);
    let again = resurrect(&source, &cluster_keys(), &made.catalog, Options::default()).await;
    assert!(matches!(again, Err(ResurrectError::NotEmpty(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn placements_are_those_of_the_records_on_the_devices() {
    let east = East::start(None, at_once()).await;
    east.seed().await;
    let stored = Journaling::default()
        .beside(&east.context, async {
            let stored = [east.store(1, 100_000, &[]).await, east.store(2, 3_000_000, &[]).await];
            east.whole_checkpoint().await;
            east.all_journaled().await;
            stored
        })
        .await;
    let (made, report) = made(&east, false).await.expect("nothing is missing");
    for stored in &stored {
        let raw =
            made.get(&keys::placement(&crate::harness::east(), stored.extent)).await.expect("it is placed");
        assert_eq!(Placement::decode(&raw).expect("it reads"), stored.placement);
    }
    assert_eq!((report.extents, report.rows, report.lacking), (2, 12, 0), "{report:?}");
}

/// Deletes every record of an extent.
async fn destroy(east: &East, extent: ExtentId) {
    destroy_rows(east, extent, 0..6).await;
}

/// Deletes those on some devices.
async fn destroy_rows(east: &East, extent: ExtentId, devices: Range<u32>) {
    for device in devices {
        let agent = east.site.operator(device as usize / 2);
        let page = agent.inventory(DeviceId(device), None, None, 1_000).await.expect("a page");
        for record in page.records.iter().filter(|record| record.extent == extent) {
            let (row, instance) = (record.row, Some(record.instance));
            let at = RowAt { device: DeviceId(device), extent, row, instance };
            agent.delete(stamp(1, 1), vec![at]).await.expect("it is deleted");
        }
    }
}

/// Extents of a kind on the devices, with what they hold, in the order of the feed.
async fn extents(east: &East, kind: ExtentKind) -> Vec<(ExtentId, Holds)> {
    let source = AgentFragments::new(&east.context);
    let found: Vec<_> =
        source.records(kind).map(|record| record.expect("it is listed").facts).collect().await;
    let mut found: Vec<_> = found.into_iter().map(|facts| (facts.extent, facts.holds)).collect();
    found.sort_by_key(|(extent, holds)| (holds.last_position(), *extent));
    found.dedup();
    found
}

/// Ten buckets, each in a journal of its own, behind a checkpoint.
async fn ten_journals(east: &East) {
    east.seed().await;
    Journaling::default()
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            for number in 0..10 {
                commit(east, vec![(keys::access_key(&format!("b{number}")), Some(vec![number]))]).await;
                east.all_journaled().await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_named_and_asks_a_person() {
    let east = East::start(None, at_once()).await;
    ten_journals(&east).await;
    let journals = extents(&east, ExtentKind::Journal).await;
    assert!(journals.len() >= 10, "{journals:?}");
    destroy(&east, journals[journals.len() - 3].0).await;
    let error = made(&east, false).await.map(|(_, report)| report).expect_err("something is missing");
    let Holds::Journal(lost) = journals[journals.len() - 3].1 else { panic!("a journal") };
    let named = format!("revisions {} to {}", lost.after.revision + 1, lost.upto.revision);
    assert!(error.to_string().contains(&named), "{error}, {named}");
    let (made, report) = made(&east, true).await.expect("it was accepted");
    assert_eq!(report.gaps.len(), 1);
    let there = |number: usize| keys::access_key(&format!("b{number}"));
    assert_eq!(made.get(&there(7)).await, None, "that is the one");
    for number in [6, 8, 9] {
        assert!(made.get(&there(number)).await.is_some(), "b{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_journal_that_does_not_read_is_a_gap_too() {
    let east = East::start(None, at_once()).await;
    ten_journals(&east).await;
    let journals = extents(&east, ExtentKind::Journal).await;
    let (newest, holds) = journals[journals.len() - 1];
    destroy_rows(&east, newest, 0..3).await;
    let error =
        made(&east, false).await.map(|(_, report)| report).expect_err("it is there and can't be read");
    let Holds::Journal(lost) = holds else { panic!("a journal") };
    let named = format!("revisions {} to {}", lost.after.revision + 1, lost.upto.revision);
    assert!(error.to_string().contains(&named), "{error}, {named}");
    let (_, report) = made(&east, true).await.expect("it was accepted");
    assert_eq!((report.gaps.len(), report.upto), (1, Some(lost.after)), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_not_whole_is_left_for_the_one_before() {
    let options = LoopOptions { checkpoint_least: 0, ..at_once() };
    let east = East::start(None, options).await;
    ten_journals(&east).await;
    Journaling::default()
        .beside(&east.context, async {
            let first = progress(&east.context).await.and_then(|known| known.checkpoint);
            for number in 0.. {
                commit(&east, vec![(keys::access_key("more"), Some(vec![number]))]).await;
                if progress(&east.context).await.and_then(|known| known.checkpoint) != first {
                    break;
                }
            }
            east.all_journaled().await;
        })
        .await;
    let checkpoints = extents(&east, ExtentKind::Checkpoint).await;
    assert!(checkpoints.len() >= 2, "{checkpoints:?}");
    destroy(&east, checkpoints[checkpoints.len() - 1].0).await;
    let (made, report) = made(&east, false).await.expect("the one before and its journals are there");
    let found = report.checkpoint.expect("there is one");
    assert_eq!(Some(found.at), checkpoints[checkpoints.len() - 2].1.first_position());
    let mut wanted = recorded(east.context.catalog.as_ref()).await;
    wanted.remove(&keys::keyring());
    let mut there = recorded(&made.catalog).await;
    there.remove(&keys::keyring());
    assert_eq!(there, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_devices_without_anything_are_clear_errors() {
    let east = East::start(None, at_once()).await;
    let nothing = made(&east, false).await.map(|(_, report)| report);
    assert!(matches!(nothing, Err(ResurrectError::NoKeyring)), "{nothing:?}");
    east.seed().await;
    let nothing = made(&east, false).await.map(|(_, report)| report);
    assert!(matches!(nothing, Err(ResurrectError::Nothing)), "{nothing:?}");
    let (source, target) = (AgentFragments::new(&east.context), Made::empty());
    let wrong =
        resurrect(&source, &ClusterKey::new([8; 32]).into(), &target.catalog, Options::default()).await;
    assert!(matches!(wrong, Err(ResurrectError::Keyring(KeyringError::WrongKey { .. }))), "{wrong:?}");
    let newer = keyring().next_generation();
    let (generation, sealed) = (newer.generation(), newer.seal(&ClusterKey::new([8; 32])));
    let kept = east.site.operator(0).put_keyring(stamp(1, 1), SealedKeyring { generation, sealed }).await;
    kept.expect("it is kept");
    let older = resurrect(&source, &cluster_keys(), &target.catalog, Options::default()).await;
    assert!(
        matches!(&older, Err(ResurrectError::Keyring(KeyringError::WrongKey { generation: of, .. })) if *of == generation),
        "the older one does not open what was sealed since: {older:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_finds_a_sample_as_it_is_and_says_what_would_be_missing() {
    let east = East::start(None, at_once()).await;
    ten_journals(&east).await;
    let source = AgentFragments::new(&east.context);
    let catalog = east.context.catalog.as_ref();
    let rehearsal = rehearse(catalog, &source, &cluster_keys(), ALL).await.expect("it reads");
    assert!(rehearsal.is_passed() && rehearsal.same == rehearsal.sampled, "{rehearsal:?}");
    assert!(rehearsal.sampled >= 12, "{rehearsal:?}");
    let few = rehearse(catalog, &source, &cluster_keys(), 3).await.expect("it reads");
    assert_eq!((few.sampled, few.same), (3, 3));

    let journals = extents(&east, ExtentKind::Journal).await;
    destroy(&east, journals[journals.len() - 1].0).await;
    let rehearsal = rehearse(catalog, &source, &cluster_keys(), ALL).await.expect("it reads");
    assert_eq!(rehearsal.different, ["a/b9"], "{rehearsal:?}");
    assert!(!rehearsal.is_passed());
}

#[tokio::test(flavor = "multi_thread")]
async fn small_journals_become_one_and_tell_the_same() {
    let options = LoopOptions { merge_every: Duration::from_millis(200), ..at_once() };
    let east = East::start(None, options).await;
    ten_journals(&east).await;
    Journaling::default()
        .beside(&east.context, async {
            until("one journal is left", || async { crate::harness::journals_of(&east).await.len() == 1 })
                .await;
        })
        .await;
    for (extent, holds) in extents(&east, ExtentKind::Journal).await {
        if !crate::harness::journals_of(&east).await.contains(&extent) {
            assert!(matches!(holds, Holds::Journal(_)));
            destroy(&east, extent).await;
        }
    }
    let (made, _) = made(&east, false).await.expect("nothing is missing");
    for number in 0..10 {
        assert!(made.get(&keys::access_key(&format!("b{number}"))).await.is_some(), "b{number}");
    }
}
