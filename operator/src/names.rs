//! Names and labels of what the operator makes, and the ports of its pods.

use std::collections::BTreeMap;

use diptych_api::StorageCluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

/// Field manager of the operator's server-side applies.
pub const MANAGER: &str = "diptych-operator";
/// User of all pods.
pub const USER: i64 = 65532;
/// S3.
pub const S3_PORT: u16 = 8080;
/// REST, with `/live` and `/ready`.
pub const REST_PORT: u16 = 8081;
/// The peer door.
pub const PEER_PORT: u16 = 8443;
/// Frames of a node-agent.
pub const AGENT_PORT: u16 = 7443;
/// Probes of a node-agent.
pub const AGENT_HEALTH_PORT: u16 = 8081;
/// Where certificates are given.
pub const JOIN_PORT: u16 = 8444;
/// Names of the children of a StorageCluster.
#[derive(Debug, Clone)]
pub struct Names {
    /// The StorageCluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// What the chart's names begin with.
    pub release: String,
    /// To the StorageCluster.
    pub owner: OwnerReference,
}

impl Names {
    /// For the children of `cluster`.
    pub fn new(cluster: &StorageCluster, release: &str) -> Option<Self> {
        Some(Self {
            cluster: cluster.name_any(),
            namespace: cluster.namespace()?,
            release: release.to_owned(),
            owner: cluster.controller_owner_ref(&())?,
        })
    }

    /// A child's name.
    pub fn child(&self, part: &str) -> String {
        format!("{}-{part}", self.cluster)
    }

    /// DNS name of a Service in this namespace.
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.svc", self.namespace)
    }

    /// A service account of the chart.
    pub fn account(&self, part: &str) -> String {
        format!("{}-{part}", self.release)
    }

    /// Service of one node's agent.
    pub fn agent_service(&self, node: &str) -> String {
        fitting(&format!("{}-agent", self.cluster), node)
    }

    /// Secret with the token of a node in neither site.
    pub fn outside_token(&self, node: &str) -> String {
        fitting(&self.child("outside"), node)
    }

    /// Labels that select the pods of a component.
    pub fn selector(&self, component: &str) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "diptych"),
            ("app.kubernetes.io/instance", self.cluster.as_str()),
            ("app.kubernetes.io/component", component),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// All labels.
    pub fn labels(&self, component: &str) -> BTreeMap<String, String> {
        let mut labels = self.selector(component);
        labels.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
        labels.insert("app.kubernetes.io/part-of".into(), "diptych".into());
        labels
    }

    /// Metadata of a child that goes with its StorageCluster.
    pub fn meta(&self, name: &str, component: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(component),
            "ownerReferences": [self.owner],
        })
    }

    /// Metadata of a child that outlives its StorageCluster: without it bytes could not be read again.
    pub fn lasting_meta(&self, name: &str, component: &str) -> Value {
        json!({"name": name, "namespace": self.namespace, "labels": self.labels(component)})
    }
}

/// `prefix-node`. A name has 63 characters at most; a long node's is told apart by its hash.
pub fn fitting(prefix: &str, node: &str) -> String {
    let whole = format!("{prefix}-{node}");
    if whole.len() <= 63 { whole } else { format!("{prefix}-{}", short_hash(node.as_bytes())) }
}

/// Ten hex digits.
pub fn short_hash(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(&Sha256::digest(bytes)[..5])
}

#[cfg(test)]
impl Names {
    /// Of StorageCluster `main` in namespace `diptych`.
    pub(crate) fn for_tests() -> Self {
        Self {
            cluster: "main".to_owned(),
            namespace: "diptych".to_owned(),
            release: "diptych".to_owned(),
            owner: OwnerReference {
                kind: "StorageCluster".to_owned(),
                name: "main".to_owned(),
                ..OwnerReference::default()
            },
        }
    }
}
