//! Four calls of S3, each one request: nothing is repeated here, and each answer says whether something was changed.

use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, RANGE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, RequestBuilder, Url};
use rusty_s3::actions::list_objects_v2::{ListObjectsContent, ListObjectsV2};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::{BucketConfig, SetupError};
use crate::http::chain;

/// Longer than the lease waits for an answer; what is not tied to it may take so long.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Large bodies get a second more for each of these.
const BYTES_A_SECOND: u64 = 1 << 20;
/// A signature is dated back by a day and good for two, as certificates are: no two clocks are compared for the lease.
const DATED_BACK: SignedDuration = SignedDuration::from_hours(24);
const SIGNED_FOR: Duration = Duration::from_hours(48);
/// Where a store that limits calls does not say for how long.
const LOCK_OUT: Duration = Duration::from_mins(1);
/// A page of a list: a thousand keys.
const MAX_PAGE: u64 = 4 << 20;
/// An error document.
const MAX_ERROR: u64 = 64 << 10;

/// What can be asked of a bucket.
#[derive(Debug)]
pub struct Calls {
    http: Client,
    bucket: Bucket,
    credentials: Credentials,
}

/// What must be so for a write to be applied.
#[derive(Debug, Clone, Copy)]
pub enum Precondition<'a> {
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
pub enum Put {
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
pub enum Got {
    /// An object.
    Found {
        /// Of the object now.
        etag: String,
        /// Its bytes, or those of the range.
        body: Bytes,
    },
    /// The bucket has none of this key.
    Absent,
    /// Too many calls.
    Limited(Duration),
    /// Nothing is known.
    Failed(String),
}

/// What became of a delete.
#[derive(Debug)]
pub enum Delete {
    /// There is no such object now.
    Gone,
    /// It was refused, or never sent.
    NotDeleted(String),
    /// Too many calls; not deleted.
    Limited(Duration),
    /// It may be gone.
    Unclear(String),
}

/// An object, as a list names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length.
    pub bytes: u64,
}

/// A page of a list, in the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Objects.
    pub objects: Vec<Listed>,
    /// Where the next page begins; None: there is no more.
    pub next: Option<String>,
}

/// What a list showed.
#[derive(Debug)]
pub enum Listing {
    /// A page.
    Page(Page),
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
    /// Asks nothing yet.
    ///
    /// # Errors
    /// An endpoint that is no URL, certificates that don't read.
    pub fn new(config: &BucketConfig) -> Result<Self, SetupError> {
        crate::tls::install_provider();
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
            .connect_timeout(CALL_LIMIT)
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

    /// Reads an object of at most `limit` bytes, or `range` of it.
    pub async fn get(&self, key: &str, range: Option<&Range<u64>>, limit: u64) -> Got {
        let url = signed(&self.bucket.get_object(Some(&self.credentials), key));
        let mut request = self.http.get(url).timeout(call_limit(limit));
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        let answer = match send(request, limit).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(reason) | NoAnswer::Unclear(reason)) => return Got::Failed(reason),
        };
        match (answer.status, answer.code().as_deref()) {
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => match answer.etag() {
                Some(etag) => Got::Found { etag, body: answer.body },
                None => Got::Failed("the store gave an object without an ETag".to_owned()),
            },
            // A bucket that is not there is no proof that there is no object.
            (StatusCode::NOT_FOUND, Some("NoSuchKey")) => Got::Absent,
            (StatusCode::TOO_MANY_REQUESTS, _) => Got::Limited(answer.retry_after()),
            _ => Got::Failed(answer.said()),
        }
    }

    /// Writes an object, if the condition holds when the store applies it.
    pub async fn put(&self, key: &str, body: Bytes, condition: Option<Precondition<'_>>) -> Put {
        let header = condition.map(Precondition::header);
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        if let Some((name, value)) = &header {
            // Signed with the rest: the URL is worth nothing for a write without the condition.
            action.headers_mut().insert(name.as_str().to_owned(), (*value).to_owned());
        }
        let mut request = self.http.put(signed(&action)).timeout(call_limit(body.len() as u64));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = match send(request.body(body), MAX_ERROR).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(reason)) => return Put::NotWritten(reason),
            Err(NoAnswer::Unclear(reason)) => return Put::Unclear(reason),
        };
        match answer.status {
            StatusCode::OK => match answer.etag() {
                Some(etag) => Put::Written { etag },
                None => Put::Unclear("the store wrote an object and gave no ETag".to_owned()),
            },
            StatusCode::TOO_MANY_REQUESTS => Put::Limited(answer.retry_after()),
            StatusCode::NOT_IMPLEMENTED => Put::NotWritten(answer.said()),
            _ if answer.refuses() => Put::NotWritten(answer.said()),
            _ => Put::Unclear(answer.said()),
        }
    }

    /// Deletes an object; one that is not there is gone too.
    pub async fn delete(&self, key: &str) -> Delete {
        let url = signed(&self.bucket.delete_object(Some(&self.credentials), key));
        let answer = match send(self.http.delete(url).timeout(CALL_LIMIT), MAX_ERROR).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(reason)) => return Delete::NotDeleted(reason),
            Err(NoAnswer::Unclear(reason)) => return Delete::Unclear(reason),
        };
        match (answer.status, answer.code().as_deref()) {
            (StatusCode::OK | StatusCode::NO_CONTENT, _) | (StatusCode::NOT_FOUND, Some("NoSuchKey")) => {
                Delete::Gone
            }
            (StatusCode::TOO_MANY_REQUESTS, _) => Delete::Limited(answer.retry_after()),
            _ if answer.refuses() => Delete::NotDeleted(answer.said()),
            _ => Delete::Unclear(answer.said()),
        }
    }

    /// A page of the keys that begin with `prefix`; `from`: what the page before gave.
    pub async fn list(&self, prefix: &str, from: Option<&str>) -> Listing {
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(prefix);
        if let Some(from) = from {
            action.with_continuation_token(from);
        }
        let answer = match send(self.http.get(signed(&action)).timeout(CALL_LIMIT), MAX_PAGE).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(reason) | NoAnswer::Unclear(reason)) => return Listing::Failed(reason),
        };
        match answer.status {
            StatusCode::OK => answer.page(),
            StatusCode::TOO_MANY_REQUESTS => Listing::Limited(answer.retry_after()),
            _ => Listing::Failed(answer.said()),
        }
    }
}

async fn send(request: RequestBuilder, limit: u64) -> Result<Answer, NoAnswer> {
    let unclear = |error: reqwest::Error| {
        // Its URL is signed: that is nobody's business.
        let error = error.without_url();
        let reason = chain(&error);
        if error.is_connect() { NoAnswer::NotSent(reason) } else { NoAnswer::Unclear(reason) }
    };
    let mut answer = request.send().await.map_err(unclear)?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let limit = if status.is_success() { limit } else { MAX_ERROR };
    let mut body = BytesMut::new();
    while let Some(piece) =
        answer.chunk().await.map_err(|error| NoAnswer::Unclear(chain(&error.without_url())))?
    {
        if (body.len() + piece.len()) as u64 > limit {
            return Err(NoAnswer::Unclear(format!("the answer is longer than {limit} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status, headers, body: body.freeze() })
}

fn call_limit(bytes: u64) -> Duration {
    CALL_LIMIT + Duration::from_secs(bytes / BYTES_A_SECOND)
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
        if self.status.is_success() {
            return None;
        }
        let text = String::from_utf8_lossy(&self.body);
        let (_, rest) = text.split_once("<Code>")?;
        rest.split_once("</Code>").map(|(code, _)| code.to_owned())
    }

    /// FENCING: without an error document of S3 it was something on the way that answered, and the store may have done it.
    fn refuses(&self) -> bool {
        self.status.is_client_error() && self.status != StatusCode::REQUEST_TIMEOUT && self.code().is_some()
    }

    fn page(&self) -> Listing {
        let parsed = ListObjectsV2::parse_response(&String::from_utf8_lossy(&self.body));
        match parsed {
            Ok(parsed) => {
                let listed =
                    |object: ListObjectsContent| Listed { key: object.key, bytes: object.size.unwrap_or(0) };
                let objects = parsed.contents.into_iter().map(listed).collect();
                Listing::Page(Page { objects, next: parsed.next_continuation_token })
            }
            Err(error) => Listing::Failed(format!("the store's list does not read: {error}")),
        }
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
