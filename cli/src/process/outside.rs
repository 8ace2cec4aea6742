//! How the agent of a node in neither site joins: by a token, once. Its private key is made here and never leaves; its
//! certificate is renewed by whichever site is active.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use diptych_core::ids::{DeviceId, NodeName, SiteName};
use diptych_site::config::{AgentConfig, DeviceConfig, IdentityFiles};
use diptych_site::outside::{Membership, OutsideToken, TokenError};
use diptych_wire::authority::{Issued, chain_pem, signing_request};
use diptych_wire::peer::OutsideAnswer;
use diptych_wire::renewal;
use diptych_wire::tls::Credentials;

use crate::files::{read_json, write_private};

/// Between two questions to sites of which none admits this node now.
const AGAIN: Duration = Duration::from_secs(1);

/// What the agent runs with: as its folder has it or, at its first start and with each further token, as the active site
/// answers the token.
///
/// # Errors
/// A token that can't be read, or that is refused for good, where there is no certificate that is still valid.
pub(super) async fn joined(token: &Path, folder: &Path, listen: SocketAddr) -> Result<AgentConfig> {
    let known = folder.join("agent.json");
    if !known.exists() {
        return Place { folder, listen, node: None }.join(&read_json(token)?).await;
    }
    let config: AgentConfig = read_json(&known)?;
    let place = Place { folder, listen, node: Some(&config.node) };
    let held = held(&config.identity)?;
    match (Membership::check(&config.node, &held, SystemTime::now()), further_token(token, &config)) {
        (Ok(()), None) => Ok(config),
        (Ok(()), Some(token)) => Ok(place.join_once(&token).await.unwrap_or_else(|error| {
            tracing::warn!(
                error = format!("{error:#}"),
                "this node can't join again with its new token: it stays what it is"
            );
            config.clone()
        })),
        (Err(_), Some(token)) => place.join(&token).await,
        (Err(ended), None) => Err(ended.into()),
    }
}

/// Has an agent's certificate renewed, for ever.
pub(super) async fn keep_renewed(member: &Membership, config: &AgentConfig) {
    renewal::keep_renewed(&config.identity, async |csr: String| {
        let held = held(&config.identity).map_err(|error| format!("{error:#}"))?;
        member.renew(&config.node, &held, csr).await.map_err(|error| error.to_string())
    })
    .await;
}

fn held(identity: &IdentityFiles) -> Result<Issued> {
    Ok(identity.read()?.issued()?)
}

/// A token that is not the one that the node joined with.
fn further_token(path: &Path, config: &AgentConfig) -> Option<OutsideToken> {
    let read = || {
        let token: OutsideToken = read_json(path)?;
        Ok::<_, anyhow::Error>((token.name()?, token))
    };
    match read() {
        Ok((name, token)) => {
            config.member.as_ref().is_none_or(|member| member.token != name).then_some(token)
        }
        Err(error) => {
            if path.exists() {
                tracing::warn!(error = format!("{error:#}"), "the token is not looked at");
            }
            None
        }
    }
}

/// Where an agent keeps what it is.
struct Place<'a> {
    folder: &'a Path,
    listen: SocketAddr,
    /// Which node it is already.
    node: Option<&'a NodeName>,
}

impl Place<'_> {
    /// Asks until a site answers.
    async fn join(&self, token: &OutsideToken) -> Result<AgentConfig> {
        let (key, csr) = request(self.folder)?;
        self.keep(token, ask(token, &csr).await?, &key)
    }

    async fn join_once(&self, token: &OutsideToken) -> Result<AgentConfig> {
        let (key, csr) = request(self.folder)?;
        self.keep(token, token.join(&csr).await?, &key)
    }

    fn keep(&self, token: &OutsideToken, answer: OutsideAnswer, key: &str) -> Result<AgentConfig> {
        let (node, folder) = (&answer.node, self.folder);
        if let Some(own) = self.node.filter(|own| *own != node) {
            bail!(
                "the token is for node {node}, and {} is of node {own}: give each node its own",
                folder.display()
            );
        }
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
        let config = AgentConfig {
            cluster: answer.cluster,
            site: SiteName::outside(),
            node: answer.node,
            listen: self.listen,
            health: None,
            socket: folder.join("agent.sock"),
            identity,
            issuer: None,
            member: Some(Membership { token: token.name()?, doors: token.doors.clone() }),
            devices: answer.devices.into_iter().map(device).collect(),
            scrub_every_s: AgentConfig::scrub_every_s(),
        };
        // The last of all: an agent that is ended before asks again with the same key.
        write_private(&folder.join("agent.json"), &serde_json::to_vec_pretty(&config)?)?;
        tracing::info!(node = %config.node, cluster = %config.cluster, "this node has joined");
        Ok(config)
    }
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
