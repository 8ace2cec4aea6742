//! What the keeper adds to REST: status, scrub, and what a person asks of the lease.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use diptych_catalog::Catalog;
use diptych_core::keys;
use diptych_core::lease::Command;
use diptych_site::context::SiteContext;
use diptych_site::keeper::KeeperHandle;
use http::StatusCode;
use serde_json::json;

/// All of a site's devices, read from one end to the other.
const SCRUB_LIMIT: Duration = Duration::from_mins(10);

#[derive(Clone)]
struct Keeper {
    context: Arc<SiteContext>,
    handle: KeeperHandle,
}

/// Behind the same tokens as the files.
pub(in crate::process) fn router(context: Arc<SiteContext>, handle: KeeperHandle) -> Router {
    let status = status(Arc::clone(&context.catalog));
    Router::new()
        .route("/api/v1/scrub", post(scrub))
        .route("/api/v1/handover", post(handover))
        .route("/api/v1/promote", post(promote))
        .with_state(Keeper { context, handle })
        .merge(status)
}

/// What the keeper last wrote of its site; every process with the catalog can say it.
pub(in crate::process) fn status(catalog: Arc<dyn Catalog>) -> Router {
    Router::new().route("/api/v1/status", get(last_written)).with_state(catalog)
}

/// Nothing was done, and it can be tried again.
pub(in crate::process) fn unavailable(reason: impl std::fmt::Display) -> Response {
    let error = json!({"error": {"code": "Unavailable", "message": reason.to_string()}});
    (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response()
}

async fn last_written(State(catalog): State<Arc<dyn Catalog>>) -> Response {
    let key = keys::site_status(catalog.site());
    let read = async { catalog.view().await?.get(&key) };
    match read.await {
        Ok(Some(json)) => ([(http::header::CONTENT_TYPE, "application/json")], json).into_response(),
        Ok(None) => unavailable("the keeper has written no status yet"),
        Err(error) => unavailable(error),
    }
}

async fn scrub(State(keeper): State<Keeper>) -> Response {
    let map = keeper.context.map();
    let scrubs = map.nodes.iter().map(|node| {
        let agent = keeper.context.agents.of_node(&node.name);
        async move {
            match agent {
                Ok(agent) => agent.scrub(None, true, SCRUB_LIMIT).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
    });
    let outcomes = futures::future::join_all(scrubs).await;
    let nodes: serde_json::Map<_, _> = map
        .nodes
        .iter()
        .zip(outcomes)
        .map(|(node, outcome)| {
            (node.name.to_string(), outcome.err().map_or(json!("done"), |error| json!(error)))
        })
        .collect();
    Json(nodes).into_response()
}

async fn handover(State(keeper): State<Keeper>) -> Response {
    keeper.handle.command(Command::Handover);
    Json(keeper.handle.view()).into_response()
}

/// What a person says about loss.
#[derive(serde::Deserialize)]
struct Promotion {
    /// Whether what this site lacks is given up; if not, `maxLossOnPromotion` holds.
    #[serde(default = "yes")]
    accept_loss: bool,
}

const fn yes() -> bool {
    true
}

async fn promote(State(keeper): State<Keeper>, Query(promotion): Query<Promotion>) -> Response {
    let command = if promotion.accept_loss { Command::PromoteAcceptLoss } else { Command::Promote };
    keeper.handle.command(command);
    Json(keeper.handle.view()).into_response()
}
