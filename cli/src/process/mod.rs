//! The long-running processes: configuration in, tasks out, an end when they are told.

mod authority;
mod checks;
pub mod emulator;
mod forward;
mod front;
mod hands;
pub mod node_agent;
mod outside;
pub mod pods;
mod record;
pub mod site;
pub mod witness;

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych_site::config::IdentityFiles;
use diptych_wire::authority::Issued;
use diptych_wire::tls::Credentials;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
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

/// Reads a process's certificate and key.
pub fn credentials(files: &IdentityFiles) -> Result<Credentials> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
    };
    let issued = Issued::from_pem(&read(&files.certificate)?, &read(&files.key)?)?;
    Ok(Credentials::new(&issued)?)
}

/// Certificate and key of the public listeners: for clients that have none of their own.
pub fn public_tls(files: &IdentityFiles) -> Result<std::sync::Arc<rustls::ServerConfig>> {
    let read =
        |path: &PathBuf| std::fs::read(path).with_context(|| format!("{} can't be read", path.display()));
    let chain = CertificateDer::pem_slice_iter(&read(&files.certificate)?).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)?;
    let config = rustls::ServerConfig::builder_with_provider(diptych_wire::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(std::sync::Arc::new(config))
}
