//! Ring keys and the cluster key are exchanged under a site's devices.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use diptych_core::cipher::SecretKey;
use diptych_core::ids::{Epoch, Generation};
use diptych_core::keyring::{ClusterKey, ClusterKeys, Keyring, KeyringError, NewRingKey, RingKeyState};
use diptych_core::keys;
use diptych_core::placement::NodeState;
use diptych_core::records::{Record, SiteKeys};
use diptych_site::error::SiteError;
use diptych_site::keys::{Keeping, KeyProvider, prepare};
use diptych_site::resurrect::{AgentFragments, Fragments};
use diptych_site::status::KeysStatus;
use tempfile::TempDir;

use crate::harness::{EPOCH, East, at_once, west};
use crate::support::CLUSTER;

fn key(byte: u8) -> ClusterKey {
    ClusterKey::new([byte; 32])
}

/// The files of a site's cluster key, which is that of byte 9 to begin with.
struct Files(TempDir);

impl Files {
    /// Of a site with a keyring on all its devices.
    async fn of(east: &mut East) -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.hold(9, None);
        east.context.cluster_keys = Arc::new(KeyProvider::read(&files.path("key")).expect("a key"));
        east.seed().await;
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn hold(&self, newest: u8, previous: Option<u8>) {
        let text = |byte: u8| format!("{byte:02x}").repeat(32);
        let before = self.path("previous-key");
        match previous {
            Some(byte) => std::fs::write(before, text(byte)).expect("it writes"),
            None => drop(std::fs::remove_file(before)),
        }
        std::fs::write(self.path("key"), text(newest)).expect("it writes");
    }
}

async fn pass(east: &East) -> KeysStatus {
    Keeping::default().pass(&east.context).await.expect("a round")
}

async fn sealed(east: &East) -> Bytes {
    east.get(&keys::keyring()).await.expect("a keyring")
}

/// What the other site says of its keys, as its feed brings it.
async fn west_says(east: &East, held: &[u8], missing: &[&str]) {
    let sealed = sealed(east).await;
    let says = SiteKeys {
        held: held.iter().map(|byte| key(*byte).id(CLUSTER)).collect(),
        generation: Keyring::generation_of(&sealed).expect("a keyring"),
        wrapped_by: Keyring::wrapped_by(&sealed).expect("a keyring"),
        missing: missing.iter().map(ToString::to_string).collect(),
        journaled: false,
    };
    east.put(vec![(keys::site_keys(&west()), says.encode())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_key_goes_only_when_every_device_was_read_back() {
    let mut east = East::start(None, at_once()).await;
    let files = Files::of(&mut east).await;
    let settled = pass(&east).await;
    assert!(settled.is_settled() && !settled.may_go, "{settled:?}");
    east.site.stop(2).await;
    files.hold(8, Some(9));
    assert_eq!(pass(&east).await.waiting, "Rewrapping");
    let waits = pass(&east).await;
    assert_eq!((waits.waiting.as_str(), waits.may_go), ("ReadingBack", false));
    assert!(waits.waiting_for.contains("device 4 of node") && waits.missing.len() == 2, "{waits:?}");
    assert_eq!(waits.wrapped_by, key(8).id(CLUSTER).to_string());
    // One that is given up is not waited for.
    let live = east.context.map();
    let mut dead = (*live).clone();
    dead.nodes[2].state = NodeState::Dead;
    east.set_map(dead);
    assert!(pass(&east).await.may_go);
    // Back again it is told before anything else.
    east.set_map((*live).clone());
    assert!(!pass(&east).await.may_go);
    east.restart(2).await;
    assert!(pass(&east).await.may_go);
    files.hold(8, None);
    assert_eq!(pass(&east).await.waiting, "Settled");
    let copies = AgentFragments::new(&east.context).keyrings().await;
    assert_eq!(copies.len(), 6);
    for copy in copies {
        assert!(Keyring::open(&copy, &key(8)).is_ok(), "the new key alone opens every copy");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sealed_by_a_cluster_key_that_the_other_site_lacks() {
    let mut east = East::start(Some(west()), at_once()).await;
    let files = Files::of(&mut east).await;
    files.hold(8, Some(9));
    for held in [None, Some(9)] {
        if let Some(held) = held {
            west_says(&east, &[held], &[]).await;
        }
        assert_eq!(pass(&east).await.waiting, "PeerLacksKey");
        assert_eq!(pass(&east).await.wrapped_by, key(9).id(CLUSTER).to_string());
    }
    west_says(&east, &[8, 9], &[]).await;
    assert_eq!(pass(&east).await.waiting, "Rewrapping");
    let behind = pass(&east).await;
    assert!(behind.waiting_for.contains("the devices of the other site"), "{behind:?}");
    west_says(&east, &[8, 9], &["device 7 of node far"]).await;
    let waits = pass(&east).await;
    assert!(waits.waiting_for.contains("device 7 of node far of the other site"), "{waits:?}");
    west_says(&east, &[8, 9], &[]).await;
    assert!(pass(&east).await.may_go);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_before_stays_until_the_journal_has_the_keyring() {
    let mut east = East::start(None, at_once()).await;
    let files = Files::of(&mut east).await;
    files.hold(8, Some(9));
    east.context.journaled.send_replace(None);
    assert_eq!(pass(&east).await.waiting, "Rewrapping");
    let mut keeping = Keeping::default();
    let waits = keeping.pass(&east.context).await.expect("a round");
    assert!(waits.waiting_for.contains("not read back yet from the journal"), "{waits:?}");
    let now = east.context.catalog.position().await.expect("a position");
    east.context.journaled.send_replace(Some(now));
    assert!(keeping.pass(&east.context).await.expect("a round").may_go);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_key_before_alone_is_told_which_one_is_needed() {
    let mut east = East::start(None, at_once()).await;
    let files = Files::of(&mut east).await;
    files.hold(8, Some(9));
    pass(&east).await;
    files.hold(9, None);
    let refused = Keeping::default().pass(&east.context).await.expect_err("it can't be opened");
    let said = refused.to_string();
    for byte in [8, 9] {
        assert!(said.contains(&key(byte).id(CLUSTER).to_string()), "{said}");
    }
    let strange = KeyProvider::from(ClusterKeys::from(key(7)));
    let refused = strange.open(&sealed(&east).await);
    assert!(matches!(refused, Err(KeyringError::WrongKey { .. })), "{refused:?}");
    files.hold(8, None);
    assert_eq!(pass(&east).await.waiting, "Settled", "put right, it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_key_seals_when_every_device_has_it_and_not_before() {
    let mut east = East::start(None, at_once()).await;
    let _files = Files::of(&mut east).await;
    let opened = east.context.cluster_keys.open(&sealed(&east).await).expect("it opens");
    // Long enough ago that gateways have seen it.
    let new = NewRingKey { key: SecretKey::new([5; 32]), nonce: [5; 12], made_ms: 1 };
    let prepared = opened.with_ring_key(EPOCH, new, RingKeyState::Prepared).expect("a number");
    let bytes = prepared.seal(east.context.cluster_keys.keys().newest());
    east.put(vec![(keys::keyring(), bytes)]).await;
    assert!(!prepare(&east.context).await.expect("it looks"), "one waits already");
    east.site.stop(1).await;
    for _ in 0..3 {
        let status = pass(&east).await;
        assert_eq!((status.current, status.missing.len()), (1, 2), "{status:?}");
    }
    east.restart(1).await;
    pass(&east).await;
    let status = pass(&east).await;
    // The first key is older than thirty days, this one is, too.
    assert_eq!((status.current, status.generation), (256, Generation(3)), "{status:?}");
    let copies = AgentFragments::new(&east.context).keyrings().await;
    let has = |copy: &Vec<u8>| {
        let kept = east.context.cluster_keys.open(copy).expect("it opens");
        kept.ring_keys().len() >= 2
    };
    assert!(copies.len() == 6 && copies.iter().all(has));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_not_active_changes_no_keyring() {
    let mut east = East::start(Some(west()), at_once()).await;
    let files = Files::of(&mut east).await;
    files.hold(8, Some(9));
    west_says(&east, &[8, 9], &[]).await;
    east.leave_office(Epoch(2)).await;
    assert!(matches!(prepare(&east.context).await, Err(SiteError::NotYet(_))));
    let before = sealed(&east).await;
    pass(&east).await;
    assert_eq!(sealed(&east).await, before);
    let says = east.get(&keys::site_keys(&east.context.site)).await.expect("it says what it has");
    let says = SiteKeys::decode(&says).expect("it reads");
    assert_eq!(says.held, [key(8).id(CLUSTER), key(9).id(CLUSTER)]);
    assert!(says.missing.is_empty(), "its devices are told all the same: {says:?}");
}
