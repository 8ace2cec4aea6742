//! The demo; `cargo xtask demo` builds and runs it.

use anyhow::Result;
use clap::Parser;
use diptych_e2e::demo::{self, DemoOptions};

#[tokio::main]
async fn main() -> Result<()> {
    let fine = demo::run(&DemoOptions::parse()).await?;
    std::process::exit(i32::from(!fine));
}
