//! Histories of registers on two clusters, by the same clients and the same checker as in `diptych dev`, with each way of acknowledging.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::ground::{BUCKET, Ground};
use crate::demo::table::Table;
use crate::history::{self, Fault, Round, registers};
use crate::kind::demo::Machines;
use crate::kind::spec;

/// Keys of a round, and who uses them.
const REGISTERS: u32 = 4;
const CLIENTS: u32 = 6;

/// A switch, a site that dies, and one that freezes.
pub(super) async fn recorded(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    for acknowledge in ["OneSite", "BothSites"] {
        let name =
            format!("{acknowledge}: what clients of registers see could have happened to one register each");
        let checked = table.step(&name, Box::pin(round(ground, acknowledge))).await;
        declare(ground, "OneSite").await?;
        checked?;
    }
    Ok(())
}

async fn declare(ground: &Ground<'_>, acknowledge: &str) -> Result<()> {
    for cluster in ground.clusters {
        spec::declare(cluster, &json!({"acknowledge": acknowledge})).await?;
    }
    Ok(())
}

async fn round(ground: &Ground<'_>, acknowledge: &str) -> Result<((), String)> {
    declare(ground, acknowledge).await?;
    let machines = Machines::of(ground.clusters);
    let place = history::Ground {
        reach: &ground.reach,
        faults: &machines,
        network: None,
        s3: ground.s3_by(&ground.reach.endpoints()?.s3, Duration::ZERO)?,
        bucket: BUCKET,
        acknowledge,
    };
    let round = Round {
        history: ground.state.folder.join(format!("history-{acknowledge}.jsonl")),
        registers: registers(&format!("history/{}/{acknowledge}", ground.run), REGISTERS),
        clients: CLIENTS,
        seed: ground.run,
    };
    let found = round.play(&place, &[Fault::Switch, Fault::Kill, Fault::Freeze]).await?;
    Ok(((), found.lines().last().unwrap_or_default().to_owned()))
}
