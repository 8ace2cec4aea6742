//! From what is declared to objects, a file for each kind of pod.

mod agents;
mod catalog;
mod gateways;
mod site;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use crate::names::USER;
use crate::options::Images;

pub use agents::{agents, node_service};
pub use catalog::{catalog, endpoints};
pub use gateways::gateways;
pub(super) use site::pod_config;

/// What every pod but an agent's devices keeps to: the level "restricted" of Kubernetes.
pub(super) fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Of a container.
pub(super) fn container_security() -> Value {
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
}

/// Requests and limits of a component; the chart's values.
pub(super) fn resources(images: &Images, component: &str) -> Value {
    let given = images.resources.get(component).cloned().unwrap_or_default();
    let fine = serde_json::from_value::<ResourceRequirements>(given.clone()).is_ok() && given.is_object();
    if fine { given } else { json!({}) }
}

pub(super) fn pull_secrets(images: &Images) -> Value {
    images.pull_secrets.iter().map(|name| json!({"name": name})).collect()
}

/// Pods leave a node that died after half a minute, not five.
pub(super) fn quick_eviction() -> Value {
    let one = |key: &str| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30});
    json!([one("not-ready"), one("unreachable")])
}

#[cfg(test)]
mod tests;
