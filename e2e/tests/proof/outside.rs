//! Nodes in neither site: they join by a token each, hold rows of margin, and are enough where both sites have too few.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use diptych::client::endpoints::AgentEndpoint;
use diptych::command::inspect::{InspectedRow, Inspection};
use diptych_core::ids::{ClusterId, SiteName};
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::one_site::{inspect, overwrite};
use diptych_e2e::demo::reach::program;
use diptych_e2e::program::in_folder;
use diptych_site::outside::OutsideToken;
use diptych_wire::authority::Authority;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(1);
const TWO: [&str; 10] =
    ["--sites", "2", "--nodes", "3", "--devices", "1", "--outside", "2", "--node-dead-after", "3"];

pub(crate) fn is_outside(row: &InspectedRow) -> bool {
    row.site == SiteName::outside().as_str()
}

/// Two sites and two nodes in neither, with a file that has all its rows.
async fn with_a_file(folder: &Path) -> Result<(Installation, Bytes)> {
    let installation = Installation::start(&folder.join("data"), &TWO).await?;
    installation.s3(PATIENCE)?.create_bucket().await?;
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let bytes = Bytes::from(bytes);
    put(&installation, "file", &bytes).await?;
    Ok((installation, bytes))
}

/// Stores a file and waits until both sites and the outside nodes have their rows of it.
pub(crate) async fn put(installation: &Installation, key: &str, bytes: &Bytes) -> Result<()> {
    installation.s3(PATIENCE)?.put(key, bytes.clone()).await?;
    is_whole(installation, key).await.map(drop)
}

/// Waits until a file has every row, two of them outside.
pub(crate) async fn is_whole(installation: &Installation, key: &str) -> Result<Inspection> {
    until(&format!("{key} has every row"), LIMIT, || async {
        let inspection = inspect(installation, key).await?;
        let extent = inspection.extents.first().context("no extent")?;
        let sites: std::collections::BTreeSet<&str> =
            extent.rows.iter().map(|row| row.site.as_str()).collect();
        let outside = extent.rows.iter().filter(|row| is_outside(row)).count();
        Ok(if inspection.sound && outside == 2 && sites.len() == 3 {
            Ok(inspection)
        } else {
            Err(format!("{inspection:?}"))
        })
    })
    .await
}

pub(crate) async fn reads(installation: &Installation, key: &str, bytes: &Bytes) -> Result<()> {
    let found = installation.s3(Duration::ZERO)?.get(key).await?.bytes().await?;
    ensure!(found == bytes, "{key} has other bytes");
    Ok(())
}

pub(crate) fn outside_agent(installation: &Installation, index: usize) -> Result<AgentEndpoint> {
    installation.endpoints()?.outside.get(index).cloned().context("no such node")
}

async fn is_active(installation: &Installation, site: &str) -> Result<()> {
    until(&format!("{site} is active"), LIMIT, || async {
        let role = installation.status(site).await?.role;
        Ok(if role == "active" { Ok(()) } else { Err(role) })
    })
    .await
}

#[tokio::test]
async fn rows_outside_make_up_k_where_both_sites_have_too_few_and_are_kept_through_deaths_and_switches()
-> Result<()> {
    in_folder("outside-rows", async |folder| {
        let (installation, bytes) = with_a_file(folder).await?;
        let inspection = is_whole(&installation, "file").await?;
        let extent = inspection.extents.first().context("no extent")?;
        let of_sites: Vec<&InspectedRow> = extent.rows.iter().filter(|row| !is_outside(row)).collect();
        let left = usize::from(extent.needed) - 2;
        let last: Vec<&InspectedRow> = of_sites.iter().rev().take(left).copied().collect();
        overwrite(of_sites.iter().copied().take(of_sites.len() - left))?;
        reads(&installation, "file", &bytes).await?;
        println!(
            "{} of {} rows of both sites overwritten, k = {}: {} of theirs and 2 outside are read",
            of_sites.len() - left,
            of_sites.len(),
            extent.needed,
            last.len()
        );
        is_whole(&installation, "file").await?;
        println!("all rows of both sites were made anew with them");

        let died = outside_agent(&installation, 0)?;
        signal(died.pid, "KILL")?;
        for device in &died.devices {
            std::fs::remove_dir_all(device)?;
        }
        until("the other outside node has both rows", LIMIT, || async {
            let inspection = inspect(&installation, "file").await?;
            let extent = inspection.extents.first().context("no extent")?;
            let there = extent.rows.iter().filter(|row| is_outside(row) && row.node != died.name).count();
            Ok(if inspection.sound && there == 2 { Ok(()) } else { Err(format!("{inspection:?}")) })
        })
        .await?;
        until("its status is dead", LIMIT, || async {
            let status =
                installation.status("east").await?.outside.context("no outside nodes in the status")?;
            let dead = status.nodes.iter().filter(|node| node.state == "dead");
            let is_it = dead.map(|node| node.name.as_str()).eq([died.name.as_str()]);
            Ok(if is_it { Ok(()) } else { Err(format!("{status:?}")) })
        })
        .await?;

        let _: serde_json::Value = installation.rest("east")?.post(&["api", "v1", "handover"]).await?;
        is_active(&installation, "west").await?;
        put(&installation, "after-the-switch", &bytes).await?;
        println!("after a planned switch west places rows outside");

        signal(installation.endpoints()?.sites["west"].pid, "KILL")?;
        is_active(&installation, "east").await?;
        installation.s3(PATIENCE)?.put("after-the-takeover", bytes.clone()).await?;
        until("rows outside after the takeover", LIMIT, || async {
            let inspection = inspect(&installation, "after-the-takeover").await?;
            let extent = inspection.extents.first().context("no extent")?;
            let outside = extent.rows.iter().filter(|row| is_outside(row)).count();
            Ok(if outside == 2 { Ok(()) } else { Err(format!("{inspection:?}")) })
        })
        .await?;
        for key in ["file", "after-the-switch", "after-the-takeover"] {
            reads(&installation, key, &bytes).await?;
        }
        installation.command(&["dev", "revive", "west"]).await?;
        is_whole(&installation, "after-the-takeover").await?;
        reads(&installation, "file", &bytes).await?;
        installation.stop().await
    })
    .await
}

/// A node-agent that was given a token; it ends by itself, or is killed with what is returned.
fn agent(token: &Path, folder: &Path) -> Result<Command> {
    std::fs::create_dir_all(folder)?;
    let mut agent = Command::new(program()?);
    agent.arg("node-agent").arg("--token").arg(token).arg("--folder").arg(folder);
    agent.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    agent.kill_on_drop(true);
    Ok(agent)
}

/// Its own words, once they say what is expected.
pub(crate) async fn says(mut agent: Command, expected: &str) -> Result<()> {
    let mut child = agent.spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("no output")?).lines();
    let mut said = String::new();
    let read = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(expected) {
                return Ok(());
            }
            said.push_str(&line);
        }
        bail!("it ended without saying {expected:?}")
    };
    let outcome = tokio::time::timeout(PATIENCE, read).await;
    child.kill().await?;
    outcome.unwrap_or_else(|_| bail!("it does not say {expected:?}")).with_context(|| said.clone())
}

/// A token that is no longer as it was made.
fn altered(token: &Path, folder: &Path, change: impl FnOnce(&mut OutsideToken)) -> Result<PathBuf> {
    let mut read: OutsideToken = serde_json::from_slice(&std::fs::read(token)?)?;
    change(&mut read);
    let path = folder.join("altered.json");
    std::fs::write(&path, serde_json::to_vec(&read)?)?;
    Ok(path)
}

#[tokio::test]
async fn a_token_that_is_spent_altered_cut_or_another_clusters_lets_nobody_in() -> Result<()> {
    in_folder("outside-tokens", async |folder| {
        let (installation, bytes) = with_a_file(folder).await?;
        let token = installation.data_dir.join("outside").join("n1").join("token.json");
        says(agent(&token, &folder.join("spent"))?, "was spent by another key: delete its Secret").await?;

        let path = altered(&token, folder, |token| token.fingerprint = "00".repeat(32))?;
        says(agent(&path, &folder.join("fingerprint"))?, "it was altered, have a new one made").await?;
        let path = altered(&token, folder, |token| token.certificate.truncate(300))?;
        says(agent(&path, &folder.join("cut"))?, "copy it again, whole").await?;
        std::fs::write(&path, &std::fs::read(&token)?[..100])?;
        says(agent(&path, &folder.join("half"))?, "is half written").await?;

        let doors: OutsideToken = serde_json::from_slice(&std::fs::read(&token)?)?;
        let cluster = ClusterId([8; 16]);
        let foreign = OutsideToken::make(&Authority::create(cluster)?, cluster, "t1", doors.doors)?;
        std::fs::write(&path, serde_json::to_vec(&foreign)?)?;
        says(agent(&path, &folder.join("foreign"))?, "authority").await?;

        let status = installation.status("east").await?.outside.context("no outside nodes in the status")?;
        ensure!(
            status.nodes.len() == 2 && status.nodes.iter().all(|node| node.state == "live"),
            "{status:?}"
        );
        reads(&installation, "file", &bytes).await?;
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn more_rows_than_nodes_and_outside_nodes_without_a_second_site_are_refused_before_anything_is_made()
-> Result<()> {
    in_folder("outside-options", async |folder| {
        let refused = [
            (
                &["--sites", "2", "--outside", "1", "--outside-rows", "2"][..],
                "2 rows of each extent can't lie on 1 outside nodes",
            ),
            (&["--sites", "1", "--outside", "1"], "ask for --sites 2"),
        ];
        for (words, expected) in refused {
            let data = folder.join("data");
            let mut dev = Command::new(program()?);
            dev.arg("dev").args(words).arg("--data-dir").arg(&data);
            let (succeeded, said) = diptych_e2e::program::outcome(&mut dev, LIMIT).await?;
            ensure!(!succeeded && said.contains(expected), "{said}");
            ensure!(!data.join("dev.json").exists(), "something was made");
        }
        Ok(())
    })
    .await
}
