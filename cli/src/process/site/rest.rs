//! What the keeper adds to REST: status, scrub, and what a person asks of the lease.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use diptych_catalog::Catalog;
use diptych_core::ids::Epoch;
use diptych_core::keys as catalog_keys;
use diptych_core::lease::{Command, Millis, Timers};
use diptych_site::context::SiteContext;
use diptych_site::error::SiteError;
use diptych_site::keeper::{KeeperHandle, ask};
use diptych_site::lost::lacking::lacking;
use diptych_site::place::Place;
use diptych_site::{keys, lost};
use http::StatusCode;
use serde_json::json;

/// All of a site's devices, read from one end to the other.
const SCRUB_LIMIT: Duration = Duration::from_mins(10);
/// Objects of a page, if nothing is asked, and at most.
const EXPOSED_PAGE: usize = 100;
const EXPOSED_MOST: usize = 1_000;

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
        .route("/api/v1/promote", post(promote).delete(take_back))
        .route("/api/v1/force-vote", post(force_vote))
        .route("/api/v1/keys/rotate", post(rotate_ring_key))
        .with_state(Keeper { context, handle })
        .merge(status)
}

/// What the keeper last wrote of its site, and what a promotion of it would lose; every process with the catalog can say both.
pub(in crate::process) fn status(catalog: Arc<dyn Catalog>) -> Router {
    Router::new()
        .route("/api/v1/status", get(last_written))
        .route("/api/v1/exposed", get(exposed))
        .with_state(catalog)
}

/// Nothing was done, and it can be tried again.
pub(in crate::process) fn unavailable(reason: impl std::fmt::Display) -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", reason)
}

/// Nothing was done: a word for programs, and a sentence for people.
pub(super) fn refuse(status: StatusCode, code: &str, message: impl std::fmt::Display) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message.to_string()}}))).into_response()
}

async fn last_written(State(catalog): State<Arc<dyn Catalog>>) -> Response {
    let key = catalog_keys::site_status(catalog.site());
    let read = async { catalog.view().await?.get(&key) };
    match read.await {
        Ok(Some(json)) => ([(http::header::CONTENT_TYPE, "application/json")], json).into_response(),
        Ok(None) => unavailable("the keeper has written no status yet"),
        Err(error) => unavailable(error),
    }
}

/// Which part of a list.
#[derive(serde::Deserialize)]
struct Part {
    /// Objects, at most.
    limit: Option<usize>,
    /// As `next` of the last page said.
    after: Option<String>,
}

/// The objects of which this site was told, and whose bytes it lacks.
async fn exposed(State(catalog): State<Arc<dyn Catalog>>, Query(part): Query<Part>) -> Response {
    let limit = part.limit.unwrap_or(EXPOSED_PAGE);
    if !(1..=EXPOSED_MOST).contains(&limit) {
        let message = format!("limit is {limit}: 1 to {EXPOSED_MOST} are allowed");
        return refuse(StatusCode::BAD_REQUEST, "InvalidArgument", message);
    }
    let read = async {
        let view = catalog.view().await?;
        lacking(view.as_ref(), catalog.site(), part.after.as_deref(), limit)
    };
    match read.await {
        Ok(page) => Json(page).into_response(),
        Err(error) => unavailable(error),
    }
}

/// Of this site's nodes and, while it is active, of those outside.
async fn scrub(State(keeper): State<Keeper>) -> Response {
    let places: Vec<Place> = keeper.context.places().collect();
    let nodes: Vec<_> =
        places.iter().flat_map(|place| place.map.nodes.iter().map(move |node| (place, node))).collect();
    let scrubs = nodes.iter().map(|(place, node)| {
        let agent = place.agents.of_node(&node.name);
        async move {
            match agent {
                Ok(agent) => agent.scrub(None, true, SCRUB_LIMIT).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
    });
    let outcomes = futures::future::join_all(scrubs).await;
    let nodes: serde_json::Map<_, _> = nodes
        .iter()
        .zip(outcomes)
        .map(|((_, node), outcome)| {
            (node.name.to_string(), outcome.err().map_or(json!("done"), |error| json!(error)))
        })
        .collect();
    Json(nodes).into_response()
}

async fn handover(State(keeper): State<Keeper>) -> Response {
    keeper.handle.command(Command::Handover);
    Json(keeper.handle.view()).into_response()
}

/// What a person says of a takeover.
#[derive(serde::Deserialize)]
struct Promotion {
    /// Whether what this site lacks is given up; if not, `maxLossOnPromotion` holds.
    #[serde(default)]
    accept_loss: bool,
    /// For how long it counts; if left out, and at most, ten minutes.
    seconds: Option<u64>,
}

async fn promote(State(keeper): State<Keeper>, Query(promotion): Query<Promotion>) -> Response {
    let lasts =
        promotion.seconds.map_or(Timers::LONGEST_APPROVAL, |seconds| Millis(seconds.saturating_mul(1_000)));
    // For the ledger; it says so only of a takeover that follows.
    if promotion.accept_loss
        && let Err(error) = lost::accept(keeper.context.catalog.as_ref()).await
    {
        return unavailable(error);
    }
    match keeper.handle.promote(promotion.accept_loss, lasts) {
        Ok(()) => Json(keeper.handle.view()).into_response(),
        Err(refused) => refuse(StatusCode::CONFLICT, refused.reason, refused),
    }
}

async fn take_back(State(keeper): State<Keeper>) -> Response {
    keeper.handle.command(Command::CancelPromotion);
    Json(keeper.handle.view()).into_response()
}

/// Another ring key, before the last one is thirty days old.
async fn rotate_ring_key(State(keeper): State<Keeper>) -> Response {
    match keys::prepare(&keeper.context).await {
        Ok(new) => Json(json!({"new": new})).into_response(),
        Err(error @ SiteError::NotYet(_)) => refuse(StatusCode::CONFLICT, "NotActive", error),
        Err(error) => unavailable(error),
    }
}

/// What a person vouches for where a site has lost the record of its vote.
#[derive(serde::Deserialize)]
struct Force {
    /// That the other site serves nothing, and won't before this one has spoken to it.
    #[serde(default)]
    other_site_serves_nothing: bool,
    /// An epoch above which the site shall go on, where that is higher than what it finds by itself.
    #[serde(default)]
    above: u64,
}

async fn force_vote(State(keeper): State<Keeper>, Query(force): Query<Force>) -> Response {
    if !force.other_site_serves_nothing {
        return refuse(
            StatusCode::CONFLICT,
            "NotVouchedFor",
            "two sites could write under one epoch: see that the other site serves nothing, then say other_site_serves_nothing=true",
        );
    }
    let above = match ask::highest_epoch(&keeper.context).await {
        Ok(known) => known.max(Epoch(force.above)),
        Err(error) => return unavailable(error),
    };
    match keeper.handle.force_vote(above) {
        Ok(()) => Json(json!({"above": above})).into_response(),
        Err(refused) => refuse(StatusCode::CONFLICT, refused.reason, refused),
    }
}
