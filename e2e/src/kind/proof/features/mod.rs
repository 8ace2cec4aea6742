//! What docs/kubernetes.md lets a person declare or ask for, and the other parts leave out. Each is looked at as that person would, and
//! put back; none needs another one before it.

mod balancer;
mod buckets;
mod checks;
mod domains;
mod drain;
mod failback;
mod keys;
mod namespaces;
mod outside;
mod retention;
mod store;
mod tunnel;
mod webhook;
mod witness;
mod zone;

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::ValueEnum;
use diptych_gateway::rest::fragments::{FileFragments, RowFragment};
use serde_json::Value;

use super::ground::{BUCKET, Ground, random};
use crate::demo::table::Table;
use crate::kind::cluster::{Cluster, Node};
use crate::kind::spec;

/// Until rows have moved: behind all repair, and within its budget.
const MOVES_IN: Duration = Duration::from_mins(10);

/// What can be proven by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Feature {
    /// A FileObject that nobody deletes before its time
    Retention,
    /// FileObjects and AccessKeys of another namespace
    Namespaces,
    /// A StorageNode that is emptied
    Drain,
    /// A ring key, and the cluster key
    Keys,
    /// What a bucket promises while the other site is away
    Buckets,
    /// Nodes in neither site, with a folder and with a bucket as device
    Outside,
    /// Failure domains of StorageNodes
    Domains,
    /// The lease goes back by itself
    Failback,
    /// Cloudflare's health checks
    Checks,
    /// The public name by a load balancer
    Balancer,
    /// The public name by tunnels
    Tunnel,
    /// A webhook that is told what turns
    Webhook,
    /// The third vote in a bucket
    Witness,
}

/// All of them, or those that were asked for; both sites are well after each.
pub(super) async fn all(table: &mut Table, ground: &Ground<'_>, only: &[Feature]) -> Result<()> {
    for feature in Feature::value_variants() {
        if !only.is_empty() && !only.contains(feature) {
            continue;
        }
        ground.told(Box::pin(one(table, ground, *feature)).await).await;
        ground.well(table).await?;
    }
    Ok(())
}

async fn one(table: &mut Table, ground: &Ground<'_>, feature: Feature) -> Result<()> {
    match feature {
        Feature::Retention => Box::pin(retention::lasts_until_its_time(table, ground)).await,
        Feature::Namespaces => Box::pin(namespaces::are_allowed(table, ground)).await,
        Feature::Drain => Box::pin(drain::empties_a_node(table, ground)).await,
        Feature::Keys => {
            ground.told(Box::pin(keys::ring_key_is_rotated(table, ground)).await).await;
            Box::pin(keys::cluster_key_is_exchanged(table, ground)).await
        }
        Feature::Buckets => Box::pin(buckets::downgrade(table, ground)).await,
        Feature::Outside => {
            ground.told(Box::pin(outside::joins_with_a_folder(table, ground)).await).await;
            Box::pin(outside::joins_with_a_bucket(table, ground)).await
        }
        Feature::Domains => Box::pin(domains::are_levelled(table, ground)).await,
        Feature::Failback => Box::pin(failback::comes_by_itself(table, ground)).await,
        Feature::Checks => Box::pin(checks::are_kept(table, ground)).await,
        Feature::Balancer => Box::pin(balancer::follows_the_lease(table, ground)).await,
        Feature::Tunnel => Box::pin(tunnel::is_made(table, ground)).await,
        Feature::Webhook => Box::pin(webhook::is_told(table, ground)).await,
        Feature::Witness => Box::pin(witness::moves_to_a_bucket(table, ground)).await,
    }
}

/// Declares it in both sites.
async fn declare(ground: &Ground<'_>, declared: &Value) -> Result<()> {
    for cluster in ground.clusters {
        spec::declare(cluster, declared).await?;
    }
    Ok(())
}

/// A file of the bucket of proofs, put by the public name: its key, and its bytes.
async fn a_file(ground: &Ground<'_>, name: &str, length: usize) -> Result<(String, Bytes)> {
    let (key, bytes) = (format!("{name}-{}", ground.run), random(length)?);
    ground.s3()?.put(&key, bytes.clone()).await?;
    Ok((key, bytes))
}

/// The rows that a site's catalog names of a file.
async fn rows(ground: &Ground<'_>, site: &str, key: &str) -> Result<Vec<RowFragment>> {
    let file: FileFragments = ground
        .reach
        .rest(site)?
        .document(&["api", "v1", "fragments", key], &[("bucket", BUCKET)])
        .await
        .with_context(|| format!("{site} does not say where the rows of {key} are"))?;
    Ok(file.extents.into_iter().flat_map(|extent| extent.rows).collect())
}

/// The machines of a site that are no control plane.
async fn workers(cluster: &Cluster) -> Result<Vec<Node>> {
    let nodes = cluster.nodes().await?;
    Ok(nodes.into_iter().filter(|node| node.pid != 0 && node.name.contains("worker")).collect())
}

/// The StorageNode of a machine, as kubectl takes it.
fn storage_node(node: &Node) -> String {
    format!("storagenode/main-{}", node.name)
}

/// What kubectl prints of an object, in one line.
async fn printed(cluster: &Cluster, object: &str) -> Result<String> {
    let line = cluster.kubectl(&["get", object, "--no-headers"]).await?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}
