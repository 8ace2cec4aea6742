//! The pages that the edge answers by itself, with Cloudflare's status codes.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, SERVER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// Why the edge answers instead of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgeFailure {
    /// 400: no Host.
    BadRequest,
    /// 413: the plan's limit.
    BodyTooLarge,
    /// 520: it connected, and then broke off or spoke no HTTP.
    BrokenAnswer,
    /// 521: it refuses connections.
    Refused,
    /// 522: it does not answer the connection.
    ConnectTimedOut,
    /// 523: there is no way to it.
    NoRoute,
    /// 524: connected, but no answer.
    AnswerTimedOut,
    /// 525: it speaks no TLS.
    NoTls,
    /// 526: its certificate is not of the authority, or not for the name.
    BadCertificate,
    /// 530, 1016: the name has no origin here.
    UnknownName,
    /// 530, 1033: no connector of the tunnel is there.
    NoTunnel,
}

impl EdgeFailure {
    fn status_and_text(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "Bad Request"),
            Self::BodyTooLarge => (413, "Request Entity Too Large"),
            Self::BrokenAnswer => (520, "Web server is returning an unknown error"),
            Self::Refused => (521, "Web server is down"),
            Self::ConnectTimedOut => (522, "Connection timed out"),
            Self::NoRoute => (523, "Origin is unreachable"),
            Self::AnswerTimedOut => (524, "A timeout occurred"),
            Self::NoTls => (525, "SSL handshake failed"),
            Self::BadCertificate => (526, "Invalid SSL certificate"),
            Self::UnknownName => (530, "Origin DNS error (Error 1016)"),
            Self::NoTunnel => (530, "Cloudflare Tunnel error (Error 1033)"),
        }
    }
}

/// Number of a request, shown to client and origin.
#[derive(Debug)]
pub(super) struct Ray(String);

impl Ray {
    pub(super) fn new() -> Self {
        Self(format!("{:016x}-DPT", rand::random::<u64>()))
    }

    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("hexadecimal digits are ASCII")
    }
}

/// The page.
pub(super) fn response(failure: EdgeFailure, ray: &Ray) -> Response<Full<Bytes>> {
    let (code, text) = failure.status_and_text();
    let page = format!(
        "<!DOCTYPE html>\n<html><head><title>{code}: {text}</title></head>\n<body><center><h1>{code} {text}</h1></center>\
         <hr><center>cloudflare</center><p>Ray ID: {}</p></body></html>\n",
        ray.0
    );
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(SERVER, HeaderValue::from_static("cloudflare"));
    headers.insert("cf-ray", ray.header());
    // The rest of a body that nobody will read is still on its way.
    if failure == EdgeFailure::BodyTooLarge {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
