//! Errors as S3 spells them.

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};
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

#[cfg(test)]
mod tests {
    use super::*;

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
