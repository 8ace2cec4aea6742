use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cipher::SecretKey;
use crate::ids::{ClusterId, Epoch, Generation};
use crate::keyring::{ClusterKey, ClusterKeys, NewRingKey, RingKeyState};

const CLUSTER: ClusterId = ClusterId([1; 16]);

fn key(byte: u8) -> ClusterKey {
    ClusterKey::new([byte; 32])
}

fn fresh(made_ms: u64) -> NewRingKey {
    NewRingKey { key: SecretKey::new([7; 32]), nonce: [made_ms as u8; 12], made_ms }
}

/// A copy of the keyring as it lies somewhere.
type Copy = Vec<u8>;

/// Two sites, of which the first is active, with two devices each.
struct World {
    now_ms: u64,
    given: [ClusterKeys; 2],
    /// The passive one's follows.
    catalogs: [Copy; 2],
    journal: Copy,
    devices: [[Copy; 2]; 2],
    /// What each site's keeper wrote; the other one's came over.
    says: [Option<SiteKeys>; 2],
    came: [Option<SiteKeys>; 2],
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Give(usize),
    TakeAway(usize),
    Offer(usize, usize),
    Follow,
    Journal,
    Say(usize),
    Come(usize),
    Ask,
    Step,
    Wait,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let site = 0_usize..2;
    let act = prop_oneof![
        site.clone().prop_map(Act::Give),
        site.clone().prop_map(Act::TakeAway),
        (site.clone(), 0_usize..2).prop_map(|(site, device)| Act::Offer(site, device)),
        Just(Act::Follow),
        Just(Act::Journal),
        site.clone().prop_map(Act::Say),
        site.prop_map(Act::Come),
        Just(Act::Ask),
        Just(Act::Step),
        Just(Act::Wait),
    ];
    vec(act, 0..80)
}

impl World {
    fn begin() -> Self {
        let sealed = Keyring::create(CLUSTER, fresh(1)).seal(&key(1));
        let copies = || [sealed.clone(), sealed.clone()];
        Self {
            now_ms: 10,
            given: [key(1).into(), key(1).into()],
            catalogs: copies(),
            journal: sealed.clone(),
            devices: [copies(), copies()],
            says: [None, None],
            came: [None, None],
        }
    }

    fn keyring(&self, site: usize) -> Keyring {
        self.given[site].open(&self.catalogs[site]).expect("no site is given a key too few")
    }

    fn seen<T>(&self, site: usize, ask: impl Fn(&Seen<'_>) -> T) -> Option<T> {
        let keyring = self.keyring(site);
        let here = self.says[site].as_ref()?;
        let peer = self.came[1 - site].as_ref().map_or(Peer::Silent, Peer::Says);
        let wrapped_by = Keyring::wrapped_by(&self.catalogs[site]).expect("a keyring");
        let newest = self.given[site].newest().id(CLUSTER);
        (here.held.first() == Some(&newest))
            .then(|| ask(&Seen { keyring: &keyring, wrapped_by, newest, here, peer }))
    }

    /// What the active site's status says.
    fn progress(&self) -> Option<Progress> {
        self.seen(0, |seen| Some(seen.progress())).flatten()
    }

    /// Changes of ring keys leave the cluster key as it is.
    fn wrapping(&self) -> &ClusterKey {
        let id = Keyring::wrapped_by(&self.catalogs[0]).expect("a keyring");
        self.given[0].key(CLUSTER, id).expect("it is given")
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Give(site) => self.given[site] = ClusterKeys::new(key(2), Some(key(1))),
            // A person does as the status says.
            Act::TakeAway(site) => {
                if self.progress() == Some(Progress::PreviousMayGo) {
                    self.given[site] = key(2).into();
                }
            }
            Act::Offer(site, device) => self.devices[site][device].clone_from(&self.catalogs[site]),
            Act::Follow => self.catalogs[1] = self.catalogs[0].clone(),
            Act::Journal => self.journal.clone_from(&self.catalogs[0]),
            Act::Say(site) => self.say(site),
            Act::Come(site) => self.came[site].clone_from(&self.says[site]),
            Act::Ask => {
                let keyring = self.keyring(0);
                if keyring.prepared().is_none() {
                    let next = keyring.with_ring_key(Epoch(1), fresh(self.now_ms), RingKeyState::Prepared);
                    self.catalogs[0] = next.expect("a number").seal(self.wrapping());
                }
            }
            Act::Step => self.step(),
            Act::Wait => self.now_ms += PREPARED_FOR_MS,
        }
    }

    fn say(&mut self, site: usize) {
        let copy = &self.catalogs[site];
        let lacks = |device: &usize| self.devices[site][*device] != *copy;
        self.says[site] = Some(SiteKeys {
            held: self.given[site].ids(CLUSTER),
            generation: Keyring::generation_of(copy).expect("a keyring"),
            wrapped_by: Keyring::wrapped_by(copy).expect("a keyring"),
            missing: (0..2).filter(lacks).map(|device| format!("device {device}")).collect(),
            journaled: site == 0 && self.journal == *copy,
        });
    }

    fn step(&mut self) {
        let keyring = self.keyring(0);
        match self.seen(0, |seen| seen.step(self.now_ms)).flatten() {
            Some(Step::Rewrap) => self.catalogs[0] = keyring.next_generation().seal(&key(2)),
            Some(Step::TakeIntoUse) => {
                self.catalogs[0] = keyring.all_in_use().seal(self.wrapping());
            }
            Some(Step::Prepare) | None => {}
        }
    }

    /// What must be so at all times.
    fn holds(&self) {
        for site in 0..2 {
            assert!(
                self.given[site].open(&self.catalogs[site]).is_ok(),
                "site {site} can't open its catalog's"
            );
        }
        let by_newest = |copy: &Copy| Keyring::open(copy, &key(2)).is_ok();
        if self.progress() == Some(Progress::PreviousMayGo) {
            let copies = self.catalogs.iter().chain([&self.journal]).chain(self.devices.iter().flatten());
            assert!(copies.into_iter().all(by_newest), "the previous key is still needed");
        }
        let used = self.keyring(0).current().number();
        for device in &self.devices[0] {
            let both = ClusterKeys::new(key(1), Some(key(2)));
            let kept = both.open(device).expect("one of them opens");
            assert!(kept.ring_key(used).is_ok(), "ring key {used} is in use and not on every device");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn nothing_is_needed_that_may_go_and_nothing_is_sealed_by_what_is_not_on_every_device(acts in acts()) {
        let mut world = World::begin();
        for act in acts {
            world.act(act);
            world.holds();
        }
    }
}

#[test]
fn what_is_done_in_order_ends_with_the_previous_key_gone() {
    let mut world = World::begin();
    let all = |world: &mut World| {
        let spread = [
            Act::Follow,
            Act::Journal,
            Act::Offer(0, 0),
            Act::Offer(0, 1),
            Act::Offer(1, 0),
            Act::Offer(1, 1),
        ];
        for act in spread.into_iter().chain([Act::Say(0), Act::Say(1), Act::Come(1), Act::Come(0)]) {
            world.act(act);
        }
    };
    world.act(Act::Give(0));
    all(&mut world);
    world.act(Act::Step);
    assert_eq!(world.progress(), Some(Progress::PeerLacksKey));
    world.act(Act::Give(1));
    all(&mut world);
    assert_eq!(world.progress(), Some(Progress::Rewrapping));
    world.act(Act::Step);
    world.act(Act::Say(0));
    let waits = world.progress().expect("it looks");
    assert!(matches!(&waits, Progress::ReadingBack(missing) if missing.len() == 4), "{waits:?}");
    all(&mut world);
    assert_eq!(world.progress(), Some(Progress::PreviousMayGo));
    for site in 0..2 {
        world.act(Act::TakeAway(site));
        world.act(Act::Say(site));
    }
    assert_eq!(world.progress(), Some(Progress::Settled));
}

#[test]
fn a_ring_key_is_followed_after_thirty_days() {
    let keyring = Keyring::create(CLUSTER, fresh(1));
    let id = key(1).id(CLUSTER);
    let here = SiteKeys {
        held: vec![id],
        generation: Generation(1),
        wrapped_by: id,
        missing: Vec::new(),
        journaled: true,
    };
    let seen = Seen { keyring: &keyring, wrapped_by: id, newest: id, here: &here, peer: Peer::None };
    assert_eq!(seen.step(RING_KEY_LASTS_MS), None);
    assert_eq!(seen.step(RING_KEY_LASTS_MS + 1), Some(Step::Prepare));
}
