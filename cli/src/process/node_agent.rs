//! `diptych node-agent`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_node_agent::bucket::{BucketStore, is_bucket};
use diptych_node_agent::{AgentOptions, DeviceOption};
use diptych_operator::join::client::keep_renewed;
use diptych_site::config::AgentConfig;
use tokio_util::sync::CancellationToken;

use super::{credentials, log_as_json, outside};
use crate::bucket::BucketOptions;
use crate::dev::supervise::told_to_end;
use crate::files::read_json;

/// What an agent runs with: a configuration or, in neither site, the token that it joins with.
#[derive(Debug, clap::Args)]
pub struct NodeAgentCommand {
    /// JSON, as `diptych dev` and the chart write it
    #[arg(long, required_unless_present = "token", conflicts_with = "token")]
    config: Option<PathBuf>,
    /// Token of a node in neither site: the agent joins with it at its first start
    #[arg(long, requires_all = ["folder", "listen"])]
    token: Option<PathBuf>,
    /// Keeps the agent's key, its certificate and its configuration once it has joined
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where both sites reach it
    #[arg(long)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    bucket: BucketOptions,
    /// Bytes that each device in a bucket may hold: a store does not say where it ends
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 40)]
    bucket_capacity: u64,
}

/// Runs it until it is told to end.
pub async fn run(command: NodeAgentCommand) -> Result<()> {
    log_as_json();
    diptych_wire::tls::install_provider();
    let (store, capacity) = (command.bucket.store()?, command.bucket_capacity);
    tokio::select! {
        config = config(command) => serve(config?, store, capacity).await,
        () = told_to_end() => Ok(()),
    }
}

async fn config(command: NodeAgentCommand) -> Result<AgentConfig> {
    let NodeAgentCommand { config, token, folder, listen, bucket: _, bucket_capacity: _ } = command;
    if let Some(config) = config {
        return read_json(&config);
    }
    let token = token.context("--config or --token is needed")?;
    let folder = folder.context("--token needs --folder")?;
    outside::joined(&token, &folder, listen.context("--token needs --listen")?).await
}

async fn serve(config: AgentConfig, store: Option<BucketStore>, bucket_capacity: u64) -> Result<()> {
    let devices = config.devices.iter().map(|device| DeviceOption {
        capacity: is_bucket(&device.path).then_some(bucket_capacity),
        path: device.path.clone(),
        device: Some(device.id),
    });
    let mut options = AgentOptions::new(credentials(&config.identity)?, devices.collect());
    options.bucket_store = store;
    options.listen = Some(config.listen);
    options.health = config.health;
    options.socket = Some(config.socket.clone());
    options.scrub.every = Duration::from_secs(config.scrub_every_s);
    let renewal = async {
        match (&config.issuer, &config.member) {
            (Some(issuer), _) => keep_renewed(issuer, &config.identity).await,
            (None, Some(member)) => outside::keep_renewed(member, &config).await,
            (None, None) => std::future::pending().await,
        }
    };
    let shutdown = CancellationToken::new();
    let ends = shutdown.clone();
    tokio::spawn(async move {
        told_to_end().await;
        ends.cancel();
    });
    tokio::select! {
        ended = diptych_node_agent::run(options, shutdown) => Ok(ended?),
        () = renewal => Ok(()),
    }
}
