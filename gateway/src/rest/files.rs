//! `/api/v1/files`: a file is a key of bucket `files`, made on first use (as that of drills is), or of `?bucket=`; its id is
//! the key, percent-encoded.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use diptych_core::retention::RetainUntil;
use futures::{Stream, StreamExt};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;

use super::RestState;
use super::auth::{NAMESPACE, Namespace};
use super::errors::RestError;
use crate::body::ByteStream;
use crate::clock::{instant, parse_instant};
use crate::digests::Announced;
use crate::error::GatewayError;
use crate::objects::{
    Condition, ListRequest, Listed, Listing, ObjectInfo, PutRequest, ReadConditions, Stored, TagList, Target,
    Wanted, etag_text,
};
use crate::read::BodyStream;

pub(super) const DEFAULT_BUCKET: &str = "files";
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1000;
const RECEIPT: HeaderName = HeaderName::from_static("x-diptych-receipt");
/// Of writes: until when nobody shall delete or replace the file; of answers: until when that is so.
const RETAIN_UNTIL: HeaderName = HeaderName::from_static("x-diptych-retain-until");
/// Headers that are kept with a file and given back.
const KEPT: [&str; 5] =
    ["content-type", "cache-control", "content-disposition", "content-encoding", "content-language"];

type Answer = Result<Response, RestError>;

/// Which bucket.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Where {
    bucket: Option<String>,
    /// Of a new file: its id, if the client wants to choose.
    id: Option<String>,
}

impl Where {
    fn bucket(&self) -> &str {
        self.bucket.as_deref().unwrap_or(DEFAULT_BUCKET)
    }
}

/// A file as JSON.
#[derive(Debug, Serialize)]
struct FileDocument<'a> {
    id: &'a str,
    bucket: &'a str,
    size: u64,
    etag: String,
    modified: String,
    content_type: &'a str,
    /// Until then nobody deletes or replaces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<serde_json::Value>,
}

fn document<'a>(bucket: &'a str, info: &'a ObjectInfo) -> FileDocument<'a> {
    FileDocument {
        id: &info.key,
        bucket,
        size: info.object.size,
        etag: info.etag(),
        modified: instant(info.object.modified_ms),
        content_type: info.header("content-type").unwrap_or("application/octet-stream"),
        retained_until: info.retained_until.map(|until| instant(until.0)),
        receipt: None,
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn http_date(milliseconds: u64) -> String {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000);
    time.ok().and_then(|time| time.format(&format).ok()).unwrap_or_default()
}

fn parse_http_date(text: &str) -> Option<u64> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let time = time::PrimitiveDateTime::parse(text.trim(), &format).ok()?.assume_utc();
    u64::try_from(time.unix_timestamp()).ok().map(|seconds| seconds * 1000)
}

/// Query of a list.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Page {
    bucket: Option<String>,
    prefix: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /api/v1/files`
pub(super) async fn list(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Query(page): Query<Page>,
) -> Answer {
    let bucket = page.bucket.as_deref().unwrap_or(DEFAULT_BUCKET);
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=PAGE_LIMIT).contains(&limit) {
        let message = format!("limit is {limit}: 1 to {PAGE_LIMIT} are allowed");
        return Err(GatewayError::InvalidArgument(message).into());
    }
    let request =
        ListRequest { prefix: page.prefix.unwrap_or_default(), delimiter: None, after: page.after, limit };
    let listing = match state.objects.list(&namespace, bucket, &request).await {
        // Made on first use: until then it is empty.
        Err(GatewayError::NoSuchBucket(name)) if name == DEFAULT_BUCKET => Listing::default(),
        other => other?,
    };
    let files: Vec<FileDocument<'_>> = listing
        .entries
        .iter()
        .filter_map(|entry| match entry {
            Listed::Object(info) => Some(document(bucket, info)),
            Listed::Group(_) => None,
        })
        .collect();
    Ok(Json(json!({"files": files, "next": listing.next})).into_response())
}

/// `POST /api/v1/files`
pub(super) async fn create(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Query(target): Query<Where>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let bucket = target.bucket().to_owned();
    let well_known = [DEFAULT_BUCKET, diptych_core::drill::BUCKET].contains(&bucket.as_str());
    // A FileObject's bucket is made on first use, for its namespace.
    if well_known || headers.contains_key(NAMESPACE) {
        state.objects.bucket_or_create(&namespace, &bucket).await?;
    }
    let id = target.id.unwrap_or_else(|| hex::encode(rand::rng().random::<[u8; 16]>()));
    let condition = Condition { absent: true, ..Condition::default() };
    let stored = store(&state, &namespace, &bucket, &id, condition, &headers, body).await?;
    let mut response = written(StatusCode::CREATED, &bucket, &id, &stored, &headers);
    let encoded = percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/files/{encoded}?bucket={bucket}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// `PUT /api/v1/files/{id}`: 404 where there is none.
pub(super) async fn replace(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(id): Path<String>,
    Query(target): Query<Where>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let condition = of_change(&headers);
    let stored = match store(&state, &namespace, target.bucket(), &id, condition, &headers, body).await {
        Err(GatewayError::NoSuchBucket(bucket)) if bucket == DEFAULT_BUCKET => {
            return Err(GatewayError::NoSuchKey { bucket, key: id }.into());
        }
        other => other?,
    };
    Ok(written(StatusCode::OK, target.bucket(), &id, &stored, &headers))
}

/// What must hold of a file that is replaced or deleted.
fn of_change(headers: &HeaderMap) -> Condition {
    let matches = tags(headers, &IF_MATCH);
    Condition { exists: true, unretained: true, matches, ..Condition::default() }
}

/// Bytes of a change of what is said of a file.
pub(super) const AMENDMENT_LIMIT: usize = 4096;

/// A change of what is said of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Amendment {
    /// Until when nobody shall delete or replace it.
    retain_until: String,
}

/// `PATCH /api/v1/files/{id}`: retained from now on, or for longer.
pub(super) async fn amend(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(id): Path<String>,
    Query(target): Query<Where>,
    body: Bytes,
) -> Answer {
    let amendment: Amendment = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("{error}: send {{\"retain_until\": \"2030-01-01T00:00:00Z\"}}");
        GatewayError::InvalidArgument(message)
    })?;
    let until = retain_until(&amendment.retain_until)?;
    let named = Target::newest(target.bucket(), &id);
    let retained = state.objects.retain(&namespace, named, until).await;
    retained.map_err(|error| no_file(error, &id))?;
    let info = state.objects.head(&namespace, named).await?;
    Ok(Json(document(target.bucket(), &info)).into_response())
}

fn retain_until(text: &str) -> Result<RetainUntil, GatewayError> {
    parse_instant(text).map(RetainUntil).ok_or_else(|| {
        GatewayError::InvalidArgument(format!("{text:?} is no time: write it as 2030-01-01T00:00:00Z"))
    })
}

fn wanted_retention(headers: &HeaderMap) -> Result<Option<RetainUntil>, GatewayError> {
    let said = headers.get(&RETAIN_UNTIL);
    said.map(|value| retain_until(&String::from_utf8_lossy(value.as_bytes()))).transpose()
}

async fn store(
    state: &RestState,
    namespace: &str,
    bucket: &str,
    id: &str,
    condition: Condition,
    headers: &HeaderMap,
    body: Body,
) -> Result<Stored, GatewayError> {
    let mut announced = Announced::default();
    if let Some(md5) = headers.get("content-md5").and_then(|value| value.to_str().ok()) {
        announced.set_md5(md5)?;
    }
    let kept = |name: &&str| {
        let value = headers.get(*name)?.to_str().ok()?;
        Some(((*name).to_owned(), value.to_owned()))
    };
    let request = PutRequest {
        retain_until: wanted_retention(headers)?,
        bucket: bucket.to_owned(),
        key: id.to_owned(),
        headers: KEPT.iter().filter_map(kept).collect(),
        announced,
        condition,
        ..PutRequest::default()
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let stream = body
        .into_data_stream()
        .map(|piece| piece.map_err(|error| GatewayError::BrokenBody(error.to_string())));
    let stream: ByteStream = stream.boxed();
    state.objects.put(namespace, request, stream, length).await
}

fn written(status: StatusCode, bucket: &str, id: &str, stored: &Stored, headers: &HeaderMap) -> Response {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let receipt = &stored.receipt;
    let rows = |rows: &crate::objects::SiteRows| json!({"site": rows.site.to_string(), "durable_rows": rows.durable, "rows": rows.of});
    let receipt_json = json!({
        "epoch": receipt.epoch.0,
        "sites": receipt.sites.iter().map(rows).collect::<Vec<_>>(),
        "exposed": receipt.exposed,
        "downgraded": receipt.downgraded,
    });
    let document = FileDocument {
        id,
        bucket,
        size: stored.size,
        etag: etag_text(&stored.etag),
        modified: instant(stored.modified_ms),
        content_type: content_type.unwrap_or("application/octet-stream"),
        retained_until: wanted_retention(headers).ok().flatten().map(|until| instant(until.0)),
        receipt: Some(receipt_json),
    };
    let mut response = (status, Json(document)).into_response();
    set(response.headers_mut(), RECEIPT, &receipt.to_string());
    set(response.headers_mut(), ETAG, &format!("\"{}\"", etag_text(&stored.etag)));
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<TagList> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(TagList::parse)
}

fn conditions(headers: &HeaderMap) -> ReadConditions {
    let date = |name: &HeaderName| headers.get(name).and_then(|value| parse_http_date(value.to_str().ok()?));
    ReadConditions {
        matches: tags(headers, &IF_MATCH),
        none_matches: tags(headers, &IF_NONE_MATCH),
        modified_since_ms: date(&IF_MODIFIED_SINCE),
        unmodified_since_ms: date(&IF_UNMODIFIED_SINCE),
    }
}

/// `GET /api/v1/files/{id}`
pub(super) async fn read(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(id): Path<String>,
    Query(target): Query<Where>,
    headers: HeaderMap,
) -> Answer {
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(Wanted::parse);
    let wanted = range.unwrap_or(Wanted::All);
    let read = state
        .objects
        .get(&namespace, Target::newest(target.bucket(), &id), wanted, &conditions(&headers))
        .await;
    let download = read.map_err(|error| no_file(error, &id))?;
    let status = if download.partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut answer = describing(&download.info);
    answer.insert(CONTENT_LENGTH, HeaderValue::from(download.range.end - download.range.start));
    if download.partial {
        let (first, last) = (download.range.start, download.range.end.saturating_sub(1));
        set(&mut answer, CONTENT_RANGE, &format!("bytes {first}-{last}/{}", download.info.object.size));
    }
    Ok((status, answer, Body::from_stream(Sending(download.body))).into_response())
}

/// `HEAD /api/v1/files/{id}`
pub(super) async fn describe(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(id): Path<String>,
    Query(target): Query<Where>,
    headers: HeaderMap,
) -> Answer {
    let info = state
        .objects
        .head(&namespace, Target::newest(target.bucket(), &id))
        .await
        .map_err(|error| no_file(error, &id))?;
    conditions(&headers).check(&info.etag(), info.object.modified_ms)?;
    let mut answer = describing(&info);
    answer.insert(CONTENT_LENGTH, HeaderValue::from(info.object.size));
    Ok((StatusCode::OK, answer).into_response())
}

/// `DELETE /api/v1/files/{id}`
pub(super) async fn delete(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(id): Path<String>,
    Query(target): Query<Where>,
    headers: HeaderMap,
) -> Answer {
    let condition = of_change(&headers);
    let deleted = state.objects.delete(&namespace, Target::newest(target.bucket(), &id), condition).await;
    let deleted = deleted.map_err(|error| no_file(error, &id))?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(receipt) = deleted.receipt {
        set(response.headers_mut(), RECEIPT, &receipt.to_string());
    }
    Ok(response)
}

/// Before the first file there is no bucket `files`: what is asked for is a file all the same.
fn no_file(error: GatewayError, id: &str) -> GatewayError {
    match error {
        GatewayError::NoSuchBucket(bucket) if bucket == DEFAULT_BUCKET => {
            GatewayError::NoSuchKey { bucket, key: id.to_owned() }
        }
        other => other,
    }
}

fn describing(info: &ObjectInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    for (name, value) in &info.object.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            headers.insert(name, value);
        }
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // The web page has this origin too: a file that is a page itself must not act as it.
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set(&mut headers, ETAG, &format!("\"{}\"", info.etag()));
    set(&mut headers, LAST_MODIFIED, &http_date(info.object.modified_ms));
    if let Some(until) = info.retained_until {
        set(&mut headers, RETAIN_UNTIL, &instant(until.0));
    }
    headers
}

/// A body as it goes out. An error in it breaks the connection off.
struct Sending(BodyStream);

impl Stream for Sending {
    type Item = Result<Bytes, GatewayError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_written_and_read() {
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(parse_http_date("yesterday"), None);
    }
}
