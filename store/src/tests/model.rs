//! The store against a reference: random puts, gets, deletes, compactions, scrubs, reopens and mishaps, after each of which what was
//! answered is there, what is there is right, and what was deleted stays away.
//!
//! `DIPTYCH_STORE_CASES` sets how many sequences are tried, `DIPTYCH_STORE_MINUTES` for how long instead (`cargo xtask fuzz
//! store_model`). Each sequence has a seed, which is printed with the shortest sequence that fails; `DIPTYCH_STORE_SEED`
//! begins with it. What threads do side by side is not part of a seed.

mod world;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use world::World;

/// What a caller asks for.
#[derive(Debug, Clone)]
enum Work {
    Put {
        extent: u8,
        row: u8,
        len: usize,
    },
    /// Begun and left open for later.
    Begin {
        extent: u8,
        len: usize,
    },
    Finish,
    Abandon,
    Get(usize),
    Delete(usize),
    Scrub,
    Reclaim,
    /// Beside what else is asked for at once.
    Compact,
}

/// What befalls the device.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    /// The power goes at a change of the disk: of what is not synced a part is kept, torn and in any order.
    Crash { changes: u64, seed: u64 },
    /// kill -9 of the process at a change of the disk.
    Kill { changes: u64 },
    /// From one on, all syncs fail.
    FailingSyncs { syncs: u64 },
    /// The disk has so many bytes left.
    FullDisk { room: u64 },
}

#[derive(Debug, Clone)]
enum Step {
    /// Each is waited for.
    Works(Work),
    /// All asked for before the first is waited for: a group commit.
    AtOnce(Vec<Work>),
    /// Asked for, and nobody may hear the answer; perhaps the device is closed behind it.
    Mishap {
        what: Mishap,
        during: Vec<Work>,
        close: bool,
    },
    /// The power goes while the device is being opened after a crash.
    CrashWhileOpening {
        changes: u64,
        seed: u64,
    },
    Reopen,
    LoseIndex,
    /// A byte of a row rots, and scrub or a read finds it.
    Rot {
        which: usize,
        at: usize,
        scrub: bool,
    },
}

fn works() -> impl Strategy<Value = Work> {
    let len = prop_oneof![0..200_usize, 3_000..20_000_usize, 60_000..150_000_usize];
    prop_oneof![
        10 => (0..6_u8, 0..3_u8, len.clone()).prop_map(|(extent, row, len)| Work::Put { extent, row, len }),
        2 => (0..6_u8, len).prop_map(|(extent, len)| Work::Begin { extent, len }),
        2 => Just(Work::Finish),
        1 => Just(Work::Abandon),
        3 => any::<usize>().prop_map(Work::Get),
        6 => any::<usize>().prop_map(Work::Delete),
        1 => Just(Work::Scrub),
        2 => Just(Work::Reclaim),
        4 => Just(Work::Compact),
    ]
}

fn mishaps() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        4 => (0..40_u64, any::<u64>()).prop_map(|(changes, seed)| Mishap::Crash { changes, seed }),
        1 => (0..40_u64).prop_map(|changes| Mishap::Kill { changes }),
        2 => (0..12_u64).prop_map(|syncs| Mishap::FailingSyncs { syncs }),
        1 => prop_oneof![0..200_000_u64, 520_000..900_000_u64].prop_map(|room| Mishap::FullDisk { room }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || prop::collection::vec(works(), 0..8);
    let one = prop_oneof![
        24 => works().prop_map(Step::Works),
        2 => some().prop_map(Step::AtOnce),
        5 => (mishaps(), some(), any::<bool>())
            .prop_map(|(what, during, close)| Step::Mishap { what, during, close }),
        1 => (0..60_u64, any::<u64>()).prop_map(|(changes, seed)| Step::CrashWhileOpening { changes, seed }),
        1 => Just(Step::Reopen),
        1 => Just(Step::LoseIndex),
        1 => (any::<usize>(), any::<usize>(), any::<bool>())
            .prop_map(|(which, at, scrub)| Step::Rot { which, at, scrub }),
    ];
    prop::collection::vec(one, 1..60)
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: a number is needed")))
}

/// One sequence of steps; the shortest that fails is part of the error.
fn try_sequence(seed: u64) -> Result<(), String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1, max_shrink_iters: 4096, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let zeros = prop_oneof![Just(0), Just(40_000)];
    let tried = runner.run(&(steps(), zeros), |(steps, zero_ahead_bytes)| {
        let mut world = World::new(zero_ahead_bytes);
        for step in &steps {
            world.step(step);
            world.check();
        }
        Ok(())
    });
    tried.map_err(|failure| format!("seed {seed} (DIPTYCH_STORE_SEED={seed} tries it again): {failure}"))
}

#[test]
fn what_is_answered_survives_every_sequence_of_steps() {
    let first = variable("DIPTYCH_STORE_SEED").unwrap_or_else(rand::random);
    let minutes = variable("DIPTYCH_STORE_MINUTES").map(|minutes| Duration::from_secs(60 * minutes));
    let cases = variable("DIPTYCH_STORE_CASES").unwrap_or(60);
    let began = Instant::now();
    let mut tried = 0;
    while minutes.map_or(tried < cases, |minutes| began.elapsed() < minutes) {
        if let Err(failure) = try_sequence(first.wrapping_add(tried)) {
            panic!("{failure}");
        }
        tried += 1;
    }
    println!("model: {tried} sequences, the first of seed {first}");
}
