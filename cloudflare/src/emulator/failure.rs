//! The API's envelope and its errors.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

/// A refusal, in Cloudflare's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) code: u32,
    pub(super) message: String,
    pub(super) chain: Vec<(u32, String)>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), chain: Vec::new() }
    }

    /// What most refusals are.
    pub(super) fn bad_request(code: u32, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// An id in the path that names nothing, or a path that is none.
    pub(super) fn no_route(path: &str) -> Self {
        let message = format!("Could not route to {path}, perhaps your object identifier is invalid?");
        let mut failure = Self::new(StatusCode::NOT_FOUND, 7003, message);
        failure.chain.push((7000, "No route for that URI".to_owned()));
        failure
    }

    pub(super) fn because(mut self, (code, message): (u32, &str)) -> Self {
        self.chain.push((code, message.to_owned()));
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code, "message": self.message});
        if !self.chain.is_empty() {
            let chain: Vec<_> =
                self.chain.iter().map(|(code, message)| json!({"code": code, "message": message})).collect();
            error["error_chain"] = Value::from(chain);
        }
        let body = json!({"success": false, "errors": [error], "messages": [], "result": null});
        (self.status, Json(body)).into_response()
    }
}

/// A success with its result.
pub(super) fn success(result: impl Serialize) -> Response {
    Json(json!({"success": true, "errors": [], "messages": [], "result": result})).into_response()
}

/// One page of a listing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) number: usize,
    pub(super) size: usize,
}

impl Page {
    /// Cuts this page out of all, and wraps it.
    pub(super) fn of(self, all: Vec<Value>) -> Response {
        let total = all.len();
        let skipped = self.size.saturating_mul(self.number.saturating_sub(1));
        let page: Vec<Value> = all.into_iter().skip(skipped).take(self.size).collect();
        let info = json!({
            "page": self.number, "per_page": self.size, "count": page.len(), "total_count": total,
            "total_pages": total.div_ceil(self.size),
        });
        Json(json!({"success": true, "errors": [], "messages": [], "result": page, "result_info": info}))
            .into_response()
    }
}
