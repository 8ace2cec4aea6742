//! kill -9 of processes at random, one after the other and now and then two at once, while clients write. At the end everything that
//! was acknowledged is read back and compared by SHA-256.

#![expect(clippy::print_stdout, reason = "a person reads what was killed")]

mod load;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::demo::installation::{Installation, signal, until};
use crate::demo::two_sites::both_are_well;
use load::{Load, Record, missing};

/// For one that goes on through an outage.
const PATIENCE: Duration = Duration::from_mins(1);
/// Until both sites are well again after the last kill.
const WELL: Duration = Duration::from_mins(5);
/// Until a site that returned has handed over what the newer term never saw, and everything is read back.
const READ_BACK: Duration = Duration::from_mins(5);
/// Records that are acknowledged before the next kill, where it waits for any.
const BETWEEN: u64 = 3;
/// A dead process is started again within this.
const DEAD_FOR: Duration = Duration::from_secs(2);

/// Options of the proof.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "cargo xtask kills",
    about = "Kills processes at random under load, then reads back all that was acknowledged"
)]
pub struct KillsOptions {
    /// How many kills
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub kills: u32,
    /// Which ones, and which bytes are written; it is printed, to be given again
    #[arg(long)]
    pub seed: Option<u64>,
    /// OneSite or BothSites, as `diptych dev --acknowledge` takes it
    #[arg(long, default_value = "OneSite")]
    pub acknowledge: String,
    /// Clients that write all the while
    #[arg(long, default_value_t = 4)]
    pub clients: u32,
}

/// Kills and reads back; true: nothing that was acknowledged is missing.
pub async fn run(options: &KillsOptions) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("diptych-kills-").tempdir()?;
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("--seed {seed}");
    let words = ["--sites", "2", "--acknowledge", &options.acknowledge, "--node-dead-after", "3"];
    let installation = Installation::start(&folder.path().join("data"), &words).await?;
    match kill_and_read_back(&installation, options, seed).await {
        Ok(summary) => {
            println!("{summary}");
            installation.stop().await?;
            Ok(true)
        }
        Err(error) => {
            println!("FAILED: {error:#}\nthe installation's folder is kept: {}", folder.keep().display());
            Ok(false)
        }
    }
}

/// What was killed, how often, and what became of the records.
pub async fn kill_and_read_back(
    installation: &Installation,
    options: &KillsOptions,
    seed: u64,
) -> Result<String> {
    let begun = Instant::now();
    installation.s3(PATIENCE)?.create_bucket().await?;
    let load = Load::start(&installation.s3(Duration::ZERO)?, options.clients, seed);
    load.goes_on(BETWEEN).await?;
    let mut killer = Killer { installation, rng: StdRng::seed_from_u64(seed), killed: BTreeMap::new() };
    for number in 1..=options.kills {
        killer.kill_one(number, &load).await.with_context(|| format!("kill {number}, --seed {seed}"))?;
    }
    both_are_well(installation, WELL).await?;
    load.goes_on(BETWEEN).await?;
    let records = load.stop().await;
    all_are_there(installation, &records).await.with_context(|| format!("--seed {seed}"))?;
    let (kills, seconds) = (killer.shown(), begun.elapsed().as_secs());
    Ok(format!("{} acknowledged records, none missing; {kills}; {seconds} s", records.len()))
}

struct Killer<'a> {
    installation: &'a Installation,
    rng: StdRng,
    killed: BTreeMap<String, u32>,
}

impl Killer<'_> {
    /// Kills one of those that live, and starts it again after a while. Every third time nothing waits for the installation to have
    /// got over it; every fourth time another one dies before it is back.
    async fn kill_one(&mut self, number: u32, load: &Load) -> Result<()> {
        let mut dead = vec![self.kill(number)?];
        tokio::time::sleep(DEAD_FOR.mul_f64(self.rng.random())).await;
        if self.rng.random_ratio(1, 4) {
            dead.push(self.kill(number)?);
            tokio::time::sleep(DEAD_FOR.mul_f64(self.rng.random())).await;
        }
        for name in &dead {
            // The one that it was is gone when whoever started it has noticed.
            until("it is started again", PATIENCE, || async {
                Ok(self
                    .installation
                    .command(&["dev", "revive", name])
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string()))
            })
            .await?;
        }
        if self.rng.random_ratio(2, 3) { load.goes_on(BETWEEN).await } else { Ok(()) }
    }

    fn kill(&mut self, number: u32) -> Result<String> {
        let living = self.installation.pids()?;
        let living: Vec<_> = living.into_iter().filter(|(_, pid)| is_alive(*pid)).collect();
        ensure!(!living.is_empty(), "no process is left");
        let (name, pid) = living.choose(&mut self.rng).context("one of them")?.clone();
        signal(pid, "KILL")?;
        println!("{number}: {name}");
        *self.killed.entry(name.clone()).or_default() += 1;
        Ok(name)
    }

    fn shown(&self) -> String {
        let each: Vec<String> = self.killed.iter().map(|(name, times)| format!("{name} {times}")).collect();
        format!("{} kills: {}", self.killed.values().sum::<u32>(), each.join(", "))
    }
}

/// One that was killed and not waited for yet is a zombie.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// What a site committed that the newer term never saw comes back when it has handed it over.
async fn all_are_there(installation: &Installation, records: &[Record]) -> Result<()> {
    let s3 = installation.s3(PATIENCE)?;
    until("everything that was acknowledged is read back", READ_BACK, || async {
        let missing = missing(&s3, records).await;
        let first = missing.first().map(|(record, why)| format!("{}: {why}", record.key));
        Ok(first
            .map_or(Ok(()), |first| Err(format!("{} of {} missing; {first}", missing.len(), records.len()))))
    })
    .await
}
