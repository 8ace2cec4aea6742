//! `cargo xtask bench`: builds the product optimised, `MinIO` and the load client, and lets the benchmark of `e2e` measure them; or runs the
//! benches of the crates.

use anyhow::Result;

use crate::run::{cargo, must, programs, target};
use crate::tally::Tally;
use crate::tools;

/// What is measured.
#[derive(clap::Args)]
pub struct Options {
    /// Each stage of the byte path on one core instead, and all of them one after the other
    #[arg(long, conflicts_with = "store")]
    stages: bool,
    /// A device by itself instead: group commits, a long write beside fio's, opening it with a million records
    #[arg(long)]
    store: bool,
    /// Words for what measures; `--help` behind `--` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub fn run(options: &Options) -> Result<Tally> {
    let mut tally = Tally::default();
    tools::for_building()?;
    if options.stages {
        for package in ["diptych-core", "diptych-gateway"] {
            tally.add(of_crate(package, "stages", &options.words)?);
        }
    } else if options.store {
        tools::debian("fio", "fio")?;
        tally.add(of_crate("diptych-store", "device", &options.words)?);
    } else {
        tally.add(beside_minio(&options.words)?);
    }
    Ok(tally)
}

fn of_crate(package: &str, bench: &str, words: &[String]) -> Result<bool> {
    Ok(cargo(&["bench", "--quiet", "-p", package, "--bench", bench, "--"])?.args(words).status()?.success())
}

fn beside_minio(words: &[String]) -> Result<bool> {
    let tools = tools::for_bench()?;
    let bench = programs()?.join("diptych-bench");
    must(&mut cargo(&["build", "--quiet", "--release", "-p", "diptych", "--bin", "diptych"])?)?;
    let mut bench = std::process::Command::new(bench);
    bench.arg("--diptych").arg(target()?.join("release").join("diptych"));
    Ok(bench.arg("--tools").arg(tools).args(words).status()?.success())
}
