//! The public side of a process: S3 and REST, opened as soon as the keyring is here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use diptych_catalog::Catalog;
use diptych_core::keyring::{ClusterKey, Keyring};
use diptych_core::keys;
use diptych_gateway::agents::AgentDial;
use diptych_gateway::authority::Authority;
use diptych_gateway::rest::{RestToken, Reviews};
use diptych_gateway::{Dependencies, Forwarder, Gateway, GatewayOptions, Limits, PeerConfirmation, PeerRows};
use diptych_site::config::SiteConfig;
use diptych_wire::client::ClientOptions;
use diptych_wire::tls::Credentials;
use zeroize::Zeroizing;

use super::public_tls;
use super::site::GatewayCell;

/// Between two looks for a keyring.
const AGAIN: Duration = Duration::from_millis(50);

/// What a gateway has from the rest of its process.
pub(super) struct Given {
    /// The right to write.
    pub(super) authority: Arc<dyn Authority>,
    /// Opens the keyring.
    pub(super) cluster_key: Arc<ClusterKey>,
    /// Namespace that the configured token acts in.
    pub(super) namespace: String,
    /// Whose word counts for other tokens.
    pub(super) reviews: Option<Reviews>,
    /// The other site; nothing where there is none.
    pub(super) peer: OfPeer,
    /// Paths that the gateway does not answer itself.
    pub(super) more: Router,
    /// Those that see for themselves who asks.
    pub(super) open: Option<Router>,
}

/// What a gateway has of the other site.
#[derive(Default)]
pub(super) struct OfPeer {
    /// What a write waits for with `BothSites`.
    pub(super) confirmation: Option<Arc<dyn PeerConfirmation>>,
    /// Its rows, for reads that too few are left for here.
    pub(super) rows: Option<Arc<dyn PeerRows>>,
    /// Where requests go while this site is not active.
    pub(super) forwarder: Option<Arc<dyn Forwarder>>,
}

/// Opens both listeners, fills `cell`, and goes on for ever.
pub(super) async fn open(
    config: &SiteConfig,
    own: &Credentials,
    catalog: &Arc<dyn Catalog>,
    given: Given,
    cell: &GatewayCell,
) -> Result<()> {
    let dependencies = Dependencies {
        site: config.site.clone(),
        catalog: Arc::clone(catalog),
        authority: given.authority,
        keyring: keyring(catalog.as_ref(), &given.cluster_key).await?,
        cipher: Arc::new(diptych_gateway::cipher::AwsLcAesGcm),
        dial: AgentDial { credentials: own.clone(), options: ClientOptions::default() },
        survive: config.survive.into(),
        peer: given.peer.confirmation,
        peer_rows: given.peer.rows,
    };
    let token = RestToken { token: Zeroizing::new(config.token.clone()), namespace: given.namespace };
    let options = GatewayOptions {
        s3: config.s3,
        rest: config.rest,
        tls: config.public_tls.as_ref().map(public_tls).transpose()?,
        tokens: vec![token],
        reviews: given.reviews,
        limits: Limits::default(),
        forwarder: given.peer.forwarder,
        more: Some(given.more),
        open: given.open,
    };
    let gateway = Gateway::start(options, dependencies).await?;
    let _ = cell.set(gateway);
    std::future::pending().await
}

/// Waits until the catalog has a keyring. One that the cluster key does not open ends the process.
async fn keyring(catalog: &dyn Catalog, cluster_key: &ClusterKey) -> Result<Keyring> {
    loop {
        if let Some(sealed) = catalog.view().await?.get(&keys::keyring())? {
            return Keyring::open(&sealed, cluster_key).context("the keyring in the catalog does not open");
        }
        tokio::time::sleep(AGAIN).await;
    }
}
