//! Times takeovers; `cargo xtask takeover` builds and runs it.

use anyhow::Result;
use clap::Parser;
use diptych_e2e::takeover::{self, TakeoverOptions};

#[tokio::main]
async fn main() -> Result<()> {
    let fine = takeover::run(&TakeoverOptions::parse()).await?;
    std::process::exit(i32::from(!fine));
}
