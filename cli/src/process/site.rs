//! `diptych site`: gateway, keeper, loops and catalog of a site in one process.

pub(super) mod following;
pub(super) mod peer;
pub(super) mod rest;
pub(super) mod seeds;
mod writers;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use diptych_catalog::{Catalog, RedbCatalog, RedbOptions};
use diptych_core::keyring::ClusterKey;
use diptych_core::lease::{Config as LeaseConfig, Millis, Mode, Timers};
use diptych_gateway::Gateway;
use diptych_site::agents::{Agents, NodeEndpoint};
use diptych_site::config::{PeerConfig, SiteConfig};
use diptych_site::context::{SiteContext, Standing};
use diptych_site::keeper::{Keeper, KeeperHandle, KeeperParts, election};
use diptych_site::loops;
use diptych_site::nodes::NodeWatch;
use diptych_wire::agent::Door;
use tokio::sync::watch;

use self::following::Following;
use self::writers::OwnGateway;
use super::authority::KeeperAuthority;
use super::front::{self, Given, OfPeer};
use super::hands::{Hands, Parts};
use super::{ConfigFile, credentials, log_as_json};
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
    let text = std::fs::read_to_string(&config.cluster_key)
        .with_context(|| format!("the cluster key {} can't be read", config.cluster_key.display()))?;
    let cluster_key = Arc::new(ClusterKey::parse(&text)?);
    let catalog = open_catalog(&config)?;
    // The catalog's file lock shows that no other process speaks for the site.
    let holder = format!("pid {}", std::process::id());
    let number = election::elect(catalog.as_ref(), &holder, Duration::ZERO).await?;
    let gateway = GatewayCell::default();
    let links = peer::Links::new(&config, &own)?;
    let hands = Arc::new(Hands::default());
    let parts = KeeperParts {
        catalog: Arc::clone(&catalog),
        config: Arc::new(lease(&config)),
        number,
        peer: links.as_ref().map(peer::Links::to_keeper),
        witness: links.as_ref().map(peer::Links::witness),
        hands: hands.clone(),
    };
    let (keeper, handle) = Keeper::begin(parts).await?;
    let authority = Arc::new(KeeperAuthority::new(handle.clone()));
    let standing = standing(&handle);
    let agents = Arc::new(Agents::new(config.site.clone(), credentials(&config.keeper_identity)?));
    let nodes = NodeWatch::begin(
        Arc::clone(&catalog),
        Arc::clone(&agents),
        config.nodes.iter().map(endpoint).collect(),
        standing.clone(),
        Duration::from_secs(u64::from(config.node_dead_after_s)),
    )
    .await?;
    let context = Arc::new(SiteContext {
        site: config.site.clone(),
        peer: config.peer.as_ref().map(|peer| peer.site.clone()),
        doors: config.peer.iter().flat_map(doors).collect(),
        catalog: Arc::clone(&catalog),
        agents,
        standing,
        lease: handle.watch(),
        map: nodes.map(),
        options: config.policy.loop_options(config.node_dead_after_s),
        name_trouble: watch::Sender::default(),
    });
    let two_sites = match links {
        Some(links) => Some(links.begin(&config, &own, &context, &handle, &gateway).await?),
        None => None,
    };
    let following = two_sites.as_ref().map(|two_sites| &two_sites.following);
    let progress = following.map(Following::progress);
    hands.begin(Parts {
        writers: Arc::new(OwnGateway::new(Arc::clone(&authority), Arc::clone(&gateway))),
        progress: progress.clone(),
        loss: following.map(Following::loss_gate),
    });

    let seen = nodes.seen();
    let first_start = seeds::tell_devices(handle.clone(), seen, config.nodes.len());
    let seeding =
        seeds::sow(Arc::clone(&config), Arc::clone(&catalog), handle.clone(), Arc::clone(&cluster_key));
    let given = Given {
        authority,
        cluster_key,
        namespace: seeds::NAMESPACE.to_owned(),
        reviews: None,
        peer: two_sites.as_ref().map_or_else(OfPeer::default, |two_sites| two_sites.given(&config, &handle)),
        more: rest::router(Arc::clone(&context), handle.clone()),
    };
    let front = front::open(&config, &own, &context.catalog, given, &gateway);
    tokio::select! {
        () = keeper.run() => anyhow::bail!("another keeper speaks for this site"),
        () = loops::run(Arc::clone(&context), nodes, progress) => Ok(()),
        () = election::beat(catalog.as_ref(), number, &holder) => anyhow::bail!("another keeper was elected"),
        ended = peer::run(two_sites, Arc::clone(&hands.name)) => ended,
        ended = seeding => ended,
        ended = front => ended,
        () = first_start => Ok(()),
    }
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
        mode: if config.policy.automatic { Mode::Automatic } else { Mode::Manual },
        timers: Timers::for_lease(Millis(config.policy.lease_ms)),
        seed: rand::random(),
    }
}

pub(super) fn endpoint(node: &diptych_site::config::NodeConfig) -> NodeEndpoint {
    NodeEndpoint { name: node.name.clone(), address: node.address.to_string(), socket: node.socket.clone() }
}

pub(super) fn doors(peer: &PeerConfig) -> Vec<Door> {
    let door = |address: &SocketAddr| Door { address: address.to_string(), site: peer.site.clone() };
    peer.doors.iter().map(door).collect()
}

/// What the loops know of the lease.
pub(super) fn standing(keeper: &KeeperHandle) -> watch::Receiver<Standing> {
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
