//! The benchmark; `cargo xtask bench` builds and runs it.

use anyhow::Result;
use clap::Parser;
use diptych_e2e::bench::{self, BenchOptions};

#[tokio::main]
async fn main() -> Result<()> {
    bench::run(&BenchOptions::parse()).await
}
