//! The other end: the init container of a node-agent's pod.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diptych_site::config::AgentConfig;
use diptych_wire::authority::signing_request;
use diptych_wire::http::chain;

use super::{JoinRequest, Joined, PATH};
use crate::config::identity_in;
use crate::error::OperatorError;
use crate::names::{AGENT_HEALTH_PORT, AGENT_PORT};

const AGAIN: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);

/// What a pod joins with.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// `https://host:port` of the operators.
    pub operator: String,
    /// The cluster's authority, PEM.
    pub authority: PathBuf,
    /// Token of the service account.
    pub token: PathBuf,
    /// Gets `ca.crt`, `tls.crt`, `tls.key` and `agent.json`.
    pub folder: PathBuf,
    /// Seconds from the end of one scrub of a device to the next.
    pub scrub_every_s: u64,
}

/// Asks until it has what the agent runs with.
///
/// # Errors
/// A file that can't be read or written: the pod is not what it should be.
pub async fn join(options: &JoinOptions) -> Result<(), OperatorError> {
    let authority = read(&options.authority)?;
    let (key, csr) = signing_request()?;
    let root = reqwest::Certificate::from_pem(authority.as_bytes())
        .map_err(|error| OperatorError::Internal(format!("{}: {error}", options.authority.display())))?;
    let client = reqwest::Client::builder()
        .tls_certs_only([root])
        .timeout(LIMIT)
        .build()
        .map_err(|error| OperatorError::Internal(error.to_string()))?;
    let joined = loop {
        match ask(&client, options, &csr).await {
            Ok(joined) => break joined,
            Err(reason) => tracing::warn!(reason, operator = options.operator, "not joined yet"),
        }
        tokio::time::sleep(AGAIN).await;
    };
    write(&options.folder.join("ca.crt"), &authority)?;
    write(&options.folder.join("tls.crt"), &joined.chain)?;
    write(&options.folder.join("tls.key"), &key)?;
    let config = serde_json::to_string_pretty(&config(options, joined)?);
    let config = config.map_err(|error| OperatorError::Internal(error.to_string()))?;
    write(&options.folder.join("agent.json"), &config)
}

async fn ask(client: &reqwest::Client, options: &JoinOptions, csr: &str) -> Result<Joined, String> {
    // Read each time: the kubelet renews it.
    let token = read(&options.token).map_err(|error| error.chain())?;
    let request = client.post(format!("{}{PATH}", options.operator)).bearer_auth(token.trim());
    let answer =
        request.json(&JoinRequest { csr: csr.to_owned() }).send().await.map_err(|error| chain(&error))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("{status}: {}", answer.text().await.unwrap_or_default()));
    }
    answer.json().await.map_err(|error| chain(&error))
}

fn config(options: &JoinOptions, joined: Joined) -> Result<AgentConfig, OperatorError> {
    let folder = &options.folder;
    let wrong =
        |what: &str, error: &dyn std::fmt::Display| OperatorError::Internal(format!("{what}: {error}"));
    Ok(AgentConfig {
        cluster: joined.cluster.parse().map_err(|error| wrong("cluster", &error))?,
        site: joined.site.parse().map_err(|error| wrong("site", &error))?,
        node: joined.node.parse().map_err(|error| wrong("node", &error))?,
        listen: SocketAddr::from(([0, 0, 0, 0], AGENT_PORT)),
        health: Some(SocketAddr::from(([0, 0, 0, 0], AGENT_HEALTH_PORT))),
        socket: folder.join("agent.sock"),
        identity: identity_in(folder),
        devices: joined.devices,
        scrub_every_s: options.scrub_every_s,
    })
}

fn read(path: &Path) -> Result<String, OperatorError> {
    let failed = |source| OperatorError::Local { what: format!("{} can't be read", path.display()), source };
    std::fs::read_to_string(path).map_err(failed)
}

/// Replaces a file, readable by its owner only.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), OperatorError> {
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|source| OperatorError::Local {
        what: format!("{} can't be written", path.display()),
        source,
    })
}
