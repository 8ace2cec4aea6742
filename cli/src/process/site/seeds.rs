//! What a site makes at its first start.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use diptych_catalog::Catalog;
use diptych_core::access::{seal_authority_key, seal_secret};
use diptych_core::ids::Epoch;
use diptych_core::keyring::{ClusterKey, Keyring};
use diptych_core::keys;
use diptych_core::lease::Event;
use diptych_core::planner::{self, SiteTopology};
use diptych_core::records::{Cluster, CodingPlan, Record};
use diptych_site::bootstrap::{self, Seeds};
use diptych_site::config::SiteConfig;
use diptych_site::error::SiteError;
use diptych_site::keeper::{KeeperHandle, boot_time};
use diptych_site::keys::{KeyProvider, fresh};
use diptych_site::nodes::Seen;
use rand::RngCore;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Owns the buckets of `diptych dev`.
pub(in crate::process) const NAMESPACE: &str = "default";

/// Tells the keeper once whether any device holds something: a cluster begins only where nothing is left of an earlier one.
pub(in crate::process) async fn tell_devices(
    keeper: KeeperHandle,
    mut seen: watch::Receiver<Arc<Seen>>,
    nodes: usize,
) {
    loop {
        let statuses: Vec<_> = seen.borrow().nodes.values().filter_map(|node| node.status.clone()).collect();
        if statuses.len() == nodes {
            let empty = statuses.iter().flat_map(|status| &status.devices).all(|device| device.rows == 0);
            keeper.tell(Event::DevicesEmpty(empty));
            return std::future::pending().await;
        }
        if seen.changed().await.is_err() {
            return;
        }
    }
}

/// Once in each term of this site, makes what is missing, and takes the coding into use that follows from what is declared.
pub(in crate::process) async fn sow(
    config: Arc<SiteConfig>,
    catalog: Arc<dyn Catalog>,
    keeper: KeeperHandle,
    cluster_keys: Arc<KeyProvider>,
) -> Result<()> {
    let mut state = keeper.watch();
    let mut sown = None;
    loop {
        let loan = state.borrow_and_update().loan(boot_time());
        if let Some(loan) = loan
            && sown != Some(loan.epoch)
        {
            let done = if catalog.view().await?.get(&keys::plan(0))?.is_none() {
                bootstrap::ensure(catalog.as_ref(), loan.epoch, seeds(&config, cluster_keys.keys().newest())?)
                    .await
            } else {
                declare(&config, catalog.as_ref(), loan.epoch).await
            };
            match done {
                Ok(()) => sown = Some(loan.epoch),
                // Each renewal changes the state: it is tried again then.
                Err(error) => {
                    tracing::warn!(%error, "what this term begins with could not be written now");
                }
            }
        }
        if state.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// A plan that can't be had leaves the one that is in force: what was written by it is whole.
async fn declare(config: &SiteConfig, catalog: &dyn Catalog, epoch: Epoch) -> Result<(), SiteError> {
    let plan = match plan(config) {
        Ok(plan) => plan,
        Err(error) => {
            tracing::warn!(%error, "what is declared can't be coded: the coding stays as it is");
            return Ok(());
        }
    };
    if bootstrap::put_in_force(catalog, epoch, &plan).await? {
        tracing::info!(needed = plan.needed, rows = ?plan.rows, "another coding is in force from now on");
    }
    Ok(())
}

fn seeds(config: &SiteConfig, cluster_key: &ClusterKey) -> Result<Seeds> {
    let keyring = Keyring::create(config.cluster, fresh());
    let access = seal_secret(&keyring, &config.access_key, &config.secret_key, &random(), NAMESPACE, false)?;
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
    };
    let key = config.authority_key.as_deref().context("this process was given no key of the authority")?;
    let key = Zeroizing::new(read(key)?);
    let cluster = Cluster {
        id: config.cluster,
        authority: read(&config.identity.authority)?,
        sealed_authority_key: seal_authority_key(&keyring, &key, &random())?,
    };
    Ok(Seeds {
        cluster,
        keyring: keyring.seal(cluster_key),
        plan: plan(config)?,
        access: vec![(config.access_key.clone(), access.encode())],
    })
}

/// k and f of what was declared; refused with the sum where it can't survive.
fn plan(config: &SiteConfig) -> Result<CodingPlan> {
    let own = SiteTopology {
        site: config.site.clone(),
        nodes: config.nodes.iter().map(|node| node.devices.len() as u32).collect(),
    };
    let peer = config.peer.as_ref().map(|peer| SiteTopology {
        site: peer.site.clone(),
        nodes: config.peer_nodes.iter().copied().map(u32::from).collect(),
    });
    let mut sites: Vec<SiteTopology> = std::iter::once(own).chain(peer).collect();
    // The preferred site comes first, whoever plans.
    sites.sort_by_key(|topology: &SiteTopology| topology.site != config.preferred);
    let plan = planner::plan(config.survive.into(), &sites)?;
    Ok(CodingPlan::from(&plan))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
