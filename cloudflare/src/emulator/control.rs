//! The control API, on its own listener: reads, sets and clears faults.
//!
//! `GET /faults`; `PATCH /faults` with any of its fields; `DELETE /faults` back to how it was started, rate limit included.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};

use super::Shared;
use super::faults::Faults;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().route("/faults", get(show).patch(change).delete(clear)).with_state(shared)
}

async fn show(State(shared): State<Arc<Shared>>) -> Json<Faults> {
    Json(shared.faults.get())
}

async fn change(State(shared): State<Arc<Shared>>, Json(patch): Json<Value>) -> Response {
    let mut whole = json!(shared.faults.get());
    match (whole.as_object_mut(), patch.as_object()) {
        (Some(whole), Some(patch)) => whole.extend(patch.clone()),
        _ => return (StatusCode::BAD_REQUEST, "an object is needed").into_response(),
    }
    match serde_json::from_value::<Faults>(whole) {
        Ok(faults) => {
            shared.set_faults(faults);
            Json(shared.faults.get()).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

async fn clear(State(shared): State<Arc<Shared>>) -> Json<Faults> {
    shared.clear_faults();
    Json(shared.faults.get())
}
