//! The keeper and the loops of a site, in an operator's pod.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use axum::Router;
use diptych_catalog::Catalog;
use diptych_core::ids::Epoch;
use diptych_core::lease::Event;
use diptych_operator::PodConfig;
use diptych_site::config::SiteConfig;
use diptych_site::context::SiteContext;
use diptych_site::drill::{CutSwitch, DrillDesk, Obey};
use diptych_site::fleet::Fleet;
use diptych_site::keeper::{Keeper, KeeperHandle, KeeperParts, election};
use diptych_site::keys::KeyProvider;
use diptych_site::loops::{self, Watched};
use diptych_site::outside::{self, Admission};
use diptych_wire::identity::{Expected, Role};
use diptych_wire::tls::Credentials;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::cluster_keys;
use crate::process::credentials;
use crate::process::hands::{Hands, Parts, Writers};
use crate::process::hint;
use crate::process::site::drills::{self, Drills};
use crate::process::site::following::Following;
use crate::process::site::peer::Links;
use crate::process::site::{OfKeeper, context, lease, mode, rest, seeds};

/// What an operator's process has, whichever keeper it runs.
pub(super) struct Process {
    /// Gateways ask the keeper there.
    pub(super) listener: TcpListener,
    /// Where the other operators find the keeper.
    pub(super) holder: String,
    /// What gateways ask of the API server, through the keeper.
    pub(super) of_api_server: Router,
}

/// Waits until this process speaks for the site, then does so until another does. What is configured anew meanwhile is in
/// force at once; whoever configures sees that the keeper may be kept.
pub(super) async fn run(
    process: &Process,
    mut configured: watch::Receiver<Option<PodConfig>>,
    catalog: &Arc<dyn Catalog>,
) -> Result<()> {
    let config = newest(&mut configured)?;
    let own = credentials(&config.site.identity)?;
    let number = election::elect(catalog.as_ref(), &process.holder, election::PATIENCE).await?;
    let cut = CutSwitch::default();
    let links = Links::new(&config.site, &own, &cut)?;
    let hands = Arc::new(Hands::default());
    let parts = KeeperParts {
        catalog: Arc::clone(catalog),
        config: Arc::new(lease(&config.site)),
        number,
        peer: links.as_ref().map(Links::to_keeper),
        witness: links.as_ref().map(Links::witness),
        hands: hands.clone(),
        cut: cut.clone(),
    };
    let (keeper, handle) = Keeper::begin(parts).await?;
    let fleet = Fleet::new(handle.clone(), cut.clone());
    let cluster_keys = cluster_keys(&config)?;
    let speaker = Speaker { process, own, catalog, links, hands, handle, fleet, cluster_keys, cut };
    tokio::select! {
        () = keeper.run() => anyhow::bail!("another keeper speaks for this site"),
        () = election::beat(catalog.as_ref(), number, &process.holder) => anyhow::bail!("another keeper was elected"),
        ended = Box::pin(speaker.work(config, configured)) => ended,
    }
}

fn newest(configured: &mut watch::Receiver<Option<PodConfig>>) -> Result<PodConfig> {
    configured.borrow_and_update().clone().context("nothing is configured")
}

/// What lives as long as the keeper.
struct Speaker<'a> {
    process: &'a Process,
    own: Credentials,
    catalog: &'a Arc<dyn Catalog>,
    links: Option<Links>,
    hands: Arc<Hands>,
    handle: KeeperHandle,
    fleet: Arc<Fleet>,
    cluster_keys: Arc<KeyProvider>,
    cut: CutSwitch,
}

impl Speaker<'_> {
    /// Runs the site's loops. With each configuration they begin anew, and the lease goes on.
    async fn work(
        &self,
        mut config: PodConfig,
        mut configured: watch::Receiver<Option<PodConfig>>,
    ) -> Result<()> {
        loop {
            let loops = self.prepare(&config.site).await?;
            let drills = loops.drills.as_ref().map(Drills::desk);
            config = tokio::select! {
                ended = loops.run(self) => return ended,
                next = self.next(&mut configured, drills.as_deref()) => next?,
            };
            tracing::info!(
                generation = config.site.generation,
                "the site's loops begin with a new configuration"
            );
        }
    }

    /// The next configuration. `failover.mode` holds at once; the rest does not cut short a drill that is under way.
    async fn next(
        &self,
        configured: &mut watch::Receiver<Option<PodConfig>>,
        drills: Option<&DrillDesk>,
    ) -> Result<PodConfig> {
        loop {
            configured.changed().await?;
            let config = newest(configured)?;
            self.handle.tell(Event::ModeDeclared(mode(&config.site)));
            let drill_is_over = async {
                if let Some(drills) = drills {
                    drills.idle().await;
                }
            };
            let mut newer = configured.clone();
            tokio::select! {
                () = drill_is_over => return Ok(config),
                _ = newer.changed() => {}
            }
        }
    }

    async fn prepare(&self, site: &SiteConfig) -> Result<Loops> {
        let witness = self.links.as_ref().map(Links::witness);
        let of_keeper = OfKeeper { handle: &self.handle, cut: self.cut.clone(), witness };
        let key = Arc::clone(&self.cluster_keys);
        let (context, nodes) = context(site, self.catalog, self.own.clone(), of_keeper, key).await?;
        let peer = self.links.as_ref().map(|links| &links.peer);
        let drills = Drills::new(site, peer, &context, &self.handle);
        let following = self.links.as_ref().map(|links| links.follow(&context, &self.handle, site.retired));
        if let Some(following) = &following {
            self.fleet.follows(following.followed());
        }
        self.hands.begin(Parts {
            writers: self.fleet.clone(),
            progress: following.as_ref().map(Following::progress),
            loss: following.as_ref().map(Following::loss_gate),
        });
        Ok(Loops { config: Arc::new(site.clone()), context, nodes, drills, following })
    }
}

/// What runs with one configuration.
struct Loops {
    config: Arc<SiteConfig>,
    context: Arc<SiteContext>,
    nodes: Watched,
    drills: Option<Drills>,
    following: Option<Following>,
}

impl Loops {
    /// Until one of them ends.
    async fn run(self, speaker: &Speaker<'_>) -> Result<()> {
        let Self { config, context, nodes, drills, following } = self;
        let handle = &speaker.handle;
        let obeys = Obey::new(Arc::clone(&context), handle.clone(), drills.as_ref().map(Drills::desk));
        let answers = rest::router(Arc::clone(&context), handle.clone())
            .merge(drills::router(drills.as_ref(), context.cut.clone()))
            .merge(obeys.router())
            .merge(hint::of_keeper(Arc::clone(&context.edge_hint) as _))
            .merge(outside::router(Admission::of(&context)));
        let first_start = seeds::tell_devices(handle.clone(), nodes.own.seen(), config.nodes.len());
        let catalog = Arc::clone(speaker.catalog);
        let seeding = seeds::sow(config, catalog, handle.clone(), Arc::clone(&speaker.cluster_keys));
        let progress = following.as_ref().map(Following::progress);
        let following = async {
            match following {
                Some(following) => following.run(Arc::clone(&speaker.hands.name)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = loops::run(context, nodes, progress) => Ok(()),
            ended = answer_gateways(speaker, answers) => ended,
            () = Drills::run(drills) => Ok(()),
            () = following => Ok(()),
            ended = seeding => ended,
            () = first_start => Ok(()),
        }
    }
}

/// Only gateways of this site may ask.
async fn answer_gateways(speaker: &Speaker<'_>, of_loops: Router) -> Result<()> {
    let identity = speaker.own.identity();
    let expected = Expected {
        cluster: identity.cluster,
        sites: vec![identity.site.clone()],
        roles: vec![Role::Gateway],
        name: None,
    };
    let process = speaker.process;
    let service = Arc::clone(&speaker.fleet).router().merge(of_loops).merge(process.of_api_server.clone());
    // The listener is the process's, the keeper comes and goes.
    let listener = TcpListener::from_std(std::net::TcpListener::from(duplicate(&process.listener)?))?;
    Ok(diptych_wire::http::serve(listener, &speaker.own, expected, service).await?)
}

fn duplicate(listener: &TcpListener) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    Ok(listener.as_fd().try_clone_to_owned()?)
}

#[async_trait]
impl Writers for Fleet {
    async fn hold(&self) {
        Self::hold(self).await;
    }

    fn release(&self) {
        Self::release(self);
    }

    async fn stop(&self, epoch: Epoch) {
        Self::stop(self, epoch).await;
    }
}
