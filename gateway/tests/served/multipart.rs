//! A client of S3 that uploads one object in parts.
#![allow(missing_docs, unreachable_pub, reason = "a module of the tests")]

use std::time::Duration;

use crate::common::{ACCESS_KEY, SECRET_KEY, TestSite};
use bytes::Bytes;
use reqwest::{Method, Response, StatusCode};
use rusty_s3::actions::CreateMultipartUpload;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

pub const MIB: usize = 1 << 20;
pub const SIGNED_FOR: Duration = Duration::from_mins(10);
pub const KEY: &str = "key";

pub type Headers<'a> = &'a [(&'static str, &'a str)];

/// One key of one bucket.
pub struct Client<'a> {
    pub site: &'a TestSite,
    pub bucket: Bucket,
    pub credentials: Credentials,
}

impl<'a> Client<'a> {
    pub async fn new(site: &'a TestSite) -> Self {
        let url = format!("http://{}", site.gateway().s3()).parse().expect("a URL");
        let bucket =
            Bucket::new(url, UrlStyle::Path, "bucket".to_owned(), "us-east-1".to_owned()).expect("a bucket");
        let client = Self { site, bucket, credentials: Credentials::new(ACCESS_KEY, SECRET_KEY) };
        let url = client.bucket.create_bucket(&client.credentials).sign(SIGNED_FOR);
        assert_eq!(client.send(Method::PUT, url, &[], Bytes::new()).await.status(), StatusCode::OK);
        client
    }

    pub async fn send(
        &self,
        method: Method,
        url: reqwest::Url,
        headers: Headers<'_>,
        body: Bytes,
    ) -> Response {
        let request = self.site.http.request(method, url).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.expect("an answer")
    }

    pub async fn begin(&self, headers: Headers<'_>) -> Result<String, String> {
        let url = self.bucket.create_multipart_upload(Some(&self.credentials), KEY).sign(SIGNED_FOR);
        let answer = self.send(Method::POST, url, headers, Bytes::new()).await;
        let (fine, text) = (answer.status().is_success(), answer.text().await.expect("text"));
        if !fine {
            return Err(element(&text, "Code").unwrap_or(text));
        }
        let created = CreateMultipartUpload::parse_response(&text).expect("an upload");
        Ok(created.upload_id().to_owned())
    }

    pub async fn part(&self, upload: &str, number: u16, headers: Headers<'_>, body: Vec<u8>) -> Response {
        let url = self.bucket.upload_part(Some(&self.credentials), KEY, number, upload).sign(SIGNED_FOR);
        self.send(Method::PUT, url, headers, body.into()).await
    }

    /// `parts`: by part, in order, etag and what else stands there.
    pub async fn complete(
        &self,
        upload: &str,
        headers: Headers<'_>,
        parts: &[(String, String)],
    ) -> Result<String, String> {
        let none = std::iter::empty::<&str>();
        let action = self.bucket.complete_multipart_upload(Some(&self.credentials), KEY, upload, none);
        let part = |(number, (etag, more)): (usize, &(String, String))| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{more}</Part>")
        };
        let parts: String = (1..).zip(parts).map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let answer = self.send(Method::POST, action.sign(SIGNED_FOR), headers, body.into()).await;
        let (fine, text) = (answer.status().is_success(), answer.text().await.expect("text"));
        if fine { Ok(text) } else { Err(element(&text, "Code").unwrap_or(text)) }
    }

    /// A header of the object, for who asks for checksums.
    pub async fn header(&self, name: &str) -> Option<String> {
        let url = self.bucket.head_object(Some(&self.credentials), KEY).sign(SIGNED_FOR);
        let answer = self.send(Method::HEAD, url, &[("x-amz-checksum-mode", "ENABLED")], Bytes::new()).await;
        header(&answer, name)
    }
}

pub fn header(answer: &Response, name: &str) -> Option<String> {
    answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned())
}

/// Text of the first element of a name.
pub fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(text, _)| text.to_owned())
}

pub fn etag(part: &Response) -> String {
    header(part, "etag").expect("an etag")
}
