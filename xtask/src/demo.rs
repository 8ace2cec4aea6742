//! `cargo xtask demo`: builds the product and lets the demo of `e2e` run it as a user would.

use anyhow::Result;

use crate::run::programs;
use crate::tally::Tally;
use crate::tools;

#[derive(clap::Args)]
pub struct Options {
    /// Words for the demo itself; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub fn run(options: &Options) -> Result<Tally> {
    tools::for_building()?;
    let mut demo = std::process::Command::new(programs()?.join("diptych-demo"));
    let status = demo.args(&options.words).status()?;
    let mut tally = Tally::default();
    tally.add(status.success());
    Ok(tally)
}
