//! `cargo xtask e2e`: bad input, commands, drills, features and faults on two clusters that are up, each put right again. A proof that fails
//! shows what was seen, and the next one begins.

mod access;
mod declarations;
mod device;
mod drills;
pub(super) mod faults;
mod features;
mod files;
mod ground;
mod history;
mod join;
pub mod leases;
mod plugin;
mod secrets;

use anyhow::Result;
use clap::ValueEnum;

pub use self::features::Feature;
use self::ground::Ground;
use super::install::{clusters, up};
use super::state::State;
use super::{E2e, Up};
use crate::demo::table::Table;

/// What can be proven by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What is refused, and what a person does to files, keys and Secrets
    Input,
    /// `kubectl diptych`
    Plugin,
    /// A FailoverDrill of each mode
    Drills,
    /// What else is declared or asked for: retention, other namespaces, drains, keys, nodes outside, domains, failback, Cloudflare, witness
    Features,
    /// Cut lines, stopped machines, lost API servers, operators and members of the catalog
    Faults,
    /// What clients of registers see through switches and takeovers, checked
    History,
}

/// All parts, or those that were asked for.
pub async fn e2e(table: &mut Table, state: &State, options: &E2e) -> Result<()> {
    up(table, state, &Up { acknowledge: "OneSite".to_owned() }).await?;
    let clusters = clusters(state);
    let ground = Ground::prepare(table, state, &clusters).await?;
    for part in Part::value_variants() {
        if !options.only.is_empty() && !options.only.contains(part) {
            continue;
        }
        match part {
            Part::Input => Box::pin(input(table, &ground)).await,
            Part::Plugin => ground.told(Box::pin(plugin::commands(table, &ground)).await).await,
            Part::Drills => ground.told(Box::pin(drills::each_mode(table, &ground)).await).await,
            Part::Features => Box::pin(features::all(table, &ground, &options.features)).await?,
            Part::Faults => Box::pin(faults::all(table, &ground, options.short)).await?,
            Part::History => ground.told(Box::pin(history::recorded(table, &ground)).await).await,
        }
        ground.well(table).await?;
    }
    Ok(())
}

async fn input(table: &mut Table, ground: &Ground<'_>) {
    ground.told(declarations::refused(table, ground).await).await;
    ground.told(declarations::cannot_survive(table, ground).await).await;
    ground.told(files::declared_is_deleted(table, ground).await).await;
    ground.told(files::projected_is_deleted(table, ground).await).await;
    ground.told(files::limit_is_reached(table, ground).await).await;
    ground.told(files::deletion_waits_for_the_lease(table, ground).await).await;
    ground.told(access::role_is_flagged(table, ground).await).await;
    ground.told(access::write_is_forwarded(table, ground).await).await;
    ground.told(access::deleted_key_is_refused(table, ground).await).await;
    ground.told(secrets::wrong_token(table, ground).await).await;
    ground.told(secrets::wrong_cluster_key(table, ground).await).await;
    ground.told(join::strangers(table, ground).await).await;
    ground.told(device::closed_to_its_agent(table, ground).await).await;
}
