//! What the pods of a site run with.

use std::path::{Path, PathBuf};

use diptych_core::placement::NodeShare;
use diptych_site::config::{IdentityFiles, Policy, SiteConfig, Via};
use serde::{Deserialize, Serialize};

/// Configuration of a gateway and of the loops: a site's, and what differs where its processes are pods.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodConfig {
    /// As for a site in one process; `catalog` is the file of the mirror, for this process alone.
    pub site: SiteConfig,
    /// The catalog's engine.
    pub etcd: EtcdConfig,
    /// Namespace of the StorageCluster: owner of the buckets that are made with its token.
    pub namespace: String,
}

/// Where the catalog's engine is, and who one is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdConfig {
    /// Client URLs of its members.
    pub endpoints: Vec<String>,
    /// Certificates of the catalog's own authority.
    pub identity: IdentityFiles,
}

/// Where a process finds its files.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Folder with `ca.crt`, `tls.crt`, `tls.key`.
    pub identity: PathBuf,
    /// Likewise, for the catalog.
    pub catalog_identity: PathBuf,
    /// The cluster key.
    pub cluster_key: PathBuf,
    /// Key of the cluster's authority, where operators are.
    pub authority_key: Option<PathBuf>,
    /// Token for the connectors of the site's tunnel, where operators are.
    pub tunnel_token: Option<PathBuf>,
    /// The mirror.
    pub mirror: PathBuf,
}

impl Paths {
    /// As the gateway's pods mount them.
    pub fn of_gateway() -> Self {
        Self {
            identity: PathBuf::from("/etc/diptych/identity"),
            catalog_identity: PathBuf::from("/etc/diptych/catalog"),
            cluster_key: PathBuf::from("/etc/diptych/cluster-key/key"),
            authority_key: None,
            tunnel_token: None,
            mirror: PathBuf::from("/var/lib/diptych/mirror.redb"),
        }
    }

    /// As the operator keeps them.
    pub fn of_operator(folder: &Path, mirror: &Path) -> Self {
        Self {
            identity: folder.to_owned(),
            catalog_identity: folder.join("catalog"),
            cluster_key: folder.join("cluster.key"),
            authority_key: Some(folder.join("authority.key")),
            tunnel_token: Some(folder.join("tunnel.token")),
            mirror: mirror.to_owned(),
        }
    }
}

/// The files of an identity in a folder.
pub fn identity_in(folder: &Path) -> IdentityFiles {
    IdentityFiles {
        authority: folder.join("ca.crt"),
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    }
}

impl PodConfig {
    /// Whether a keeper that began with the other one goes on with this one, and with the catalog that it has open.
    pub fn keeps_keeper_of(&self, other: &Self) -> bool {
        self.site.keeps_keeper_of(&other.site) && self.etcd == other.etcd && self.namespace == other.namespace
    }

    /// Without what no gateway reads: another one of that is no reason for new pods.
    pub fn of_gateways(&self) -> Self {
        let mut own = self.clone();
        own.site.generation = 0;
        own.site.webhook = None;
        own.site.nodes.iter_mut().for_each(|node| node.share = NodeShare::default());
        own.site.outside.nodes.iter_mut().for_each(|node| node.share = NodeShare::default());
        own.site.policy =
            Policy { acknowledge_timeout_ms: self.site.policy.acknowledge_timeout_ms, ..Policy::default() };
        own
    }

    /// The same, for a process that has its files elsewhere.
    pub fn at(mut self, paths: &Paths) -> Self {
        // Each pod is one of the two.
        self.site.identity = identity_in(&paths.identity);
        self.site.keeper_identity = identity_in(&paths.identity);
        self.etcd.identity = identity_in(&paths.catalog_identity);
        self.site.cluster_key.clone_from(&paths.cluster_key);
        self.site.authority_key.clone_from(&paths.authority_key);
        self.site.catalog.clone_from(&paths.mirror);
        let via = self.site.peer.as_mut().map(|peer| &mut peer.via);
        if let (Some(Via::Tunnel { token_file, .. }), Some(path)) = (via, &paths.tunnel_token) {
            token_file.clone_from(path);
        }
        self
    }
}
