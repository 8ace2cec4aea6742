//! `cargo xtask kind up | demo | down`: builds the tools, the node image and the product, then lets `diptych-kind` of `e2e` work.

use std::process::Command;

use anyhow::Result;

use crate::run::{must, programs, root};
use crate::tally::Tally;
use crate::tools;

#[derive(clap::Subcommand)]
pub enum Step {
    /// Makes two clusters and installs the product in both, as a user does
    Up(Words),
    /// The demo on two clusters; makes them where they are not up
    Demo(Words),
    /// Removes the clusters, and ends what was started beside them
    Down,
}

#[derive(clap::Args)]
pub struct Words {
    /// Words for the step itself; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub fn run(step: &Step) -> Result<Tally> {
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

fn image(built: &std::path::Path) -> Result<()> {
    must(Command::new(root().join("kind-config").join("image").join("build")).arg(built.join("diptych")))
}
