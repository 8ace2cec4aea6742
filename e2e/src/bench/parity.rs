//! Reads of a site that has parity rows alone, as each read is after a takeover, beside reads of the site that wrote the data rows.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::{Client, Op};
use super::report::{Goal, Table};
use super::{BenchOptions, LARGE, Load, MIB, Store, figure};
use crate::demo::installation::{Installation, until};

/// Which objects are read, and how many there are.
const ROWS: [(Load, u64); 2] = [(MIB, 128), (LARGE, 8)];
const GOAL: Goal = Goal { at_least: 0.7, aim: 1.0 };

/// The passive site's own gateway reads from its own rows: with 4 of 6 in each site all of them are parity.
pub(super) async fn measure(options: &BenchOptions, folder: &Path) -> Result<Table> {
    let title = "Reads from parity rows (the passive site) beside reads from data rows (the active site)";
    let mut table = Table::new(title, ["parity", "data"]);
    let wanted: Vec<(Load, u64, String)> = ROWS
        .iter()
        .map(|(load, objects)| (*load, *objects, format!("GET {} parity", load.name)))
        .filter(|(.., name)| options.wants(name))
        .collect();
    if wanted.is_empty() {
        return Ok(table);
    }
    let words = ["--sites", "2", "--nodes", "3", "--devices", "2"];
    let installation = Installation::start_program(&options.diptych, folder, &words).await?;
    let client = |site: &str, load: &Load| {
        let store = Store::of(&installation, site)?;
        anyhow::Ok(Client { tools: &options.tools, store, bucket: format!("size-{}", load.size) })
    };
    for (load, objects, _) in &wanted {
        client("east", load)?.run(load.size, load.clients, Op::Fill { objects: *objects }).await?;
    }
    crossed(&installation).await?;
    for _ in 0..options.rounds {
        for (load, objects, name) in &wanted {
            let get = Op::Get { seconds: options.seconds, objects: *objects };
            for (column, site) in ["west", "east"].into_iter().enumerate() {
                let measured = figure(&client(site, load)?, *load, get).await?;
                table.note(name.clone(), Some(GOAL), column, measured);
            }
        }
    }
    installation.stop().await?;
    Ok(table)
}

/// Waits until the passive site has everything.
async fn crossed(installation: &Installation) -> Result<()> {
    until("everything is in both sites", Duration::from_mins(5), || async {
        let (east, west) = (installation.status("east").await?, installation.status("west").await?);
        let exposure = east.exposure.context("no exposure in the status")?;
        let done = exposure.bytes == 0 && west.health.wanted == 0 && west.health.extents > 0;
        Ok(if done { Ok(()) } else { Err(format!("{exposure:?}, west lacks {}", west.health.wanted)) })
    })
    .await
}
