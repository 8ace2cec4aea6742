//! What two sites need of each other, in one process: the door, the feed, crossing, the name, and the way to the site that
//! is active.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use diptych_catalog::Catalog;
use diptych_cloudflare::client::{ApiToken, Client, ClientOptions};
use diptych_core::ids::{ExtentId, SiteName};
use diptych_core::keys::Key;
use diptych_core::records::Position;
use diptych_gateway::extents::{Ciphertext, own_rows};
use diptych_gateway::{Front, PeerConfirmation, PeerRows};
use diptych_site::config::{Acknowledge, PeerConfig, SiteConfig, WitnessKind};
use diptych_site::context::SiteContext;
use diptych_site::door::{DoorKeeper, DoorParts, ExtentSource, Joins, router};
use diptych_site::drill::{CutSwitch, DrillOrders, Obey};
use diptych_site::keeper::witness::Witness;
use diptych_site::keeper::{KeeperHandle, PeerLink};
use diptych_site::keys::KeyProvider;
use diptych_site::outside::{Admission, OutsideJoins};
use diptych_site::peer::PeerClient;
use diptych_site::peer::exposure::{Progress, peer_has_head, peer_has_heads, peer_holds};
use diptych_site::witness::{ObjectStoreWitness, OutsideWitness};
use diptych_wire::http::HttpBody;
use diptych_wire::identity::{Expected, Identity, Role};
use diptych_wire::peer::{FORWARD, RowSpan, RowsWanted};
use diptych_wire::tls::Credentials;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use super::GatewayCell;
use super::following::Following;
use crate::process::checks::CloudflareChecks;
use crate::process::forward::{ByKeeper, ToActive, WhoIsActive};
use crate::process::front::OfPeer;
use crate::process::name::CloudflareName;
use crate::process::record::RecordWitness;

/// The ways to the other site and the witness; open before anything runs.
pub(in crate::process) struct Links {
    pub(in crate::process) config: PeerConfig,
    pub(in crate::process) peer: PeerClient,
    witness: Arc<dyn Witness>,
    /// None where no name was declared.
    name: Option<Arc<CloudflareName>>,
}

impl Links {
    /// The keeper's, `own` is its identity; None with one site. While `cut` is on nothing is asked of the other site.
    pub(in crate::process) fn new(
        config: &SiteConfig,
        own: &Credentials,
        cut: &CutSwitch,
    ) -> Result<Option<Self>> {
        let Some(peer) = config.peer.clone() else { return Ok(None) };
        let name = public_name(config, &peer)?;
        let witness: Arc<dyn Witness> = match peer.witness {
            WitnessKind::Outside => {
                let address = peer.witness_address.context("an outside witness needs an address")?;
                Arc::new(OutsideWitness::new(address.to_string(), config.cluster, own)?)
            }
            WitnessKind::ObjectStore => {
                let store = peer.witness_store.as_ref().context("a witness in a bucket needs the bucket")?;
                Arc::new(ObjectStoreWitness::new(store, config.cluster)?)
            }
            WitnessKind::Record => {
                let name = name.as_ref().context("a witness that is a record needs a zone for it")?;
                Arc::new(RecordWitness::new(Arc::clone(name)))
            }
        };
        let client = PeerClient::new(&peer.doors, &peer.site, config.cluster, own, cut.clone())?;
        Ok(Some(Self { config: peer, peer: client, witness, name }))
    }

    pub(in crate::process) fn to_keeper(&self) -> Arc<dyn PeerLink> {
        Arc::new(self.peer.clone())
    }

    /// What the keeper's process runs with them. Of a site that is `retired` nothing is kept at Cloudflare any more.
    pub(in crate::process) fn follow(
        &self,
        context: &Arc<SiteContext>,
        keeper: &KeeperHandle,
        retired: bool,
    ) -> Following {
        let name = self.name.clone().filter(|_| !retired);
        let checks = name.clone().map(|name| CloudflareChecks::new(name, &context.site, &self.config));
        Following::new(&self.config.site, self.peer.clone(), (name, checks), context, keeper)
    }

    pub(in crate::process) fn witness(&self) -> Arc<dyn Witness> {
        Arc::clone(&self.witness)
    }

    pub(super) async fn begin(
        self,
        config: &SiteConfig,
        own: &Credentials,
        obeys: Obey,
        context: &Arc<SiteContext>,
        keeper: &KeeperHandle,
        gateway: &GatewayCell,
    ) -> Result<TwoSites> {
        let from = self.config.site.clone();
        let cut = context.cut.clone();
        // What the gateway forwards it forwards as itself.
        let peer = PeerClient::new(&self.config.doors, &from, config.cluster, own, cut.clone())?;
        let obeys = Arc::new(obeys);
        let joins = (None, Arc::new(Admission::of(context)) as Arc<dyn OutsideJoins>);
        let parts = (Arc::clone(&context.catalog), Arc::clone(&context.cluster_keys));
        let door = DoorService::new(&from, parts, Arc::new(keeper.clone()), gateway, joins, (obeys, cut));
        let config = self.config.clone();
        let listener = listen(config.listen).await?;
        Ok(TwoSites {
            config,
            peer,
            following: self.follow(context, keeper, false),
            door,
            listener,
            credentials: own.clone(),
            catalog: Arc::clone(&context.catalog),
        })
    }
}

/// As configured; None where no name was declared.
pub(in crate::process) fn public_name(
    config: &SiteConfig,
    peer: &PeerConfig,
) -> Result<Option<Arc<CloudflareName>>> {
    if peer.hostname.is_empty() {
        return Ok(None);
    }
    let mut options = ClientOptions::new(peer.cloudflare_token.parse::<ApiToken>()?);
    if let Some(url) = &peer.cloudflare_api {
        options = options.base_url(url);
    }
    Ok(Some(Arc::new(CloudflareName::new(Client::new(options)?, config, peer))))
}

/// Runs what two sites need; with one site there is nothing to run. `now` wakes the loop that keeps the public name.
pub(super) async fn run(two_sites: Option<TwoSites>, now: Arc<Notify>) -> Result<()> {
    match two_sites {
        Some(two_sites) => Box::pin(two_sites.run(now)).await,
        None => std::future::pending().await,
    }
}

pub(in crate::process) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address} for the peer door"))
}

/// Everything that runs only with two sites.
pub(super) struct TwoSites {
    config: PeerConfig,
    peer: PeerClient,
    /// Feed, crossing, exposure and name.
    pub(super) following: Following,
    door: DoorService,
    listener: TcpListener,
    credentials: Credentials,
    catalog: Arc<dyn Catalog>,
}

impl TwoSites {
    /// What the gateway has of the other site.
    pub(super) fn given(&self, config: &SiteConfig, keeper: &KeeperHandle) -> OfPeer {
        let active = ByKeeper { keeper: keeper.clone(), followed: self.following.followed() };
        of_peer(&self.config, config, &self.catalog, &self.peer, Box::new(active), || {
            self.following.progress()
        })
    }

    async fn run(self, now: Arc<Notify>) -> Result<()> {
        tokio::select! {
            ended = serve_door(self.listener, &self.credentials, &self.config.site, self.door) => ended,
            () = self.following.run(now) => Ok(()),
        }
    }
}

/// Serves the peer door to processes of the other site, and to outside nodes that join.
pub(in crate::process) async fn serve_door(
    listener: TcpListener,
    own: &Credentials,
    peer: &SiteName,
    door: DoorService,
) -> Result<()> {
    let mut expected = Expected::any_of(own.identity().cluster);
    expected.sites = vec![peer.clone(), SiteName::outside()];
    Ok(diptych_wire::http::serve(listener, own, expected, door).await?)
}

/// What a gateway has of the other site, wherever its keeper is. `progress` is asked for where writes wait for it.
pub(in crate::process) fn of_peer(
    peer: &PeerConfig,
    config: &SiteConfig,
    catalog: &Arc<dyn Catalog>,
    client: &PeerClient,
    active: Box<dyn WhoIsActive>,
    progress: impl FnOnce() -> watch::Receiver<Progress>,
) -> OfPeer {
    let confirmation = match config.acknowledge {
        Acknowledge::OneSite => None,
        Acknowledge::BothSites => Some(Arc::new(BothSites {
            catalog: Arc::clone(catalog),
            peer: peer.site.clone(),
            progress: progress(),
            limit: Duration::from_millis(config.policy.acknowledge_timeout_ms),
        }) as Arc<dyn PeerConfirmation>),
    };
    OfPeer {
        confirmation,
        rows: Some(Arc::new(RowsOfPeer { peer: client.clone() })),
        forwarder: Some(Arc::new(ToActive::new(client.clone(), active, peer.public_hosts.clone()))),
    }
}

struct BothSites {
    catalog: Arc<dyn Catalog>,
    peer: SiteName,
    progress: watch::Receiver<Progress>,
    /// Where a bucket has none of its own.
    limit: Duration,
}

#[async_trait]
impl PeerConfirmation for BothSites {
    async fn confirmed(
        &self,
        position: Position,
        extents: &[ExtentId],
        within: Option<Duration>,
    ) -> Option<u8> {
        let mut progress = self.progress.clone();
        let held = peer_holds(self.catalog.as_ref(), &self.peer, &mut progress, position, extents);
        tokio::time::timeout(within.unwrap_or(self.limit), held).await.ok()?.ok()
    }

    async fn settled(
        &self,
        head: &Key,
        seen: Position,
        extents: &[ExtentId],
        within: Option<Duration>,
    ) -> bool {
        let mut progress = self.progress.clone();
        let held = peer_has_head(self.catalog.as_ref(), &self.peer, &mut progress, head, seen, extents);
        matches!(tokio::time::timeout(within.unwrap_or(self.limit), held).await, Ok(Ok(())))
    }

    async fn all_settled(&self, heads: &[Key], seen: Position, within: Option<Duration>) -> bool {
        let mut progress = self.progress.clone();
        let held = peer_has_heads(&mut progress, heads, seen);
        tokio::time::timeout(within.unwrap_or(self.limit), held).await.is_ok()
    }
}

/// This site's rows, once the gateway runs.
struct Rows {
    gateway: GatewayCell,
}

#[async_trait]
impl ExtentSource for Rows {
    async fn extent(&self, extent: ExtentId, range: Option<&str>) -> Response {
        let Some(gateway) = self.gateway.get() else {
            return (StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting").into_response();
        };
        let found = match Ciphertext::find(gateway.context(), extent).await {
            Ok(Some(found)) => found,
            Ok(None) => return (StatusCode::NOT_FOUND, "this site has none of it").into_response(),
            Err(error) => return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
        };
        let length = found.length();
        let start = range
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .unwrap_or(0);
        if start >= length {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let answer = Response::builder()
            .status(if start == 0 { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT })
            .header(http::header::CONTENT_LENGTH, length - start)
            .header(http::header::CONTENT_RANGE, format!("bytes {start}-{}/{length}", length - 1))
            .body(Body::from_stream(found.stream(start..length)));
        answer.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }

    async fn rows(&self, wanted: RowsWanted) -> Result<Vec<Result<Vec<u8>, String>>, String> {
        let gateway = self.gateway.get().ok_or_else(|| "the gateway is starting".to_owned())?;
        let read = own_rows(gateway.context(), wanted.extent, &wanted.spans).await;
        let read = read.map_err(|error| error.to_string())?;
        Ok(read.into_iter().map(|row| row.map(Vec::from)).collect())
    }
}

/// The other site's rows, through its door.
struct RowsOfPeer {
    peer: PeerClient,
}

#[async_trait]
impl PeerRows for RowsOfPeer {
    async fn read(
        &self,
        extent: ExtentId,
        spans: Vec<RowSpan>,
    ) -> Result<Vec<Result<Bytes, String>>, String> {
        let read = self.peer.rows(extent, spans).await.map_err(|error| error.to_string())?;
        Ok(read.into_iter().map(|row| row.map(Bytes::from)).collect())
    }
}

/// The door: forwarded requests go to the fronts as they came, all others to the router.
#[derive(Clone)]
pub(in crate::process) struct DoorService {
    router: Router,
    gateway: GatewayCell,
    peer: SiteName,
    cut: CutSwitch,
}

impl DoorService {
    /// For the processes of `peer`. `drills` takes orders of its drill also while the site is cut off.
    pub(in crate::process) fn new(
        peer: &SiteName,
        (catalog, cluster_keys): (Arc<dyn Catalog>, Arc<KeyProvider>),
        keeper: Arc<dyn DoorKeeper>,
        gateway: &GatewayCell,
        (joins, outside): (Option<Arc<dyn Joins>>, Arc<dyn OutsideJoins>),
        (drills, cut): (Arc<dyn DrillOrders>, CutSwitch),
    ) -> Self {
        let router = router(DoorParts {
            peer: peer.clone(),
            catalog,
            cluster_keys,
            keeper,
            extents: Arc::new(Rows { gateway: Arc::clone(gateway) }),
            joins,
            outside,
            drills,
            cut: cut.clone(),
        });
        Self { router, gateway: Arc::clone(gateway), peer: peer.clone(), cut }
    }

    async fn forwarded(self, front: Front, mut request: Request<Incoming>) -> http::Response<HttpBody> {
        let identity = request.extensions().get::<Identity>();
        let fine =
            identity.is_some_and(|identity| identity.site == self.peer && identity.role == Role::Gateway);
        let plain = |status: StatusCode, text: &'static str| {
            let mut answer = http::Response::new(diptych_wire::http::full(text));
            *answer.status_mut() = status;
            answer
        };
        if !fine {
            return plain(StatusCode::FORBIDDEN, "only a gateway of the other site may forward");
        }
        if self.cut.is_cut() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "a drill has cut this site off");
        }
        request.headers_mut().remove(FORWARD);
        match self.gateway.get() {
            Some(gateway) => gateway.answer(front, request).await,
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting"),
        }
    }
}

impl tower::Service<Request<Incoming>> for DoorService {
    type Response = http::Response<HttpBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let front =
                request.headers().get(FORWARD).map(|front| front.as_bytes() == Front::S3.as_str().as_bytes());
            if let Some(s3) = front {
                return Ok(door.forwarded(if s3 { Front::S3 } else { Front::Rest }, request).await);
            }
            let answer = tower::ServiceExt::oneshot(door.router, request).await?;
            Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}
