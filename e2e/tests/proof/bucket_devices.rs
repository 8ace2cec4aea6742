//! Outside nodes whose devices are in a bucket of another store: rows are placed, read, found rotten, made anew and found again there,
//! and no two agents share one.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use diptych::client::s3::S3Client;
use diptych::command::inspect::{InspectedRow, Inspection};
use diptych_core::ids::InstanceId;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::one_site::overwrite;
use diptych_e2e::demo::reach::program;
use diptych_e2e::program::in_folder;
use diptych_site::config::AgentConfig;
use tokio::process::Command;

use crate::object_store::{client, store, url};
use crate::outside::{is_outside, is_whole, outside_agent, put, reads, says};

const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(2);
const BUCKET: &str = "margin";

fn file() -> Bytes {
    (0..3_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect::<Vec<_>>()
        .into()
}

fn outside_rows(inspection: &Inspection) -> Vec<&InspectedRow> {
    inspection.extents.iter().flat_map(|extent| &extent.rows).filter(|row| is_outside(row)).collect()
}

fn instances(inspection: &Inspection) -> Vec<InstanceId> {
    outside_rows(inspection).iter().map(|row| row.instance).collect()
}

/// The key of a row's object in the bucket.
fn object(row: &InspectedRow) -> Result<String> {
    let path = row.segment.as_ref().context("the row has no object")?.display().to_string();
    let key = path.strip_prefix(&format!("s3://{BUCKET}/")).context("it lies in another bucket")?;
    Ok(key.to_owned())
}

/// Rows of the sites vanish until only those outside make up k.
async fn is_read_with_rows_of_buckets(installation: &Installation, bytes: &Bytes) -> Result<()> {
    let inspection = is_whole(installation, "file").await?;
    let extent = inspection.extents.first().context("no extent")?;
    let of_sites: Vec<&InspectedRow> = extent.rows.iter().filter(|row| !is_outside(row)).collect();
    let left = usize::from(extent.needed) - 2;
    overwrite(of_sites.iter().copied().take(of_sites.len() - left))?;
    reads(installation, "file", bytes).await?;
    is_whole(installation, "file").await?;
    println!("{left} rows of the sites and 2 in buckets are read, and make the others anew");
    Ok(())
}

/// A byte of an object is flipped; scrub finds it, and it is made anew.
async fn is_made_anew_where_it_rots(
    installation: &Installation,
    bucket: &S3Client,
    bytes: &Bytes,
) -> Result<()> {
    let inspection = is_whole(installation, "file").await?;
    let row = outside_rows(&inspection).first().copied().context("no row outside")?.clone();
    let key = object(&row)?;
    let mut wrong = bucket.get(&key).await?.bytes().await?.to_vec();
    wrong[row.payload_offset as usize + 1_000] ^= 1;
    bucket.put(&key, wrong.into()).await?;
    let _: serde_json::Value = installation.rest("east")?.post(&["api", "v1", "scrub"]).await?;
    until("the row is made anew", LIMIT, || async {
        let inspection = is_whole(installation, "file").await?;
        let still = instances(&inspection).contains(&row.instance);
        Ok(if still { Err(format!("{inspection:?}")) } else { Ok(()) })
    })
    .await?;
    until("the rotten object is gone", LIMIT, || async {
        let listed = bucket.list(&key).await?;
        Ok(if listed.is_empty() { Ok(()) } else { Err(format!("{key} is there")) })
    })
    .await?;
    reads(installation, "file", bytes).await?;
    println!("{key} rotted, was found and made anew");
    Ok(())
}

/// The same agent a second time, at another address, on the same bucket.
async fn a_second_agent_is_refused(installation: &Installation, store: &Installation) -> Result<()> {
    let folder = installation.data_dir.join("outside").join("n1");
    let mut config: AgentConfig = serde_json::from_slice(&std::fs::read(folder.join("agent.json"))?)?;
    config.listen = "127.0.0.1:0".parse()?;
    let elsewhere = folder.join("elsewhere");
    std::fs::create_dir_all(&elsewhere)?;
    config.socket = elsewhere.join("agent.sock");
    let path = elsewhere.join("agent.json");
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    let s3 = store.endpoints()?.s3;
    let mut agent = Command::new(program()?);
    agent.arg("node-agent").arg("--config").arg(&path).arg("--bucket-endpoint").arg(&s3.endpoint);
    agent.env("AWS_ACCESS_KEY_ID", &s3.access_key).env("AWS_SECRET_ACCESS_KEY", &s3.secret_key);
    agent.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    says(agent, "is held by agent outside-n1: two agents never share a bucket").await
}

async fn is_found_again_after_a_kill(installation: &Installation, bytes: &Bytes) -> Result<()> {
    let before = instances(&is_whole(installation, "file").await?);
    let died = outside_agent(installation, 0)?;
    signal(died.pid, "KILL")?;
    installation.command(&["dev", "revive", &died.name]).await?;
    until("the agent has its bucket again", LIMIT, || async {
        let status = installation.status("east").await?.outside.context("no outside nodes in the status")?;
        let fine = status.nodes.iter().all(|node| {
            node.state == "live" && node.devices.iter().all(|device| device.state == "ok" && device.rows > 0)
        });
        Ok(if fine { Ok(()) } else { Err(format!("{status:?}")) })
    })
    .await?;
    let after = instances(&is_whole(installation, "file").await?);
    ensure!(before == after, "{before:?} became {after:?}");
    reads(installation, "file", bytes).await?;
    println!("killed and started anew, the agent of {} has the same rows", died.name);
    Ok(())
}

async fn begin(folder: &Path) -> Result<(Installation, Installation)> {
    let store = store(&folder.join("store"), BUCKET).await?;
    let url = url(&store.endpoints()?.s3, &format!("{BUCKET}/nodes"))?;
    let of_sites = ["--sites", "2", "--nodes", "3", "--devices", "1", "--node-dead-after", "120"];
    let words = [&of_sites[..], &["--outside", "2", "--outside-store", &url]].concat();
    let installation = Installation::start(&folder.join("data"), &words).await?;
    installation.s3(PATIENCE)?.create_bucket().await?;
    Ok((store, installation))
}

#[tokio::test]
async fn rows_in_a_bucket_are_read_scrubbed_made_anew_and_found_again_and_no_two_agents_share_it()
-> Result<()> {
    in_folder("bucket-devices", async |folder| {
        let (store, installation) = begin(folder).await?;
        let bucket = client(folder, &store.endpoints()?.s3, BUCKET)?;
        let bytes = file();
        put(&installation, "file", &bytes).await?;
        is_read_with_rows_of_buckets(&installation, &bytes).await?;
        is_made_anew_where_it_rots(&installation, &bucket, &bytes).await?;
        a_second_agent_is_refused(&installation, &store).await?;
        is_found_again_after_a_kill(&installation, &bytes).await?;
        installation.stop().await?;
        store.stop().await
    })
    .await
}
