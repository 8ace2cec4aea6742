//! REST as a client has it: the public name for the prober, the own gateways for sampled reads.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, ClientBuilder, Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Where REST is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestEndpoint {
    /// `https://files.example.com`
    pub url: String,
    /// `host:port` that is connected to in place of the URL's host; None: as its name resolves.
    #[serde(default)]
    pub connect_to: Option<String>,
    /// Certificates that it is checked against, PEM; None: those that this machine trusts.
    #[serde(default)]
    pub authority: Option<String>,
}

/// A client of one endpoint.
#[derive(Clone)]
pub(super) struct Rest {
    http: Client,
    base: Url,
    token: String,
}

/// Why there is no answer that counts.
pub(super) type Failure = String;

impl Rest {
    pub(super) async fn new(endpoint: &RestEndpoint, token: &str) -> Result<Self, Failure> {
        Self::build(endpoint, token, Client::builder()).await
    }

    /// Each request has a connection of its own.
    pub(super) async fn without_pool(endpoint: &RestEndpoint, token: &str) -> Result<Self, Failure> {
        Self::build(endpoint, token, Client::builder().pool_max_idle_per_host(0)).await
    }

    async fn build(
        endpoint: &RestEndpoint,
        token: &str,
        mut builder: ClientBuilder,
    ) -> Result<Self, Failure> {
        diptych_wire::tls::install_provider();
        let base: Url =
            endpoint.url.parse().map_err(|error| format!("{:?} is no URL: {error}", endpoint.url))?;
        if let Some(pem) = &endpoint.authority {
            let roots = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(chain)?;
            builder = builder.tls_certs_only(roots);
        }
        if let (Some(address), Some(host)) = (&endpoint.connect_to, base.host_str()) {
            let found = tokio::net::lookup_host(address.as_str()).await;
            let found = found.map_err(|error| format!("{address} does not resolve: {error}"))?;
            builder = builder.resolve_to_addrs(host, &found.collect::<Vec<_>>());
        }
        Ok(Self { http: builder.build().map_err(chain)?, base, token: token.to_owned() })
    }

    /// Status and body of an answer that comes within `limit`. Segments of the path are percent-encoded here.
    pub(super) async fn ask(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url.query_pairs_mut().extend_pairs(query);
        let request = self.http.request(method, url).bearer_auth(&self.token).timeout(limit);
        let answer = request.body(body).send().await.map_err(chain)?;
        let status = answer.status();
        Ok((status, answer.bytes().await.map_err(chain)?))
    }

    /// A JSON document; any other answer than 2xx is a failure.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<T, Failure> {
        let (status, body) = self.ask(Method::POST, segments, query, Bytes::new(), limit).await?;
        if !status.is_success() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| format!("the answer can't be read: {error}"))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn chain(error: reqwest::Error) -> Failure {
    diptych_wire::http::chain(&error)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_prober_asks_for_the_way_anew_with_each_record() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let endpoint = RestEndpoint { url, connect_to: None, authority: None };
        // A server that keeps each connection open for more.
        let (opened, mut connections) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = opened.send(());
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let rest = Rest::without_pool(&endpoint, "token").await.expect("a client");
        for _ in 0..2 {
            let answer = rest.ask(Method::GET, &["ready"], &[], Bytes::new(), Duration::from_secs(10)).await;
            assert_eq!(answer.expect("an answer").0, StatusCode::OK);
            let connection = tokio::time::timeout(Duration::from_secs(10), connections.recv()).await;
            connection.expect("a connection of its own").expect("the server goes on");
        }
    }
}
