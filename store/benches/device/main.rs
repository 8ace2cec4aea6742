//! What a device gets out of its disk: group commits, a long write beside fio's, and how soon a full one is open. `cargo xtask bench --store`.

#![expect(clippy::print_stdout, reason = "a person reads it")]

mod commits;
mod opening;
mod rows;
mod sequential;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

/// Options of the bench.
#[derive(Debug, Parser)]
struct Options {
    /// Folder on the disk that is measured; a new one under the temporary folder by default
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Seconds for each number of writers
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// MiB that are written in a row
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    /// Records of the device that is opened
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// `cargo bench` says so
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let scratch = match &options.folder {
        Some(folder) => tempfile::Builder::new().prefix("diptych-store-").tempdir_in(folder)?,
        None => tempfile::Builder::new().prefix("diptych-store-").tempdir()?,
    };
    let folder = scratch.path();
    commits::measure(&folder.join("commits"), Duration::from_secs_f64(options.seconds))?;
    sequential::measure(&folder.join("sequential"), options.mib)?;
    opening::measure(&folder.join("opening"), options.records)
}
