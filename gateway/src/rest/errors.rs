//! Errors as JSON: `{"error": {"code", "message", …}}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode, Uri};
use serde_json::json;

use crate::error::GatewayError;

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct RestError(pub GatewayError);

impl From<GatewayError> for RestError {
    fn from(error: GatewayError) -> Self {
        Self(error)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let error = self.0;
        if error == GatewayError::NotModified {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        let mut body = json!({"code": error.code(), "message": error.to_string()});
        if let GatewayError::InsufficientFragments { extent, needed, present, unreadable } = &error {
            body["extent"] = json!(extent.to_string());
            body["needed"] = json!(needed);
            body["present"] = json!(present);
            body["missing"] = json!(unreadable);
        }
        if let GatewayError::Retained { until, .. } = &error {
            body["retained_until"] = json!(until);
        }
        if let Some(seconds) = error.retry_after() {
            body["retry_after_s"] = json!(seconds);
        }
        let mut response = (error.status(), Json(json!({"error": body}))).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        if let Some(seconds) = error.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if error.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let GatewayError::InvalidRange(size) = error
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(http::header::CONTENT_RANGE, range);
        }
        response
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Response {
    let body =
        json!({"error": {"code": "NotFound", "message": format!("there is nothing at {}", uri.path())}});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let message = format!("{method} is not for {}", uri.path());
    let body = json!({"error": {"code": "MethodNotAllowed", "message": message}});
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}
