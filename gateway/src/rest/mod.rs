//! REST: files, where their fragments are, sessions, health, lease and metrics; and the web page.

mod auth;
mod buckets;
mod conflicts;
mod errors;
mod files;
pub mod fragments;
mod health;
mod review;
mod sessions;
mod verify;
mod web;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, patch, post};
use diptych_wire::http::BoxError;
use http_body_util::BodyExt;
use tower::ServiceExt;

pub use auth::RestToken;
pub use health::{Health, HealthCheck};
pub use review::{Reviewer, Reviews};

use crate::linger::Lingering;
use crate::objects::Objects;
use crate::server::{Answer, Front};

/// What handlers share.
#[derive(Clone)]
pub(crate) struct RestState {
    objects: Objects,
    tokens: Arc<Vec<RestToken>>,
    reviews: Option<Reviews>,
}

/// What answers requests of REST. `more` is served to those who show a token, beside the files; `to_all` to everybody.
pub(crate) fn answer(
    objects: Objects,
    tokens: Vec<RestToken>,
    reviews: Option<Reviews>,
    more: Option<Router>,
    to_all: Option<Router>,
) -> Answer {
    let state = RestState { objects, tokens: Arc::new(tokens), reviews };
    let files = || {
        let amend = patch(files::amend).layer(DefaultBodyLimit::max(files::AMENDMENT_LIMIT));
        let one = get(files::read).head(files::describe).put(files::replace).delete(files::delete);
        let one = one.merge(amend);
        Router::new().route("/", get(files::list).post(files::create)).route("/{*id}", one)
    };
    let change = patch(buckets::change).layer(DefaultBodyLimit::max(buckets::BODY_LIMIT));
    let one_bucket = get(buckets::show).merge(change);
    let guarded = Router::new()
        .nest("/api/v1/files", files())
        .nest("/api/files", files())
        .route("/api/v1/fragments/{*id}", get(fragments::show))
        .route("/api/v1/verify", post(verify::verify))
        .route("/api/v1/conflicts", get(conflicts::list))
        .route("/api/v1/conflicts/{version}", post(conflicts::restore).delete(conflicts::discard))
        .route("/api/v1/ledger", get(conflicts::ledger))
        .route("/api/v1/buckets", get(buckets::list))
        .route("/api/v1/buckets/{name}", one_bucket)
        .with_state(state.clone())
        .merge(more.unwrap_or_default())
        .layer(DefaultBodyLimit::disable())
        .route_layer(middleware::from_fn_with_state(state.clone(), auth::require));
    let open = Router::new()
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/health", get(health::health))
        .route("/lease", get(health::lease))
        .route("/metrics", get(health::metrics))
        .with_state(state.clone())
        .merge(web::router())
        .merge(to_all.unwrap_or_default());
    let limit = DefaultBodyLimit::max(sessions::BODY_LIMIT);
    let sessions = Router::new()
        .route("/api/v1/sessions", post(sessions::begin).delete(sessions::end))
        .route("/api/v1/sessions/refresh", post(sessions::refresh).layer(limit))
        .with_state(state.clone());
    let router = open
        .merge(guarded)
        .merge(sessions)
        .fallback(errors::no_such_path)
        .method_not_allowed_fallback(errors::no_such_method)
        .layer(middleware::from_fn_with_state(state, count));
    Arc::new(move |request| {
        let router = router.clone();
        Box::pin(async move {
            let answered = router.oneshot(Lingering::of(request).map(Body::new)).await;
            answered
                .unwrap_or_else(|never| match never {})
                .map(|body| body.map_err(BoxError::from).boxed_unsync())
        })
    })
}

async fn count(State(state): State<RestState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let operation = format!("{} {path}", request.method());
    let response = next.run(request).await;
    let metrics = state.objects.context().metrics();
    let front = Front::Rest.as_str();
    let status = response.status().as_u16().to_string();
    metrics.requests.with_label_values(&[front, &operation, &status]).inc();
    metrics.latency.with_label_values(&[front, &operation]).observe(begun.elapsed().as_secs_f64());
    if response.status().is_client_error() || response.status().is_server_error() {
        metrics.refusals.with_label_values(&[front, &status]).inc();
    }
    response
}
