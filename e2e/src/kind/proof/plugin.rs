//! `kubectl diptych`: the program under another name on the PATH, each of its commands once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use super::ground::{BUCKET, Ground, random};
use crate::demo::installation::until;
use crate::demo::reach::program;
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::program::outcome;

const LIMIT: Duration = Duration::from_mins(5);

/// A folder with the link, first on the PATH.
pub(super) struct Plugin(TempDir);

impl Plugin {
    pub(super) fn install() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("diptych-plugin-").tempdir()?;
        std::os::unix::fs::symlink(program()?, folder.path().join("kubectl-diptych"))?;
        Ok(Self(folder))
    }

    /// Whether it succeeded, and what it said.
    async fn outcome(
        &self,
        ground: &Ground<'_>,
        cluster: &Cluster,
        words: &[&str],
    ) -> Result<(bool, String)> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.0.path().to_path_buf()).chain(std::env::split_paths(&path));
        let mut command = Command::new("kubectl");
        command.arg("diptych").args(words);
        command.args(["--context", &format!("kind-{}", cluster.site), "--namespace", cluster.namespace()]);
        command.env("PATH", std::env::join_paths(folders)?).env("KUBECONFIG", ground.state.kubeconfig());
        outcome(&mut command, LIMIT).await
    }

    /// What it says, which has these words in it.
    pub(super) async fn says(
        &self,
        ground: &Ground<'_>,
        cluster: &Cluster,
        words: &[&str],
        wanted: &[&str],
    ) -> Result<String> {
        let (succeeded, said) = self.outcome(ground, cluster, words).await?;
        ensure!(succeeded, "kubectl diptych {}: {said}", words.join(" "));
        has(&said, wanted)?;
        Ok(said)
    }

    /// Its refusal, which has these words in it.
    async fn refuses(
        &self,
        ground: &Ground<'_>,
        cluster: &Cluster,
        words: &[&str],
        wanted: &str,
    ) -> Result<String> {
        let (succeeded, said) = self.outcome(ground, cluster, words).await?;
        ensure!(!succeeded, "kubectl diptych {} was done: {said}", words.join(" "));
        has(&said, &[wanted])?;
        Ok(said)
    }
}

fn has(said: &str, wanted: &[&str]) -> Result<()> {
    for words in wanted {
        ensure!(said.contains(words), "{words:?} is not in {said}");
    }
    Ok(())
}

/// All of them on sites that are well.
pub(super) async fn commands(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let plugin = Plugin::install()?;
    looks(table, ground, &plugin).await?;
    refusals(table, ground, &plugin).await?;
    table
        .step("kubectl diptych drill --mode Readiness", async {
            let (_, passive) = ground.sites().await?;
            let said = plugin.says(ground, passive, &["drill", "--mode", "Readiness"], &["Passed:"]).await?;
            Ok(((), said))
        })
        .await?;
    table
        .step("kubectl diptych handover", async {
            let (active, passive) = ground.sites().await?;
            let wanted = format!("{} is passive after", active.site);
            let said = plugin.says(ground, active, &["handover"], &[&wanted]).await?;
            let (now, _) = until("the other site is active", Duration::from_mins(1), || async {
                Ok(ground.sites().await.map_err(|error| format!("{error:#}")))
            })
            .await?;
            ensure!(now.site == passive.site, "{} is active", now.site);
            Ok(((), said))
        })
        .await
}

async fn looks(table: &mut Table, ground: &Ground<'_>, plugin: &Plugin) -> Result<()> {
    table
        .step("kubectl diptych status, in both clusters", async {
            let (active, passive) = ground.sites().await?;
            let epoch = ground.status(active.site).await?.epoch;
            let mut said = Vec::new();
            for (cluster, role) in [(active, "active"), (passive, "passive")] {
                let line = format!("{}: {role}, epoch {epoch}; active is {}", cluster.site, active.site);
                plugin.says(ground, cluster, &["status"], &[&line, "recovery time"]).await?;
                said.push(line);
            }
            Ok(((), said.join("; ")))
        })
        .await?;
    table
        .step("kubectl diptych verify, in both clusters", async {
            let (key, bytes) = (format!("verified-{}", ground.run), random(1 << 20)?);
            ground.s3()?.put(&key, bytes.clone()).await?;
            let read = ground.read_in_both(&key, &bytes).await?;
            for cluster in ground.clusters {
                let wanted = format!("read from the rows of {} alone, every tag is right", cluster.site);
                plugin.says(ground, cluster, &["verify", &key, "--bucket", BUCKET], &[&wanted]).await?;
            }
            Ok(((), format!("every tag is right by each site's own rows; {read}")))
        })
        .await
}

/// What must not be done while both sites are well.
async fn refusals(table: &mut Table, ground: &Ground<'_>, plugin: &Plugin) -> Result<()> {
    table
        .step("kubectl diptych promote and force-vote are refused while both sites are well", async {
            let (active, passive) = ground.sites().await?;
            let epoch = ground.status(active.site).await?.epoch;
            plugin.refuses(ground, active, &["promote"], "there is nothing to promote").await?;
            plugin.refuses(ground, passive, &["handover"], "is asked of the active site").await?;
            plugin.refuses(ground, passive, &["force-vote"], "two sites could write under one epoch").await?;
            let vouched = ["force-vote", "--other-site-serves-nothing"];
            plugin.refuses(ground, passive, &vouched, "there is nothing to force").await?;
            plugin.refuses(ground, passive, &["promote", "--accept-loss"], "it was refused").await?;
            let note = event(passive, "SwitchRefused").await?;
            ensure!(note.contains("the other site answers and holds the lease"), "{note}");
            let now = ground.status(active.site).await?;
            ensure!(now.role == "active" && now.epoch == epoch, "{} under epoch {}", now.role, now.epoch);
            Ok(((), format!("epoch {epoch} as before; Event SwitchRefused: {note}")))
        })
        .await
}

/// The note of the newest Event with this reason.
async fn event(cluster: &Cluster, reason: &str) -> Result<String> {
    let selector = format!("--field-selector=reason={reason}");
    until(&format!("an Event {reason} in {}", cluster.site), Duration::from_secs(30), || async {
        let events = cluster.get(&["events", &selector, "--sort-by=.metadata.creationTimestamp"]).await?;
        let last = events["items"].as_array().and_then(|items| items.last().cloned());
        let note = last.and_then(|event| event["message"].as_str().map(str::to_owned));
        Ok(note.ok_or_else(|| "none".to_owned()))
    })
    .await
    .with_context(|| format!("Event {reason}"))
}
