//! Drills of a site: what they work with, and REST for who asks for them.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use diptych_core::drill::DrillSpec;
use diptych_site::config::SiteConfig;
use diptych_site::context::SiteContext;
use diptych_site::drill::{CutSwitch, DrillDesk, DrillParts, DrillWork, Refused};
use diptych_site::keeper::KeeperHandle;
use diptych_site::peer::PeerClient;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rest::{refuse, unavailable};

/// A drill that somebody wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrillWish {
    /// Its name; one is made where there is none. To ask twice by one name begins one drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it shall do.
    #[serde(flatten)]
    pub spec: DrillSpec,
}

/// The drills of a site, before they run.
pub(in crate::process) struct Drills {
    work: DrillWork,
    parts: DrillParts,
}

impl Drills {
    /// None where there is no other site, or no public name that a prober could write through.
    pub(in crate::process) fn new(
        config: &SiteConfig,
        peer: Option<&PeerClient>,
        context: &Arc<SiteContext>,
        keeper: &KeeperHandle,
    ) -> Option<Self> {
        let endpoints = config.peer.as_ref()?.drills.clone()?;
        let parts = DrillParts {
            context: Arc::clone(context),
            keeper: keeper.clone(),
            peer: peer?.clone(),
            public: endpoints.public,
            own: endpoints.own,
            token: config.token.clone(),
        };
        Some(Self { work: DrillDesk::open(config.site.clone()), parts })
    }

    /// Runs them, for ever.
    pub(in crate::process) async fn run(drills: Option<Self>) {
        match drills {
            Some(Self { work, parts }) => work.run(parts).await,
            None => std::future::pending().await,
        }
    }

    /// Where they are asked for.
    pub(in crate::process) fn desk(&self) -> Arc<DrillDesk> {
        self.work.desk()
    }
}

#[derive(Clone)]
struct Desk {
    drills: Option<Arc<DrillDesk>>,
    cut: CutSwitch,
}

/// Bytes that the body of a wish may have.
const BODY_LIMIT: usize = 64 << 10;

/// Behind the same tokens as the files.
pub(in crate::process) fn router(drills: Option<&Drills>, cut: CutSwitch) -> Router {
    Router::new()
        .route("/api/v1/drill", get(show).post(begin))
        .route("/api/v1/drill/abort", post(abort))
        .route("/api/v1/drill/restore", post(restore))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Desk { drills: drills.map(Drills::desk), cut })
}

async fn begin(State(desk): State<Desk>, wish: Bytes) -> Response {
    let wish: DrillWish = match serde_json::from_slice(&wish) {
        Ok(wish) => wish,
        Err(error) => {
            return refuse(StatusCode::BAD_REQUEST, "InvalidDrill", format!("the body is no drill: {error}"));
        }
    };
    let Some(drills) = &desk.drills else {
        let message = "drills need two sites and a public name that both serve: declare them";
        return refuse(StatusCode::CONFLICT, "NoDrills", message);
    };
    let id = wish.id.unwrap_or_else(|| format!("drill-{}", hex::encode(rand::random::<[u8; 4]>())));
    match drills.begin(&id, wish.spec) {
        Ok(report) => (StatusCode::ACCEPTED, Json(report)).into_response(),
        Err(error @ (Refused::Invalid(_) | Refused::Name(_))) => {
            refuse(StatusCode::BAD_REQUEST, "InvalidDrill", error)
        }
        Err(error @ Refused::UnderWay(_)) => refuse(StatusCode::CONFLICT, "DrillUnderWay", error),
        Err(error @ (Refused::Beginning | Refused::Ending)) => unavailable(error),
    }
}

/// The newest drill that this site has run, or runs; null: none.
async fn show(State(desk): State<Desk>) -> Response {
    let report = desk.drills.and_then(|drills| drills.report().borrow().clone());
    Json(report).into_response()
}

async fn abort(State(desk): State<Desk>) -> Response {
    let aborted = desk.drills.is_some_and(|drills| drills.abort("a person ended it"));
    if aborted {
        return (StatusCode::ACCEPTED, Json(json!({"aborted": true}))).into_response();
    }
    refuse(StatusCode::CONFLICT, "NoDrillUnderWay", "this site runs no drill now: ask the one that runs it")
}

/// Ends the cut of this very site, whoever asked for it.
async fn restore(State(desk): State<Desk>) -> Response {
    let cut_off = desk.cut.is_cut();
    desk.cut.restore();
    Json(json!({"was_cut_off": cut_off})).into_response()
}
