//! `diptych site`: gateway, keeper, loops and catalog of a site in one process.

mod hands;
pub(super) mod peer;
pub(super) mod rest;
pub(super) mod seeds;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use diptych_catalog::{Catalog, RedbCatalog, RedbOptions};
use diptych_core::keyring::{ClusterKey, Keyring};
use diptych_core::keys;
use diptych_core::lease::{Config as LeaseConfig, Millis, Mode, Timers};
use diptych_gateway::agents::AgentDial;
use diptych_gateway::authority::Authority;
use diptych_gateway::rest::RestToken;
use diptych_gateway::{Dependencies, Forwarder, Gateway, GatewayOptions, Limits, PeerConfirmation, PeerRows};
use diptych_site::agents::{Agents, NodeEndpoint};
use diptych_site::config::{PeerConfig, SiteConfig};
use diptych_site::context::{SiteContext, Standing};
use diptych_site::keeper::{Keeper, KeeperHandle, KeeperParts, election};
use diptych_site::loops;
use diptych_site::nodes::NodeWatch;
use diptych_wire::agent::Door;
use diptych_wire::client::ClientOptions;
use diptych_wire::tls::Credentials;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::authority::KeeperAuthority;
use super::{ConfigFile, credentials, log_as_json};
use crate::dev::supervise::told_to_end;
use crate::files::read_json;
use hands::Hands;

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
    if let Some(folder) = config.catalog.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let catalog = RedbCatalog::open(&config.catalog, config.site.clone(), &RedbOptions::default())?;
    let catalog: Arc<dyn Catalog> = Arc::new(catalog);

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
        doors: config.peer.iter().map(door).collect(),
        catalog: Arc::clone(&catalog),
        agents,
        standing,
        lease: handle.watch(),
        map: nodes.map(),
        options: config.policy.loop_options(config.node_dead_after_s),
        name_trouble: watch::Sender::default(),
    });
    let two_sites = match links {
        Some(links) => Some(links.begin(&config, &own, &context, &handle, &gateway, &hands).await?),
        None => None,
    };
    let progress = two_sites.as_ref().map(peer::TwoSites::progress);
    hands.begin(Arc::clone(&authority), Arc::clone(&gateway), progress.clone());

    let seen = nodes.seen();
    let first_start = seeds::tell_devices(handle.clone(), seen, config.nodes.len());
    let seeding =
        seeds::sow(Arc::clone(&config), Arc::clone(&catalog), handle.clone(), Arc::clone(&cluster_key));
    let given = GivenToGateway {
        authority,
        cluster_key,
        confirmation: two_sites.as_ref().and_then(|two_sites| two_sites.confirmation(&config)),
        peer_rows: two_sites.as_ref().map(peer::TwoSites::rows),
        forwarder: two_sites.as_ref().map(|two_sites| two_sites.forwarder(&handle)),
    };
    let front = open_front(&config, &own, &context, &handle, given, &gateway);
    tokio::select! {
        () = keeper.run() => anyhow::bail!("another keeper speaks for this site"),
        () = loops::run(Arc::clone(&context), nodes, progress) => Ok(()),
        () = election::beat(catalog.as_ref(), number, &holder) => anyhow::bail!("another keeper was elected"),
        ended = peer::run(two_sites) => ended,
        ended = seeding => ended,
        ended = front => ended,
        () = first_start => Ok(()),
    }
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

pub(super) fn door(peer: &PeerConfig) -> Door {
    Door { address: peer.door.to_string(), site: peer.site.clone() }
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

/// What the gateway has from the rest of the process.
struct GivenToGateway {
    authority: Arc<KeeperAuthority>,
    cluster_key: Arc<ClusterKey>,
    confirmation: Option<Arc<dyn PeerConfirmation>>,
    peer_rows: Option<Arc<dyn PeerRows>>,
    forwarder: Option<Arc<dyn Forwarder>>,
}

/// Opens S3 and REST as soon as the keyring is here, and goes on.
async fn open_front(
    config: &SiteConfig,
    own: &Credentials,
    context: &Arc<SiteContext>,
    keeper: &KeeperHandle,
    parts: GivenToGateway,
    cell: &GatewayCell,
) -> Result<()> {
    let keyring = keyring(context.catalog.as_ref(), &parts.cluster_key).await?;
    let given = Dependencies {
        site: config.site.clone(),
        catalog: Arc::clone(&context.catalog),
        authority: parts.authority as Arc<dyn Authority>,
        keyring,
        cipher: Arc::new(diptych_gateway::cipher::AwsLcAesGcm),
        dial: AgentDial { credentials: own.clone(), options: ClientOptions::default() },
        survive: config.survive.into(),
        peer: parts.confirmation,
        peer_rows: parts.peer_rows,
    };
    let token =
        RestToken { token: Zeroizing::new(config.token.clone()), namespace: seeds::NAMESPACE.to_owned() };
    let options = GatewayOptions {
        s3: config.s3,
        rest: config.rest,
        tls: config.public_tls.as_ref().map(super::public_tls).transpose()?,
        tokens: vec![token],
        limits: Limits::default(),
        forwarder: parts.forwarder,
        more: Some(rest::router(Arc::clone(context), keeper.clone())),
    };
    let gateway = Gateway::start(options, given).await?;
    let _ = cell.set(gateway);
    std::future::pending().await
}

/// Waits until the catalog has a keyring. One that the cluster key does not open ends the process.
pub(super) async fn keyring(catalog: &dyn Catalog, cluster_key: &ClusterKey) -> Result<Keyring> {
    loop {
        if let Some(sealed) = catalog.view().await?.get(&keys::keyring())? {
            return Keyring::open(&sealed, cluster_key).context("the keyring in the catalog does not open");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
