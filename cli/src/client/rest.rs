//! A small client of the REST interface: what S3 has no word for.

use anyhow::{Result, bail};
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One gateway, or the public name.
pub struct RestClient {
    http: reqwest::Client,
    base: Url,
    token: String,
}

impl RestClient {
    /// `base` is `http://host:port`.
    pub fn new(http: reqwest::Client, base: &str, token: &str) -> Result<Self> {
        Ok(Self { http, base: base.parse()?, token: token.to_owned() })
    }

    /// A JSON document; segments of its path are percent-encoded here.
    pub async fn document<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T> {
        Ok(serde_json::from_slice(&self.answer(Method::GET, segments, query).await?)?)
    }

    /// A file's bytes, which are text.
    pub async fn text(&self, segments: &[&str]) -> Result<String> {
        Ok(String::from_utf8(self.answer(Method::GET, segments, &[]).await?.into())?)
    }

    /// Asks for something to be done.
    pub async fn post<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T> {
        Ok(serde_json::from_slice(&self.answer(Method::POST, segments, &[]).await?)?)
    }

    /// The same, with a query.
    pub async fn post_query<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T> {
        Ok(serde_json::from_slice(&self.answer(Method::POST, segments, query).await?)?)
    }

    /// Asks for something to be done that needs a few words.
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        let request = self.request(Method::POST, segments, &[]).json(body);
        Ok(serde_json::from_slice(&Self::answered(request).await?)?)
    }

    /// Has what the body names set; the body of a good answer.
    pub async fn patch_json(&self, segments: &[&str], body: &impl Serialize) -> Result<Bytes> {
        Self::answered(self.request(Method::PATCH, segments, &[]).json(body)).await
    }

    /// Takes back what was asked for.
    pub async fn delete<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T> {
        Ok(serde_json::from_slice(&self.answer(Method::DELETE, segments, &[]).await?)?)
    }

    /// The body of a good answer.
    pub async fn answer(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> Result<Bytes> {
        Self::answered(self.request(method, segments, query)).await
    }

    fn request(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        url.query_pairs_mut().extend_pairs(query);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    async fn answered(request: RequestBuilder) -> Result<Bytes> {
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}
