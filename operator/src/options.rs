//! How an operator is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use diptych_catalog::Catalog;
use diptych_site::config::SiteConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::config::PodConfig;

/// How an operator is started.
#[derive(Clone)]
pub struct OperatorOptions {
    /// The API server.
    pub client: kube::Client,
    /// Its own namespace, where its StorageCluster and all that it makes are.
    pub namespace: String,
    /// FileObjects and AccessKeys are looked for in every namespace; else only in its own.
    pub watch_all_namespaces: bool,
    /// Its pod: holder of the Kubernetes lease.
    pub pod: String,
    /// Beginning of the names of what the chart made: service accounts and the operator's Service.
    pub release: String,
    /// Images of what it makes.
    pub images: Images,
    /// Where node-agents ask for their certificates.
    pub join: SocketAddr,
    /// `/live`, `/ready`.
    pub health: SocketAddr,
    /// Folder for its own identity and configuration, so that a restart needs no API server.
    pub folder: PathBuf,
    /// File of the catalog's mirror in this process.
    pub mirror: PathBuf,
    /// To and from the site's loops in this process.
    pub site: SiteLink,
    /// What is taken away at Cloudflare when the StorageCluster goes.
    pub at_edge: Arc<dyn OwnAtEdge>,
}

/// What a site has at Cloudflare for itself alone: its health check, its pool of a load balancer.
#[async_trait]
pub trait OwnAtEdge: Send + Sync + 'static {
    /// Takes it away; what is not there any more is fine.
    ///
    /// # Errors
    /// What may be left, and why, for a person.
    async fn remove(&self, site: &SiteConfig) -> Result<(), String>;
}

/// What operator and site loops of one process tell each other.
#[derive(Clone)]
pub struct SiteLink {
    /// What the loops shall run with; None until the site's catalog and nodes are known.
    pub config: watch::Sender<Option<PodConfig>>,
    /// The site's catalog, once the loops have opened it.
    pub catalog: watch::Receiver<Option<Arc<dyn Catalog>>>,
}

/// Images and what their containers may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// The product.
    pub product: String,
    /// etcd.
    pub catalog: String,
    /// When images are pulled.
    pub pull_policy: String,
    /// Secrets for pulling them.
    pub pull_secrets: Vec<String>,
    /// `{gateway, agent, catalog}`: requests and limits.
    pub resources: Value,
}
