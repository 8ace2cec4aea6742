//! `diptych witness`: the third voter, outside both sites.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych_core::ids::ClusterId;
use diptych_site::config::IdentityFiles;
use diptych_site::witness::{WitnessOptions, serve};
use tokio::net::TcpListener;

use super::{credentials, log_as_json};
use crate::dev::supervise::told_to_end;

/// Words of the command line.
#[derive(Debug, clap::Args)]
pub struct WitnessCommand {
    /// The cluster that it serves: 32 hexadecimal digits
    #[arg(long)]
    cluster: ClusterId,
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// The file of its record
    #[arg(long)]
    state: PathBuf,
    /// The cluster's authority, PEM
    #[arg(long)]
    authority: PathBuf,
    /// Its certificate, PEM
    #[arg(long)]
    certificate: PathBuf,
    /// Its private key, PEM
    #[arg(long)]
    key: PathBuf,
}

/// Runs it until it is told to end.
pub async fn run(command: WitnessCommand) -> Result<()> {
    log_as_json();
    let WitnessCommand { cluster, listen, state, authority, certificate, key } = command;
    let own = credentials(&IdentityFiles { authority, certificate, key })?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("can't listen on {listen}"))?;
    tracing::info!(%listen, %cluster, "the witness serves");
    tokio::select! {
        ended = serve(listener, &own, WitnessOptions { cluster, state }) => Ok(ended?),
        () = told_to_end() => Ok(()),
    }
}
