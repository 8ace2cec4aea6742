//! A site whose processes are pods: operators, of which one is the keeper; gateways, which it lends their time.

pub mod gateway;
pub mod join;
mod lent;
mod loops;
pub mod operator;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use diptych_catalog::{Catalog, EtcdCatalog, EtcdOptions, EtcdTls};
use diptych_operator::PodConfig;
use diptych_site::keys::KeyProvider;
use diptych_wire::files::{Followed, Pem};
use diptych_wire::tls::{Credentials, TlsError};

/// Between two attempts to open the catalog: its members start with everything else.
const AGAIN: Duration = Duration::from_secs(1);

/// Opens the site's catalog; waits for its members.
async fn open_catalog(config: &PodConfig) -> Result<Arc<dyn Catalog>> {
    let mut logged = false;
    loop {
        let mut options = EtcdOptions::new(config.etcd.endpoints.clone(), config.site.catalog.clone());
        let identity = Followed::open(&config.etcd.identity)?;
        options.tls = Some(tls(identity.pem().clone()));
        match EtcdCatalog::connect(config.site.site.clone(), options).await {
            Ok(catalog) => return Ok(renewed(Arc::new(catalog), identity)?),
            Err(error) if !logged => {
                tracing::warn!(%error, "the catalog can't be opened yet");
                logged = true;
            }
            Err(error) => tracing::debug!(%error, "the catalog can't be opened yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn tls(Pem { authority, certificate, key }: Pem) -> EtcdTls {
    EtcdTls { authority, certificate, key, domain: None }
}

/// Goes on with whatever the identity's files hold later.
fn renewed(catalog: Arc<EtcdCatalog>, identity: Followed) -> Result<Arc<dyn Catalog>, TlsError> {
    // What it refuses, etcd would too.
    let own = Credentials::new(&identity.pem().issued()?)?;
    identity.give(&catalog, move |catalog, pem| {
        let checked = pem.issued().and_then(|issued| own.replace(&issued));
        async move {
            checked?;
            catalog.renew(tls(pem)).await?;
            anyhow::Ok(())
        }
    });
    Ok(catalog)
}

fn cluster_keys(config: &PodConfig) -> Result<Arc<KeyProvider>> {
    Ok(Arc::new(KeyProvider::read(&config.site.cluster_key)?))
}
