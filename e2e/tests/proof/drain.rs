//! A node that is drained is empty when it says so: it can be taken away at once, and nothing is degraded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::one_site::{inspect, whole};
use diptych_e2e::program::in_folder;
use diptych_site::status::{NodeStatus, SiteStatus};

const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(1);
const FOUR_NODES: [&str; 8] = ["--sites", "1", "--nodes", "4", "--devices", "2", "--node-dead-after", "3"];
const FILES: u32 = 12;

fn bytes(number: u32) -> Bytes {
    (0..400_000_u32)
        .map(|at| ((at + number).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect::<Vec<_>>()
        .into()
}

fn key(number: u32) -> String {
    format!("file-{number}")
}

fn node<'a>(status: &'a SiteStatus, name: &str) -> Result<&'a NodeStatus> {
    status.nodes.iter().find(|node| node.name == name).with_context(|| format!("there is no {name}"))
}

async fn read_all(installation: &Installation) -> Result<()> {
    let s3 = installation.s3(PATIENCE)?;
    for number in 0..FILES {
        ensure!(
            s3.get(&key(number)).await?.bytes().await? == bytes(number),
            "{} has other bytes",
            key(number)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_drained_node_can_be_taken_away_and_the_next_one_is_not_drained_without_it() -> Result<()> {
    in_folder("drain", async |folder| {
        let installation = Installation::start(&folder.join("data"), &FOUR_NODES).await?;
        let s3 = installation.s3(PATIENCE)?;
        s3.create_bucket().await?;
        for number in 0..FILES {
            s3.put(&key(number), bytes(number)).await?;
        }
        whole(&installation, "east", LIMIT).await?;
        ensure!(installation.command(&["drain", "east-n9"]).await.is_err(), "there is no such node");
        installation.command(&["drain", "east-n2"]).await?;
        let drained = until("east-n2 is drained", LIMIT, || async {
            let status = installation.status("east").await?;
            let health = &status.health;
            ensure!(health.whole == health.extents, "nothing is degraded by a drain: {health:?}");
            let node = node(&status, "east-n2")?;
            Ok(if node.state == "drained" { Ok(status.clone()) } else { Err(format!("{node:?}")) })
        })
        .await?;
        println!("east-n2 is drained: {} rows were moved", drained.repair.moved);
        ensure!(drained.repair.moved > 0 && drained.repair.rows == 0, "{:?}", drained.repair);
        for number in 0..FILES {
            let inspection = inspect(&installation, &key(number)).await?;
            let on_it =
                inspection.extents.iter().flat_map(|extent| &extent.rows).any(|row| row.node == "east-n2");
            ensure!(inspection.sound && !on_it, "{inspection:?}");
        }

        installation.command(&["drain", "east-n3"]).await?;
        let why = until("east-n3 says why not", LIMIT, || async {
            let status = installation.status("east").await?;
            let drain = node(&status, "east-n3")?.drain.clone();
            Ok(drain.and_then(|drain| drain.why).ok_or_else(|| format!("{:?}", status.nodes)))
        })
        .await?;
        ensure!(why.contains("4 devices on 2 other nodes take rows"), "{why}");
        println!("east-n3 keeps its rows: {why}");
        installation.command(&["drain", "--undo", "east-n3"]).await?;

        let endpoints = installation.endpoints()?;
        let mut agents = endpoints.sites.values().flat_map(|site| &site.agents);
        let agent = agents.find(|agent| agent.name == "east-n2").context("no such agent")?;
        signal(agent.pid, "KILL")?;
        for device in &agent.devices {
            std::fs::remove_dir_all(device)?;
        }
        until("east-n2 is dead", LIMIT, || async {
            let status = installation.status("east").await?;
            let (health, node) = (&status.health, node(&status, "east-n2")?);
            ensure!(health.whole == health.extents, "no row was on it: {health:?}");
            Ok(if node.state == "dead" { Ok(()) } else { Err(format!("{node:?}")) })
        })
        .await?;
        read_all(&installation).await?;
        let refused = installation.command(&["drain", "east-n2"]).await;
        ensure!(refused.is_err(), "a dead node is never asked to be drained");

        let _: serde_json::Value = installation.rest("east")?.post(&["api", "v1", "scrub"]).await?;
        until("all is verified", LIMIT, || async {
            let status = installation.status("east").await?;
            let health = &status.health;
            let files = inspect(&installation, &key(0)).await?.extents;
            let shown = files.iter().all(|extent| extent.verified.contains_key("east"));
            Ok(if health.verified > 0 && shown { Ok(()) } else { Err(format!("{health:?}")) })
        })
        .await?;
        read_all(&installation).await?;
        installation.stop().await
    })
    .await
}
