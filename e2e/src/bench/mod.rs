//! The benchmark: Diptych and MinIO side by side on the same disk, under the same client, in one run. Ratios are what it is for:
//! machines differ, and are never idle.

#![expect(clippy::print_stdout, reason = "the benchmark tells a person what it does")]

mod load;
mod memory;
mod report;
mod stores;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use load::{Client, Op};
use memory::Watched;
use report::{Measured, Report};
use stores::Stores;

/// A row of the benchmark: objects of one size, so many clients, and what is asked of the ratio ours ÷ MinIO.
struct Row {
    name: &'static str,
    size: u64,
    clients: u32,
    put: Goal,
    get: Goal,
}

/// What a ratio has to reach, and what it is meant to.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Goal {
    at_least: f64,
    aim: f64,
}

const ROWS: [Row; 3] = [
    Row {
        name: "4 KiB x 16",
        size: 4 << 10,
        clients: 16,
        put: Goal { at_least: 12.0, aim: 25.0 },
        get: Goal { at_least: 1.5, aim: 4.0 },
    },
    Row {
        name: "1 MiB x 8",
        size: 1 << 20,
        clients: 8,
        put: Goal { at_least: 2.5, aim: 4.0 },
        get: Goal { at_least: 1.3, aim: 2.0 },
    },
    Row {
        name: "64 MiB x 4",
        size: 64 << 20,
        clients: 4,
        put: Goal { at_least: 1.0, aim: 1.4 },
        get: Goal { at_least: 1.0, aim: 1.5 },
    },
];

/// Options of the benchmark.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo xtask bench", about = "Measures Diptych beside MinIO, as ratios")]
pub struct BenchOptions {
    /// How often each figure is taken; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How long each figure is taken for
    #[arg(long, default_value_t = 8.0)]
    pub seconds: f64,
    /// Only rows whose name has this in it, as "4 KiB"
    #[arg(long)]
    pub row: Option<String>,
    /// Measure Diptych alone: no ratios, for profiles
    #[arg(long)]
    pub alone: bool,
    /// Write what was measured as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Folder for the data of both; a new one under the temporary folder by default
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// The program of Diptych to measure
    #[arg(long, hide = true)]
    pub diptych: PathBuf,
    /// Folder of `minio` and `s3load`
    #[arg(long, hide = true)]
    pub tools: PathBuf,
}

/// Runs the benchmark and prints its table.
pub async fn run(options: &BenchOptions) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("diptych-bench-").tempdir()?;
    let folder = options.folder.clone().unwrap_or_else(|| scratch.path().to_path_buf());
    let stores = Stores::start(options, &folder).await?;
    let mut report = Report::default();
    for round in 1..=options.rounds {
        for row in rows(options) {
            for store in stores.all() {
                let client =
                    Client { tools: &options.tools, store, bucket: format!("round-{round}-{}", row.size) };
                let put = figure(&client, row, Op::Put { seconds: options.seconds }, &mut report).await?;
                let get = Op::Get { seconds: options.seconds, objects: put };
                figure(&client, row, get, &mut report).await?;
            }
        }
    }
    stores.stop().await?;
    println!("\n{}", report.render());
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("{} can't be written", file.display()))?;
    }
    Ok(())
}

fn rows(options: &BenchOptions) -> impl Iterator<Item = &'static Row> {
    let wanted = options.row.clone();
    ROWS.iter().filter(move |row| wanted.as_ref().is_none_or(|wanted| row.name.contains(wanted.as_str())))
}

/// Takes one figure, and notes it; how many operations there were.
async fn figure(client: &Client<'_>, row: &Row, op: Op, report: &mut Report) -> Result<u64> {
    let (word, goal) = match op {
        Op::Put { .. } => ("PUT", row.put),
        Op::Get { .. } => ("GET", row.get),
    };
    let watched = Watched::begin(client.store.pids()?, Duration::from_millis(100));
    let load = client.run(row.size, row.clients, op).await?;
    let (n, memory_mib) = (load.n, watched.end().await);
    println!(
        "{:8} {word} {:12} {:9.1}/s {:8.1} MiB/s p50 {:7.2} ms p99 {:7.2} ms {:5} MiB",
        client.store.side.name(),
        row.name,
        load.ops_per_s,
        load.mib_per_s,
        load.p50_ms,
        load.p99_ms,
        memory_mib
    );
    report.note(row.name, word, goal, client.store.side, Measured { load, memory_mib });
    Ok(n)
}
