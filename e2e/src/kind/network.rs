//! The network that both clusters share.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

use crate::program::{outcome, output};

/// The name that kind uses.
const NAME: &str = "kind";
/// Tells ours from one that kind made.
const LABEL: &str = "dev.diptych.range=declared";
const LIMIT: Duration = Duration::from_mins(1);
/// As kind has it.
const SIX: &str = "fc00:f853:ccd:e793::/64";

/// Makes the network before kind does. A machine that returns needs the address that it had, and Docker gives one that is asked for
/// only where the range was asked for, too: kind leaves the IPv4 range to Docker.
pub async fn make() -> Result<()> {
    let ours = docker(&["ls", "--quiet", "--filter", &format!("label={LABEL}")]).await?;
    if !ours.trim().is_empty() {
        return Ok(());
    }
    // It may not be there; one that is in use stays, and the next line says so.
    outcome(Command::new("docker").args(["network", "rm", NAME]), LIMIT).await?;
    docker(&["create", NAME])
        .await
        .context("a network of this name is in use: remove the kind clusters that are in it")?;
    let given = docker(&["inspect", NAME]).await?;
    let four = |what| ipv4(&given, what).context("Docker gave the network no IPv4 range");
    let (range, gateway) = (four("Subnet")?, four("Gateway")?);
    docker(&["rm", NAME]).await?;
    let ranges = ["--subnet", &range, "--gateway", &gateway, "--ipv6", "--subnet", SIX];
    let masquerade = ["--opt", "com.docker.network.bridge.enable_ip_masquerade=true"];
    let words = [&["create", "--label", LABEL][..], &masquerade, &ranges, &[NAME]].concat();
    docker(&words).await.map(drop)
}

/// The address under which containers reach this machine.
pub async fn gateway_address() -> Result<String> {
    ipv4(&docker(&["inspect", NAME]).await?, "Gateway").context("the network kind has no IPv4 gateway")
}

async fn docker(words: &[&str]) -> Result<String> {
    output(Command::new("docker").arg("network").args(words)).await
}

/// What the IPv4 range of a network that Docker described says of itself.
fn ipv4(described: &str, what: &str) -> Option<String> {
    let described: Value = serde_json::from_str(described).ok()?;
    let ranges = described.pointer("/0/IPAM/Config")?.as_array()?;
    let mut said = ranges.iter().filter_map(|range| range.get(what)?.as_str());
    said.find(|said| !said.contains(':')).map(str::to_owned)
}
