//! Cut lines: packets are dropped where they come in at a machine (nftables, before any address is exchanged), and nobody is told.

use anyhow::Result;

use crate::kind::cluster::{Cluster, inside};
use crate::kind::outside::{ORIGIN_PORTS, Outside};

const TABLE: &str = "inet diptych_cut";

/// The site hears nothing that another one's machines send.
pub(in crate::kind::proof) async fn deafen(cluster: &Cluster, to: &Cluster) -> Result<()> {
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
pub(in crate::kind::proof) async fn heal(cluster: &Cluster) -> Result<()> {
    rule(cluster, &format!("add table {TABLE}\ndelete table {TABLE}")).await
}

async fn cut(cluster: &Cluster, rules: &str) -> Result<()> {
    let anew = format!(
        "add table {TABLE}
        delete table {TABLE}
        table {TABLE} {{
            chain incoming {{ type filter hook prerouting priority -300; {rules}; }}
        }}"
    );
    rule(cluster, &anew).await
}

async fn rule(cluster: &Cluster, rules: &str) -> Result<()> {
    for node in cluster.nodes().await?.iter().filter(|node| node.pid != 0) {
        inside(node, &["nft", rules]).await?;
    }
    Ok(())
}
