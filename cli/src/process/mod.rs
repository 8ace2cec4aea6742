//! The long-running processes: configuration in, tasks out, an end when they are told.

mod authority;
mod checks;
pub mod emulator;
mod forward;
mod front;
mod hands;
mod hint;
mod leftovers;
mod name;
pub mod node_agent;
mod outside;
pub mod pods;
mod record;
pub mod site;
pub mod witness;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use diptych_wire::files::{Followed, IdentityFiles};
use diptych_wire::tls::Credentials;
use rustls::ServerConfig;
use tracing_subscriber::EnvFilter;

/// Where a process's configuration is.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigFile {
    /// JSON, as `diptych dev` and the chart write it
    #[arg(long)]
    pub config: PathBuf,
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"))
}

/// JSON lines on standard error.
pub fn log_as_json() {
    let layer = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter());
    layer.with_writer(std::io::stderr).init();
}

/// For a terminal.
pub fn log_for_people() {
    tracing_subscriber::fmt().with_env_filter(filter()).with_writer(std::io::stderr).without_time().init();
}

/// A process's identity, renewed whenever its files are.
pub fn credentials(files: &IdentityFiles) -> Result<Credentials> {
    Ok(diptych_wire::files::credentials(Followed::open(files)?)?)
}

/// Certificate and key of the public listeners, likewise: for clients that have none of their own.
pub fn public_tls(files: &IdentityFiles) -> Result<Arc<ServerConfig>> {
    Ok(diptych_wire::files::public_server_config(Followed::open(files)?)?)
}
