//! The other end: the init container of a node-agent's pod, and the agent itself when its certificate is to be renewed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diptych_site::config::{AgentConfig, AgentIssuer, IdentityFiles};
use diptych_wire::authority::signing_request;
use diptych_wire::files::write_private;
use diptych_wire::http::chain;
use diptych_wire::renewal;

use super::{JoinRequest, Joined, PATH};
use crate::config::identity_in;
use crate::error::OperatorError;
use crate::names::{AGENT_HEALTH_PORT, AGENT_PORT};

const AGAIN: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);

/// What a pod joins with.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Whom it asks.
    pub issuer: AgentIssuer,
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
    let authority = read(&options.issuer.authority)?;
    let (key, csr) = signing_request()?;
    let client = client(&authority)?;
    let joined = loop {
        match ask(&client, &options.issuer, &csr).await {
            Ok(joined) => break joined,
            Err(reason) => {
                tracing::warn!(reason, operator = options.issuer.operator, "not joined yet");
            }
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

/// Has an agent's certificate renewed, for ever.
pub async fn keep_renewed(issuer: &AgentIssuer, identity: &IdentityFiles) {
    renewal::keep_renewed(identity, |csr| next_chain(issuer, csr)).await;
}

async fn next_chain(issuer: &AgentIssuer, csr: String) -> Result<String, String> {
    let authority = read(&issuer.authority).map_err(|error| error.chain())?;
    let client = client(&authority).map_err(|error| error.chain())?;
    let asked = ask(&client, issuer, &csr).await;
    asked.map(|joined| joined.chain).map_err(|reason| format!("{}: {reason}", issuer.operator))
}

fn client(authority: &str) -> Result<reqwest::Client, OperatorError> {
    let internal = |error: reqwest::Error| OperatorError::Internal(chain(&error));
    let root = reqwest::Certificate::from_pem(authority.as_bytes()).map_err(internal)?;
    reqwest::Client::builder().tls_certs_only([root]).timeout(LIMIT).build().map_err(internal)
}

async fn ask(client: &reqwest::Client, issuer: &AgentIssuer, csr: &str) -> Result<Joined, String> {
    // Read each time: the kubelet renews it.
    let token = read(&issuer.token).map_err(|error| error.chain())?;
    let request = client.post(format!("{}{PATH}", issuer.operator)).bearer_auth(token.trim());
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
        issuer: Some(options.issuer.clone()),
        member: None,
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
    write_private(path, text.as_bytes()).map_err(|source| OperatorError::Local {
        what: format!("{} can't be written", path.display()),
        source,
    })
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use axum::{Json, Router};
    use diptych_core::ids::ClusterId;
    use diptych_wire::authority::{Authority, Request};
    use diptych_wire::identity::{Identity, Role};
    use diptych_wire::tls::Credentials;

    use super::super::tls::TlsListener;
    use super::*;
    use crate::secrets::VALIDITY;

    const CLUSTER: ClusterId = ClusterId([3; 16]);

    fn request(role: Role, validity: Duration) -> Request {
        let site = "east".parse().expect("a name");
        Request::new(Identity { cluster: CLUSTER, site, role, name: "n1".to_owned() }, validity)
    }

    /// An operator that signs whatever it is asked for.
    async fn operator(authority: Authority) -> String {
        let own = Request { addresses: vec![[127, 0, 0, 1].into()], ..request(Role::Operator, VALIDITY) };
        let own = Credentials::new(&authority.issue(&own).expect("issued")).expect("credentials");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let authority = std::sync::Arc::new(authority);
        let sign = move |Json(JoinRequest { csr }): Json<JoinRequest>| {
            let chain = authority.sign(&csr, &request(Role::Agent, VALIDITY)).expect("signed");
            let joined = Joined {
                cluster: CLUSTER.to_string(),
                site: "east".to_owned(),
                node: "n1".to_owned(),
                chain: diptych_wire::authority::chain_pem(&chain),
                devices: Vec::new(),
            };
            std::future::ready(Json(joined))
        };
        let listener = TlsListener::new(listener, own.open_server_config().expect("a configuration"));
        tokio::spawn(axum::serve(listener, Router::new().route(PATH, post(sign))).into_future());
        format!("https://{address}")
    }

    #[tokio::test]
    async fn an_agents_certificate_is_renewed_by_its_sites_operator() {
        diptych_wire::tls::install_provider();
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::create(CLUSTER).expect("an authority");
        let first = authority.issue(&request(Role::Agent, Duration::from_hours(1))).expect("issued");
        let identity = identity_in(folder.path());
        write(&identity.authority, &authority.certificate_pem()).expect("written");
        write(&identity.certificate, &first.chain_pem()).expect("written");
        write(&identity.key, &first.key_pem()).expect("written");
        let token = folder.path().join("token");
        let issuer =
            AgentIssuer { operator: operator(authority).await, authority: identity.authority.clone(), token };
        let renew = || renewal::renew_if_due(&identity, |csr| next_chain(&issuer, csr));
        renew().await.expect_err("it has no token to show");
        assert_eq!(read(&identity.certificate).expect("it is there"), first.chain_pem());
        write(&issuer.token, "shown").expect("written");
        assert!(renew().await.expect("the operator signs"), "an hour of 25 is left");
        assert_ne!(read(&identity.certificate).expect("it is there"), first.chain_pem());
        assert!(!renew().await.expect("it is fresh"));
    }
}
