//! Records what clients of registers see while sites die, and has it checked; `cargo xtask history` builds and runs it.

use anyhow::Result;
use clap::Parser;
use diptych_e2e::history::{self, HistoryOptions};

#[tokio::main]
async fn main() -> Result<()> {
    let fine = history::run(&HistoryOptions::parse()).await?;
    std::process::exit(i32::from(!fine));
}
