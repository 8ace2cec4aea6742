//! Diptych on two kind clusters; `cargo xtask kind` builds and runs it.

use anyhow::Result;
use clap::Parser;
use diptych_e2e::kind::{self, Kind};

#[tokio::main]
async fn main() -> Result<()> {
    let fine = Box::pin(kind::run(Kind::parse())).await?;
    std::process::exit(i32::from(!fine));
}
