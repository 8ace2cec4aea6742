//! The keeper and the loops of a site, in an operator's pod.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use diptych_catalog::Catalog;
use diptych_core::ids::Epoch;
use diptych_core::lease::LossDecision;
use diptych_core::records::Position;
use diptych_operator::PodConfig;
use diptych_site::agents::Agents;
use diptych_site::context::SiteContext;
use diptych_site::fleet::Fleet;
use diptych_site::keeper::{Keeper, KeeperHandle, KeeperParts, SiteHands, election};
use diptych_site::loops;
use diptych_site::nodes::NodeWatch;
use diptych_site::peer::cross;
use diptych_site::peer::exposure::{ExposureWatch, Progress};
use diptych_site::peer::follow::Follower;
use diptych_wire::identity::{Expected, Role};
use diptych_wire::tls::Credentials;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use super::cluster_key;
use crate::process::credentials;
use crate::process::record::CloudflareName;
use crate::process::site::peer::{Links, LossGate, keep_name};
use crate::process::site::{door, endpoint, lease, rest, seeds, standing};

/// A keeper that has not beaten for so long is replaced.
const PATIENCE: Duration = Duration::from_secs(4);

/// Waits until this process speaks for the site, then does so until another does.
pub(super) async fn run(
    config: &PodConfig,
    catalog: &Arc<dyn Catalog>,
    listener: &TcpListener,
    holder: &str,
) -> Result<()> {
    let own = credentials(&config.site.identity)?;
    let number = election::elect(catalog.as_ref(), holder, PATIENCE).await?;
    let links = Links::new(&config.site, &own)?;
    let hands = Arc::new(Hands::default());
    let site = &config.site;
    let parts = KeeperParts {
        catalog: Arc::clone(catalog),
        config: Arc::new(lease(site)),
        number,
        peer: links.as_ref().map(Links::to_keeper),
        witness: links.as_ref().map(Links::witness),
        hands: hands.clone(),
    };
    let (keeper, handle) = Keeper::begin(parts).await?;
    let fleet = Fleet::new(handle.clone());
    let (context, nodes) = context(config, catalog, &own, &handle).await?;
    let two = links.map(|links| TwoSites::new(links, &context, &handle, site.policy.max_loss_age_ms));
    if let Some(two) = &two {
        fleet.follows(two.follower.followed());
    }
    let progress = two.as_ref().map(|two| two.exposure.progress());
    hands.begin(Parts {
        fleet: Arc::clone(&fleet),
        progress: progress.clone(),
        loss: two.as_ref().map(TwoSites::loss_gate),
    });
    let first_start = seeds::tell_devices(handle.clone(), nodes.seen(), site.nodes.len());
    let seeding =
        seeds::sow(Arc::new(site.clone()), Arc::clone(catalog), handle.clone(), cluster_key(config)?);
    let name = Arc::clone(&hands.name);
    let two = async {
        match two {
            Some(two) => two.run(name).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = keeper.run() => anyhow::bail!("another keeper speaks for this site"),
        () = loops::run(Arc::clone(&context), nodes, progress) => Ok(()),
        () = election::beat(catalog.as_ref(), number, holder) => anyhow::bail!("another keeper was elected"),
        ended = answer_gateways(listener, &own, &context, &handle, fleet) => ended,
        () = two => Ok(()),
        ended = seeding => ended,
        () = first_start => Ok(()),
    }
}

async fn context(
    config: &PodConfig,
    catalog: &Arc<dyn Catalog>,
    own: &Credentials,
    handle: &KeeperHandle,
) -> Result<(Arc<SiteContext>, NodeWatch)> {
    let site = &config.site;
    let options = site.policy.loop_options(site.node_dead_after_s);
    let agents = Arc::new(Agents::new(site.site.clone(), own.clone()));
    let standing = standing(handle);
    let declared = site.nodes.iter().map(endpoint).collect();
    let nodes = NodeWatch::begin(
        Arc::clone(catalog),
        Arc::clone(&agents),
        declared,
        standing.clone(),
        options.node_dead_after,
    )
    .await?;
    let context = SiteContext {
        site: site.site.clone(),
        peer: site.peer.as_ref().map(|peer| peer.site.clone()),
        doors: site.peer.iter().map(door).collect(),
        catalog: Arc::clone(catalog),
        agents,
        standing,
        lease: handle.watch(),
        map: nodes.map(),
        options,
        name_trouble: watch::Sender::default(),
    };
    Ok((Arc::new(context), nodes))
}

/// Only gateways of this site may ask.
async fn answer_gateways(
    listener: &TcpListener,
    own: &Credentials,
    context: &Arc<SiteContext>,
    handle: &KeeperHandle,
    fleet: Arc<Fleet>,
) -> Result<()> {
    let identity = own.identity();
    let expected = Expected {
        cluster: identity.cluster,
        site: Some(identity.site.clone()),
        roles: vec![Role::Gateway],
        name: None,
    };
    let service = fleet.router().merge(rest::router(Arc::clone(context), handle.clone()));
    // The listener is the process's, the keeper comes and goes.
    let listener = TcpListener::from_std(std::net::TcpListener::from(duplicate(listener)?))?;
    Ok(diptych_wire::http::serve(listener, own, expected, service).await?)
}

fn duplicate(listener: &TcpListener) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    Ok(listener.as_fd().try_clone_to_owned()?)
}

/// The other site, seen from the keeper.
struct TwoSites {
    follower: Follower,
    exposure: ExposureWatch,
    name: Option<Arc<CloudflareName>>,
    context: Arc<SiteContext>,
    keeper: KeeperHandle,
    max_loss_age_ms: u64,
    wanted: Arc<Notify>,
    crossed: Arc<Notify>,
}

impl TwoSites {
    fn new(links: Links, context: &Arc<SiteContext>, keeper: &KeeperHandle, max_loss_age_ms: u64) -> Self {
        let (wanted, crossed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let from = links.config.site.clone();
        let follower = Follower::new(
            Arc::clone(context),
            from.clone(),
            links.peer.clone(),
            keeper.clone(),
            Arc::clone(&crossed),
            Arc::clone(&wanted),
        );
        Self {
            follower,
            exposure: ExposureWatch::new(Arc::clone(&context.catalog), from.clone()),
            name: links.name,
            context: Arc::clone(context),
            keeper: keeper.clone(),
            max_loss_age_ms,
            wanted,
            crossed,
        }
    }

    fn loss_gate(&self) -> LossGate {
        let (context, followed) = (Arc::clone(&self.context), self.follower.followed());
        LossGate { context, followed, max_age_ms: self.max_loss_age_ms }
    }

    async fn run(self, now: Arc<Notify>) {
        tokio::join!(
            self.follower.run(),
            self.exposure.run(),
            cross::run(Arc::clone(&self.context), self.wanted, self.crossed),
            keep_name(self.name, self.keeper, now, &self.context.name_trouble),
        );
    }
}

/// What the keeper asks of gateways that are processes of their own.
#[derive(Default)]
struct Hands {
    parts: OnceLock<Parts>,
    name: Arc<Notify>,
}

struct Parts {
    fleet: Arc<Fleet>,
    progress: Option<watch::Receiver<Progress>>,
    loss: Option<LossGate>,
}

impl Hands {
    fn begin(&self, parts: Parts) {
        let _ = self.parts.set(parts);
    }

    fn release(&self) {
        if let Some(parts) = self.parts.get() {
            parts.fleet.release();
        }
    }
}

#[async_trait]
impl SiteHands for Hands {
    async fn fence_peer(&self, epoch: Epoch) {
        tracing::info!(%epoch, "won");
        self.release();
        self.name.notify_one();
    }

    async fn loss_gate(&self) -> LossDecision {
        match self.parts.get().and_then(|parts| parts.loss.as_ref()) {
            Some(gate) => gate.decide().await,
            None => LossDecision::Allowed,
        }
    }

    async fn drain(&self, _epoch: Epoch) {
        if let Some(parts) = self.parts.get() {
            parts.fleet.hold().await;
        }
    }

    async fn undrain(&self, _epoch: Epoch) {
        self.release();
    }

    async fn peer_has(&self, position: Position) {
        let Some(mut progress) = self.parts.get().and_then(|parts| parts.progress.clone()) else { return };
        let reached = progress.wait_for(|progress| progress.confirms(position)).await.is_ok();
        if !reached {
            std::future::pending::<()>().await;
        }
    }

    async fn stop_gateways(&self, epoch: Epoch) {
        if let Some(parts) = self.parts.get() {
            parts.fleet.stop(epoch).await;
        }
        // What was held back is now routed to the site that takes over.
        self.release();
    }
}
