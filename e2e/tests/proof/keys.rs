//! Ring key and cluster key are exchanged under a running installation of two sites, and the old one is good for nothing after it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use diptych_e2e::demo::installation::{Installation, until};
use diptych_e2e::demo::reach::program;
use diptych_e2e::program::{in_folder, outcome, output};
use diptych_site::status::KeysStatus;
use tokio::process::Command;

const SITES: &[&str] = &["--sites", "2"];
const PATIENCE: Duration = Duration::from_mins(1);
const LIMIT: Duration = Duration::from_mins(2);

async fn keys(installation: &Installation) -> Result<KeysStatus> {
    Ok(serde_json::from_str(&installation.command(&["keys", "--json"]).await?)?)
}

async fn comes_to(
    installation: &Installation,
    what: &str,
    is: fn(&KeysStatus) -> bool,
) -> Result<KeysStatus> {
    until(what, PATIENCE, || async {
        let now = keys(installation).await?;
        Ok(if is(&now) { Ok(now) } else { Err(format!("{now:?}")) })
    })
    .await
}

async fn put(installation: &Installation, name: &str) -> Result<()> {
    installation.s3(PATIENCE)?.put(name, Bytes::copy_from_slice(name.as_bytes())).await.map(drop)
}

async fn all_read(installation: &Installation, names: &[&str]) -> Result<()> {
    for name in names {
        let found = installation.s3(PATIENCE)?.get(name).await?.bytes().await?;
        ensure!(found == *name, "{name} has other bytes: {found:?}");
    }
    Ok(())
}

/// What a `diptych dev` says that does not come up.
async fn refusal(data: &Path) -> Result<String> {
    let mut dev = Command::new(program()?);
    let (succeeded, said) = outcome(dev.arg("dev").args(SITES).arg("--data-dir").arg(data), LIMIT).await?;
    ensure!(!succeeded && !said.contains("ready\n"), "it came up: {said}");
    Ok(said)
}

#[tokio::test]
async fn keys_are_exchanged_while_it_runs_and_the_old_one_opens_nothing_more() -> Result<()> {
    in_folder("keys", async |folder| {
        let data = folder.join("data");
        let installation = Installation::start(&data, SITES).await?;
        installation.s3(PATIENCE)?.create_bucket().await?;
        put(&installation, "first").await?;
        let begun = comes_to(&installation, "the keyring is everywhere", KeysStatus::is_settled).await?;

        installation.command(&["keys", "rotate"]).await?;
        let turned = comes_to(&installation, "another ring key seals", |now| now.current > 1).await?;
        ensure!(turned.ring_keys.len() == 2, "{turned:?}");
        put(&installation, "second").await?;
        all_read(&installation, &["first", "second"]).await?;

        let (key, before) = (data.join("cluster.key"), data.join("previous-cluster.key"));
        std::fs::copy(&key, &before)?;
        let old = std::fs::read(&key)?;
        std::fs::write(&key, "ab".repeat(32))?;
        let over = comes_to(&installation, "the previous key may go", |now| now.may_go).await?;
        ensure!(over.wrapped_by == over.held[0] && over.held[1] == begun.wrapped_by, "{over:?}");
        std::fs::remove_file(&before)?;
        comes_to(&installation, "one key is left", |now| now.waiting == "Settled").await?;
        put(&installation, "third").await?;
        all_read(&installation, &["first", "second", "third"]).await?;
        let endpoints = installation.endpoints()?;
        installation.stop().await?;

        std::fs::write(&key, &old)?;
        let said = refusal(&data).await?;
        ensure!(said.contains(&over.wrapped_by) && said.contains(&begun.wrapped_by), "{said}");
        std::fs::remove_file(&key)?;
        std::fs::write(&key, "no key")?;
        let said = refusal(&data).await?;
        ensure!(said.contains("holds no cluster key"), "{said}");

        std::fs::write(&key, "ab".repeat(32))?;
        let devices = endpoints.sites["west"].agents.iter().flat_map(|agent| agent.devices.clone());
        let mut resurrect = Command::new(program()?);
        resurrect.arg("resurrect").arg("--devices").args(devices).arg("--cluster-key").arg(&key);
        output(resurrect.arg("--into").arg(folder.join("made")).arg("--json").arg("--accept-gap")).await?;
        let installation = Installation::start(&data, SITES).await?;
        all_read(&installation, &["first", "second", "third"]).await?;
        installation.stop().await
    })
    .await
}
