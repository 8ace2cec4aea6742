//! Errors as S3 spells them.

use diptych_wire::http::{HttpBody, full};
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::Body;
use s3s::{S3Error, S3ErrorCode};

use crate::error::GatewayError;

impl From<GatewayError> for S3Error {
    fn from(error: GatewayError) -> Self {
        let code = S3ErrorCode::from_bytes(error.code().as_bytes());
        let mut answer = Self::with_message(code.unwrap_or(S3ErrorCode::InternalError), error.to_string());
        answer.set_status_code(error.status());
        let mut headers = HeaderMap::new();
        if let Some(seconds) = error.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let GatewayError::DeleteMarker { version, .. } = &error {
            headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
            if let Ok(version) = HeaderValue::from_str(version) {
                headers.insert("x-amz-version-id", version);
            }
        }
        if !headers.is_empty() {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            answer.set_headers(headers);
        }
        answer
    }
}

/// An answer of more bytes than this says something already.
const WORDLESS: u64 = 256;

/// What s3s refuses by a code alone gets a message, which clients show to people.
pub(super) async fn explained(response: Response<HttpBody>) -> Response<HttpBody> {
    let short = response.body().size_hint().upper().is_some_and(|bytes| (1..=WORDLESS).contains(&bytes));
    if !response.status().is_client_error() || !short {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Response::from_parts(head, full("the answer broke off"));
    };
    let Some(told) = std::str::from_utf8(&body).ok().and_then(with_message) else {
        return Response::from_parts(head, full(body));
    };
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, full(told))
}

/// The error with a message behind its code; None: it has one, or none is known.
fn with_message(error: &str) -> Option<String> {
    let (before, rest) = error.split_once("<Code>")?;
    let (code, after) = rest.split_once("</Code>")?;
    let message = message(code).filter(|_| !after.contains("<Message>"))?;
    Some(format!("{before}<Code>{code}</Code><Message>{message}</Message>{after}"))
}

/// Text that stands in XML as it is.
fn message(code: &str) -> Option<&'static str> {
    match code {
        "InvalidBucketName" => Some(
            "a bucket's name has 3 to 63 characters, lower-case letters, digits, hyphens and dots, and begins and ends with a letter or a digit",
        ),
        "KeyTooLongError" => Some("a key has 1024 bytes at most, in UTF-8: choose a shorter one"),
        "InvalidURI" => Some(
            "path or query can't be read: what is no letter, digit or one of - . _ ~ has to be percent-encoded",
        ),
        "IncompleteBody" => {
            Some("fewer bytes came than the request announced, and nothing was stored: send it again")
        }
        "InvalidAccessKeyId" => Some("the access key that the request is signed with does not exist"),
        "MethodNotAllowed" => Some("this can't be done to what the path names"),
        "SignatureDoesNotMatch" => Some(
            "the signature is not the one that the secret of this access key gives for the request as it came: look at the secret, and whether something on the way changes headers",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_alone_gets_a_message_and_one_that_has_words_keeps_them() {
        let told = with_message("<Error><Code>KeyTooLongError</Code></Error>").expect("it is known");
        assert!(told.contains("</Code><Message>a key has 1024 bytes at most"), "{told}");
        assert_eq!(with_message("<Error><Code>KeyTooLongError</Code><Message>own</Message></Error>"), None);
        assert_eq!(with_message("<Error><Code>Teapot</Code></Error>"), None);
    }

    #[test]
    fn a_site_that_is_not_active_answers_slow_down_with_retry_after() {
        let error = S3Error::from(GatewayError::NotActive("it is passive".to_owned()));
        assert_eq!(error.code().as_str(), "SlowDown");
        assert_eq!(error.status_code().map(|status| status.as_u16()), Some(503));
        assert!(error.headers().is_some_and(|headers| headers.contains_key(RETRY_AFTER)));
    }

    #[test]
    fn codes_that_s3_does_not_know_keep_their_name() {
        let error = S3Error::from(GatewayError::OutcomeUnknown("it was paused".to_owned()));
        assert_eq!(error.code().as_str(), "OutcomeUnknown");
    }
}
