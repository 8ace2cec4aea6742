//! The client of the v4 API.
//!
//! One call is one request: nothing is repeated here, because a repeated write could undo what another site did in
//! between. What an unclear answer means is for the caller to find out, by reading.

mod balancing;
mod calls;
mod error;
mod token;
mod tunnels;
mod types;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use balancing::{
    LoadBalancer, LoadBalancerId, LoadBalancerSettings, Monitor, MonitorId, MonitorSettings, Origin, Pool,
    PoolId, PoolSettings,
};
pub use error::{ApiMessage, Error, Permission, SetupError};
pub use token::{ApiToken, InvalidToken};
pub use tunnels::{IngressRule, OriginRequest, Tunnel, TunnelId, TunnelSecret, TunnelToken};
pub use types::{
    Account, AccountId, Batch, BatchAnswer, DnsRecord, HealthCheck, HealthCheckId, HealthStatus, HttpConfig,
    NewHealthCheck, NewRecord, PatchRecord, PutRecord, RecordFilter, RecordId, RecordType, TTL_AUTO,
    TcpConfig, TokenState, TokenStatus, Zone, ZoneId,
};

use error::{from_answer, from_transport};
use types::Envelope;

/// Cloudflare's own API.
pub const DEFAULT_BASE_URL: &str = "https://api.cloudflare.com/client/v4";

/// Time limit of one call where the caller sets none; the lease's timers count on it.
pub const DEFAULT_CALL_LIMIT: Duration = Duration::from_secs(2);

/// How to reach the API.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Without a slash at the end; `http://` is meant for the emulator.
    pub base_url: String,
    /// Sent as `Authorization: Bearer`.
    pub token: ApiToken,
    /// From sending to the last byte of the answer. What takes longer is [`Error::Unclear`].
    pub call_limit: Duration,
}

impl ClientOptions {
    /// Cloudflare's own API, with the time limit that the witness needs.
    pub fn new(token: ApiToken) -> Self {
        Self { base_url: DEFAULT_BASE_URL.to_owned(), token, call_limit: DEFAULT_CALL_LIMIT }
    }

    /// The same for another base URL; a slash at its end is dropped.
    #[must_use]
    pub fn base_url(mut self, url: &str) -> Self {
        url.trim_end_matches('/').clone_into(&mut self.base_url);
        self
    }

    /// The same with another time limit for each call.
    #[must_use]
    pub fn call_limit(mut self, limit: Duration) -> Self {
        self.call_limit = limit;
        self
    }
}

/// Talks to the API with one token. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    options: Arc<ClientOptions>,
}

/// Which call it is, for messages, and what its token must be allowed to do.
#[derive(Debug, Clone, Copy)]
struct Call {
    name: &'static str,
    permission: Permission,
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// The machine has no root certificates although the base URL is https, or the base URL is neither http nor https.
    pub fn new(options: ClientOptions) -> Result<Self, SetupError> {
        let url = reqwest::Url::parse(&options.base_url).map_err(|error| SetupError::BaseUrl {
            url: options.base_url.clone(),
            reason: error.to_string(),
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            let reason = "http or https is needed".to_owned();
            return Err(SetupError::BaseUrl { url: options.base_url.clone(), reason });
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(url.scheme() == "https")?)
            .timeout(options.call_limit)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .user_agent(concat!("diptych/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(SetupError::Client)?;
        Ok(Self { http, options: Arc::new(options) })
    }

    /// Where the calls go.
    pub fn base_url(&self) -> &str {
        &self.options.base_url
    }

    async fn send<T: DeserializeOwned>(
        &self,
        call: Call,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Envelope<T>, Error> {
        let url = format!("{}{path}", self.options.base_url);
        let mut request =
            self.http.request(method, url).header(http::header::AUTHORIZATION, self.options.token.header());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| from_transport(call.name, error))?;
        read_answer(call, response).await
    }
}

async fn read_answer<T: DeserializeOwned>(call: Call, response: Response) -> Result<Envelope<T>, Error> {
    let status = response.status();
    let headers = response.headers().clone();
    let body = response.bytes().await.map_err(|error| from_transport(call.name, error))?;
    if status != StatusCode::OK {
        return Err(from_answer(call.name, call.permission, status, &headers, &body));
    }
    match serde_json::from_slice::<Envelope<T>>(&body) {
        Ok(envelope) if envelope.success => Ok(envelope),
        Ok(_) => Err(from_answer(call.name, call.permission, status, &headers, &body)),
        Err(error) => {
            Err(Error::Unclear { call: call.name, reason: format!("the answer can't be read: {error}") })
        }
    }
}

/// The machine's own roots; none at all where only plain http is spoken, so that an image without roots will do.
fn tls_config(verify: bool) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    if verify {
        Ok(builder.with_platform_verifier()?.with_no_client_auth())
    } else {
        Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> ApiToken {
        "0123456789012345678901234567890123456789".parse().expect("a valid token")
    }

    #[test]
    fn the_default_base_url_is_cloudflares_own() {
        let client = Client::new(ClientOptions::new(token())).expect("roots are installed");
        assert_eq!(client.base_url(), "https://api.cloudflare.com/client/v4");
    }

    #[test]
    fn a_base_url_of_another_scheme_is_refused() {
        let refused = Client::new(ClientOptions::new(token()).base_url("ftp://example.com"));
        assert!(matches!(refused, Err(SetupError::BaseUrl { .. })));
    }

    #[test]
    fn options_and_client_do_not_print_the_token() {
        let client = Client::new(ClientOptions::new(token()).base_url("http://127.0.0.1:1/"))
            .expect("no roots needed");
        assert!(!format!("{client:?}").contains("0123456789"));
        assert_eq!(client.base_url(), "http://127.0.0.1:1");
    }
}
