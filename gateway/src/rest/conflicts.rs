//! `/api/v1/conflicts`: versions that a return or a takeover kept beside the head; `/api/v1/ledger`: what was lost, kept aside
//! or not done.

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use diptych_core::ids::VersionId;
use http::StatusCode;
use serde::Deserialize;

use super::RestState;
use super::auth::Namespace;
use super::errors::RestError;
use crate::error::{GatewayError, Result};
use crate::objects::{ConflictsPage, LedgerPage};

const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1_000;

/// Query of a list.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Page {
    /// Of the namespace's buckets; all if left out.
    bucket: Option<String>,
    limit: Option<usize>,
    /// As `next` of the last page said.
    after: Option<String>,
}

impl Page {
    fn limit(&self) -> Result<usize> {
        match self.limit.unwrap_or(PAGE) {
            limit @ 1..=PAGE_LIMIT => Ok(limit),
            limit => {
                Err(GatewayError::InvalidArgument(format!("limit is {limit}: 1 to {PAGE_LIMIT} are allowed")))
            }
        }
    }
}

/// Which object.
#[derive(Debug, Deserialize)]
pub(super) struct Of {
    bucket: Option<String>,
    id: String,
}

pub(super) async fn list(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Query(page): Query<Page>,
) -> Result<Json<ConflictsPage>, RestError> {
    let (bucket, after) = (page.bucket.as_deref(), page.after.as_deref());
    Ok(Json(state.objects.conflicts(&namespace, bucket, after, page.limit()?).await?))
}

/// `POST /api/v1/conflicts/{version}`: it becomes head.
pub(super) async fn restore(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(version): Path<String>,
    Query(of): Query<Of>,
) -> Result<StatusCode, RestError> {
    let bucket = of.bucket.as_deref().unwrap_or(super::files::DEFAULT_BUCKET);
    state.objects.restore_conflict(&namespace, bucket, &of.id, parsed(&version)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/v1/conflicts/{version}`: its bytes are freed.
pub(super) async fn discard(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(version): Path<String>,
    Query(of): Query<Of>,
) -> Result<StatusCode, RestError> {
    let bucket = of.bucket.as_deref().unwrap_or(super::files::DEFAULT_BUCKET);
    state.objects.discard_conflict(&namespace, bucket, &of.id, parsed(&version)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parsed(version: &str) -> Result<VersionId> {
    version
        .parse()
        .map_err(|error| GatewayError::InvalidArgument(format!("{version:?} names no version: {error}")))
}

pub(super) async fn ledger(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Query(page): Query<Page>,
) -> Result<Json<LedgerPage>, RestError> {
    let (bucket, after) = (page.bucket.as_deref(), page.after.as_deref());
    Ok(Json(state.objects.ledger(&namespace, bucket, after, page.limit()?).await?))
}
