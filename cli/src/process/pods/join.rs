//! `diptych join`: how a node-agent's pod gets its certificate and its configuration.

use std::path::PathBuf;

use anyhow::Result;
use diptych_operator::join::client::{JoinOptions, join};
use diptych_site::config::{AgentConfig, AgentIssuer};

use crate::process::log_as_json;

/// What a pod joins with.
#[derive(Debug, clap::Args)]
pub struct JoinCommand {
    /// `https://host:port` of the site's operators
    #[arg(long)]
    operator: String,
    /// Certificate of the cluster's authority
    #[arg(long)]
    authority: PathBuf,
    /// Token of the pod's service account
    #[arg(long)]
    token: PathBuf,
    /// Gets ca.crt, tls.crt, tls.key and agent.json
    #[arg(long)]
    folder: PathBuf,
    /// Seconds from the end of one scrub of a device to the next
    #[arg(long, default_value_t = AgentConfig::scrub_every_s())]
    scrub_every_s: u64,
}

/// Asks until it has them.
pub async fn run(command: JoinCommand) -> Result<()> {
    log_as_json();
    diptych_wire::tls::install_provider();
    let JoinCommand { operator, authority, token, folder, scrub_every_s } = command;
    let issuer = AgentIssuer { operator, authority, token };
    Ok(join(&JoinOptions { issuer, folder, scrub_every_s }).await?)
}
