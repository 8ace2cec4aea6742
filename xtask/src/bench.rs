//! `cargo xtask bench`: builds the product optimised, `MinIO` and the load client, and lets the benchmark of `e2e` measure them.

use anyhow::Result;

use crate::run::{Words, cargo, must, programs, target};
use crate::tally::Tally;
use crate::tools;

pub fn run(Words { words }: &Words) -> Result<Tally> {
    tools::for_building()?;
    let tools = tools::for_bench()?;
    let bench = programs()?.join("diptych-bench");
    must(&mut cargo(&["build", "--quiet", "--release", "-p", "diptych", "--bin", "diptych"])?)?;
    let mut bench = std::process::Command::new(bench);
    bench.arg("--diptych").arg(target()?.join("release").join("diptych"));
    let status = bench.arg("--tools").arg(tools).args(words).status()?;
    let mut tally = Tally::default();
    tally.add(status.success());
    Ok(tally)
}
