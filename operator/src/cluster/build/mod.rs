//! From what is declared to objects, a file for each kind of pod.

mod agents;
mod catalog;
mod gateways;
mod outside;
mod site;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use crate::apply::Child;
use crate::error::OperatorError;
use crate::names::{Names, USER};
use crate::options::Images;

pub use agents::{agents, node_service};
pub use catalog::{catalog, endpoints};
pub use gateways::gateways;
pub(super) use outside::tokens as outside_tokens;
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

/// Asks `path` at the named port; `failures` in a row count.
pub(super) fn probe(port: &str, scheme: &str, path: &str, period: i32, failures: i32) -> Value {
    json!({
        "httpGet": {"path": path, "port": port, "scheme": scheme},
        "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
    })
}

/// Pods of a component go one after the other.
pub(super) fn budget(names: &Names, component: &str) -> Result<Child, OperatorError> {
    Child::new(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": names.meta(&names.child(component), component),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": names.selector(component)}},
    }))
}

#[cfg(test)]
mod tests;
