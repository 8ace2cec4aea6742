//! Between s3s's types and the object layer's.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use diptych_core::records::Etag;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue};
use s3s::dto::{ETag, ETagCondition, Metadata, Range, StreamingBlob, Timestamp};
use s3s::stream::{ByteStream as _, RemainingLength};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders};

use crate::body::ByteStream;
use crate::digests::{Algorithm, Announced};
use crate::error::GatewayError;
use crate::objects::{LateSums, ObjectInfo, Receipt, TagList, Wanted, etag_text};
use crate::read::BodyStream;

/// Header of answers that says where the bytes are durable.
const RECEIPT: &str = "x-diptych-receipt";

pub(super) fn etag(etag: &Etag) -> ETag {
    ETag::Strong(etag_text(etag))
}

pub(super) fn timestamp(milliseconds: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(milliseconds))
}

pub(super) fn milliseconds(time: Timestamp) -> u64 {
    let time = time::OffsetDateTime::from(time);
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

pub(super) fn tags_of(condition: ETagCondition) -> TagList {
    match condition {
        ETagCondition::Any => TagList::Any,
        ETagCondition::ETag(tag) => TagList::Of(vec![tag.into_value()]),
    }
}

pub(super) fn wanted(range: Option<Range>) -> Wanted {
    match range {
        None => Wanted::All,
        Some(Range::Int { first, last }) => Wanted::From(first, last),
        Some(Range::Suffix { length }) => Wanted::Last(length),
    }
}

/// A body as it comes in. What s3s finds wrong with it keeps its meaning.
pub(super) fn incoming(body: Option<StreamingBlob>) -> ByteStream {
    let Some(body) = body else { return futures::stream::empty().boxed() };
    body.map(|piece| piece.map_err(|error| broken(error.as_ref()))).boxed()
}

fn broken(error: &(dyn std::error::Error + 'static)) -> GatewayError {
    // The types are private to s3s; their texts are what is left to tell them apart.
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        return GatewayError::BadDigest {
            what: "x-amz-content-sha256",
            found: "another".to_owned(),
            announced: "signed".to_owned(),
        };
    }
    if text.contains("SignatureMismatch") {
        return GatewayError::AccessDenied(
            "the signature of a chunk does not match; nothing was stored".to_owned(),
        );
    }
    GatewayError::BrokenBody(text)
}

/// Bytes of the body itself: with chunked signing, less than the request's content length.
pub(super) fn length(headers: &HeaderMap, content_length: Option<i64>) -> Option<u64> {
    let decoded = headers.get("x-amz-decoded-content-length").and_then(|value| value.to_str().ok());
    let decoded = decoded.and_then(|value| value.trim().parse().ok());
    decoded.or_else(|| content_length.and_then(|length| u64::try_from(length).ok()))
}

/// Sums that the request announces.
pub(super) fn announced(headers: &HeaderMap, content_md5: Option<&str>) -> S3Result<Announced> {
    let mut announced = Announced::default();
    if let Some(md5) = content_md5 {
        announced.set_md5(md5)?;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    for algorithm in Algorithm::ALL {
        if let Some(sum) = text(algorithm.header()) {
            announced.sums.push((algorithm, sum.to_owned()));
        }
    }
    let later = text("x-amz-trailer").into_iter().flat_map(|names| names.split(','));
    announced.wanted.extend(later.filter_map(Algorithm::parse));
    announced.wanted.extend(text("x-amz-sdk-checksum-algorithm").and_then(Algorithm::parse));
    Ok(announced)
}

/// Sums that come behind the body.
pub(super) fn late_sums(trailers: Option<TrailingHeaders>) -> Option<LateSums> {
    let trailers = trailers?;
    let read = move || {
        let found = trailers.take().unwrap_or_default();
        let sum = |algorithm: Algorithm| {
            let value = found.get(algorithm.header())?.to_str().ok()?;
            Some((algorithm, value.to_owned()))
        };
        Algorithm::ALL.into_iter().filter_map(sum).collect()
    };
    Some(Box::new(read))
}

/// Headers that are kept with an object.
const KEPT: [&str; 6] = [
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
];
/// Bytes of `x-amz-meta-*` that S3 allows.
const METADATA_LIMIT: usize = 2048;

/// Headers and metadata of a request that are kept. `aws-chunked` is the transport's, not the object's.
pub(super) fn kept_headers(headers: &HeaderMap) -> S3Result<Vec<(String, String)>> {
    let mut kept = Vec::new();
    let mut metadata = 0;
    for (name, value) in headers {
        let name = name.as_str();
        let is_metadata = name.starts_with("x-amz-meta-");
        if !is_metadata && !KEPT.contains(&name) {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if is_metadata {
            metadata += name.len() - "x-amz-meta-".len() + value.len();
        }
        let value = if name == "content-encoding" { without_chunked(&value) } else { value };
        if is_metadata || !value.is_empty() {
            kept.push((name.to_owned(), value));
        }
    }
    if metadata > METADATA_LIMIT {
        let message = format!("{metadata} bytes of metadata, {METADATA_LIMIT} are allowed");
        return Err(S3Error::with_message(S3ErrorCode::MetadataTooLarge, message));
    }
    Ok(kept)
}

fn without_chunked(encodings: &str) -> String {
    let kept: Vec<&str> = encodings.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
    kept.join(",")
}

/// `x-amz-meta-*` of an object, under the names that s3s writes them with.
pub(super) fn metadata(info: &ObjectInfo) -> Option<Metadata> {
    let mut metadata = Metadata::new();
    for (name, value) in &info.object.headers {
        if let Some(name) = name.strip_prefix("x-amz-meta-") {
            metadata.insert(name.to_owned(), value.clone());
        }
    }
    (!metadata.is_empty()).then_some(metadata)
}

/// `a=1&b=2`, as `x-amz-tagging` has it.
pub(super) fn tags(text: Option<&str>) -> S3Result<Vec<(String, String)>> {
    let decode = |part: &str| {
        let plain = part.replace('+', " ");
        percent_encoding::percent_decode_str(&plain).decode_utf8().map(std::borrow::Cow::into_owned)
    };
    let invalid = || S3Error::with_message(S3ErrorCode::InvalidTag, "the tags can't be read");
    let mut tags = Vec::new();
    for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        tags.push((decode(name).map_err(|_| invalid())?, decode(value).map_err(|_| invalid())?));
    }
    Ok(tags)
}

/// Headers of the answer to a write.
pub(super) fn receipt_headers(receipt: &Receipt) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&receipt.to_string()) {
        headers.insert(RECEIPT, value);
    }
    headers
}

/// A body as it goes out. An error in it breaks the connection off.
pub(super) struct Outgoing(pub BodyStream);

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(task).map_err(StdError::from)
    }
}

impl s3s::stream::ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.0.left()).map_or(RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

/// So many bytes are left of a body, where it says so.
pub(super) fn remaining(body: Option<&StreamingBlob>) -> Option<u64> {
    body.and_then(|body| body.remaining_length().exact()).map(|length| length as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_of_the_transport_is_not_kept_with_the_object() {
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", HeaderValue::from_static("aws-chunked, gzip"));
        headers.insert("x-amz-meta-colour", HeaderValue::from_static("red"));
        headers.insert("authorization", HeaderValue::from_static("no"));
        let mut kept = kept_headers(&headers).expect("they fit");
        kept.sort();
        let wanted = [("content-encoding", "gzip"), ("x-amz-meta-colour", "red")];
        assert_eq!(kept, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn tags_are_decoded() {
        let tags = tags(Some("a=1&b%20c=d+e")).expect("tags");
        assert_eq!(tags, [("a".to_owned(), "1".to_owned()), ("b c".to_owned(), "d e".to_owned())]);
    }
}
