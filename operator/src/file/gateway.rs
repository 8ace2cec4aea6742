//! The site's own gateways, by REST: the operator stores and deletes declared files as any client does.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;

use crate::error::OperatorError;
use crate::names::{Names, REST_PORT};

const LIMIT: Duration = Duration::from_secs(30);
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done.
    Done,
    /// The site is not active, or can't write now: later.
    NotNow(String),
    /// Never as it is: status and text.
    Refused(String),
}

/// A client of the gateways.
#[derive(Clone)]
pub(super) struct Gateway {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Gateway {
    pub(super) fn new(names: &Names, token: &str, tls: bool) -> Result<Self, OperatorError> {
        let client = reqwest::Client::builder().timeout(LIMIT).build();
        let client = client.map_err(|error| OperatorError::Internal(error.to_string()))?;
        let scheme = if tls { "https" } else { "http" };
        let base = format!("{scheme}://{}:{REST_PORT}/api/v1/files", names.host(&names.child("gateway")));
        Ok(Self { client, base, token: token.to_owned() })
    }

    /// Stores a file under its key, whether or not there is one.
    pub(super) async fn put(&self, bucket: &str, key: &str, kind: &str, bytes: Vec<u8>) -> Result<Answer, OperatorError> {
        let request = self.client.put(self.file(bucket, key)).header("content-type", kind.to_owned());
        match self.send(request.body(bytes.clone())).await? {
            (StatusCode::NOT_FOUND, _) => {}
            (status, text) => return Ok(answer(status, text)),
        }
        let address = format!("{}?bucket={}&id={}", self.base, encoded(bucket), encoded(key));
        let request = self.client.post(address).header("content-type", kind.to_owned()).body(bytes);
        let (status, text) = self.send(request).await?;
        Ok(answer(status, text))
    }

    /// Deletes a file; one that is gone is as good.
    pub(super) async fn delete(&self, bucket: &str, key: &str) -> Result<Answer, OperatorError> {
        match self.send(self.client.delete(self.file(bucket, key))).await? {
            (StatusCode::NOT_FOUND, _) => Ok(Answer::Done),
            (status, text) => Ok(answer(status, text)),
        }
    }

    fn file(&self, bucket: &str, key: &str) -> String {
        format!("{}/{}?bucket={}", self.base, encoded(key), encoded(bucket))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, String), OperatorError> {
        let failed = |error: reqwest::Error| OperatorError::Gateway(error.to_string());
        let response = request.bearer_auth(&self.token).send().await.map_err(failed)?;
        let status = response.status();
        Ok((status, response.text().await.map_err(failed)?))
    }
}

fn answer(status: StatusCode, text: String) -> Answer {
    if status.is_success() {
        return Answer::Done;
    }
    let text = format!("{status}: {}", text.chars().take(500).collect::<String>());
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS { Answer::NotNow(text) } else { Answer::Refused(text) }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}
