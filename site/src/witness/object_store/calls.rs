//! Three calls of S3, each one request: nothing is repeated here, and each answer says whether something was written.

use std::time::Duration;

use bytes::Bytes;
use diptych_wire::http::chain;
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method, Url};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::{ObjectStoreConfig, SetupError};

/// Longer than the lease waits for an answer; what is not tied to it may take so long.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// A signature is dated back by a day and good for two, as certificates are: no two clocks are compared for the lease.
const DATED_BACK: SignedDuration = SignedDuration::from_hours(24);
const SIGNED_FOR: Duration = Duration::from_hours(48);
/// Where a store that limits calls does not say for how long.
const LOCK_OUT: Duration = Duration::from_mins(1);
const MAX_ANSWER: usize = 64 << 10;

/// A bucket, and how it is reached.
pub(super) struct Calls {
    http: Client,
    bucket: Bucket,
    credentials: Credentials,
}

/// What must be so for a write to be applied.
#[derive(Debug, Clone, Copy)]
pub(super) enum Precondition<'a> {
    /// There is no object.
    Absent,
    /// The object has this ETag, as it was given.
    Is(&'a str),
}

impl<'a> Precondition<'a> {
    const fn header(self) -> (HeaderName, &'a str) {
        match self {
            Self::Absent => (IF_NONE_MATCH, "*"),
            Self::Is(etag) => (IF_MATCH, etag),
        }
    }
}

/// What became of a write.
#[derive(Debug)]
pub(super) enum Put {
    /// It is there.
    Written {
        /// Of the object now.
        etag: String,
    },
    /// It was refused, or never sent.
    NotWritten(String),
    /// Too many calls; not written.
    Limited(Duration),
    /// It may be there.
    Unclear(String),
}

/// What a read showed.
#[derive(Debug)]
pub(super) enum Got {
    /// An object.
    Found { etag: String, body: Bytes },
    /// The bucket has none of this key.
    Absent,
    /// Too many calls.
    Limited(Duration),
    /// Nothing is known.
    Failed(String),
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Why there is none.
enum NoAnswer {
    NotSent(String),
    Unclear(String),
}

impl Calls {
    pub(super) fn new(config: &ObjectStoreConfig) -> Result<Self, SetupError> {
        diptych_wire::tls::install_provider();
        let invalid = |reason: String| SetupError::Endpoint { endpoint: config.endpoint.clone(), reason };
        let url: Url = config.endpoint.parse().map_err(|error| invalid(format!("it is no URL: {error}")))?;
        // Roots are needed for https alone: an image without any will do for http.
        let roots = match (&config.authority, url.scheme()) {
            (Some(pem), _) => Some(reqwest::Certificate::from_pem_bundle(pem.as_bytes())?),
            (None, "http") => Some(Vec::new()),
            (None, _) => None,
        };
        let bucket = Bucket::new(url, UrlStyle::Path, config.bucket.clone(), config.region.clone())
            .map_err(|error| invalid(error.to_string()))?;
        let mut builder = Client::builder()
            .timeout(CALL_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true);
        if let Some(roots) = roots {
            builder = builder.tls_certs_only(roots);
        }
        let credentials = Credentials::new(&config.access_key, &config.secret_key);
        Ok(Self { http: builder.build()?, bucket, credentials })
    }

    /// Reads an object of at most 64 KiB.
    pub(super) async fn get(&self, key: &str) -> Got {
        let url = signed(&self.bucket.get_object(Some(&self.credentials), key));
        let answer = match self.send(Method::GET, url, None, Bytes::new()).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(reason) | NoAnswer::Unclear(reason)) => return Got::Failed(reason),
        };
        match (answer.status, answer.code().as_deref()) {
            (StatusCode::OK, _) => match answer.etag() {
                Some(etag) => Got::Found { etag, body: answer.body },
                None => Got::Failed("the store gave an object without an ETag".to_owned()),
            },
            // A bucket that is not there is no proof that there is no record.
            (StatusCode::NOT_FOUND, Some("NoSuchKey")) => Got::Absent,
            (StatusCode::TOO_MANY_REQUESTS, _) => Got::Limited(answer.retry_after()),
            _ => Got::Failed(answer.said()),
        }
    }

    /// Writes an object if the condition holds when the store applies it.
    pub(super) async fn put(&self, key: &str, body: Bytes, condition: Precondition<'_>) -> Put {
        let (name, value) = condition.header();
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        // Signed with the rest: the URL is worth nothing for a write without the condition.
        action.headers_mut().insert(name.as_str().to_owned(), value.to_owned());
        let answer = match self.send(Method::PUT, signed(&action), Some((name, value)), body).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(reason)) => return Put::NotWritten(reason),
            Err(NoAnswer::Unclear(reason)) => return Put::Unclear(reason),
        };
        let refused = answer.status.is_client_error() && answer.status != StatusCode::REQUEST_TIMEOUT;
        match answer.status {
            StatusCode::OK => match answer.etag() {
                Some(etag) => Put::Written { etag },
                None => Put::Unclear("the store wrote an object and gave no ETag".to_owned()),
            },
            StatusCode::TOO_MANY_REQUESTS => Put::Limited(answer.retry_after()),
            StatusCode::NOT_IMPLEMENTED => Put::NotWritten(answer.said()),
            // FENCING: without an error document of S3 it was something on the way that answered, and the store may have
            // written.
            _ if refused && answer.code().is_some() => Put::NotWritten(answer.said()),
            _ => Put::Unclear(answer.said()),
        }
    }

    /// Deletes an object; one that is not there is fine.
    pub(super) async fn delete(&self, key: &str) {
        let url = signed(&self.bucket.delete_object(Some(&self.credentials), key));
        let _ = self.send(Method::DELETE, url, None, Bytes::new()).await;
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        header: Option<(HeaderName, &str)>,
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let mut request = self.http.request(method, url).body(body);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let unclear = |error: reqwest::Error| {
            // Its URL is signed: that is nobody's business.
            let error = error.without_url();
            let reason = chain(&error);
            if error.is_connect() { NoAnswer::NotSent(reason) } else { NoAnswer::Unclear(reason) }
        };
        let answer = request.send().await.map_err(unclear)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if answer.content_length().is_some_and(|length| length > MAX_ANSWER as u64) {
            return Err(NoAnswer::Unclear("the answer is larger than any record".to_owned()));
        }
        let body = answer.bytes().await.map_err(|error| NoAnswer::Unclear(chain(&error.without_url())))?;
        Ok(Answer { status, headers, body })
    }
}

fn signed<'a>(action: &impl S3Action<'a>) -> Url {
    action.sign_with_time(SIGNED_FOR, &(Timestamp::now() - DATED_BACK))
}

impl Answer {
    fn etag(&self) -> Option<String> {
        self.headers.get(ETAG)?.to_str().ok().map(str::to_owned)
    }

    /// The code of an error document.
    fn code(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body);
        let (_, rest) = text.split_once("<Code>")?;
        rest.split_once("</Code>").map(|(code, _)| code.to_owned())
    }

    fn said(&self) -> String {
        match self.code() {
            Some(code) => format!("the store answered {}, {code}", self.status),
            None => format!("the store answered {}", self.status),
        }
    }

    fn retry_after(&self) -> Duration {
        let seconds = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        seconds.map_or(LOCK_OUT, Duration::from_secs)
    }
}
