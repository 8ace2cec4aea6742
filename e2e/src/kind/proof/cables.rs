//! Cut lines: packets are dropped where they come in at a machine (nftables, before any address is exchanged), and nobody is told.

use anyhow::Result;

use super::super::cluster::{Cluster, inside};
use super::super::outside::{ORIGIN_PORTS, Outside};

const TABLE: &str = "inet diptych_cut";

/// The site hears nothing that another one's machines send.
pub(super) async fn deafen(cluster: &Cluster, to: &Cluster) -> Result<()> {
    let nodes = to.nodes().await?;
    let addresses: Vec<&str> = nodes.iter().filter_map(|node| node.address.as_deref()).collect();
    cut(cluster, &format!("ip saddr {{ {} }} drop", addresses.join(", "))).await
}

/// Cloudflare's API does not answer the site, and its edge does not reach it. The witness, at the same address, does.
pub(super) async fn cut_from_cloudflare(cluster: &Cluster, outside: &Outside) -> Result<()> {
    let address = &outside.address;
    let api = outside.api();
    let api = api.rsplit(':').next().unwrap_or_default();
    let (s3, rest) = ORIGIN_PORTS;
    let rules = format!(
        "ip saddr {address} tcp sport {api} drop; ip saddr {address} tcp dport {{ {s3}, {rest} }} drop"
    );
    cut(cluster, &rules).await
}

/// All lines of the site are whole again.
pub(super) async fn heal(cluster: &Cluster) -> Result<()> {
    rule(cluster, &format!("table {TABLE}; delete table {TABLE}")).await
}

async fn cut(cluster: &Cluster, rules: &str) -> Result<()> {
    let chain = format!("chain incoming {{ type filter hook prerouting priority -300; {rules}; }}");
    rule(cluster, &format!("table {TABLE}; delete table {TABLE}; table {TABLE} {{ {chain} }}")).await
}

async fn rule(cluster: &Cluster, rules: &str) -> Result<()> {
    for node in cluster.nodes().await?.iter().filter(|node| node.pid != 0) {
        inside(node, &["nft", rules]).await?;
    }
    Ok(())
}
