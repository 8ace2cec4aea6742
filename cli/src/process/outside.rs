//! How the agent of a node in neither site joins: by a token, once. Its private key is made here and never leaves.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_core::ids::{DeviceId, SiteName};
use diptych_site::config::{AgentConfig, DeviceConfig, IdentityFiles};
use diptych_site::outside::{OutsideToken, TokenError};
use diptych_wire::authority::{Issued, chain_pem, signing_request};
use diptych_wire::peer::OutsideAnswer;
use diptych_wire::tls::Credentials;

use crate::files::{read_json, write_private};

/// Between two questions to sites of which none admits this node now.
const AGAIN: Duration = Duration::from_secs(1);

/// What the agent runs with: as its folder has it or, at its first start, as the active site answers the token.
///
/// # Errors
/// A token that can't be read, or that is refused for good.
pub(super) async fn joined(token: &Path, folder: &Path, listen: SocketAddr) -> Result<AgentConfig> {
    let known = folder.join("agent.json");
    if known.exists() {
        return read_json(&known);
    }
    let token: OutsideToken = read_json(token)?;
    let (key, csr) = request(folder)?;
    let answer = ask(&token, &csr).await?;
    let config = keep(answer, &key, folder, listen)?;
    // The last of all: an agent that is ended before asks again with the same key.
    write_private(&known, &serde_json::to_vec_pretty(&config)?)?;
    tracing::info!(node = %config.node, cluster = %config.cluster, "this node has joined");
    Ok(config)
}

/// A key and the signing request for it, the same whenever this node asks: an answer can be lost.
fn request(folder: &Path) -> Result<(String, String)> {
    let (key_file, csr_file) = (folder.join("tls.key"), folder.join("tls.csr"));
    if key_file.exists() && csr_file.exists() {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
        };
        return Ok((read(&key_file)?, read(&csr_file)?));
    }
    let (key, csr) = signing_request()?;
    write_private(&key_file, key.as_bytes())?;
    write_private(&csr_file, csr.as_bytes())?;
    Ok((key, csr))
}

async fn ask(token: &OutsideToken, csr: &str) -> Result<OutsideAnswer> {
    let mut told = String::new();
    loop {
        match token.join(csr).await {
            Ok(answer) => return Ok(answer),
            Err(TokenError::NotNow(reason)) if reason == told => {}
            Err(TokenError::NotNow(reason)) => {
                tracing::warn!(reason, "not joined yet");
                told = reason;
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn keep(answer: OutsideAnswer, key: &str, folder: &Path, listen: SocketAddr) -> Result<AgentConfig> {
    let issued = Issued::from_pem(&answer.chain, key)?;
    Credentials::new(&issued).context("the certificate that came is not for this node's key")?;
    let identity = IdentityFiles {
        authority: folder.join("ca.crt"),
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    let authority = issued.chain.last().context("the answer has no certificate of the authority")?;
    write_private(&identity.authority, chain_pem(std::slice::from_ref(authority)).as_bytes())?;
    write_private(&identity.certificate, answer.chain.as_bytes())?;
    let device = |(id, path): (DeviceId, String)| DeviceConfig { id, path: path.into() };
    Ok(AgentConfig {
        cluster: answer.cluster,
        site: SiteName::outside(),
        node: answer.node,
        listen,
        health: None,
        socket: folder.join("agent.sock"),
        identity,
        issuer: None,
        devices: answer.devices.into_iter().map(device).collect(),
        scrub_every_s: AgentConfig::scrub_every_s(),
    })
}
