//! `cargo xtask demo`: builds the product and lets the demo of `e2e` run it as a user would.

use anyhow::Result;

use crate::run::{Words, programs};
use crate::tally::Tally;
use crate::tools;

pub fn run(Words { words }: &Words) -> Result<Tally> {
    tools::for_building()?;
    let mut demo = std::process::Command::new(programs()?.join("diptych-demo"));
    let status = demo.args(words).status()?;
    let mut tally = Tally::default();
    tally.add(status.success());
    Ok(tally)
}
