//! The site's own gateways, by REST: the operator stores and deletes declared files as any client does.

use std::time::Duration;

use bytes::Bytes;
use diptych_api::StorageCluster;
use diptych_wire::http::chain;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Asked, OperatorError};
use crate::names::{Names, REST_PORT};
use crate::options::OperatorOptions;
use crate::secrets::{Foundation, text};

/// Header of writes: until when nobody shall delete or replace the file.
const RETAIN_UNTIL: &str = "x-diptych-retain-until";
/// Header of requests with the site's own token: the namespace that it acts in.
const NAMESPACE: &str = "x-diptych-namespace";
const LIMIT: Duration = Duration::from_secs(30);
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done.
    Done,
    /// The site is not active, or can't write now: later.
    NotNow(String),
    /// Never as it is: status and text.
    Refused(String),
    /// Not before then, whoever asks: the file is retained.
    Retained {
        /// What the file says.
        until: Timestamp,
        /// Status and text.
        reason: String,
    },
}

/// A file as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// Its Content-Type.
    pub(super) kind: String,
    pub(super) bytes: Bytes,
    /// Until when nobody shall delete or replace it.
    pub(super) retain_until: Option<Timestamp>,
}

/// A client of the gateways.
#[derive(Clone)]
pub(crate) struct Gateway {
    client: reqwest::Client,
    base: String,
    token: String,
    /// Whose buckets it reaches; None: those of the StorageCluster's namespace.
    namespace: Option<String>,
}

/// Certificate of the public listeners.
struct PublicTls {
    /// What it is checked against, PEM.
    authority: String,
    /// The name that it is for; the Service's own if there is no public one.
    hostname: Option<String>,
}

impl Gateway {
    async fn new(names: &Names, token: &str, tls: Option<PublicTls>) -> Result<Self, OperatorError> {
        let service = names.host(&names.child("gateway"));
        let (scheme, host) = match &tls {
            None => ("http", service.clone()),
            Some(tls) => ("https", tls.hostname.clone().unwrap_or_else(|| service.clone())),
        };
        // Nothing but the gateway is ever called: an image without certificates of public authorities will do.
        let pem = tls.as_ref().map_or("", |tls| tls.authority.as_str());
        let internal = |error: reqwest::Error| OperatorError::Internal(chain(&error));
        let roots = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(internal)?;
        let mut client = reqwest::Client::builder().timeout(LIMIT).tls_certs_only(roots);
        if host != service {
            // The public name points to the active site's front door; this is about the gateways here.
            let unknown = |error| OperatorError::Gateway(format!("{service} does not resolve: {error}"));
            let found = tokio::net::lookup_host((service.as_str(), REST_PORT)).await.map_err(unknown)?;
            client = client.resolve_to_addrs(&host, &found.collect::<Vec<_>>());
        }
        let base = format!("{scheme}://{host}:{REST_PORT}/api/v1");
        let client = client.build().map_err(internal)?;
        Ok(Self { client, base, token: token.to_owned(), namespace: None })
    }

    /// The same for the files of a namespace: it reaches the buckets of that one, and no others.
    pub(super) fn acting_in(self, namespace: String) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    /// Of the site of a StorageCluster; None: it is not set up yet.
    pub(crate) async fn of(
        options: &OperatorOptions,
        cluster: &StorageCluster,
    ) -> Result<Option<Self>, OperatorError> {
        let Some(names) = Names::new(cluster, &options.release) else { return Ok(None) };
        let secrets: Api<Secret> = Api::namespaced(options.client.clone(), &options.namespace);
        let name = names.child("authority");
        let Some(secret) = secrets.get_opt(&name).await.asked(|| format!("read Secret {name}"))? else {
            return Ok(None);
        };
        let token = Foundation::read(&secret)?.rest_token;
        let tls = match &cluster.spec.gateway.tls_secret_ref {
            Some(tls) => {
                let secret = secrets.get(&tls.name).await.asked(|| format!("read Secret {}", tls.name))?;
                let dns = cluster.spec.failover.as_ref().and_then(|failover| failover.dns.as_ref());
                let authority = text(&secret, "ca.crt").or_else(|_| text(&secret, "tls.crt"))?;
                Some(PublicTls { authority, hostname: dns.map(|dns| dns.cloudflare.hostname.clone()) })
            }
            None => None,
        };
        Self::new(&names, &token, tls).await.map(Some)
    }

    /// Asks the site's keeper for something: `handover`, `promote?accept_loss=false`.
    pub(crate) async fn command(&self, command: &str) -> Result<Answer, OperatorError> {
        let (status, text) = self.send(self.client.post(format!("{}/{command}", self.base))).await?;
        Ok(answer(status, &text))
    }

    /// Asks for a JSON document below `/api/v1`.
    pub(crate) async fn document<T: DeserializeOwned>(&self, path: &str) -> Result<T, OperatorError> {
        let (status, text) = self.send(self.client.get(format!("{}/{path}", self.base))).await?;
        if !status.is_success() {
            return Err(OperatorError::Gateway(format!("{status}: {text}")));
        }
        let unreadable =
            |error| OperatorError::Gateway(format!("the answer to {path} can't be read: {error}"));
        serde_json::from_str(&text).map_err(unreadable)
    }

    /// Asks the site's keeper for something that needs a few words.
    pub(crate) async fn ask(&self, path: &str, body: &impl Serialize) -> Result<Answer, OperatorError> {
        let malformed = |error: serde_json::Error| OperatorError::Internal(error.to_string());
        let body = serde_json::to_vec(body).map_err(malformed)?;
        let (status, text) = self.send(self.client.post(format!("{}/{path}", self.base)).body(body)).await?;
        Ok(answer(status, &text))
    }

    /// Stores a file under its key, whether or not there is one.
    pub(super) async fn put(
        &self,
        bucket: &str,
        key: &str,
        file: &Declared,
    ) -> Result<Answer, OperatorError> {
        let described = |request: reqwest::RequestBuilder| {
            let request = request.header(CONTENT_TYPE, file.kind.clone()).body(file.bytes.clone());
            match file.retain_until {
                Some(until) => request.header(RETAIN_UNTIL, until.to_string()),
                None => request,
            }
        };
        match self.send(described(self.client.put(self.file(bucket, key)))).await? {
            (StatusCode::NOT_FOUND, _) => {}
            (status, text) => return Ok(answer(status, &text)),
        }
        let address = format!("{}/files?bucket={}&id={}", self.base, encoded(bucket), encoded(key));
        let (status, text) = self.send(described(self.client.post(address))).await?;
        Ok(answer(status, &text))
    }

    /// Whether a file with these bytes of this type is stored under its key.
    pub(super) async fn has(&self, bucket: &str, key: &str, file: &Declared) -> Result<bool, OperatorError> {
        let failed = |error: reqwest::Error| OperatorError::Gateway(chain(&error));
        let response = self.signed(self.client.get(self.file(bucket, key))).send().await.map_err(failed)?;
        let same_kind =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == file.kind.as_bytes());
        let same_length = response.content_length() == u64::try_from(file.bytes.len()).ok();
        if !response.status().is_success() || !same_kind || !same_length {
            return Ok(false);
        }
        Ok(response.bytes().await.map_err(failed)? == file.bytes)
    }

    /// Has the file under a key retained until then, or for longer than it is.
    pub(super) async fn retain(
        &self,
        bucket: &str,
        key: &str,
        until: Timestamp,
    ) -> Result<Answer, OperatorError> {
        let body = json!({"retain_until": until.to_string()}).to_string();
        let (status, text) = self.send(self.client.patch(self.file(bucket, key)).body(body)).await?;
        Ok(answer(status, &text))
    }

    /// Deletes a file; one that is gone is as good.
    pub(super) async fn delete(&self, bucket: &str, key: &str) -> Result<Answer, OperatorError> {
        match self.send(self.client.delete(self.file(bucket, key))).await? {
            (StatusCode::NOT_FOUND, _) => Ok(Answer::Done),
            (status, text) => Ok(answer(status, &text)),
        }
    }

    fn file(&self, bucket: &str, key: &str) -> String {
        format!("{}/files/{}?bucket={}", self.base, encoded(key), encoded(bucket))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, String), OperatorError> {
        let failed = |error: reqwest::Error| OperatorError::Gateway(chain(&error));
        let response = self.signed(request).send().await.map_err(failed)?;
        let status = response.status();
        Ok((status, response.text().await.map_err(failed)?))
    }

    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let request = request.bearer_auth(&self.token);
        match &self.namespace {
            Some(namespace) => request.header(NAMESPACE, namespace),
            None => request,
        }
    }
}

fn answer(status: StatusCode, text: &str) -> Answer {
    if status.is_success() {
        return Answer::Done;
    }
    let retained_until = retained_until(text);
    let text = format!("{status}: {}", text.chars().take(500).collect::<String>());
    if let Some(until) = retained_until {
        return Answer::Retained { until, reason: text };
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Answer::NotNow(text)
    } else {
        Answer::Refused(text)
    }
}

/// Until when a refusal says that the file is retained.
fn retained_until(text: &str) -> Option<Timestamp> {
    let document: Value = serde_json::from_str(text).ok()?;
    document["error"]["retained_until"].as_str()?.parse().ok()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_says_until_when_a_file_is_retained_is_told_from_others() {
        let text = r#"{"error": {"code": "AccessDenied", "message": "…", "retained_until": "2124-05-06T07:08:09Z"}}"#;
        let Answer::Retained { until, reason } = answer(StatusCode::FORBIDDEN, text) else {
            panic!("{text}")
        };
        assert_eq!(until.to_string(), "2124-05-06T07:08:09Z");
        assert!(reason.starts_with("403"), "{reason}");
        let other = answer(StatusCode::FORBIDDEN, r#"{"error": {"code": "AccessDenied"}}"#);
        assert!(matches!(other, Answer::Refused(_)));
        assert!(matches!(answer(StatusCode::BAD_GATEWAY, "no JSON"), Answer::NotNow(_)));
    }
}
