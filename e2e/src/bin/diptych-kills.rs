//! Kills processes at random under load; `cargo xtask kills` builds and runs it.

use anyhow::Result;
use clap::Parser;
use diptych_e2e::kills::{self, KillsOptions};

#[tokio::main]
async fn main() -> Result<()> {
    let fine = kills::run(&KillsOptions::parse()).await?;
    std::process::exit(i32::from(!fine));
}
