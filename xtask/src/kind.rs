//! `cargo xtask kind up | demo | down`: builds the tools, the node image and the product, then lets `diptych-kind` of `e2e` work.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{Words, must, programs, root};
use crate::tally::Tally;
use crate::tools;

/// A disk that is fuller may be full before the demo ends.
const FULL_PERCENT: u32 = 75;

#[derive(clap::Subcommand)]
pub enum Step {
    /// Makes two clusters and installs the product in both, as a user does
    Up(Words),
    /// The demo on two clusters; makes them where they are not up
    Demo(Words),
    /// Removes the clusters, and ends what was started beside them
    Down,
}

pub fn run(step: &Step) -> Result<Tally> {
    if !matches!(step, Step::Down) {
        room()?;
    }
    tools::for_building()?;
    let bin = tools::kind()?;
    let built = programs()?;
    let mut command = Command::new(built.join("diptych-kind"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(bin).chain(std::env::split_paths(&path));
    command.current_dir(root()).env("PATH", std::env::join_paths(folders)?);
    match step {
        Step::Down => {
            command.arg("down");
        }
        Step::Up(Words { words }) => {
            image(&built)?;
            command.arg("up").args(words);
        }
        Step::Demo(Words { words }) => {
            image(&built)?;
            command.arg("demo").args(words);
        }
    }
    let status = command.status()?;
    let mut tally = Tally::default();
    tally.add(status.success());
    Ok(tally)
}

/// All eight machines' devices lie on this machine's disk, and stop taking writes when it is full to 90 %.
fn room() -> Result<()> {
    let said =
        Command::new("df").args(["--output=pcent", "/var/lib"]).output().context("df can't be started")?;
    let text = String::from_utf8_lossy(&said.stdout);
    let used: u32 = text.lines().last().unwrap_or_default().trim().trim_end_matches('%').parse()?;
    ensure!(
        used <= FULL_PERCENT,
        "the disk below /var/lib is full to {used} %: the demo's devices stop at 90 %. Bring it to {FULL_PERCENT} % or less, \
         for instance by removing build folders in {}",
        crate::run::cache()?.display()
    );
    Ok(())
}

fn image(built: &std::path::Path) -> Result<()> {
    must(Command::new(root().join("kind-config").join("image").join("build")).arg(built.join("diptych")))
}
