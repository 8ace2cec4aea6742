//! `cargo xtask kind up | demo | e2e | down`, and `cargo xtask e2e`: builds the tools, the node image and the product, then lets
//! `diptych-kind` of `e2e` work.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{Words, must, programs, root};
use crate::tally::Tally;
use crate::tools;

/// Bytes that the demo may take, images and both ways of acknowledging included: 9 GB were seen for one of them.
const NEEDED: u64 = 14_000_000_000;
/// Bytes for the proofs: they store little, the clusters and their images take most.
const NEEDED_FOR_PROOFS: u64 = 8_000_000_000;

#[derive(clap::Subcommand)]
pub enum Step {
    /// Makes two clusters and installs the product in both, as a user does
    Up(Words),
    /// The demo on two clusters; makes them where they are not up
    Demo(Words),
    /// Bad input, commands, drills, features and faults on two clusters; the same as `cargo xtask e2e`
    E2e(Words),
    /// Removes the clusters, and ends what was started beside them
    Down,
}

pub fn run(step: &Step) -> Result<Tally> {
    match step {
        Step::Down => {}
        Step::E2e(_) => room(NEEDED_FOR_PROOFS)?,
        Step::Up(_) | Step::Demo(_) => room(NEEDED)?,
    }
    tools::for_building()?;
    let bin = tools::kind()?;
    if let Step::E2e(_) = step {
        tools::history_checker()?;
    }
    let built = programs()?;
    let mut command = Command::new(built.join("diptych-kind"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(bin).chain(std::env::split_paths(&path));
    command.current_dir(root()).env("PATH", std::env::join_paths(folders)?);
    let (name, words) = match step {
        Step::Down => ("down", None),
        Step::Up(words) => ("up", Some(words)),
        Step::Demo(words) => ("demo", Some(words)),
        Step::E2e(words) => ("e2e", Some(words)),
    };
    command.arg(name);
    if let Some(Words { words }) = words {
        image(&built)?;
        command.args(words);
    }
    let status = command.status()?;
    let mut tally = Tally::default();
    tally.add(status.success());
    Ok(tally)
}

/// All eight machines' devices lie on this machine's disk, and stop taking writes when it is full to 90 %.
fn room(needed: u64) -> Result<()> {
    let said = Command::new("df").args(["--block-size=1", "--output=used,avail", "/var/lib"]).output();
    let text = String::from_utf8(said.context("df can't be started")?.stdout)?;
    let figures = text.lines().last().unwrap_or_default().split_whitespace().map(str::parse::<u64>);
    let figures = figures.collect::<Result<Vec<u64>, _>>()?;
    let [used, available] = figures[..] else { bail!("df said {text:?}") };
    let left = ((used + available) / 10 * 9).saturating_sub(used);
    ensure!(
        left >= needed,
        "the disk below /var/lib has {} GB left until it is full to 90 %, where the nodes' devices stop: {} GB are needed. Remove \
         something, for instance build folders in {}",
        left / 1_000_000_000,
        needed / 1_000_000_000,
        crate::run::cache()?.display()
    );
    Ok(())
}

fn image(built: &std::path::Path) -> Result<()> {
    must(Command::new(root().join("kind-config").join("image").join("build")).arg(built.join("diptych")))
}
