//! `cargo xtask demo`, `takeover`, `kills`, `history`: build the product and let a program of `e2e` run it as a user would.

use anyhow::Result;

use crate::run::{Words, programs};
use crate::tally::Tally;
use crate::tools;

/// `program`: which one of `e2e`.
pub fn run(program: &str, Words { words }: &Words) -> Result<Tally> {
    tools::for_building()?;
    let mut program = std::process::Command::new(programs()?.join(program));
    let status = program.args(words).status()?;
    let mut tally = Tally::default();
    tally.add(status.success());
    Ok(tally)
}
