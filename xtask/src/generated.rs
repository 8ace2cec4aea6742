//! `cargo xtask gen`: the files that are made from others, and whether they have drifted.

use std::process::Command;

use anyhow::Result;

use crate::run::{must, programs, root};
use crate::tally::Tally;
use crate::tools;

#[derive(clap::Args)]
pub struct Options {
    /// Only say what has drifted
    #[arg(long)]
    check: bool,
}

pub fn run(options: &Options) -> Result<Tally> {
    tools::for_building()?;
    let outcome = generate(options.check);
    let mut tally = Tally::default();
    tally.add(outcome.is_ok());
    outcome.map(|()| tally)
}

/// Fails where a generated file is not what its source makes of it.
pub fn check() -> Result<()> {
    generate(true)
}

fn generate(check: bool) -> Result<()> {
    let mut definitions = Command::new(programs()?.join("diptych-crds"));
    definitions.arg(root());
    let mut render = Command::new(root().join("manifests").join("render"));
    render.env("HELM", tools::helm()?);
    if check {
        definitions.arg("--check");
        render.arg("--check");
    }
    // The manifests are rendered from the chart, which holds copies of the generated definitions.
    must(&mut definitions)?;
    must(&mut render)
}
