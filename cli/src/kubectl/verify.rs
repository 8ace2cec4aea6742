//! `kubectl diptych verify`: a deep check of one file, by a gateway of the site, reached through the API server.

use anyhow::{Context, Result, bail};
use diptych_core::drill::Samples;
use http::Request;
use http::header::{AUTHORIZATION, HOST};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::Site;
use crate::command::{human, say};

/// REST of a gateway.
const PORT: u16 = diptych_operator::names::REST_PORT;

/// Read a file from this site's own rows alone and verify every tag
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The file's key
    key: String,
    /// Its bucket
    #[arg(long, default_value = "files")]
    bucket: String,
    /// Bearer token that may do it; the installation's own if left out, which takes the right to read its Secret
    #[arg(long, env = "DIPTYCH_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Verify {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        if site.cluster.spec.gateway.tls_secret_ref.is_some() {
            bail!(
                "the gateways speak https: ask `POST /api/v1/verify?bucket=…&id=…` of REST by their own name"
            );
        }
        let token = match &self.token {
            Some(token) => token.clone(),
            None => own_token(site).await?,
        };
        let encoded = |text: &str| {
            reqwest::Url::parse_with_params(
                "http://gateway/api/v1/verify",
                [("id", text), ("bucket", &self.bucket)],
            )
        };
        let url = encoded(&self.key)?;
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let (status, body) = ask(site, &path, &token).await?;
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        let samples: Samples = serde_json::from_slice(&body).context("the gateway's answer can't be read")?;
        if let Some(failed) = samples.failed.first() {
            bail!("it does not read from the rows of {} alone: {failed}", site.cluster.spec.site);
        }
        let (place, bytes) = (&site.cluster.spec.site, human(samples.bytes));
        say(format_args!(
            "{}/{}: {bytes} read from the rows of {place} alone, every tag is right",
            self.bucket, self.key
        ));
        Ok(())
    }
}

async fn own_token(site: &Site) -> Result<String> {
    let name = format!("{}-authority", site.cluster.name_any());
    let secrets: Api<Secret> = Api::namespaced(site.client.clone(), &site.namespace);
    let secret = secrets.get(&name).await.with_context(|| {
        format!("Secret {name} can't be read: give a token by --token, as `kubectl create token` makes one")
    })?;
    let entry = secret.data.as_ref().and_then(|data| data.get("rest-token"));
    let entry = entry.with_context(|| format!("Secret {name} has no entry rest-token"))?;
    Ok(String::from_utf8(entry.0.clone())?)
}

/// One request to a gateway's pod.
async fn ask(site: &Site, path: &str, token: &str) -> Result<(http::StatusCode, bytes::Bytes)> {
    let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
    let cluster = site.cluster.name_any();
    let gateways = format!("app.kubernetes.io/instance={cluster},app.kubernetes.io/component=gateway");
    let found = pods.list(&ListParams::default().labels(&gateways)).await?;
    let running =
        |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let pod = found.items.iter().find(running).with_context(|| format!("no gateway of {cluster} runs"))?;
    let mut forwarder =
        pods.portforward(&pod.name_any(), &[PORT]).await.context("no way to the gateway's port")?;
    let stream = forwarder.take_stream(PORT).context("the port was not forwarded")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(path)
        .header(HOST, "gateway")
        .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
        .body(Empty::<bytes::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    drop(sender);
    connection.abort();
    Ok((status, body))
}
