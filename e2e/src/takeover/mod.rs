//! How long it takes until a write through the public name succeeds after every process of the active site was killed, over many
//! kills in a row: each time the dead site returns, and the next time it is the other one that dies.

#![expect(clippy::print_stdout, reason = "a person reads the table")]

mod clients;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use diptych::client::s3::S3Client;
use diptych_core::lease::{Millis, Timers};
use serde::Serialize;

use crate::demo::faults::Faults;
use crate::demo::installation::{Installation, until};
use crate::demo::reach::{BUCKET, Reach, site_of};
use crate::demo::two_sites::{active, both_are_well, other};
use crate::demo::writer::{self, Writer};
use clients::{Load, Reader, first_good_write};

/// What a prediction adds to the promise that runs out, and a second.
const AFTER_THE_PROMISE: Millis = Millis(3_000);
/// For one that goes on through an outage.
const PATIENCE: Duration = Duration::from_mins(1);
/// Until a site that returned has caught up.
const CAUGHT_UP: Duration = Duration::from_mins(5);

/// Options of the measurement.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "cargo xtask takeover",
    about = "Kills the active site again and again, and times the takeovers"
)]
pub struct TakeoverOptions {
    /// How many takeovers
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// How long a vote of the lease holds, as `diptych dev --lease` takes it
    #[arg(long, default_value = "3s", value_parser = diptych_api::common::lease)]
    pub lease: Duration,
    /// Clients that put objects all the while
    #[arg(long, default_value_t = 4)]
    pub clients: u32,
    /// Write what was measured as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The program to measure; the one beside this by default
    #[arg(long, hide = true)]
    pub diptych: Option<PathBuf>,
}

/// One takeover.
#[derive(Debug, Clone, Serialize)]
struct Takeover {
    /// Which site died.
    died: &'static str,
    /// The term of the other one.
    epoch: u64,
    /// From the kill to the answer of the first good write through the public name, in seconds.
    first_write: f64,
    /// Reads at the other site's own address meanwhile.
    reads: usize,
    /// Of these, how many failed.
    failed_reads: usize,
    /// The longest time without a good one, in seconds.
    reads_gap: f64,
}

/// Measures and prints; true: every takeover came, and nothing that was acknowledged is missing.
pub async fn run(options: &TakeoverOptions) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("diptych-takeover-").tempdir()?;
    let lease = format!("{}ms", options.lease.as_millis());
    let words = ["--sites", "2", "--lease", &lease];
    let data = folder.path().join("data");
    let installation = match &options.diptych {
        Some(program) => Installation::start_program(program, &data, &words).await?,
        None => Installation::start(&data, &words).await?,
    };
    let mut takeovers = Vec::new();
    let outcome = measure(&installation, options, &mut takeovers).await;
    println!("\n{}", render(options.lease, &takeovers));
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&takeovers)?)
            .with_context(|| format!("{} can't be written", file.display()))?;
    }
    match outcome {
        Ok(records) => {
            println!("{records} acknowledged records, none missing");
            installation.stop().await?;
            Ok(true)
        }
        Err(error) => {
            println!("FAILED: {error:#}\nthe installation's folder is kept: {}", folder.keep().display());
            Ok(false)
        }
    }
}

async fn measure(
    installation: &Installation,
    options: &TakeoverOptions,
    takeovers: &mut Vec<Takeover>,
) -> Result<usize> {
    let s3 = installation.s3(PATIENCE)?;
    s3.create_bucket().await?;
    s3.put(Reader::OBJECT, Reader::content()).await?;
    let writer = Writer::start(installation.s3(Duration::ZERO)?);
    let load = Load::start(&installation.s3(Duration::ZERO)?, options.clients);
    for number in 1..=options.runs {
        let takeover =
            take_over(installation, options.lease).await.with_context(|| format!("takeover {number}"))?;
        println!(
            "{number}: {} died, first good write after {:.2} s, epoch {}",
            takeover.died, takeover.first_write, takeover.epoch
        );
        takeovers.push(takeover);
    }
    ready(installation, options.lease).await?;
    load.stop().await;
    let acknowledged = writer.stop().await?;
    writer::none_missing(installation, &s3, &acknowledged).await?;
    Ok(acknowledged.len())
}

/// Both sites are well, and the passive one has what a promotion asks for.
async fn ready(reach: &Reach, lease: Duration) -> Result<()> {
    let promise = Timers::for_lease(Millis(lease.as_millis() as u64)).peer_wait;
    both_are_well(reach, CAUGHT_UP).await?;
    until("the passive site has caught up", CAUGHT_UP, || async {
        let active = active(reach).await?;
        let (here, there) = (reach.status(active).await?, reach.status(other(active)).await?);
        let age = here.exposure.context("no exposure in the status")?.age_ms;
        let caught_up = age < 2_000 && there.epoch == here.epoch;
        // While one site was away the other lived on the witness: a takeover soon after that waits for it, as the prediction says.
        let predicted = there.prediction.and_then(|prediction| prediction.recovery_time);
        let rested = predicted.is_some_and(|time| time.0 < promise.0 + AFTER_THE_PROMISE.0);
        Ok(if caught_up && rested {
            Ok(())
        } else {
            Err(format!("{age} ms are exposed in epoch {}, predicted are {predicted:?}", here.epoch))
        })
    })
    .await
}

async fn take_over(installation: &Installation, lease: Duration) -> Result<Takeover> {
    ready(installation, lease).await?;
    let died = active(installation).await?;
    let heir = other(died);
    let reader = Reader::start(own_s3(installation, heir)?);
    reader.has_begun().await?;
    let probe = installation.s3(Duration::ZERO)?;
    let killed = Instant::now();
    installation.site_dies(died).await?;
    let first_write = first_good_write(&probe, killed, PATIENCE).await;
    let reads = reader.stop().await?;
    let first_write = first_write?;
    installation.site_returns(died).await?;
    Ok(Takeover {
        died,
        epoch: installation.status(heir).await?.epoch.0,
        first_write: first_write.as_secs_f64(),
        reads: reads.good + reads.failed,
        failed_reads: reads.failed,
        reads_gap: reads.gap.as_secs_f64(),
    })
}

/// S3 of a site's own gateway: what it has of its own rows.
fn own_s3(reach: &Reach, site: &str) -> Result<Arc<S3Client>> {
    let endpoints = reach.endpoints()?;
    let mut own = endpoints.s3.clone();
    own.endpoint.clone_from(&site_of(&endpoints, site)?.s3);
    let http = diptych::client::http_client(&reach.data_dir)?;
    Ok(Arc::new(S3Client::new(http, &own, BUCKET, Duration::ZERO)?))
}

fn render(lease: Duration, takeovers: &[Takeover]) -> String {
    let figures = [
        ("kill to first good write, s", takeovers.iter().map(|one| one.first_write).collect::<Vec<_>>()),
        ("longest wait for a read at the passive site's own address, s", gaps(takeovers)),
    ];
    let row = |(name, mut figures): (&str, Vec<f64>)| {
        figures.sort_by(f64::total_cmp);
        let worst = figures.last().copied().unwrap_or(f64::NAN);
        format!("| {name} | {:.2} | {worst:.2} |", median(&figures))
    };
    let rows = figures.map(row).join("\n");
    let reads: usize = takeovers.iter().map(|one| one.reads).sum();
    let failed: usize = takeovers.iter().map(|one| one.failed_reads).sum();
    format!(
        "Lease of {lease:?}, {} takeovers\n\n| | median | worst |\n|---|---|---|\n{rows}\n\n\
         {reads} reads there in the outages, {failed} failed\n",
        takeovers.len()
    )
}

fn gaps(takeovers: &[Takeover]) -> Vec<f64> {
    takeovers.iter().map(|one| one.reads_gap).collect()
}

/// Of sorted figures: the middle one, or the mean of both.
fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert!((median(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(&[1.0, 2.0, 9.0]) - 2.0).abs() < f64::EPSILON);
    }
}
