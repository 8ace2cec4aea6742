//! `/api/v1/buckets`: what S3 has no word for: what a bucket promises its writers.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, Path, State};
use bytes::Bytes;
use serde::Serialize;

use super::RestState;
use super::auth::Namespace;
use super::errors::RestError;
use crate::error::GatewayError;
use crate::objects::{BucketDocument, PromiseChange};

/// Bytes that the body of a change may have.
pub(super) const BODY_LIMIT: usize = 4 << 10;

/// All of a namespace.
#[derive(Debug, Serialize)]
pub(super) struct BucketList {
    buckets: Vec<BucketDocument>,
}

/// `GET /api/v1/buckets`
pub(super) async fn list(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
) -> Result<Json<BucketList>, RestError> {
    let found = state.objects.buckets(&namespace).await?;
    let buckets = found.into_iter().map(|(name, bucket)| BucketDocument::of(name, &bucket)).collect();
    Ok(Json(BucketList { buckets }))
}

/// `GET /api/v1/buckets/{name}`
pub(super) async fn show(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(name): Path<String>,
) -> Result<Json<BucketDocument>, RestError> {
    let bucket = state.objects.bucket(&namespace, &name).await?;
    Ok(Json(BucketDocument::of(name, &bucket)))
}

/// `PATCH /api/v1/buckets/{name}`: what the body names is set.
pub(super) async fn change(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<BucketDocument>, RestError> {
    let change = read(body)?;
    let bucket = state.objects.set_promise(&namespace, &name, &change).await?;
    let promise = bucket.promise;
    tracing::info!(bucket = name, timeout_ms = promise.timeout_ms, on_timeout = ?promise.on_timeout, "a bucket's promise was set");
    Ok(Json(BucketDocument::of(name, &bucket)))
}

fn read(body: Result<Bytes, BytesRejection>) -> Result<PromiseChange, GatewayError> {
    let unread = |reason: String| {
        GatewayError::InvalidArgument(format!(
            "the body can't be read ({reason}); it is like {{\"acknowledge_timeout_ms\": 2000, \"on_timeout\": \"Downgrade\"}}, with null for what the cluster declares, and \"Refuse\" or \"Downgrade\""
        ))
    };
    let body = body.map_err(|rejected| unread(rejected.to_string()))?;
    serde_json::from_slice(&body).map_err(|error| unread(error.to_string()))
}
