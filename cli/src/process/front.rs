//! The public side of a process: S3 and REST, opened as soon as the keyring is here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use bytes::Bytes;
use diptych_catalog::Catalog;
use diptych_core::keyring::Keyring;
use diptych_core::keys;
use diptych_gateway::agents::AgentDial;
use diptych_gateway::authority::Authority;
use diptych_gateway::rest::{RestToken, Reviews};
use diptych_gateway::{Dependencies, Forwarder, Gateway, GatewayOptions, Limits, PeerConfirmation, PeerRows};
use diptych_site::config::SiteConfig;
use diptych_site::keys::KeyProvider;
use diptych_wire::client::ClientOptions;
use diptych_wire::tls::Credentials;
use zeroize::Zeroizing;

use super::public_tls;
use super::site::GatewayCell;

/// Between two looks for the first keyring.
const AGAIN: Duration = Duration::from_millis(50);
/// And for the next one. What is prepared is not used before every gateway has had the time to see it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a gateway has from the rest of its process.
pub(super) struct Given {
    /// The right to write.
    pub(super) authority: Arc<dyn Authority>,
    /// Opens the keyring.
    pub(super) cluster_keys: Arc<KeyProvider>,
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
    let (sealed, opened) = first_keyring(catalog.as_ref(), &given.cluster_keys).await?;
    let dependencies = Dependencies {
        site: config.site.clone(),
        catalog: Arc::clone(catalog),
        authority: given.authority,
        keyring: opened,
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
    let gateway = cell.get_or_init(|| gateway);
    follow_keyring(catalog.as_ref(), &given.cluster_keys, gateway, sealed).await
}

/// Waits until the catalog has a keyring. One that the cluster key does not open ends the process.
async fn first_keyring(catalog: &dyn Catalog, provider: &KeyProvider) -> Result<(Bytes, Keyring)> {
    loop {
        if let Some(sealed) = catalog.view().await?.get(&keys::keyring())? {
            let opened = provider.open(&sealed).context("the keyring in the catalog does not open")?;
            return Ok((sealed, opened));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Takes each other keyring into use, for ever. One that does not open leaves the last one in use: what was sealed by its keys
/// is read and written on.
async fn follow_keyring(
    catalog: &dyn Catalog,
    provider: &KeyProvider,
    gateway: &Gateway,
    mut known: Bytes,
) -> Result<()> {
    let mut told = String::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let looked = async {
            let sealed = catalog.recent_view(LOOK_EVERY).await?.get(&keys::keyring())?;
            let Some(sealed) = sealed.filter(|sealed| *sealed != known) else { return Ok(None) };
            let opened = provider.open(&sealed).context("the keyring in the catalog does not open")?;
            anyhow::Ok(Some((sealed, opened)))
        };
        match looked.await {
            Ok(None) => {}
            Ok(Some((sealed, opened))) => {
                tracing::info!(generation = %opened.generation(), "another keyring is in use");
                gateway.context().set_keyring(opened);
                known = sealed;
                told.clear();
            }
            Err(error) => {
                let error = format!("{error:#}");
                if error != told {
                    tracing::warn!(error, "the keyring stays as it was");
                    told = error;
                }
            }
        }
    }
}
