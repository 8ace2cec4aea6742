//! `diptych gateway`: S3, REST and the peer door of a site, in a pod.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use diptych_catalog::Catalog;
use diptych_core::session::User;
use diptych_gateway::authority::Authority;
use diptych_gateway::rest::{Reviewer, Reviews};
use diptych_operator::PodConfig;
use diptych_operator::join::site::JOIN;
use diptych_site::config::Acknowledge;
use diptych_site::door::{DoorKeeper, Joins};
use diptych_site::drill::{CutSwitch, DrillOrders, OBEY};
use diptych_site::outside::{ADMIT, OutsideJoins, RENEW};
use diptych_site::peer::PeerClient;
use diptych_site::peer::exposure::ExposureWatch;
use diptych_wire::http::{HttpBody, full};
use diptych_wire::review::{Access, IDENTIFY, Question, REVIEW};
use diptych_wire::tls::Credentials;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lent::{ByLent, Lent, ToKeeper, borrow, hand_on};
use super::{cluster_keys, open_catalog};
use crate::dev::supervise::told_to_end;
use crate::files::read_json;
use crate::process::front::{self, Given, OfPeer};
use crate::process::hint::{self, Looks};
use crate::process::site::peer::{DoorService, listen, of_peer, serve_door};
use crate::process::site::{GatewayCell, rest};
use crate::process::{ConfigFile, credentials, log_as_json};

/// What is asked of the keeper is a few words.
const MAX_BODY: usize = 64 << 10;
/// A scrub of all devices takes its time.
const KEEPERS_LIMIT: Duration = Duration::from_mins(10);

/// Runs it until it is told to end.
pub async fn run(file: &ConfigFile) -> Result<()> {
    log_as_json();
    let config: PodConfig = read_json(&file.config)?;
    tokio::select! {
        ended = serve(&config) => ended,
        () = told_to_end() => Ok(()),
    }
}

async fn serve(config: &PodConfig) -> Result<()> {
    let own = credentials(&config.site.identity)?;
    let catalog = open_catalog(config).await?;
    let name = std::env::var("POD_NAME").unwrap_or_else(|_| format!("{:016x}", rand::random::<u64>()));
    let (lent, messages) = Lent::new(name);
    let keeper = Arc::new(ToKeeper::new(Arc::clone(&catalog), &own));
    let cut = lent.cut().clone();
    let pod = Pod { config, own, catalog, lent, keeper, cell: GatewayCell::default(), cut };
    tokio::select! {
        () = borrow(Arc::clone(&pod.lent), Arc::clone(&pod.keeper), Arc::clone(&pod.cell)) => Ok(()),
        () = hand_on(messages, Arc::clone(&pod.keeper)) => Ok(()),
        ended = pod.fronts() => ended,
    }
}

/// A gateway that is a process of its own.
struct Pod<'a> {
    config: &'a PodConfig,
    own: Credentials,
    catalog: Arc<dyn Catalog>,
    lent: Arc<Lent>,
    keeper: Arc<ToKeeper>,
    cell: GatewayCell,
    cut: CutSwitch,
}

impl Pod<'_> {
    /// S3, REST, and with two sites the peer door.
    async fn fronts(&self) -> Result<()> {
        let site = &self.config.site;
        let Some(peer) = &site.peer else { return self.front(OfPeer::default()).await };
        let exposure = ExposureWatch::new(Arc::clone(&self.catalog), peer.site.clone());
        let client = PeerClient::new(&peer.doors, &peer.site, site.cluster, &self.own, self.cut.clone())?;
        let active = Box::new(ByLent(Arc::clone(&self.lent)));
        let beside = of_peer(peer, site, &self.catalog, &client, active, || exposure.progress());
        let keeper = Arc::clone(&self.lent) as Arc<dyn DoorKeeper>;
        let by_keeper = Arc::new(ByKeeper(Arc::clone(&self.keeper)));
        let outside = Arc::clone(&by_keeper) as Arc<dyn OutsideJoins>;
        let joins = (Some(Arc::clone(&by_keeper) as Arc<dyn Joins>), outside);
        let drills = (by_keeper as Arc<dyn DrillOrders>, self.cut.clone());
        let parts = (Arc::clone(&self.catalog), cluster_keys(self.config)?);
        let door = DoorService::new(&peer.site, parts, keeper, &self.cell, joins, drills);
        let listener = listen(peer.listen).await?;
        // Only what BothSites asks for needs the exposure here; the keeper shows it.
        let exposure = async {
            match site.acknowledge {
                Acknowledge::BothSites => exposure.run().await,
                Acknowledge::OneSite => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = serve_door(listener, &self.own, &peer.site, door) => ended,
            () = exposure => Ok(()),
            ended = self.front(beside) => ended,
        }
    }

    async fn front(&self, peer: OfPeer) -> Result<()> {
        let given = Given {
            authority: Arc::clone(&self.lent) as Arc<dyn Authority>,
            cluster_keys: cluster_keys(self.config)?,
            namespace: self.config.namespace.clone(),
            reviews: Some(Reviews::new(
                Arc::new(ByKeeper(Arc::clone(&self.keeper))),
                self.config.namespace.clone(),
            )),
            peer,
            more: keepers(&self.catalog, &self.keeper),
            open: hint::public(self.config.site.peer.as_ref(), Arc::new(ByKeeper(Arc::clone(&self.keeper)))),
        };
        front::open(&self.config.site, &self.own, &self.catalog, given, &self.cell).await
    }
}

/// What is the keeper's to answer: status from the catalog, the rest handed on.
fn keepers(catalog: &Arc<dyn Catalog>, keeper: &Arc<ToKeeper>) -> Router {
    Router::new()
        .route("/api/v1/scrub", any(handed_on))
        .route("/api/v1/handover", any(handed_on))
        .route("/api/v1/promote", any(handed_on))
        .route("/api/v1/force-vote", any(handed_on))
        .route("/api/v1/keys/rotate", any(handed_on))
        .route("/api/v1/drill", any(handed_on))
        .route("/api/v1/drill/abort", any(handed_on))
        .route("/api/v1/drill/restore", any(handed_on))
        .with_state(Arc::clone(keeper))
        .merge(rest::status(Arc::clone(catalog)))
}

/// What takes a way to the API server is done by the keeper's process.
struct ByKeeper(Arc<ToKeeper>);

#[async_trait]
impl Joins for ByKeeper {
    async fn join(&self, token: &str, question: Bytes) -> Response {
        ask_keeper(&self.0, Method::POST, &format!("{JOIN}/{token}"), full(question)).await
    }
}

#[async_trait]
impl OutsideJoins for ByKeeper {
    async fn join_outside(&self, token: &str, question: Bytes) -> Response {
        ask_keeper(&self.0, Method::POST, &format!("{ADMIT}/{token}"), full(question)).await
    }

    async fn renew_outside(&self, node: &str, question: Bytes) -> Response {
        ask_keeper(&self.0, Method::POST, &format!("{RENEW}/{node}"), full(question)).await
    }
}

#[async_trait]
impl DrillOrders for ByKeeper {
    async fn order(&self, order: Bytes) -> Response {
        ask_keeper(&self.0, Method::POST, OBEY, full(order)).await
    }
}

#[async_trait]
impl Looks for ByKeeper {
    async fn look(&self) -> Response {
        ask_keeper(&self.0, Method::POST, hint::PATH, full(Bytes::new())).await
    }
}

#[async_trait]
impl Reviewer for ByKeeper {
    async fn identify(&self, token: &str) -> Result<Option<User>, String> {
        self.ask(IDENTIFY, &token).await
    }

    async fn allows(&self, user: &User, access: Access, namespace: &str) -> Result<bool, String> {
        let question = Question { user: user.clone(), access, namespace: namespace.to_owned() };
        self.ask(REVIEW, &question).await
    }
}

impl ByKeeper {
    async fn ask<T: DeserializeOwned>(&self, path: &str, question: &impl Serialize) -> Result<T, String> {
        let answer = self.0.call(path, question).await.map_err(|error| format!("{error:#}"))?;
        postcard::from_bytes(&answer).map_err(|error| format!("the keeper's answer can't be read: {error}"))
    }
}

async fn handed_on(State(keeper): State<Arc<ToKeeper>>, request: Request) -> Response {
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let method = request.method().clone();
    match axum::body::to_bytes(request.into_body(), MAX_BODY).await {
        Ok(body) => ask_keeper(&keeper, method, &path, full(body)).await,
        Err(error) => (StatusCode::BAD_REQUEST, format!("the body can't be read: {error}")).into_response(),
    }
}

async fn ask_keeper(keeper: &ToKeeper, method: Method, path: &str, body: HttpBody) -> Response {
    let sent = keeper.send(method, path, body);
    match tokio::time::timeout(KEEPERS_LIMIT, sent).await {
        Ok(Ok(answer)) => {
            let (parts, body) = answer.into_parts();
            match body.collect().await {
                Ok(body) => (parts.status, parts.headers, body.to_bytes()).into_response(),
                Err(error) => rest::unavailable(error),
            }
        }
        Ok(Err(error)) => rest::unavailable(format!("{error:#}")),
        Err(_) => rest::unavailable("the keeper took too long"),
    }
}
