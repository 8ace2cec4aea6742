//! The demo: Diptych as its user runs it, real files, real faults, every byte verified by SHA-256.

#![expect(clippy::print_stdout, reason = "the demo tells a person what it does")]

pub mod faults;
pub mod installation;
pub mod memory;
pub mod one_site;
pub mod reach;
pub mod table;
pub mod tree;
pub mod two_sites;
pub mod verify;
pub mod writer;

use std::path::PathBuf;

use clap::Parser;

/// Options of the demo.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo xtask demo", about = "Stores real files, breaks things, verifies every byte")]
pub struct DemoOptions {
    /// What is stored
    #[command(flatten)]
    pub source: tree::Source,
    /// Sites
    #[arg(long, default_value_t = 2)]
    pub sites: u8,
    /// With two sites: OneSite, BothSites, or both runs, one after the other
    #[arg(long, default_value = "OneSite,BothSites", value_delimiter = ',')]
    pub acknowledge: Vec<String>,
    /// Folder of the installation; a new one under the temporary folder, removed at the end, by default
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Keep the folder
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo; prints its table, and `N passed, N failed`.
pub async fn run(options: &DemoOptions) -> anyhow::Result<bool> {
    let scratch = tempfile::Builder::new().prefix("diptych-demo-").tempdir()?;
    let data_dir = options.data_dir.clone().unwrap_or_else(|| scratch.path().join("data"));
    let mut table = table::Table::default();
    let outcome = steps(&mut table, options, &data_dir, scratch.path()).await;
    println!("\n{}", table.render());
    if let Err(error) = &outcome {
        println!("FAILED: {error:#}");
    }
    if options.keep || outcome.is_err() {
        println!("the installation's folder is kept: {}", scratch.keep().join("data").display());
    }
    println!(
        "{} passed, {} failed",
        table.steps() - usize::from(outcome.is_err()),
        u8::from(outcome.is_err())
    );
    Ok(outcome.is_ok())
}

async fn steps(
    table: &mut table::Table,
    options: &DemoOptions,
    data_dir: &std::path::Path,
    scratch: &std::path::Path,
) -> anyhow::Result<()> {
    if options.sites == 1 {
        return one_site::demo(table, options, data_dir, scratch).await;
    }
    for (number, acknowledge) in options.acknowledge.iter().enumerate() {
        // The second run needs no more of the large file than shows that it crosses.
        let mut options = options.clone();
        options.source.large = if number == 0 { options.source.large } else { options.source.large.min(64) };
        two_sites::demo(table, &options, acknowledge, &data_dir.join(acknowledge), scratch).await?;
    }
    Ok(())
}
