//! `POST /api/v1/verify`: reads an object, or some that are drawn at random, from this site's own rows alone.

use axum::Json;
use axum::extract::{Extension, Query, State};
use diptych_core::drill::Samples;
use serde::Deserialize;

use super::RestState;
use super::auth::Namespace;
use super::errors::RestError;
use crate::error::GatewayError;

/// Objects that are drawn at once, at most.
const MOST: usize = 10_000;

/// What is to be read: `?id=` of `?bucket=`, or `?objects=` at random.
#[derive(Debug, Default, Deserialize)]
pub(super) struct What {
    bucket: Option<String>,
    id: Option<String>,
    objects: Option<usize>,
}

pub(super) async fn verify(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Query(what): Query<What>,
) -> Result<Json<Samples>, RestError> {
    let wrong = |message: String| RestError(GatewayError::InvalidArgument(message));
    let samples = match (what.id, what.objects) {
        (Some(id), None) => {
            let bucket = what.bucket.as_deref().unwrap_or("files");
            state.objects.verify_object(&namespace, bucket, &id).await?
        }
        (None, Some(objects)) if (1..=MOST).contains(&objects) => {
            state.objects.verify_sample(objects).await?
        }
        (None, Some(objects)) => return Err(wrong(format!("objects is {objects}: 1 to {MOST} are allowed"))),
        (Some(_), Some(_)) | (None, None) => {
            return Err(wrong("say which object is meant by id, or how many by objects".to_owned()));
        }
    };
    Ok(Json(samples))
}
