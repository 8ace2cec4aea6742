//! A small S3 client for the command line and the demo: signed by `rusty-s3`, sent by `reqwest`, retried until a
//! deadline where the server says so or can't be reached.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, Response, StatusCode};
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload, ListObjectsV2};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use tokio::io::AsyncReadExt;

use super::endpoints::S3Endpoint;

/// Files above it go up in parts of this size: small plans of Cloudflare refuse bodies above 100 MB.
const PART: usize = 16 << 20;
const SIGNED_FOR: Duration = Duration::from_hours(1);
const PAUSE: Duration = Duration::from_millis(200);

/// One bucket of one endpoint.
pub struct S3Client {
    http: reqwest::Client,
    bucket: Bucket,
    credentials: Credentials,
    patience: Duration,
}

/// What an answer did not say with 2xx.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {body}")]
pub struct Refused {
    /// HTTP status.
    pub status: StatusCode,
    /// The error document.
    pub body: String,
}

/// What a put asks of its key.
#[derive(Debug, Clone, Copy)]
pub enum Expect<'a> {
    /// Nothing.
    Anything,
    /// No object is there: `If-None-Match: *`.
    Absent,
    /// An object with this etag, without quotes, is there: `If-Match`.
    Etag(&'a str),
}

impl Expect<'_> {
    fn headers(self) -> Result<HeaderMap> {
        Ok(match self {
            Self::Anything => HeaderMap::new(),
            Self::Absent => HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("*"))]),
            Self::Etag(etag) => {
                HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_str(&format!("\"{etag}\""))?)])
            }
        })
    }
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

impl S3Client {
    /// Requests are tried again for `patience` when they could not be sent or were answered 5xx.
    pub fn new(
        http: reqwest::Client,
        endpoint: &S3Endpoint,
        bucket: &str,
        patience: Duration,
    ) -> Result<Self> {
        let url = endpoint.endpoint.parse().with_context(|| format!("{} is no URL", endpoint.endpoint))?;
        let bucket = Bucket::new(url, UrlStyle::Path, bucket.to_owned(), "us-east-1")?;
        let credentials = Credentials::new(&endpoint.access_key, &endpoint.secret_key);
        Ok(Self { http, bucket, credentials, patience })
    }

    /// Makes the bucket; fine if it is there.
    pub async fn create_bucket(&self) -> Result<()> {
        let url = self.bucket.create_bucket(&self.credentials).sign(SIGNED_FOR);
        match self.send(Method::PUT, url, Bytes::new()).await {
            Ok(_) => Ok(()),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) if refused.status == StatusCode::CONFLICT => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Stores bytes; the receipt header if the server gave one.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<Option<String>> {
        self.put_where(key, body, Expect::Anything).await
    }

    /// The same on a condition. Where it does not hold the answer is [`Refused`]: 412, or 404 where an etag was asked for and no object is there.
    pub async fn put_where(&self, key: &str, body: Bytes, expect: Expect<'_>) -> Result<Option<String>> {
        let url = self.bucket.put_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        let answer = self.send_with(Method::PUT, url, expect.headers()?, body).await?;
        let receipt = answer.headers().get("x-diptych-receipt");
        Ok(receipt.and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// Stores a file, in parts where it is large.
    pub async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        let mut file = tokio::fs::File::open(path)
            .await
            .with_context(|| format!("{} can't be opened", path.display()))?;
        let length = file.metadata().await?.len();
        if length <= PART as u64 {
            let mut body = Vec::new();
            file.read_to_end(&mut body).await?;
            return self.put(key, body.into()).await.map(drop);
        }
        let create = self.bucket.create_multipart_upload(Some(&self.credentials), key).sign(SIGNED_FOR);
        let answer = self.send(Method::POST, create, Bytes::new()).await?.text().await?;
        let upload = CreateMultipartUpload::parse_response(&answer)?.upload_id().to_owned();
        let mut etags = Vec::new();
        for number in 1_u16.. {
            let mut part = Vec::new();
            (&mut file).take(PART as u64).read_to_end(&mut part).await?;
            if part.is_empty() {
                break;
            }
            let url = self.bucket.upload_part(Some(&self.credentials), key, number, &upload).sign(SIGNED_FOR);
            let answer = self.send(Method::PUT, url, part.into()).await?;
            let etag = answer.headers().get("etag").context("a part was answered without an ETag")?;
            etags.push(etag.to_str()?.to_owned());
        }
        let etags = etags.iter().map(String::as_str);
        let complete = self.bucket.complete_multipart_upload(Some(&self.credentials), key, &upload, etags);
        let url = complete.sign(SIGNED_FOR);
        let answer = self.send(Method::POST, url, complete.body().into()).await?.text().await?;
        CompleteMultipartUploadResponse::parse(&answer).with_context(|| answer.clone())?;
        Ok(())
    }

    /// An object's bytes, as a stream.
    pub async fn get(&self, key: &str) -> Result<Response> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        self.send(Method::GET, url, Bytes::new()).await
    }

    /// Deletes an object; fine if there is none.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let url = self.bucket.delete_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        self.send(Method::DELETE, url, Bytes::new()).await.map(drop)
    }

    /// All objects whose keys begin with `prefix`.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut action = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
            action.with_prefix(prefix);
            if let Some(token) = token.take() {
                action.with_continuation_token(token);
            }
            let answer = self.send(Method::GET, action.sign(SIGNED_FOR), Bytes::new()).await?.text().await?;
            let page = ListObjectsV2::parse_response(&answer).with_context(|| answer.clone())?;
            for object in page.contents {
                all.push(Listed { key: object.key, size: object.size.unwrap_or_default() });
            }
            match page.next_continuation_token {
                Some(next) => token = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn send(&self, method: Method, url: reqwest::Url, body: Bytes) -> Result<Response> {
        self.send_with(method, url, HeaderMap::new(), body).await
    }

    async fn send_with(
        &self,
        method: Method,
        url: reqwest::Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response> {
        let deadline = Instant::now() + self.patience;
        loop {
            let request = self.http.request(method.clone(), url.clone()).headers(headers.clone());
            let sent = request.body(body.clone()).send().await;
            let error = match sent {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status();
                    let refused = Refused { status, body: answer.text().await.unwrap_or_default() };
                    if !status.is_server_error() {
                        bail!(refused);
                    }
                    anyhow::Error::new(refused)
                }
                Err(error) => anyhow::Error::new(error),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
