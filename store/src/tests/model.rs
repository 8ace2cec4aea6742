//! The store against a reference: random puts, gets, deletes, scrubs, reopens and crashes, after each of which what was
//! answered is there, what is there is right, and what was deleted stays away.
//!
//! `DIPTYCH_STORE_CASES` sets how many sequences are tried. Proptest prints the seed and the shortest sequence that fails.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::*;
use crate::disk::simulated::SimulatedDisk;
use crate::{Device, InventoryKey, NewRow, Purpose, StoreError, Writer};

#[derive(Debug, Clone)]
enum Step {
    Put {
        extent: u8,
        row: u8,
        len: usize,
    },
    /// Begun and left open for later steps.
    Begin {
        extent: u8,
        len: usize,
    },
    Finish,
    Abandon,
    Get(usize),
    Delete(usize),
    /// Asked for, and the power goes before anybody hears the answer.
    CrashWhilePutting {
        extent: u8,
        len: usize,
        seed: u64,
    },
    CrashWhileDeleting {
        which: usize,
        seed: u64,
    },
    Scrub,
    Reclaim,
    Reopen,
    LoseIndex,
    FailingSync {
        after: u64,
        extent: u8,
        len: usize,
        seed: u64,
    },
    Crash(u64),
    /// kill -9 of the process while a put is on its way.
    Kill {
        extent: u8,
        len: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![0..200_usize, 3_000..20_000_usize, 60_000..150_000_usize];
    let one = prop_oneof![
        10 => (0..6_u8, 0..3_u8, len.clone()).prop_map(|(extent, row, len)| Step::Put { extent, row, len }),
        2 => (0..6_u8, len.clone()).prop_map(|(extent, len)| Step::Begin { extent, len }),
        2 => Just(Step::Finish),
        1 => Just(Step::Abandon),
        3 => any::<usize>().prop_map(Step::Get),
        6 => any::<usize>().prop_map(Step::Delete),
        1 => (0..6_u8, len.clone(), any::<u64>())
            .prop_map(|(extent, len, seed)| Step::CrashWhilePutting { extent, len, seed }),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(which, seed)| Step::CrashWhileDeleting { which, seed }),
        1 => Just(Step::Scrub),
        2 => Just(Step::Reclaim),
        1 => Just(Step::Reopen),
        1 => Just(Step::LoseIndex),
        1 => (0..6_u64, 0..6_u8, len.clone(), any::<u64>())
            .prop_map(|(after, extent, len, seed)| Step::FailingSync { after, extent, len, seed }),
        2 => any::<u64>().prop_map(Step::Crash),
        1 => (0..6_u8, len).prop_map(|(extent, len)| Step::Kill { extent, len }),
    ];
    prop::collection::vec(one, 1..60)
}

/// What the model says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    There,
    /// Asked for and not answered: there or not, settled by looking.
    Perhaps,
    Gone,
}

struct World {
    disk: SimulatedDisk,
    device: Option<Device>,
    open: Option<(Writer, NewRow, Vec<u8>)>,
    /// Everything ever put: what it was, and what became of it.
    model: BTreeMap<u64, (NewRow, Vec<u8>, Fate)>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let disk = formatted();
        let device = Some(open(&disk));
        Self { disk, device, open: None, model: BTreeMap::new(), next: 1 }
    }

    fn device(&self) -> &Device {
        self.device.as_ref().expect("it is open between steps")
    }

    fn fresh(&mut self, extent: u8, row: u8, len: usize) -> (NewRow, Vec<u8>) {
        self.next += 1;
        (new_row(extent, row, self.next), bytes(self.next, len))
    }

    fn note(&mut self, row: &NewRow, content: Vec<u8>, fate: Fate) {
        self.model.insert(u64::from_be_bytes(row.instance.0), (row.clone(), content, fate));
    }

    fn pick(&self, which: usize) -> Option<u64> {
        let there: Vec<u64> =
            self.model.iter().filter(|(_, entry)| entry.2 == Fate::There).map(|(key, _)| *key).collect();
        (!there.is_empty()).then(|| there[which % there.len()])
    }

    fn forget_handles(&mut self) {
        self.open = None;
        self.device = None;
    }

    fn crash(&mut self, seed: u64) {
        self.disk.crash(seed);
        self.forget_handles();
        self.device = Some(open(&self.disk));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { extent, row, len } => {
                let (row, content) = self.fresh(extent, row, len);
                put(self.device(), &row, &content).expect("there is room");
                self.note(&row, content, Fate::There);
            }
            Step::Begin { extent, len } => {
                let (row, content) = self.fresh(extent, 9, len);
                let room = len as u64 + 5_000;
                let mut writer = self.device().begin(&row, room, Purpose::Client).expect("there is room");
                content.chunks(7_777).for_each(|piece| writer.append(piece).expect("it was reserved"));
                self.open = Some((writer, row, content));
            }
            Step::Finish => {
                if let Some((writer, row, content)) = self.open.take() {
                    writer.seal(&end()).expect("it is whole").wait().expect("it is durable");
                    self.note(&row, content, Fate::There);
                }
            }
            Step::Abandon => {
                if let Some((writer, row, content)) = self.open.take() {
                    writer.abandon();
                    self.note(&row, content, Fate::Gone);
                }
            }
            Step::Get(which) => {
                if let Some(key) = self.pick(which) {
                    let (row, content, _) = &self.model[&key];
                    assert_eq!(&get(self.device(), row).expect("it was answered"), content);
                }
            }
            Step::Delete(which) => {
                if let Some(key) = self.pick(which) {
                    delete(self.device(), &self.model[&key].0).expect("it is there");
                    self.model.get_mut(&key).expect("it was picked").2 = Fate::Gone;
                }
            }
            Step::Scrub => while !self.device().scrub_step(50_000, 1).expect("it reads").finished {},
            Step::Reclaim => drop(self.device().reclaim().expect("it reclaims")),
            Step::CrashWhilePutting { .. }
            | Step::CrashWhileDeleting { .. }
            | Step::FailingSync { .. }
            | Step::Kill { .. } => {
                self.break_down(step);
            }
            Step::Crash(seed) => self.crash(seed),
            Step::Reopen | Step::LoseIndex => {
                self.open = None;
                self.device().close().expect("it closes");
                self.device = None;
                if matches!(step, Step::LoseIndex) {
                    self.disk.plant(&folder().join("index.redb"), Vec::new());
                }
                self.device = Some(open(&self.disk));
            }
        }
    }

    fn break_down(&mut self, step: &Step) {
        match *step {
            Step::CrashWhilePutting { extent, len, seed } => {
                let (row, content) = self.fresh(extent, 8, len);
                let pending =
                    self.device().put_row(&row, &content, &end(), Purpose::Client).expect("there is room");
                self.disk.crash(seed);
                let fate = if pending.wait().is_ok() { Fate::There } else { Fate::Perhaps };
                self.note(&row, content, fate);
                self.crash(seed);
            }
            Step::CrashWhileDeleting { which, seed } => {
                let Some(key) = self.pick(which) else { return };
                let row = self.model[&key].0.clone();
                let pending =
                    self.device().delete(row.extent, row.row, row.instance, stamp(1)).expect("it is there");
                self.disk.crash(seed);
                let fate = if pending.wait().is_ok() { Fate::Gone } else { Fate::Perhaps };
                self.model.get_mut(&key).expect("it was picked").2 = fate;
                self.crash(seed);
            }
            Step::Kill { extent, len } => {
                let (row, content) = self.fresh(extent, 6, len);
                let pending =
                    self.device().put_row(&row, &content, &end(), Purpose::Client).expect("there is room");
                self.disk.kill();
                let fate = if pending.wait().is_ok() { Fate::There } else { Fate::Perhaps };
                self.note(&row, content, fate);
                self.forget_handles();
                self.device = Some(open(&self.disk));
            }
            Step::FailingSync { after, extent, len, seed } => {
                self.disk.fail_syncs_after(Some(after));
                loop {
                    let (row, content) = self.fresh(extent, 7, len);
                    let outcome = put(self.device(), &row, &content);
                    self.note(&row, content, if outcome.is_ok() { Fate::There } else { Fate::Perhaps });
                    if outcome.is_err() {
                        break;
                    }
                }
                self.disk.fail_syncs_after(None);
                self.forget_handles();
                self.device = Some(open(&self.disk));
                if seed % 2 == 0 {
                    self.crash(seed);
                }
            }
            _ => {}
        }
    }

    /// Everything that must hold, whatever happened.
    fn check(&mut self) {
        let device = self.device.clone().expect("it is open between steps");
        let mut listed: Vec<InventoryKey> =
            device.inventory(None, usize::MAX).expect("it lists").iter().map(|entry| entry.key).collect();
        for (row, content, fate) in self.model.values_mut() {
            let key = InventoryKey { extent: row.extent, row: row.row, instance: row.instance };
            let place = listed.iter().position(|listed| *listed == key);
            match get(&device, row) {
                Ok(read) => {
                    assert_ne!(*fate, Fate::Gone, "{key:?} came back");
                    assert!(read == *content, "{key:?} has wrong bytes");
                    *fate = Fate::There;
                    listed.remove(place.expect("what reads is listed"));
                }
                Err(StoreError::NotFound { .. }) => {
                    assert_ne!(*fate, Fate::There, "{key:?} was answered and is lost");
                    assert_eq!(place, None, "{key:?} is listed and not found");
                    *fate = Fate::Gone;
                }
                Err(error) => panic!("{key:?}: {error}"),
            }
        }
        assert!(listed.is_empty(), "never put, or never answered and given up: {listed:?}");
        assert!(device.findings().expect("it lists").is_empty());
    }
}

#[test]
fn what_is_answered_survives_every_sequence_of_steps() {
    let cases = std::env::var("DIPTYCH_STORE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}\n{runner}");
    }
}
