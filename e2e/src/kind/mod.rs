//! Diptych on two real Kubernetes clusters: made, filled, broken and removed, as an administrator and a user would.

#![expect(clippy::print_stdout, reason = "the demo tells a person what it does")]

pub mod cluster;
pub mod demo;
pub mod install;
pub mod network;
pub mod outside;
pub mod proof;
pub mod spec;
pub mod state;

use anyhow::Result;
use clap::{Args, Parser};

use crate::demo::table::Table;
use crate::demo::tree::Source;
use state::State;

/// Steps of `cargo xtask kind`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask kind", about = "Diptych on two kind clusters")]
pub enum Kind {
    /// Makes the clusters and installs the product
    Up(Up),
    /// Stores real files, breaks things, verifies every byte
    Demo(Demo),
    /// Bad input, commands, drills, features and faults; makes the clusters where they are not up, and leaves them well
    E2e(E2e),
    /// Removes the clusters and what was started beside them
    Down,
}

/// Options of `up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// OneSite or BothSites
    #[arg(long, default_value = "OneSite")]
    pub acknowledge: String,
}

/// Options of `demo`.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// What is stored
    #[command(flatten)]
    pub source: Source,
    /// OneSite, BothSites, or one after the other
    #[arg(long, default_value = "OneSite,BothSites", value_delimiter = ',')]
    pub acknowledge: Vec<String>,
    /// Leave the clusters up
    #[arg(long)]
    pub keep: bool,
}

/// Options of `e2e`.
#[derive(Debug, Clone, Args)]
pub struct E2e {
    /// Only these parts, one after the other
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<proof::Part>,
    /// Of the part `features` only these
    #[arg(long, value_delimiter = ',')]
    pub features: Vec<proof::Feature>,
    /// The API servers are away for one minute, not ten
    #[arg(long)]
    pub short: bool,
}

/// Runs a step; prints its table, and `N passed, N failed`.
pub async fn run(kind: Kind) -> Result<bool> {
    let state = State::open()?;
    let mut table = Table::default();
    let outcome = match kind {
        Kind::Up(up) => install::up(&mut table, &state, &up).await,
        Kind::Demo(demo) => demo::demo(&mut table, &state, &demo).await,
        Kind::E2e(e2e) => Box::pin(proof::e2e(&mut table, &state, &e2e)).await,
        Kind::Down => return install::down(&state).await.map(|()| true),
    };
    println!("\n{}", table.render());
    if let Err(error) = &outcome {
        println!("FAILED: {error:#}");
        println!("the clusters are left up; {} has what reaches them", state.folder.display());
    }
    // What failed outside of any step is one more.
    let failed = table.failed().max(usize::from(outcome.is_err()));
    println!("{} passed, {failed} failed", table.steps() - table.failed());
    Ok(failed == 0)
}
