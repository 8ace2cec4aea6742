//! `diptych node-agent`.

use std::time::Duration;

use anyhow::Result;
use diptych_node_agent::{AgentOptions, DeviceOption};
use diptych_site::config::AgentConfig;
use tokio_util::sync::CancellationToken;

use super::{ConfigFile, credentials, log_as_json};
use crate::dev::supervise::told_to_end;
use crate::files::read_json;

/// Runs it until it is told to end.
pub async fn run(file: &ConfigFile) -> Result<()> {
    log_as_json();
    let config: AgentConfig = read_json(&file.config)?;
    let devices = config.devices.into_iter();
    let devices =
        devices.map(|device| DeviceOption { path: device.path, device: Some(device.id), capacity: None });
    let mut options = AgentOptions::new(credentials(&config.identity)?, devices.collect());
    options.listen = Some(config.listen);
    options.health = config.health;
    options.socket = Some(config.socket);
    options.scrub.every = Duration::from_secs(config.scrub_every_s);
    let shutdown = CancellationToken::new();
    let ends = shutdown.clone();
    tokio::spawn(async move {
        told_to_end().await;
        ends.cancel();
    });
    Ok(diptych_node_agent::run(options, shutdown).await?)
}
