//! A site whose processes are pods: operators, of which one is the keeper; gateways, which it lends their time.

pub mod gateway;
pub mod join;
mod lent;
mod loops;
pub mod operator;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_catalog::{Catalog, EtcdCatalog, EtcdOptions, EtcdTls};
use diptych_core::keyring::ClusterKey;
use diptych_operator::PodConfig;

/// Between two attempts to open the catalog: its members start with everything else.
const AGAIN: Duration = Duration::from_secs(1);

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

/// Opens the site's catalog; waits for its members.
async fn open_catalog(config: &PodConfig) -> Result<Arc<dyn Catalog>> {
    let mut logged = false;
    loop {
        let mut options = EtcdOptions::new(config.etcd.endpoints.clone(), config.site.catalog.clone());
        let identity = &config.etcd.identity;
        options.tls = Some(EtcdTls {
            authority: read(&identity.authority)?,
            certificate: read(&identity.certificate)?,
            key: read(&identity.key)?,
            domain: None,
        });
        match EtcdCatalog::connect(config.site.site.clone(), options).await {
            Ok(catalog) => return Ok(Arc::new(catalog)),
            Err(error) if !logged => {
                tracing::warn!(%error, "the catalog can't be opened yet");
                logged = true;
            }
            Err(error) => tracing::debug!(%error, "the catalog can't be opened yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn cluster_key(config: &PodConfig) -> Result<Arc<ClusterKey>> {
    Ok(Arc::new(ClusterKey::parse(&read(&config.site.cluster_key)?)?))
}
