//! Ring keys and the cluster key, exchanged under running sites.

use std::time::Duration;

use anyhow::{Context, Result};

use super::a_file;
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::install::{cluster_key, keep_cluster_key, new_cluster_key};
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::proof::plugin::Plugin;
use crate::kind::spec;

/// Until every device has what is prepared.
const SPREADS_IN: Duration = Duration::from_mins(2);
/// As docs/kubernetes.md waits for it: the condition is True all the while, its reason is what turns.
const MAY_GO: &str = "--for=jsonpath={.status.conditions[?(@.type==\"KeyRotation\")].reason}=PreviousMayGo";
/// The AccessKey that the values of site east declare: its operator opens the keyring for it.
const DECLARED_KEY: &str = "accesskey/demo";

/// `kubectl diptych keys rotate`.
pub(super) async fn ring_key_is_rotated(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step(
            "kubectl diptych keys rotate: another ring key seals what is put, what was put before is read",
            async {
                let (active, _) = ground.sites().await?;
                let (plugin, before) = (Plugin::install()?, current(ground, active.site).await?);
                let (old_key, old) = a_file(ground, "sealed-before", 256 << 10).await?;
                plugin.says(ground, active, &["keys", "rotate"], &["another ring key is prepared"]).await?;
                let now = until("another ring key is in use", SPREADS_IN, || async {
                    let now = current(ground, active.site).await?;
                    Ok(if now > before { Ok(now) } else { Err(format!("ring key {now}")) })
                })
                .await?;
                plugin
                    .says(ground, active, &["keys"], &["seals what is new", "opens what it sealed"])
                    .await?;
                let (key, bytes) = a_file(ground, "sealed-after", 256 << 10).await?;
                ground.read_in_both(&old_key, &old).await?;
                let read = ground.read_in_both(&key, &bytes).await?;
                Ok((
                    (),
                    format!("ring key {before} is followed by {now}; {read}, and so is what was put before"),
                ))
            },
        )
        .await
}

/// The ring key that new bytes are sealed by.
async fn current(ground: &Ground<'_>, site: &str) -> Result<u32> {
    Ok(ground.status(site).await?.keys.context("there is no keyring")?.current)
}

/// Another cluster key, given to both sites; the new one stays.
pub(super) async fn cluster_key_is_exchanged(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("another cluster key in both Secrets: KeyRotation says PreviousMayGo, and files are read without the old one", async {
            let (before, next) = (cluster_key(ground.state)?, new_cluster_key()?);
            let (old_key, old) = a_file(ground, "wrapped-before", 256 << 10).await?;
            let said = match exchange(ground, &next, &before).await {
                Ok(said) => said,
                // With both given it goes back, whichever of them wraps the keyring now.
                Err(error) => {
                    let back = async { exchange(ground, &before, &next).await.map(drop) };
                    return Box::pin(then_put_back(async { Err(error) }, back)).await;
                }
            };
            let [east, _] = ground.clusters;
            spec::said_of(east, DECLARED_KEY, "Ready", "True Entered").await?;
            let (key, bytes) = a_file(ground, "wrapped-after", 256 << 10).await?;
            ground.read_in_both(&old_key, &old).await?;
            let read = ground.read_in_both(&key, &bytes).await?;
            Ok(((), format!("{said}; {read}, and so is what was put before")))
        })
        .await
}

/// Gives both sites another cluster key, and takes the one before away when it may go.
async fn exchange(ground: &Ground<'_>, key: &str, before: &str) -> Result<String> {
    for cluster in ground.clusters {
        give(cluster, &[("key", key), ("previous-key", before)]).await?;
    }
    for cluster in ground.clusters {
        cluster.kubectl(&["wait", spec::OBJECT, MAY_GO, "--timeout=10m"]).await?;
    }
    keep_cluster_key(ground.state, key)?;
    let mut said = String::new();
    for cluster in ground.clusters {
        give(cluster, &[("key", key)]).await?;
    }
    for cluster in ground.clusters {
        said = spec::says(cluster, "KeyRotation", "True Settled").await?;
    }
    Ok(said)
}

/// The Secret with these entries and no others, as docs/kubernetes.md has it applied.
async fn give(cluster: &Cluster, entries: &[(&str, &str)]) -> Result<()> {
    let literals: Vec<String> =
        entries.iter().map(|(entry, value)| format!("--from-literal={entry}={value}")).collect();
    let mut words = vec!["create", "secret", "generic", "cluster-key", "--dry-run=client", "-o", "yaml"];
    words.extend(literals.iter().map(String::as_str));
    cluster.apply(&cluster.kubectl(&words).await?).await
}
