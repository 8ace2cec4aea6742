//! REST of a gateway of the site, reached through the API server.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Serialize;

use super::Site;
use crate::command::losses::Rest;

/// REST of a gateway.
const PORT: u16 = diptych_operator::names::REST_PORT;

/// Who asks.
#[derive(Debug, clap::Args)]
pub(super) struct Token {
    /// Bearer token that may do it; the installation's own if left out, which takes the right to read its Secret
    #[arg(long, env = "DIPTYCH_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// A gateway of a site, and a token that it takes.
pub(super) struct Gateway<'a> {
    site: &'a Site,
    token: String,
}

impl<'a> Gateway<'a> {
    pub(super) async fn reach(site: &'a Site, token: &Token) -> Result<Self> {
        if site.cluster.spec.gateway.tls_secret_ref.is_some() {
            bail!("the gateways speak https: ask REST (`/api/v1/…`) by their own name");
        }
        let token = match &token.token {
            Some(token) => token.clone(),
            None => own_token(site).await?,
        };
        Ok(Self { site, token })
    }
}

impl Rest for Gateway<'_> {
    async fn ask(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> Result<Bytes> {
        let mut url = reqwest::Url::parse_with_params("http://gateway/", query)?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        self.send(method, &path, Bytes::new()).await
    }

    async fn patch(&self, segments: &[&str], body: &impl Serialize) -> Result<Bytes> {
        let mut url = reqwest::Url::parse("http://gateway/")?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        self.send(Method::PATCH, url.path(), serde_json::to_vec(body)?.into()).await
    }
}

impl Gateway<'_> {
    /// One request to a gateway's pod; the body of a good answer.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let Self { site, token } = self;
        let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
        let cluster = site.cluster.name_any();
        let gateways = format!("app.kubernetes.io/instance={cluster},app.kubernetes.io/component=gateway");
        let found = pods.list(&ListParams::default().labels(&gateways)).await?;
        let running =
            |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        let pod =
            found.items.iter().find(running).with_context(|| format!("no gateway of {cluster} runs"))?;
        let mut forwarder =
            pods.portforward(&pod.name_any(), &[PORT]).await.context("no way to the gateway's port")?;
        let stream = forwarder.take_stream(PORT).context("the port was not forwarded")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "gateway")
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .body(Full::new(body))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        drop(sender);
        connection.abort();
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
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
