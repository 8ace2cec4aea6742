//! The region that a request is signed for. Any is taken that could be one; for another the client is told ours, as
//! Amazon does: s3cmd signs for `US` until it is told.

use diptych_wire::http::HttpBody;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

const OURS: &str = "us-east-1";

/// The answer to a request that is signed for what can't be a region.
pub(super) fn refused(headers: &HeaderMap) -> Option<Response<HttpBody>> {
    let region = signed_for(headers)?;
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !region.is_empty() && region.bytes().all(fine) {
        return None;
    }
    tracing::info!("denied: a request is signed for what can't be a region");
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>AuthorizationHeaderMalformed</Code><Message>the \
         request is signed for another region, {OURS:?} is expected; nothing was done</Message><Region>{OURS}</Region></Error>"
    );
    let mut response = Response::new(diptych_wire::http::full(text));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    Some(response)
}

/// `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/s3/aws4_request, …`
fn signed_for(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (_, scope) = text.split_once("Credential=")?;
    scope.split([',', ' ']).next()?.split('/').nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(region: &str) -> HeaderMap {
        let text =
            format!("AWS4-HMAC-SHA256 Credential=KEY/20260101/{region}/s3/aws4_request, SignedHeaders=host");
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&text).unwrap())])
    }

    #[test]
    fn a_client_that_signs_for_no_region_is_told_ours() {
        let answer = refused(&signed("US")).unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn any_region_is_taken_and_so_are_requests_without_one() {
        assert!(refused(&signed("eu-central-1")).is_none());
        assert!(refused(&HeaderMap::new()).is_none());
    }
}
