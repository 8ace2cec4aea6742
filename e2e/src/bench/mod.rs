//! The benchmark: Diptych and MinIO side by side on the same disk, under the same client, in one run. Ratios are what it is for:
//! machines differ, and are never idle.

#![expect(clippy::print_stdout, reason = "the benchmark tells a person what it does")]

mod heal;
mod load;
mod memory;
mod parity;
mod report;
mod stores;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;

use load::{Client, Op};
use memory::Watched;
use report::{Goal, Measured, Table};
use stores::{Store, Stores};

/// Objects of one size, and so many clients.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    size: u64,
    clients: u32,
}

const SMALL: Load = Load { name: "4 KiB x 16", size: 4 << 10, clients: 16 };
const MIB: Load = Load { name: "1 MiB x 8", size: 1 << 20, clients: 8 };
const LARGE: Load = Load { name: "64 MiB x 4", size: 64 << 20, clients: 4 };

/// A row of the benchmark, and what is asked of the ratio ours ÷ MinIO of puts and of gets.
struct Row {
    load: Load,
    put: Option<Goal>,
    get: Option<Goal>,
}

const ROWS: [Row; 4] = [
    Row {
        load: SMALL,
        put: Some(Goal { at_least: 12.0, aim: 25.0 }),
        get: Some(Goal { at_least: 1.5, aim: 4.0 }),
    },
    Row {
        load: MIB,
        put: Some(Goal { at_least: 2.5, aim: 4.0 }),
        get: Some(Goal { at_least: 1.3, aim: 2.0 }),
    },
    Row {
        load: LARGE,
        put: Some(Goal { at_least: 1.0, aim: 1.4 }),
        get: Some(Goal { at_least: 1.0, aim: 1.5 }),
    },
    // Asked for is its memory: 512 MiB at most.
    Row { load: Load { name: "64 MiB x 64", clients: 64, ..LARGE }, put: None, get: None },
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
    /// Measure how fast lost rows come back instead: a node of three dies, a drive of MinIO is emptied
    #[arg(long)]
    pub heal: bool,
    /// With --heal: objects of 4 KiB
    #[arg(long, default_value_t = 20_000, requires = "heal")]
    pub small: u64,
    /// With --heal: objects of 64 MiB
    #[arg(long, default_value_t = 100, requires = "heal")]
    pub large: u64,
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

impl BenchOptions {
    fn wants(&self, row: &str) -> bool {
        self.row.as_ref().is_none_or(|wanted| row.contains(wanted.as_str()))
    }
}

/// Runs the benchmark and prints its tables.
pub async fn run(options: &BenchOptions) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("diptych-bench-").tempdir()?;
    let folder = options.folder.clone().unwrap_or_else(|| scratch.path().to_path_buf());
    if options.heal {
        return keep(options, &heal::measure(options, &folder.join("heal")).await?);
    }
    let mut tables = vec![beside_minio(options, &folder.join("beside")).await?];
    tables.push(parity::measure(options, &folder.join("parity")).await?);
    tables.retain(|table| !table.is_empty());
    for table in &tables {
        say(&format!("\n{}", table.render()));
    }
    keep(options, &tables)
}

/// Writes what was measured where it was asked for.
fn keep(options: &BenchOptions, measured: &impl Serialize) -> Result<()> {
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(measured)?)
            .with_context(|| format!("{} can't be written", file.display()))?;
    }
    Ok(())
}

fn say(line: &str) {
    println!("{line}");
}

async fn beside_minio(options: &BenchOptions, folder: &Path) -> Result<Table> {
    let mut table = Table::new("Diptych beside MinIO", ["Diptych", "MinIO"]);
    let wanted: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row.load.name)).collect();
    if wanted.is_empty() {
        return Ok(table);
    }
    let stores = Stores::start(options, folder).await?;
    for round in 1..=options.rounds {
        for row in &wanted {
            for (column, store) in stores.all()?.into_iter().enumerate() {
                let bucket = format!("round-{round}-{}-{}", row.load.size, row.load.clients);
                let client = Client { tools: &options.tools, store, bucket };
                let put = figure(&client, row.load, Op::Put { seconds: options.seconds }).await?;
                let objects = put.load.n;
                table.note(format!("PUT {}", row.load.name), row.put, column, put);
                if row.get.is_some() {
                    let get =
                        figure(&client, row.load, Op::Get { seconds: options.seconds, objects }).await?;
                    table.note(format!("GET {}", row.load.name), row.get, column, get);
                }
            }
        }
    }
    stores.stop().await?;
    Ok(table)
}

/// Takes one figure.
async fn figure(client: &Client<'_>, load: Load, op: Op) -> Result<Measured> {
    let watched = Watched::begin(client.store.pids.clone(), Duration::from_millis(100));
    let load = client.run(load.size, load.clients, op).await?;
    Ok(Measured { load, memory_mib: watched.end().await })
}
