//! `diptych gateway`: S3, REST and the peer door of a site, in a pod.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use diptych_catalog::Catalog;
use diptych_core::keys;
use diptych_gateway::agents::AgentDial;
use diptych_gateway::authority::Authority;
use diptych_gateway::rest::RestToken;
use diptych_gateway::{Dependencies, Forwarder, Gateway, GatewayOptions, Limits, PeerConfirmation, PeerRows};
use diptych_operator::PodConfig;
use diptych_site::config::Acknowledge;
use diptych_site::door::{DoorParts, router};
use diptych_site::peer::PeerClient;
use diptych_site::peer::exposure::ExposureWatch;
use diptych_wire::client::ClientOptions;
use diptych_wire::http::empty;
use diptych_wire::identity::Expected;
use diptych_wire::tls::Credentials;
use http::StatusCode;
use http_body_util::BodyExt;
use zeroize::Zeroizing;

use super::lent::{ByLent, Lent, ToKeeper, borrow, hand_on};
use super::{cluster_key, open_catalog};
use crate::dev::supervise::told_to_end;
use crate::files::read_json;
use crate::process::forward::ToActive;
use crate::process::site::peer::{BothSites, DoorService, Rows, RowsOfPeer, listen};
use crate::process::site::{GatewayCell, keyring};
use crate::process::{ConfigFile, credentials, log_as_json, public_tls};

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
    let cell = GatewayCell::default();
    tokio::select! {
        () = borrow(Arc::clone(&lent), Arc::clone(&keeper), Arc::clone(&cell)) => Ok(()),
        () = hand_on(messages, Arc::clone(&keeper)) => Ok(()),
        ended = fronts(config, &own, &catalog, &lent, &keeper, &cell) => ended,
    }
}

async fn fronts(
    config: &PodConfig,
    own: &Credentials,
    catalog: &Arc<dyn Catalog>,
    lent: &Arc<Lent>,
    keeper: &Arc<ToKeeper>,
    cell: &GatewayCell,
) -> Result<()> {
    let Some(peer) = &config.site.peer else {
        return front(config, own, catalog, lent, keeper, cell, Beside::default()).await;
    };
    let exposure = ExposureWatch::new(Arc::clone(catalog), peer.site.clone());
    let both: Option<Arc<dyn PeerConfirmation>> = match config.site.acknowledge {
        Acknowledge::OneSite => None,
        Acknowledge::BothSites => {
            let (catalog, progress) = (Arc::clone(catalog), exposure.progress());
            let limit = Duration::from_millis(config.site.policy.acknowledge_timeout_ms);
            Some(Arc::new(BothSites { catalog, peer: peer.site.clone(), progress, limit }))
        }
    };
    let client = PeerClient::new(peer.door.to_string(), &peer.site, config.site.cluster, own)?;
    let rows: Arc<dyn PeerRows> = Arc::new(RowsOfPeer { peer: client.clone() });
    let forwarder: Arc<dyn Forwarder> =
        Arc::new(ToActive::new(client, Box::new(ByLent(Arc::clone(lent))), peer.public_hosts.clone()));
    let parts = DoorParts {
        peer: peer.site.clone(),
        catalog: Arc::clone(catalog),
        keeper: Arc::clone(lent) as Arc<dyn diptych_site::door::DoorKeeper>,
        extents: Arc::new(Rows { gateway: Arc::clone(cell) }),
    };
    let door = DoorService { router: router(parts), gateway: Arc::clone(cell), peer: peer.site.clone() };
    let listener = listen(peer.listen).await?;
    let mut expected = Expected::any_of(config.site.cluster);
    expected.site = Some(peer.site.clone());
    let beside = Beside { both, rows: Some(rows), forwarder: Some(forwarder) };
    // Only what BothSites asks for needs the exposure here; the keeper shows it.
    let exposure = async {
        match config.site.acknowledge {
            Acknowledge::BothSites => exposure.run().await,
            Acknowledge::OneSite => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = diptych_wire::http::serve(listener, own, expected, door) => Ok(ended?),
        () = exposure => Ok(()),
        ended = front(config, own, catalog, lent, keeper, cell, beside) => ended,
    }
}

/// What a gateway has of the other site.
#[derive(Default)]
struct Beside {
    both: Option<Arc<dyn PeerConfirmation>>,
    rows: Option<Arc<dyn PeerRows>>,
    forwarder: Option<Arc<dyn Forwarder>>,
}

async fn front(
    config: &PodConfig,
    own: &Credentials,
    catalog: &Arc<dyn Catalog>,
    lent: &Arc<Lent>,
    keeper: &Arc<ToKeeper>,
    cell: &GatewayCell,
    beside: Beside,
) -> Result<()> {
    let site = &config.site;
    let given = Dependencies {
        site: site.site.clone(),
        catalog: Arc::clone(catalog),
        authority: Arc::clone(lent) as Arc<dyn Authority>,
        keyring: keyring(catalog.as_ref(), cluster_key(config)?.as_ref()).await?,
        cipher: Arc::new(diptych_gateway::cipher::AwsLcAesGcm),
        dial: AgentDial { credentials: own.clone(), options: ClientOptions::default() },
        survive: site.survive.into(),
        peer: beside.both,
        peer_rows: beside.rows,
    };
    let token = RestToken { token: Zeroizing::new(site.token.clone()), namespace: config.namespace.clone() };
    let options = GatewayOptions {
        s3: site.s3,
        rest: site.rest,
        tls: site.public_tls.as_ref().map(public_tls).transpose()?,
        tokens: vec![token],
        limits: Limits::default(),
        forwarder: beside.forwarder,
        more: Some(keepers(catalog, keeper)),
    };
    let gateway = Gateway::start(options, given).await?;
    let _ = cell.set(gateway);
    std::future::pending().await
}

#[derive(Clone)]
struct Keepers {
    catalog: Arc<dyn Catalog>,
    keeper: Arc<ToKeeper>,
}

/// What is the keeper's to answer: status from the catalog, the rest handed on.
fn keepers(catalog: &Arc<dyn Catalog>, keeper: &Arc<ToKeeper>) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/scrub", any(handed_on))
        .route("/api/v1/handover", any(handed_on))
        .route("/api/v1/promote", any(handed_on))
        .with_state(Keepers { catalog: Arc::clone(catalog), keeper: Arc::clone(keeper) })
}

fn failed(reason: impl std::fmt::Display) -> Response {
    let error = serde_json::json!({"error": {"code": "Unavailable", "message": reason.to_string()}});
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(error)).into_response()
}

async fn status(State(keepers): State<Keepers>) -> Response {
    let key = keys::site_status(keepers.catalog.site());
    let read = async { keepers.catalog.view().await?.get(&key) };
    match read.await {
        Ok(Some(json)) => ([(http::header::CONTENT_TYPE, "application/json")], json).into_response(),
        Ok(None) => failed("the keeper has written no status yet"),
        Err(error) => failed(error),
    }
}

async fn handed_on(State(keepers): State<Keepers>, request: Request) -> Response {
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let sent = keepers.keeper.send(request.method().clone(), &path, empty());
    match tokio::time::timeout(KEEPERS_LIMIT, sent).await {
        Ok(Ok(answer)) => {
            let (parts, body) = answer.into_parts();
            match body.collect().await {
                Ok(body) => (parts.status, parts.headers, body.to_bytes()).into_response(),
                Err(error) => failed(error),
            }
        }
        Ok(Err(error)) => failed(format!("{error:#}")),
        Err(_) => failed("the keeper took too long"),
    }
}
