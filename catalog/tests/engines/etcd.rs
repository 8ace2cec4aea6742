//! The etcd engine, against a real etcd: the suite, and what is its own: mirrors, outages, restores, TLS.

mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{
    Batch, Catalog, CatalogError, Change, EtcdCatalog, EtcdOptions, EtcdTls, FeedEntry, FeedStart, Write,
};
use diptych_core::keys;
use diptych_core::records::Position;
use futures::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use self::server::{Server, ServerTls, answering};
use crate::conformance::{Bench, conformance};
use crate::{east, put};

/// Two processes' worth of handles to one etcd.
async fn start() -> Bench {
    let mut server = Server::start();
    let one = server.connect("one").await;
    let two = server.connect("two").await;
    let handles = vec![Arc::new(one) as Arc<dyn Catalog>, Arc::new(two) as Arc<dyn Catalog>];
    Bench { handles, _keep: Box::new(server) }
}

conformance!(start);

async fn committed(catalog: &EtcdCatalog, name: &str, value: &str) -> Position {
    catalog.commit(put(name, value)).await.unwrap().position
}

async fn read(catalog: &EtcdCatalog, name: &str) -> Option<Bytes> {
    catalog.view().await.unwrap().get(&keys::bucket(name)).unwrap()
}

async fn feed_until(catalog: &EtcdCatalog, after: Position, last: Position) -> Vec<FeedEntry> {
    let FeedStart::From(mut feed) = catalog.feed(after).await.unwrap() else {
        panic!("{after:?} was compacted")
    };
    let mut entries: Vec<FeedEntry> = Vec::new();
    while entries.last().is_none_or(|entry| entry.position < last) {
        let next = tokio::time::timeout(Duration::from_secs(20), feed.next()).await;
        entries.push(next.expect("an entry in time").expect("a feed never ends").unwrap());
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_was_away_catches_up() {
    let mut server = Server::start();
    let one = server.connect("one").await;
    let two = server.connect("two").await;
    let start = committed(&one, "a", "1").await;
    assert!(read(&two, "a").await.is_some());
    drop(two);
    let newest = committed(&one, "b", "1").await;
    let two = server.connect("two").await;
    assert!(read(&two, "b").await.is_some());
    let entries = feed_until(&two, start, newest).await;
    assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), [newest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_was_away_too_long_begins_anew() {
    let mut server = Server::start();
    let one = server.connect("one").await;
    let two = server.connect("two").await;
    let start = committed(&one, "deleted", "1").await;
    assert!(read(&two, "deleted").await.is_some());
    drop(two);
    let delete = Change::blind(vec![Write::Delete(keys::bucket("deleted"))]);
    one.commit(Batch::one(None, delete)).await.unwrap();
    for number in 0..10 {
        committed(&one, "kept", &number.to_string()).await;
    }
    let newest = committed(&one, "new", "1").await;
    one.compact_feed(newest).await.unwrap();

    let two = server.connect("two").await;
    assert_eq!(read(&two, "deleted").await, None);
    assert_eq!(read(&two, "kept").await.as_deref(), Some(b"9".as_slice()));
    assert_eq!(read(&two, "new").await.as_deref(), Some(b"1".as_slice()));
    match two.feed(start).await.unwrap() {
        FeedStart::Compacted { oldest } => assert_eq!(oldest, newest),
        FeedStart::From(_) => panic!("{start:?} was compacted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_many_pages_misses_nothing() {
    let mut server = Server::start();
    let one = server.connect("one").await;
    for hundred in 0..30 {
        let write = |number| {
            Write::Put(keys::bucket(&format!("{hundred:03}{number:03}")), Bytes::from(vec![7; 2_000]))
        };
        let batch = Batch::one(None, Change::blind((0..100).map(write).collect()));
        assert!(one.commit(batch).await.unwrap().all_applied());
    }
    let two = server.connect("two").await;
    let (one, two) = (one.view().await.unwrap(), two.view().await.unwrap());
    let all = |view: &dyn diptych_catalog::View| view.scan(&keys::buckets(), 10_000).unwrap().entries;
    assert_eq!(all(two.as_ref()).len(), 3_000);
    assert!(all(one.as_ref()) == all(two.as_ref()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_mirror_never_saw_is_fed_from_etcd() {
    let mut server = Server::start();
    let one = server.connect("one").await;
    let start = committed(&one, "a", "1").await;
    let second = committed(&one, "b", "1").await;
    let private = Change::blind(vec![Write::Put(keys::site_vote(&east()), Bytes::from_static(b"vote"))]);
    let third = one.commit(Batch::one(None, private)).await.unwrap().position;
    let two = server.connect("two").await;
    assert!(read(&two, "b").await.is_some());
    let newest = committed(&one, "c", "1").await;
    let entries = feed_until(&two, start, newest).await;
    assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), [second, third, newest]);
    assert_eq!(entries[0].changes, [(keys::bucket("b"), Some(Bytes::from_static(b"1")))]);
    assert_eq!(entries[1].changes, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_of_the_same_etcd_are_not_seen_and_stall_nothing() {
    let mut server = Server::start();
    let one = server.connect("one").await;
    let other = EtcdOptions { prefix: "other/".to_owned(), ..server.options("other") };
    let other = EtcdCatalog::connect(east(), other).await.unwrap();
    committed(&one, "a", "mine").await;
    committed(&other, "a", "theirs").await;
    assert_eq!(read(&one, "a").await.as_deref(), Some(b"mine".as_slice()));
    assert_eq!(read(&other, "a").await.as_deref(), Some(b"theirs".as_slice()));
    let (mine, theirs) = (one.position().await.unwrap(), other.position().await.unwrap());
    assert_ne!(mine.incarnation, theirs.incarnation);
    assert_eq!(one.view().await.unwrap().position(), mine);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mirror_is_put_aside() {
    let mut server = Server::start();
    let one = server.connect("one").await;
    committed(&one, "a", "1").await;
    std::fs::write(server.mirror("two"), "a letter to a friend\n".repeat(1_000)).unwrap();
    let two = server.connect("two").await;
    assert!(read(&two, "a").await.is_some());
    assert!(server.mirror("two").with_extension("damaged").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_a_redb_catalog_is_never_taken_for_a_mirror() {
    let mut server = Server::start();
    let path = server.mirror("truth");
    drop(
        diptych_catalog::RedbCatalog::open(&path, east(), &diptych_catalog::RedbOptions::default()).unwrap(),
    );
    drop(server.connect("one").await);
    let refused = EtcdCatalog::connect(east(), server.options("truth")).await.unwrap_err();
    assert!(refused.to_string().contains("engine redb"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_etcd_is_waited_for_and_has_all_that_was_acknowledged() {
    let mut server = Server::start();
    let catalog = server.connect("one").await;
    let position = committed(&catalog, "before", "1").await;
    server.kill();
    let lost = catalog.commit(put("during", "1")).await.unwrap_err();
    assert!(matches!(lost, CatalogError::Unclear { .. }), "{lost}");
    assert!(matches!(catalog.view().await.err(), Some(CatalogError::Unavailable { .. })));
    server.restart();
    answering(&catalog).await;
    assert!(read(&catalog, "before").await.is_some());
    let newest = committed(&catalog, "after", "1").await;
    assert!(newest > position);
    assert!(read(&catalog, "after").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_lost_what_it_had_is_another_incarnation() {
    let mut server = Server::start();
    let catalog = server.connect("one").await;
    for number in 0..20 {
        committed(&catalog, "lost", &number.to_string()).await;
    }
    let before = catalog.view().await.unwrap().position();
    server.kill();
    server.wipe();
    server.restart();
    // Another process is there first and begins the new incarnation.
    let other = server.connect("other").await;
    answering(&catalog).await;
    assert_ne!(catalog.position().await.unwrap().incarnation, before.incarnation);
    assert_eq!(read(&catalog, "lost").await, None);
    committed(&other, "found", "1").await;
    assert!(read(&catalog, "found").await.is_some());
    match catalog.feed(before).await.unwrap() {
        FeedStart::Compacted { oldest } => assert_ne!(oldest.incarnation, before.incarnation),
        FeedStart::From(_) => panic!("{before:?} is of another incarnation"),
    }
}

/// Waits until as many bytes are in use: etcd writes, frees and counts a moment later.
async fn in_use(catalog: &EtcdCatalog, fits: impl Fn(u64) -> bool) {
    let begun = Instant::now();
    loop {
        let used = catalog.room().await.unwrap().used;
        if fits(used) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{used} bytes are in use");
        committed(catalog, "small", "1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcds_own_quota_does_not_hold_commits_back_but_the_room_is_known() {
    // Transactions within transactions, as a batch is, cost nothing in its count.
    let mut server = Server::start_small(4 << 20);
    let catalog = server.connect("one").await;
    let large = "x".repeat(500 << 10);
    for number in 0..12 {
        committed(&catalog, &format!("large-{number}"), &large).await;
    }
    assert_eq!(catalog.room().await.unwrap().limit, Some(4 << 20));
    in_use(&catalog, |used| used > 4 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_takes_no_room() {
    let mut server = Server::start();
    let catalog = server.connect("one").await;
    let large = "x".repeat(200 << 10);
    for _ in 0..30 {
        committed(&catalog, "same", &large).await;
    }
    in_use(&catalog, |used| used > 4 << 20).await;
    catalog.compact_feed(catalog.position().await.unwrap()).await.unwrap();
    in_use(&catalog, |used| used < 2 << 20).await;
    assert!(read(&catalog, "same").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_does_not_answer_is_named() {
    let mirror = tempfile::tempdir().unwrap();
    let nobody = EtcdOptions {
        timeout: Duration::from_millis(200),
        ..EtcdOptions::new(vec!["http://127.0.0.1:1".to_owned()], mirror.path().join("mirror"))
    };
    let refused = EtcdCatalog::connect(east(), nobody).await.unwrap_err();
    assert!(matches!(refused, CatalogError::Unavailable { .. }), "{refused}");
    assert!(refused.to_string().contains("etcd"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_reached_over_mutual_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let sign = || {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = sign();
    let tls = ServerTls {
        authority: file("ca.pem", &authority_pem),
        certificate: file("etcd.pem", &certificate),
        key: file("etcd.key", &key),
    };
    let mut server = Server::start_with(folder, Some(tls));
    let certified = || {
        let (certificate, key) = sign();
        EtcdTls { authority: authority_pem.clone(), certificate, key, domain: None }
    };
    let catalog = server.connect_tls("one", certified()).await;
    let first = committed(&catalog, "a", "1").await;
    assert!(read(&catalog, "a").await.is_some());
    // The next call shows the other certificate: one that etcd does not trust is refused at once.
    let key = KeyPair::generate().unwrap();
    let strangers = CertificateParams::new([]).unwrap().self_signed(&key).unwrap();
    let stranger = EtcdTls { certificate: strangers.pem(), key: key.serialize_pem(), ..certified() };
    catalog.renew(stranger).await.unwrap();
    catalog.commit(put("b", "1")).await.expect_err("nothing is left that shows the first certificate");
    catalog.renew(certified()).await.unwrap();
    answering(&catalog).await;
    let newest = committed(&catalog, "c", "1").await;
    assert!(read(&catalog, "c").await.is_some(), "the mirror follows on");
    feed_until(&catalog, first, newest).await;
}

/// Writes until it is done; how long that took.
async fn insists(catalog: &EtcdCatalog, name: &str) -> Duration {
    let begun = Instant::now();
    loop {
        match catalog.commit(put(name, "1")).await {
            Ok(committed) => {
                assert!(committed.all_applied());
                return begun.elapsed();
            }
            Err(error) => {
                assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_falls_silent_is_left_for_another() {
    for lost in 0..3 {
        let mut members = Server::cluster();
        let endpoints = members.iter().map(Server::url).collect();
        let options = EtcdOptions::new(endpoints, members[0].mirror("one"));
        let catalog = members[0].connect_with(options).await;
        committed(&catalog, "before", "1").await;
        // Whichever member is used: one of the three rounds takes it away.
        members[lost].freeze();
        let took = insists(&catalog, "frozen").await;
        println!("a commit took {took:?} when a member was frozen");
        assert!(took < catalog_timeout(), "a frozen member held up a commit for {took:?}");
        assert!(read(&catalog, "before").await.is_some() && read(&catalog, "frozen").await.is_some());
        members[lost].kill();
        insists(&catalog, "killed").await;
        for number in 0..20 {
            committed(&catalog, &format!("after-{number}"), "1").await;
        }
        assert!(read(&catalog, "after-19").await.is_some());
    }
}

/// What a call waits for without another member to go to.
fn catalog_timeout() -> Duration {
    EtcdOptions::new(Vec::new(), std::path::PathBuf::new()).timeout
}
