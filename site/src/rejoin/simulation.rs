//! Two sites' catalogs through terms at random: writes, takeovers, starts of the active site anew, handovers, while the link comes
//! and goes and either site may have a term that the other never saw. Real catalogs, doors, followers and merges; the keepers'
//! part is played: which site may open its gate is `core::lease`'s, and its own simulation's.
//!
//! In the end both sites have the same, and every version that was committed is head, an older version, a conflict version or in
//! the ledger, or one that replaced it is. Every ring key that was made is in the keyring.
//!
//! `DIPTYCH_TERMS_SEED=N` replays one seed; `DIPTYCH_TERMS_CASES=N` tries so many, from that one on where both are given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diptych_catalog::{Catalog, Expect, FeedEntry};
use diptych_core::ids::{BucketId, Hlc, RingKeyNumber, VersionId};
use diptych_core::keyring::{Keyring, RingKey};
use diptych_core::lease::Message;
use diptych_core::records::{Content, Etag, Gate, Head, HeadBody, LedgerEntry, Object, VersionRef};
use diptych_wire::authority::Authority;
use diptych_wire::http::serve;
use diptych_wire::identity::{Expected, Role};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::door::{DoorKeeper, DoorParts, router};
use crate::drill::CutSwitch;
use crate::keeper::KeeperState;
use crate::keys::{find_keyring, fresh};
use crate::peer::cursor_of;
use crate::peer::exposure::ExposureWatch;
use crate::peer::follow::Follower;
use crate::peer::reached::Reached;
use crate::testing::{self, CLUSTER};

const NAMES: [&str; 2] = ["east", "west"];
const BUCKET: BucketId = BucketId([1; 8]);
const OBJECTS: u8 = 4;
const STEPS: usize = 40;
const CASES: u64 = 12;
/// Until both sites agree.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves under the epoch whose number it holds; 0: not at all.
struct Serving(Arc<AtomicU64>);

impl DoorKeeper for Serving {
    fn deliver(&self, _: Message) {}

    fn serves(&self) -> Option<Epoch> {
        Some(Epoch(self.0.load(Ordering::Relaxed))).filter(|epoch| epoch.0 > 0)
    }
}

struct Site {
    context: Arc<SiteContext>,
    serving: Arc<AtomicU64>,
    /// Asks the other site.
    client: PeerClient,
    follower: Option<JoinHandle<()>>,
    _folder: TempDir,
}

struct World {
    sites: [Site; 2],
    rng: StdRng,
    /// The newest that was won.
    epoch: Epoch,
    /// By a client.
    committed: BTreeSet<VersionId>,
    /// In any site; blobs may lie under them.
    ring_keys: BTreeSet<RingKeyNumber>,
    /// What was done, for who reads of a failure.
    story: Vec<String>,
}

impl World {
    async fn begin(seed: u64) -> Self {
        let authority = Authority::create(CLUSTER).expect("an authority");
        let mut doors = Vec::new();
        for number in 0..2 {
            let (context, folder) = testing::site_of_two(NAMES[number], NAMES[1 - number]);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let serving = Arc::new(AtomicU64::new(0));
            let willing = testing::willing(Arc::clone(&context.catalog), NAMES[1 - number], None);
            let keeper = Arc::new(Serving(Arc::clone(&serving)));
            let door = router(DoorParts { keeper, ..willing });
            let gateway = testing::issued(&authority, NAMES[number], Role::Gateway);
            tokio::spawn(async move { serve(listener, &gateway, Expected::any_of(CLUSTER), door).await });
            doors.push((Arc::new(context), folder, serving, address));
        }
        let addresses = [doors[0].3, doors[1].3];
        let site = |(number, (context, folder, serving, _)): (usize, (Arc<SiteContext>, TempDir, _, _))| {
            let own = testing::issued(&authority, NAMES[number], Role::Operator);
            let other = NAMES[1 - number].parse().expect("a name");
            let client =
                PeerClient::new(&[addresses[1 - number]], &other, CLUSTER, &own, CutSwitch::default());
            Site { context, serving, client: client.expect("a client"), follower: None, _folder: folder }
        };
        let sites: Vec<Site> = doors.into_iter().enumerate().map(site).collect();
        let sites = sites.try_into().unwrap_or_else(|_| panic!("there are two"));
        let rng = StdRng::seed_from_u64(seed);
        let (committed, ring_keys) = (BTreeSet::new(), BTreeSet::from([RingKeyNumber(1)]));
        let mut world = Self { sites, rng, epoch: Epoch(0), committed, ring_keys, story: Vec::new() };
        world.win(0).await;
        let sealed = Keyring::create(CLUSTER, fresh()).seal(testing::cluster_keys().keys().newest());
        let first = Change::blind(vec![Write::Put(keys::keyring(), sealed.into())]);
        world.catalog(0).commit(Batch::one(Some(Epoch(1)), first)).await.expect("it commits");
        world
    }

    fn catalog(&self, site: usize) -> &dyn Catalog {
        self.sites[site].context.catalog.as_ref()
    }

    async fn record(&self, site: usize) -> SiteRecord {
        let view = self.catalog(site).view().await.expect("a view");
        record::read(view.as_ref(), &self.sites[site].context.site).expect("it reads")
    }

    async fn open_epoch(&self, site: usize) -> Option<Epoch> {
        match self.record(site).await.gate {
            Gate::Open(epoch) => Some(epoch),
            Gate::Closed | Gate::Sealed(_) => None,
        }
    }

    async fn persist(&self, site: usize, change: impl Fn(&SiteRecord) -> SiteRecord) {
        // A follower of the site may move its cursor meanwhile, which a beginning term compares.
        loop {
            let own = self.record(site).await;
            let stored = record::persist(self.catalog(site), &change(&own), &own).await;
            if let Persisted::Stored { .. } = stored.expect("it answers") {
                return;
            }
        }
    }

    /// The site wins a term, and opens its gate.
    async fn win(&mut self, site: usize) {
        self.epoch = Epoch(self.epoch.0 + 1);
        let (epoch, name) = (self.epoch, self.sites[site].context.site.clone());
        self.persist(site, |own| own.with(epoch, Some(name.clone()), Gate::Open(epoch))).await;
        // No version here has bytes that could be lost.
        let accounted =
            Write::Put(keys::site_accounted(&name), Bytes::copy_from_slice(&epoch.0.to_be_bytes()));
        self.catalog(site)
            .commit(Batch::one(None, Change::blind(vec![accounted])))
            .await
            .expect("it commits");
        self.sites[site].serving.store(epoch.0, Ordering::Relaxed);
        self.tell(site, &format!("wins {epoch}")).await;
    }

    async fn tell(&mut self, site: usize, what: &str) {
        let position = self.catalog(site).position().await.expect("a position").revision;
        let view = self.catalog(site).view().await.expect("a view");
        let applied = cursor_of(view.as_ref(), &self.sites[site].context.site).expect("a cursor").applied;
        self.story.push(format!("{} {what} at {position}, {} applied", NAMES[site], applied.revision));
    }

    async fn stop(&mut self, site: usize) {
        self.sites[site].serving.store(0, Ordering::Relaxed);
        self.persist(site, |own| own.with_gate(Gate::Closed)).await;
        self.tell(site, "stops").await;
    }

    fn link(&mut self, up: bool) {
        for site in &mut self.sites {
            if let Some(follower) = site.follower.take() {
                follower.abort();
            }
            if up {
                let context = Arc::clone(&site.context);
                let peer = context.peer.clone().expect("there are two");
                let keeper =
                    KeeperHandle::new(mpsc::unbounded_channel().0, watch::channel(KeeperState::at_start()).1);
                let heard = ExposureWatch::new(Arc::clone(&context.catalog), peer.clone()).heard();
                let reached = Arc::new(Reached::new(Arc::clone(&context)));
                let follower = Follower::new(context, peer, site.client.clone(), keeper, reached, heard);
                site.follower = Some(tokio::spawn(follower.run()));
            }
        }
    }

    /// As a gateway changes a head: by a compare on it, under the gate's epoch; what it replaced is kept.
    async fn change(&mut self, site: usize, epoch: Epoch) {
        let number = self.rng.random_range(0..OBJECTS);
        let object = [b'a' + number];
        let deletes = self.rng.random_bool(0.3);
        let view = self.catalog(site).view().await.expect("a view");
        let key = keys::head(BUCKET, &object);
        let raw = view.get(&key).expect("it reads");
        drop(view);
        let head = raw.as_deref().map(|raw| Head::decode(raw).expect("a head"));
        let gone = head.as_ref().is_none_or(|head| !matches!(head.body, HeadBody::Object(_)));
        if deletes && gone {
            return;
        }
        // Clocks are apart, and neither goes back.
        let hlc = head.as_ref().map_or(0, |head| head.at.hlc.0) + self.rng.random_range(1..1000);
        let at = VersionRef { epoch, hlc: Hlc(hlc), version: VersionId(self.rng.random()) };
        let body = if deletes { HeadBody::Tombstone } else { HeadBody::Object(Box::new(empty())) };
        let new = Head::new(at, head.as_ref().map(|head| head.at), body);
        let mut writes = vec![Write::Put(key.clone(), new.encode().into())];
        if let (Some(head), Some(raw)) = (&head, &raw) {
            let older = keys::older_version(BUCKET, &object, head.at.epoch, head.at.hlc);
            writes.push(Write::Put(older, raw.clone()));
        }
        let guards = vec![Guard { key, expect: raw.map_or(Expect::Absent, Expect::Value) }];
        let batch = Batch::one(Some(epoch), Change { guards, writes });
        if self.catalog(site).commit(batch).await.is_ok_and(|committed| committed.all_applied()) {
            self.committed.insert(at.version);
            let what = if deletes { "deletes" } else { "puts" };
            self.tell(site, &format!("{what} {} as {:?} {:?}", object.escape_ascii(), at.version, at.hlc))
                .await;
        }
    }

    /// A ring key is made, or the one that was made last is taken into use.
    async fn turn_ring_key(&mut self, site: usize, epoch: Epoch) {
        let (catalog, provider) = (self.catalog(site), testing::cluster_keys());
        // A site that was never told of the other's has none.
        let Ok(found) = find_keyring(catalog, &provider).await else { return };
        let turned = match found.keyring.prepared() {
            Some(_) => found.take_into_use(catalog, epoch, &provider).await.map(|()| None),
            None => found.add(catalog, epoch, &provider).await.map(Some),
        };
        if let Ok(made) = turned {
            self.ring_keys.extend(made);
            self.tell(site, &format!("turns its ring keys: {made:?}")).await;
        }
    }

    async fn step(&mut self) {
        let open = [self.open_epoch(0).await, self.open_epoch(1).await];
        let newest = usize::from(open[1] > open[0]);
        match self.rng.random_range(0..100) {
            0..5 => {
                let site = self.rng.random_range(0..2);
                if let Some(epoch) = open[site] {
                    self.turn_ring_key(site, epoch).await;
                }
            }
            5..70 => {
                let site = self.rng.random_range(0..2);
                if let Some(epoch) = open[site] {
                    self.change(site, epoch).await;
                }
            }
            70..80 => {
                let up = self.rng.random_bool(0.6);
                self.link(up);
                self.story.push(format!("the link is {}", if up { "up, anew" } else { "cut" }));
            }
            // The one that was active is not told: it may go on committing until it hears of it.
            80..86 => self.win(1 - newest).await,
            86..92 => {
                self.stop(newest).await;
                self.win(newest).await;
            }
            92..97 => self.hand_over(newest).await,
            _ => tokio::time::sleep(Duration::from_millis(self.rng.random_range(1..30))).await,
        }
    }

    /// The active site stops, the other one applies all of it, then begins its own term; where it does not catch up soon, the active one goes on.
    async fn hand_over(&mut self, from: usize) {
        self.stop(from).await;
        let (last, to) = (self.catalog(from).position().await.expect("a position"), 1 - from);
        let begun = Instant::now();
        let caught_up = loop {
            let view = self.catalog(to).view().await.expect("a view");
            let cursor = cursor_of(view.as_ref(), &self.sites[to].context.site).expect("a cursor");
            if cursor.applied >= last {
                break true;
            }
            if begun.elapsed() > Duration::from_millis(300) {
                break false;
            }
            tokio::task::yield_now().await;
        };
        self.win(if caught_up { to } else { from }).await;
    }

    /// All role-owned records.
    async fn role_owned(&self, site: usize) -> BTreeMap<Key, Bytes> {
        let view = self.catalog(site).view().await.expect("a view");
        let mut found = BTreeMap::new();
        let everything = KeyRange { start: Key(Vec::new()), end: Key(vec![0xff; 64]) };
        each(view.as_ref(), &everything, |key, value| {
            if keys::owner(key) == Some(Owner::Active) {
                found.insert(key.clone(), value.clone());
            }
            Ok(ControlFlow::Continue(()))
        })
        .expect("it reads");
        found
    }

    /// What a site's catalog went through.
    async fn feed(&self, site: usize) -> Vec<FeedEntry> {
        let newest = self.catalog(site).position().await.expect("a position");
        let begin = Position { revision: 0, ..newest };
        let FeedStart::From(mut feed) = self.catalog(site).feed(begin).await.expect("a feed") else {
            panic!("nobody compacts it");
        };
        let mut entries = Vec::new();
        while entries.last().is_none_or(|entry: &FeedEntry| entry.position < newest) {
            entries.push(feed.next().await.expect("it goes on").expect("it reads"));
        }
        entries
    }

    /// What was done, and what both catalogs went through.
    async fn told(&self) -> String {
        let mut told = self.story.clone();
        for (site, name) in NAMES.into_iter().enumerate() {
            for FeedEntry { position, changes } in self.feed(site).await {
                let said = changes.iter().map(|(key, value)| show(key, value.as_ref()));
                told.push(format!("{name} {}: {}", position.revision, said.collect::<Vec<_>>().join(", ")));
            }
        }
        told.join("\n")
    }

    /// Both sites have the same, which is given.
    async fn settled(&mut self) -> BTreeMap<Key, Bytes> {
        let open = [self.open_epoch(0).await, self.open_epoch(1).await];
        if open == [None, None] {
            self.win(0).await;
        }
        self.link(true);
        let begun = Instant::now();
        loop {
            let open = [self.open_epoch(0).await, self.open_epoch(1).await];
            let (east, west) = (self.role_owned(0).await, self.role_owned(1).await);
            if east == west && open.iter().flatten().count() == 1 {
                return east;
            }
            if begun.elapsed() > PATIENCE {
                let differs = difference(&east, &west);
                panic!("gates {open:?}\n{differs}\n{}", self.told().await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn empty() -> Object {
    Object {
        size: 0,
        etag: Etag { md5: [0; 16], parts: 0 },
        modified_ms: 0,
        headers: Vec::new(),
        tags: Vec::new(),
        content: Content::Inline(Vec::new()),
    }
}

/// The version that a record is, if it is one.
fn version(key: &Key, raw: &Bytes) -> Option<Head> {
    matches!(&key.0[..2], b"h/" | b"v/" | b"c/").then(|| Head::decode(raw).expect("a version"))
}

fn show(key: &Key, value: Option<&Bytes>) -> String {
    let body = match value.map(|raw| (version(key, raw), raw.len())) {
        None => "gone".to_owned(),
        Some((None, bytes)) => format!("{bytes} bytes"),
        Some((Some(Head { at, replaces, .. }), _)) => {
            let replaces = replaces.map(|at| at.version);
            format!("{:?} of {} at {} replaces {replaces:?}", at.version, at.epoch, at.hlc.0)
        }
    };
    format!("{} = {body}", key.0.escape_ascii())
}

fn difference(east: &BTreeMap<Key, Bytes>, west: &BTreeMap<Key, Bytes>) -> String {
    let keys: BTreeSet<&Key> = east.keys().chain(west.keys()).collect();
    let differs = keys.into_iter().filter(|key| east.get(key) != west.get(key));
    let said =
        differs.map(|key| format!("east {}\nwest {}", show(key, east.get(key)), show(key, west.get(key))));
    said.collect::<Vec<_>>().join("\n")
}

/// Versions that stand somewhere.
fn kept(records: &BTreeMap<Key, Bytes>) -> BTreeSet<VersionId> {
    let mut kept = BTreeSet::new();
    for (key, raw) in records {
        kept.extend(version(key, raw).map(|head| head.at.version));
        if key.0.starts_with(b"y/") {
            kept.extend(LedgerEntry::decode(raw).expect("an entry").version.map(|at| at.version));
        }
    }
    kept
}

/// Versions that are kept nowhere, and neither is any that replaced them; `replaced`: which replaced which, in either site.
fn lost(
    committed: &BTreeSet<VersionId>,
    kept: &BTreeSet<VersionId>,
    replaced: &[(VersionId, VersionId)],
) -> Vec<VersionId> {
    let mut fine = kept.clone();
    loop {
        let before = fine.len();
        fine.extend(
            replaced.iter().filter(|(by, _)| fine.contains(by)).map(|(_, what)| *what).collect::<Vec<_>>(),
        );
        if fine.len() == before {
            return committed.difference(&fine).copied().collect();
        }
    }
}

async fn play(seed: u64) {
    let mut world = World::begin(seed).await;
    world.link(true);
    for _ in 0..STEPS {
        world.step().await;
    }
    let records = world.settled().await;
    let told = world.told().await;
    let sealed = records.get(&keys::keyring()).unwrap_or_else(|| panic!("no keyring is left\n{told}"));
    let keyring = testing::cluster_keys().open(sealed).expect("it opens");
    let there: BTreeSet<_> = keyring.ring_keys().iter().map(RingKey::number).collect();
    assert_eq!(there, world.ring_keys, "of the ring keys that were made\n{told}");
    world.link(false);
    let mut replaced = Vec::new();
    for site in 0..2 {
        for FeedEntry { changes, .. } in world.feed(site).await {
            let heads = changes.iter().filter_map(|(key, value)| version(key, value.as_ref()?));
            replaced.extend(heads.filter_map(|head| Some((head.at.version, head.replaces?.version))));
        }
    }
    let lost = lost(&world.committed, &kept(&records), &replaced);
    if !lost.is_empty() {
        let all = world.committed.len();
        panic!("of {all} versions these are kept nowhere: {lost:?}\n{told}");
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: a number is needed")))
}

#[tokio::test(flavor = "multi_thread")]
async fn through_any_terms_both_sites_come_to_the_same_and_no_version_or_ring_key_vanishes() {
    let seeds = match (variable("DIPTYCH_TERMS_SEED"), variable("DIPTYCH_TERMS_CASES")) {
        (Some(seed), None) => seed..seed + 1,
        (first, cases) => first.unwrap_or(0)..first.unwrap_or(0) + cases.unwrap_or(CASES),
    };
    for seed in seeds {
        let played = tokio::spawn(play(seed)).await;
        assert!(played.is_ok(), "seed {seed} failed: DIPTYCH_TERMS_SEED={seed} replays it");
    }
}
