//! `diptych site`: gateway, keeper, loops and catalog of a site in one process.

pub mod drills;
pub(super) mod following;
mod nodes;
pub(super) mod peer;
pub(super) mod rest;
pub(super) mod seeds;
mod writers;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use diptych_catalog::{Catalog, RedbCatalog, RedbOptions};
use diptych_core::lease::{Config as LeaseConfig, Millis, Mode, Timers};
use diptych_gateway::Gateway;
use diptych_site::agents::{Agents, NodeEndpoint};
use diptych_site::config::{PeerConfig, SiteConfig};
use diptych_site::context::{SiteContext, Standing};
use diptych_site::drill::{CutSwitch, Obey};
use diptych_site::keeper::witness::Witness;
use diptych_site::keeper::{Keeper, KeeperHandle, KeeperParts, election};
use diptych_site::keys::KeyProvider;
use diptych_site::loops::{self, Watched};
use diptych_site::nodes::NodeWatch;
use diptych_site::notify::Notifier;
use diptych_site::place::Outside;
use diptych_wire::agent::Door;
use diptych_wire::tls::Credentials;
use tokio::sync::watch;

use self::drills::Drills;
use self::following::Following;
use self::writers::OwnGateway;
use super::authority::KeeperAuthority;
use super::front::{self, Given, OfPeer};
use super::hands::{Hands, Parts};
use super::{ConfigFile, credentials, hint, log_as_json};
use crate::dev::supervise::told_to_end;
use crate::files::read_json;

/// The gateway, once it runs: the peer door is open before.
pub(super) type GatewayCell = Arc<OnceLock<Gateway>>;

/// Runs it until it is told to end.
pub async fn run(file: &ConfigFile) -> Result<()> {
    log_as_json();
    let config: SiteConfig = read_json(&file.config)?;
    tokio::select! {
        ended = serve(config) => ended,
        () = told_to_end() => Ok(()),
    }
}

async fn serve(config: SiteConfig) -> Result<()> {
    let config = Arc::new(config);
    let own = credentials(&config.identity)?;
    let cluster_keys = Arc::new(KeyProvider::read(&config.cluster_key)?);
    let catalog = open_catalog(&config)?;
    // The catalog's file lock shows that no other process speaks for the site.
    let holder = format!("pid {}", std::process::id());
    let number = election::elect(catalog.as_ref(), &holder, Duration::ZERO).await?;
    let gateway = GatewayCell::default();
    let cut = CutSwitch::default();
    let keepers_own = credentials(&config.keeper_identity)?;
    let links = peer::Links::new(&config, &keepers_own, &cut)?;
    let hands = Arc::new(Hands::default());
    let parts = KeeperParts {
        catalog: Arc::clone(&catalog),
        config: Arc::new(lease(&config)),
        number,
        peer: links.as_ref().map(peer::Links::to_keeper),
        witness: links.as_ref().map(peer::Links::witness),
        hands: hands.clone(),
        cut: cut.clone(),
    };
    let (keeper, handle) = Keeper::begin(parts).await?;
    let authority = Arc::new(KeeperAuthority::new(handle.clone()));
    let of_keeper = OfKeeper { handle: &handle, cut, witness: links.as_ref().map(peer::Links::witness) };
    let (context, nodes) =
        context(&config, &catalog, keepers_own, of_keeper, Arc::clone(&cluster_keys)).await?;
    let drills = Drills::new(&config, links.as_ref().map(|links| &links.peer), &context, &handle);
    let obeys = Obey::new(Arc::clone(&context), handle.clone(), drills.as_ref().map(Drills::desk));
    let two_sites = match links {
        Some(links) => Some(links.begin(&config, &own, obeys, &context, &handle, &gateway).await?),
        None => None,
    };
    let following = two_sites.as_ref().map(|two_sites| &two_sites.following);
    let progress = following.map(Following::progress);
    hands.begin(Parts {
        writers: Arc::new(OwnGateway::new(Arc::clone(&authority), Arc::clone(&gateway))),
        progress: progress.clone(),
        loss: following.map(Following::loss_gate),
    });

    let seen = nodes.own.seen();
    let first_start = seeds::tell_devices(handle.clone(), seen, config.nodes.len());
    let seeding =
        seeds::sow(Arc::clone(&config), Arc::clone(&catalog), handle.clone(), Arc::clone(&cluster_keys));
    let given = Given {
        authority,
        cluster_keys,
        namespace: seeds::NAMESPACE.to_owned(),
        reviews: None,
        peer: two_sites.as_ref().map_or_else(OfPeer::default, |two_sites| two_sites.given(&config, &handle)),
        more: rest::router(Arc::clone(&context), handle.clone())
            .merge(drills::router(drills.as_ref(), context.cut.clone()))
            .merge(nodes::router(Arc::clone(&context))),
        open: hint::public(config.peer.as_ref(), Arc::clone(&context.edge_hint) as _),
    };
    let front = front::open(&config, &own, &context.catalog, given, &gateway);
    tokio::select! {
        () = keeper.run() => anyhow::bail!("another keeper speaks for this site"),
        () = loops::run(Arc::clone(&context), nodes, progress) => Ok(()),
        () = election::beat(catalog.as_ref(), number, &holder) => anyhow::bail!("another keeper was elected"),
        () = Drills::run(drills) => Ok(()),
        ended = peer::run(two_sites, Arc::clone(&hands.name)) => ended,
        ended = seeding => ended,
        ended = front => ended,
        () = first_start => Ok(()),
    }
}

/// What the loops have of the keeper.
pub(super) struct OfKeeper<'a> {
    pub(super) handle: &'a KeeperHandle,
    pub(super) cut: CutSwitch,
    pub(super) witness: Option<Arc<dyn Witness>>,
}

/// What the loops of a site work with, and the watch over its nodes and those in neither site.
pub(super) async fn context(
    site: &SiteConfig,
    catalog: &Arc<dyn Catalog>,
    own: Credentials,
    OfKeeper { handle, cut, witness }: OfKeeper<'_>,
    cluster_keys: Arc<KeyProvider>,
) -> Result<(Arc<SiteContext>, Watched)> {
    let options = site.policy.loop_options(site.node_dead_after_s);
    let dead_after = options.node_dead_after;
    let agents = Arc::new(Agents::new(site.site.clone(), own.clone()));
    let standing = standing(handle);
    let declared = site.nodes.iter().map(endpoint).collect();
    let nodes = NodeWatch::begin(
        Arc::clone(catalog),
        Arc::clone(&agents),
        declared,
        standing.clone(),
        dead_after,
        site.survive.into(),
    )
    .await?;
    let config = site.outside.clone();
    let (outside, outside_nodes) =
        Outside::begin(Arc::clone(catalog), own, standing.clone(), dead_after, config).await?;
    let context = SiteContext {
        site: site.site.clone(),
        peer: site.peer.as_ref().map(|peer| peer.site.clone()),
        preferred: site.preferred.clone(),
        doors: site.peer.iter().flat_map(doors).collect(),
        catalog: Arc::clone(catalog),
        agents,
        standing,
        lease: handle.watch(),
        witness,
        map: nodes.map(),
        outside,
        generation: site.generation,
        options,
        followed: watch::Sender::default(),
        name: watch::Sender::default(),
        edge: watch::Sender::default(),
        edge_hint: Arc::default(),
        failback: watch::Sender::default(),
        policy: site.policy,
        acknowledge: site.acknowledge,
        cut,
        notifier: Notifier::to(site.webhook.clone()),
        survive: site.survive.into(),
        cluster_keys,
        journaled: watch::Sender::default(),
    };
    Ok((Arc::new(context), Watched { own: nodes, outside: outside_nodes }))
}

fn open_catalog(config: &SiteConfig) -> Result<Arc<dyn Catalog>> {
    if let Some(folder) = config.catalog.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(Arc::new(RedbCatalog::open(&config.catalog, config.site.clone(), &RedbOptions::default())?))
}

/// What the lease's state machine goes by.
pub(super) fn lease(config: &SiteConfig) -> LeaseConfig {
    LeaseConfig {
        own: config.site.clone(),
        peer: config.peer.as_ref().map(|peer| peer.site.clone()),
        preferred: config.preferred.clone(),
        mode: mode(config),
        timers: Timers::for_lease(Millis(config.policy.lease_ms)),
        seed: rand::random(),
    }
}

/// Whether a person is asked before this site takes over.
pub(super) fn mode(config: &SiteConfig) -> Mode {
    if config.policy.automatic { Mode::Automatic } else { Mode::Manual }
}

fn endpoint(node: &diptych_site::config::NodeConfig) -> NodeEndpoint {
    NodeEndpoint {
        name: node.name.clone(),
        address: node.address.to_string(),
        socket: node.socket.clone(),
        share: node.share.clone(),
    }
}

fn doors(peer: &PeerConfig) -> Vec<Door> {
    let door = |address: &SocketAddr| Door { address: address.to_string(), site: peer.site.clone() };
    peer.doors.iter().map(door).collect()
}

/// What the loops know of the lease.
fn standing(keeper: &KeeperHandle) -> watch::Receiver<Standing> {
    let of = |keeper: &KeeperHandle| {
        let state = keeper.state();
        Standing { active: state.serves.is_some(), epoch: state.epoch, keeper: state.keeper }
    };
    let (sender, receiver) = watch::channel(of(keeper));
    let keeper = keeper.clone();
    tokio::spawn(async move {
        let mut state = keeper.watch();
        while state.changed().await.is_ok() {
            let now = of(&keeper);
            sender.send_if_modified(|known| std::mem::replace(known, now) != now);
        }
    });
    receiver
}
