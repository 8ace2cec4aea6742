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
use diptych_core::lease::LossDecision;
use diptych_core::records::Position;
use diptych_gateway::extents::{Ciphertext, own_rows};
use diptych_gateway::{Forwarder, Front, PeerConfirmation, PeerRows};
use diptych_site::config::{Acknowledge, PeerConfig, SiteConfig, WitnessKind};
use diptych_site::context::{SiteContext, now_ms};
use diptych_site::door::{DoorParts, ExtentSource, router};
use diptych_site::keeper::witness::Witness;
use diptych_site::keeper::{KeeperHandle, PeerLink};
use diptych_site::name::{self, PublicName};
use diptych_site::peer::exposure::{ExposureWatch, Progress, peer_holds};
use diptych_site::peer::follow::{Followed, Follower};
use diptych_site::peer::{PeerClient, cross};
use diptych_site::witness::OutsideWitness;
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
use super::hands::Hands;
use crate::process::forward::{ByKeeper, ToActive};
use crate::process::record::{CloudflareName, RecordWitness};

/// The ways to the other site and the witness; open before anything runs.
pub(in crate::process) struct Links {
    pub(in crate::process) config: PeerConfig,
    pub(in crate::process) peer: PeerClient,
    witness: Arc<dyn Witness>,
    /// None where no name was declared.
    pub(in crate::process) name: Option<Arc<CloudflareName>>,
}

impl Links {
    /// None with one site.
    pub(in crate::process) fn new(config: &SiteConfig, own: &Credentials) -> Result<Option<Self>> {
        let Some(peer) = config.peer.clone() else { return Ok(None) };
        let name = public_name(config, &peer)?;
        let witness: Arc<dyn Witness> = match peer.witness {
            WitnessKind::Outside => {
                let address = peer.witness_address.context("an outside witness needs an address")?;
                Arc::new(OutsideWitness::new(address.to_string(), config.cluster, own)?)
            }
            WitnessKind::Record => {
                let name = name.as_ref().context("a witness that is a record needs a zone for it")?;
                Arc::new(RecordWitness::new(Arc::clone(name)))
            }
        };
        let client = PeerClient::new(peer.door.to_string(), &peer.site, config.cluster, own)?;
        Ok(Some(Self { config: peer, peer: client, witness, name }))
    }

    pub(in crate::process) fn to_keeper(&self) -> Arc<dyn PeerLink> {
        Arc::new(self.peer.clone())
    }

    pub(in crate::process) fn witness(&self) -> Arc<dyn Witness> {
        Arc::clone(&self.witness)
    }

    pub(super) async fn begin(
        self,
        config: &SiteConfig,
        own: &Credentials,
        context: &Arc<SiteContext>,
        keeper: &KeeperHandle,
        gateway: &GatewayCell,
        hands: &Hands,
    ) -> Result<TwoSites> {
        let (wanted, crossed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let from = self.config.site.clone();
        let follower = Follower::new(
            Arc::clone(context),
            from.clone(),
            self.peer.clone(),
            keeper.clone(),
            Arc::clone(&crossed),
            Arc::clone(&wanted),
        );
        let followed = follower.followed();
        let exposure = ExposureWatch::new(Arc::clone(&context.catalog), from.clone());
        let progress = exposure.progress();
        let gate = LossGate {
            context: Arc::clone(context),
            followed: followed.clone(),
            max_age_ms: config.policy.max_loss_age_ms,
        };
        let _ = hands.loss.set(gate);
        let door = router(DoorParts {
            peer: from.clone(),
            catalog: Arc::clone(&context.catalog),
            keeper: Arc::new(keeper.clone()),
            extents: Arc::new(Rows { gateway: Arc::clone(gateway) }),
        });
        let listener = listen(self.config.listen).await?;
        Ok(TwoSites {
            config: self.config,
            peer: self.peer,
            name: self.name,
            name_now: Arc::clone(&hands.name),
            follower,
            followed,
            exposure,
            progress,
            door: DoorService { router: door, gateway: Arc::clone(gateway), peer: from },
            listener,
            credentials: own.clone(),
            cluster: config.cluster,
            context: Arc::clone(context),
            keeper: keeper.clone(),
            wanted,
            crossed,
        })
    }
}

fn public_name(config: &SiteConfig, peer: &PeerConfig) -> Result<Option<Arc<CloudflareName>>> {
    if peer.hostname.is_empty() {
        return Ok(None);
    }
    let mut options = ClientOptions::new(peer.cloudflare_token.parse::<ApiToken>()?);
    if let Some(url) = &peer.cloudflare_api {
        options = options.base_url(url);
    }
    Ok(Some(Arc::new(CloudflareName::new(Client::new(options)?, config, peer))))
}

/// Keeps the public name, where there is one.
pub(in crate::process) async fn keep_name(
    name: Option<Arc<CloudflareName>>,
    keeper: KeeperHandle,
    now: Arc<Notify>,
    trouble: &watch::Sender<Option<String>>,
) {
    match name {
        Some(name) => name::run(name as Arc<dyn PublicName>, keeper, now, trouble).await,
        None => std::future::pending().await,
    }
}

/// Runs what two sites need; with one site there is nothing to run.
pub(super) async fn run(two_sites: Option<TwoSites>) -> Result<()> {
    match two_sites {
        Some(two_sites) => two_sites.run().await,
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
    name: Option<Arc<CloudflareName>>,
    name_now: Arc<Notify>,
    follower: Follower,
    followed: watch::Receiver<Followed>,
    exposure: ExposureWatch,
    progress: watch::Receiver<Progress>,
    door: DoorService,
    listener: TcpListener,
    credentials: Credentials,
    cluster: diptych_core::ids::ClusterId,
    context: Arc<SiteContext>,
    keeper: KeeperHandle,
    wanted: Arc<Notify>,
    crossed: Arc<Notify>,
}

impl TwoSites {
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// What a write waits for with `BothSites`.
    pub(super) fn confirmation(&self, config: &SiteConfig) -> Option<Arc<dyn PeerConfirmation>> {
        match config.acknowledge {
            Acknowledge::OneSite => None,
            Acknowledge::BothSites => Some(Arc::new(BothSites {
                catalog: Arc::clone(&self.context.catalog),
                peer: self.config.site.clone(),
                progress: self.progress.clone(),
                limit: Duration::from_millis(config.policy.acknowledge_timeout_ms),
            })),
        }
    }

    /// The other site's rows, for reads that too few are left for here.
    pub(super) fn rows(&self) -> Arc<dyn PeerRows> {
        Arc::new(RowsOfPeer { peer: self.peer.clone() })
    }

    /// Where requests under the public name go while this site is not active.
    pub(super) fn forwarder(&self, keeper: &KeeperHandle) -> Arc<dyn Forwarder> {
        let hosts = self.config.public_hosts.clone();
        let active = ByKeeper { keeper: keeper.clone(), followed: self.followed.clone() };
        Arc::new(ToActive::new(self.peer.clone(), Box::new(active), hosts))
    }

    pub(super) async fn run(self) -> Result<()> {
        let trouble = &self.context.name_trouble;
        let name = keep_name(self.name, self.keeper, self.name_now, trouble);
        let mut expected = Expected::any_of(self.cluster);
        expected.site = Some(self.config.site.clone());
        tokio::select! {
            ended = diptych_wire::http::serve(self.listener, &self.credentials, expected, self.door) => Ok(ended?),
            () = self.follower.run() => Ok(()),
            () = self.exposure.run() => Ok(()),
            () = cross::run(Arc::clone(&self.context), self.wanted, self.crossed) => Ok(()),
            () = name => Ok(()),
        }
    }
}

pub(in crate::process) struct BothSites {
    pub(in crate::process) catalog: Arc<dyn Catalog>,
    pub(in crate::process) peer: SiteName,
    pub(in crate::process) progress: watch::Receiver<Progress>,
    pub(in crate::process) limit: Duration,
}

#[async_trait]
impl PeerConfirmation for BothSites {
    async fn confirmed(&self, position: Position, extents: &[ExtentId]) -> bool {
        let mut progress = self.progress.clone();
        let held = peer_holds(self.catalog.as_ref(), &self.peer, &mut progress, position, extents);
        matches!(tokio::time::timeout(self.limit, held).await, Ok(Ok(())))
    }
}

/// `maxLossOnPromotion`: what this site was told of and lacks, by age, the lease's own silence not counted.
pub(in crate::process) struct LossGate {
    pub(in crate::process) context: Arc<SiteContext>,
    pub(in crate::process) followed: watch::Receiver<Followed>,
    pub(in crate::process) max_age_ms: u64,
}

impl LossGate {
    pub(in crate::process) async fn decide(&self) -> LossDecision {
        let followed = *self.followed.borrow();
        let heard_ms = now_ms().saturating_sub(followed.heard.elapsed().as_millis() as u64);
        let oldest =
            diptych_site::peer::oldest_wanted_ms(self.context.catalog.as_ref(), &self.context.site).await;
        let known = followed.position.is_some();
        let age = match oldest {
            Ok(oldest) => oldest.map_or(0, |since| heard_ms.saturating_sub(since)),
            Err(error) => {
                tracing::warn!(%error, "what would be lost is not known");
                return LossDecision::Denied;
            }
        };
        // A term that was not followed counts as unbounded.
        if known && age <= self.max_age_ms {
            return LossDecision::Allowed;
        }
        tracing::warn!(
            known,
            age_ms = age,
            "a promotion would lose more than is allowed: a person must say so"
        );
        LossDecision::Denied
    }
}

/// This site's rows, once the gateway runs.
pub(in crate::process) struct Rows {
    pub(in crate::process) gateway: GatewayCell,
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
pub(in crate::process) struct RowsOfPeer {
    pub(in crate::process) peer: PeerClient,
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
    pub(in crate::process) router: Router,
    pub(in crate::process) gateway: GatewayCell,
    pub(in crate::process) peer: SiteName,
}

impl DoorService {
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
