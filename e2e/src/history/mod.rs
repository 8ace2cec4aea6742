//! Histories: clients use registers (one S3 key each, through the public name) while sites die, freeze, are cut apart and switched. What each
//! asked for and was told is recorded under one clock, and e2e/history-checker says whether there is an order in which all of it could have
//! happened to one register in one place. What is allowed with `OneSite`, where a takeover can lose, stands there, too.
//!
//! A run goes by rounds, each with new registers and a history of its own: what is unknown to the end stays under way for ever, and a search
//! through much of that takes too long.

#![expect(clippy::print_stdout, reason = "a person reads what was found")]

mod aftermath;
mod clients;
mod faults;
mod record;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use diptych::client::s3::S3Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::process::Command;

use crate::demo::faults::Faults;
use crate::demo::installation::Installation;
use crate::demo::reach::{BUCKET, Reach};
use crate::kind::proof::leases::{LeaseWatch, one_holder_at_a_time};
use crate::network::Network;
use crate::program::{cache, outcome};
use clients::{Clients, Load, Shared};
use faults::Course;
pub use faults::Fault;
use record::Recorder;

/// For one that goes on through an outage.
const PATIENCE: Duration = Duration::from_mins(1);
/// Of a round.
const FAULTS: usize = 2;
/// A register that can't be decided is given up after two minutes.
const CHECKED: Duration = Duration::from_mins(20);

/// Options of a run.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "cargo xtask history",
    about = "Records what clients of registers see while sites die, and has it checked by Porcupine"
)]
pub struct HistoryOptions {
    /// No round begins after so many minutes
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
    /// OneSite or BothSites, as `diptych dev --acknowledge` takes it
    #[arg(long, default_value = "OneSite")]
    pub acknowledge: String,
    /// Which faults, and what clients ask for; it is printed, to be given again
    #[arg(long)]
    pub seed: Option<u64>,
    /// Clients at once
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Keys of a round
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub registers: u32,
    /// Each site is in a network namespace of its own (root is needed), and the cable between them is cut now and then
    #[arg(long)]
    pub cables: bool,
}

/// Records and checks round after round; true: every register is as it may be.
pub async fn run(options: &HistoryOptions) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("diptych-history-").tempdir()?;
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("--seed {seed}");
    let network = if options.cables { Some(Network::make()?) } else { None };
    let mut words = vec!["--sites", "2", "--acknowledge", &options.acknowledge, "--node-dead-after", "3"];
    let places = network.as_ref().map(Network::places).unwrap_or_default();
    words.extend(places.iter().map(String::as_str));
    let installation = Installation::start(&folder.path().join("data"), &words).await?;
    match rounds(&installation, network.as_ref(), options, (seed, folder.path())).await {
        Ok(rounds) => {
            println!("{rounds} rounds, no register but as it may be");
            installation.stop().await?;
            Ok(true)
        }
        Err(error) => {
            println!("FAILED: {error:#}\nhistories and installation are kept: {}", folder.keep().display());
            Ok(false)
        }
    }
}

async fn rounds(
    installation: &Installation,
    network: Option<&Network>,
    options: &HistoryOptions,
    (seed, folder): (u64, &Path),
) -> Result<u64> {
    installation.s3(PATIENCE)?.create_bucket().await?;
    let (begun, mut rng) = (Instant::now(), StdRng::seed_from_u64(seed));
    let mut possible = vec![Fault::Switch, Fault::Kill, Fault::Freeze];
    possible.extend(network.map(|_| Fault::Cut));
    for number in 1.. {
        let faults: Vec<Fault> = (0..FAULTS).filter_map(|_| possible.choose(&mut rng).copied()).collect();
        let ground = Ground {
            reach: installation,
            faults: installation,
            network,
            s3: installation.s3(Duration::ZERO)?,
            bucket: BUCKET,
            acknowledge: &options.acknowledge,
        };
        let round = Round {
            history: folder.join(format!("history-{number}.jsonl")),
            registers: registers(&format!("history/{number}"), options.registers),
            clients: options.clients,
            seed: rng.random(),
        };
        let found = round.play(&ground, &faults).await;
        println!(
            "{number}: {faults:?}\n{}",
            found.with_context(|| format!("round {number}, --seed {seed}"))?
        );
        if begun.elapsed() >= Duration::from_mins(options.minutes) {
            return Ok(number);
        }
    }
    Ok(0)
}

/// So many keys below a prefix.
pub fn registers(prefix: &str, count: u32) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}/{number}")).collect()
}

/// Where a round takes place: any two sites.
pub struct Ground<'a> {
    /// The way to them.
    pub reach: &'a Reach,
    /// What breaks them.
    pub faults: &'a dyn Faults,
    /// Their cables, if they can be cut.
    pub network: Option<&'a Network>,
    /// The public name; it must not try again by itself.
    pub s3: Arc<S3Client>,
    /// The bucket that it is for.
    pub bucket: &'a str,
    /// How it acknowledges.
    pub acknowledge: &'a str,
}

/// Clients of some registers, from empty ones until all is settled.
#[derive(Debug, Clone)]
pub struct Round {
    /// The file that is written.
    pub history: PathBuf,
    /// Keys that nobody has used.
    pub registers: Vec<String>,
    /// Clients at once.
    pub clients: u32,
    /// What they ask for, in which order.
    pub seed: u64,
}

impl Round {
    /// Records and checks; what was found.
    pub async fn play(&self, ground: &Ground<'_>, faults: &[Fault]) -> Result<String> {
        let held = self.record(ground, faults).await.with_context(|| self.history.display().to_string())?;
        Ok(format!("{}\n{held}", check(&self.history).await?))
    }

    /// Records what clients are told while one fault comes after the other; who held the lease.
    async fn record(&self, ground: &Ground<'_>, faults: &[Fault]) -> Result<String> {
        let recorder = Arc::new(Recorder::new(&self.history, ground.acknowledge, self.seed)?);
        let shared = Arc::new(Shared::new(Arc::clone(&ground.s3), Arc::clone(&recorder)));
        let leases = LeaseWatch::start(ground.reach, ["east", "west"])?;
        let load = Load { clients: self.clients, registers: self.registers.clone(), seed: self.seed };
        let clients = Clients::start(&shared, &load);
        let mut course = Course::new(ground.reach, ground.faults, ground.network, ground.acknowledge);
        let mut went = Ok(());
        for fault in faults {
            if went.is_ok() {
                went = course.goes_through(*fault, &clients).await.with_context(|| format!("{fault:?}"));
            }
        }
        let told = clients.stop().await;
        let said = leases.stop().await?;
        // What a client was told is worse than whatever else was seen.
        told.and(went)?;
        aftermath::settled(ground.reach, ground.bucket).await?;
        aftermath::terms(&recorder, &said, &course)?;
        let registers = self.registers.as_slice();
        aftermath::named(&recorder, ground.reach, (ground.bucket, registers), shared.values()).await?;
        aftermath::over(&recorder)?;
        shared.read_all(registers).await?;
        recorder.flush()?;
        one_holder_at_a_time(&said)
    }
}

/// Has a history checked; what the checker says.
///
/// # Errors
/// A register is not as it may be: the error names the page with the counterexample. Or the history can't be read.
pub async fn check(history: &Path) -> Result<String> {
    let program = cache()?.join("tools").join("history-checker");
    ensure!(program.is_file(), "{} is missing: `cargo xtask test` builds it", program.display());
    let (well, said) = outcome(Command::new(program).arg(history), CHECKED).await?;
    ensure!(well, "{}\n{said}", history.display());
    Ok(said.trim_end().to_owned())
}
