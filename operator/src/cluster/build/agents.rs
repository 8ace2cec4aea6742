//! Node-agents: a DaemonSet, and for each node a Service of its own, so that an agent keeps its address when its pod is
//! made anew.

use std::time::Duration;

use diptych_api::StorageNode;
use diptych_api::storage_cluster::StorageClusterSpec;
use serde_json::{Value, json};

use super::{container_security, probe, pull_secrets, resources};
use crate::apply::Child;
use crate::cluster::AgentPod;
use crate::error::OperatorError;
use crate::join::AUDIENCE;
use crate::names::{AGENT_HEALTH_PORT, AGENT_PORT, JOIN_PORT, Names, USER};
use crate::options::Images;

/// The DaemonSet. Devices are the only folders of the node that its pods see.
pub fn agents(
    names: &Names,
    images: &Images,
    spec: &StorageClusterSpec,
    scrub_every: Duration,
) -> Result<Child, OperatorError> {
    let name = names.child("agent");
    let labels = names.labels("agent");
    let devices = || spec.node_agents.devices.iter().enumerate();
    let mounts: Vec<Value> = devices()
        .map(|(index, device)| json!({"name": format!("device-{index}"), "mountPath": device.path}))
        .collect();
    let folders = devices().map(|(index, device)| {
        json!({"name": format!("device-{index}"), "hostPath": {"path": device.path, "type": "DirectoryOrCreate"}})
    });
    let mut volumes: Vec<Value> = folders.collect();
    volumes.extend([
        json!({"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}),
        json!({"name": "authority", "configMap": {"name": names.child("authority"), "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
        json!({"name": "token", "projected": {"sources": [{"serviceAccountToken": {
            "audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}}]}}),
    ]);
    let mut before = Vec::new();
    if spec.node_agents.prepare_devices {
        before.push(prepare(images, spec, &mounts));
    }
    before.push(join(names, images, scrub_every));
    let mut agent_mounts = mounts;
    agent_mounts.extend(certified());
    let mut selector = json!(spec.node_agents.node_selector);
    if spec.node_agents.node_selector.is_empty() {
        selector = json!({"kubernetes.io/os": "linux"});
    }
    Child::new(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": names.meta(&name, "agent"),
        "spec": {
            "selector": {"matchLabels": names.selector("agent")},
            // One node at a time: more would cost margin.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": names.account("agent"),
                    "automountServiceAccountToken": false,
                    "imagePullSecrets": pull_secrets(images),
                    "nodeSelector": selector,
                    "tolerations": spec.node_agents.tolerations,
                    "terminationGracePeriodSeconds": 20,
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "initContainers": before,
                    "containers": [agent(images, &agent_mounts)],
                    "volumes": volumes,
                },
            },
        },
    }))
}

/// Root with CAP_CHOWN alone, for a moment: a folder that the kubelet makes is root's.
fn prepare(images: &Images, spec: &StorageClusterSpec, mounts: &[Value]) -> Value {
    let mut command = vec!["chown".to_owned(), format!("{USER}:{USER}")];
    command.extend(spec.node_agents.devices.iter().map(|device| device.path.clone()));
    json!({
        "name": "prepare-devices", "image": images.product, "imagePullPolicy": images.pull_policy, "command": command,
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": mounts,
    })
}

fn user_security() -> Value {
    let mut security = container_security();
    security["runAsNonRoot"] = json!(true);
    security["runAsUser"] = json!(USER);
    security["runAsGroup"] = json!(USER);
    security
}

/// Gets certificate and configuration.
fn join(names: &Names, images: &Images, scrub_every: Duration) -> Value {
    let operator = names.host(&names.account("operator"));
    json!({
        "name": "join", "image": images.product, "imagePullPolicy": images.pull_policy,
        "args": ["join", format!("--operator=https://{operator}:{JOIN_PORT}"), "--authority=/etc/diptych/ca.crt",
            "--token=/var/run/secrets/diptych/token", "--folder=/run/diptych",
            format!("--scrub-every-s={}", scrub_every.as_secs())],
        "securityContext": user_security(),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": certified(),
    })
}

/// Where certificate and configuration are, and what the operators are asked for them with: the agent renews them.
fn certified() -> [Value; 3] {
    [
        json!({"name": "run", "mountPath": "/run/diptych"}),
        json!({"name": "authority", "mountPath": "/etc/diptych", "readOnly": true}),
        json!({"name": "token", "mountPath": "/var/run/secrets/diptych", "readOnly": true}),
    ]
}

fn agent(images: &Images, mounts: &[Value]) -> Value {
    let probe = |path, period, failures| probe("health", "HTTP", path, period, failures);
    json!({
        "name": "node-agent", "image": images.product, "imagePullPolicy": images.pull_policy,
        "args": ["node-agent", "--config=/run/diptych/agent.json"],
        "ports": [{"name": "frames", "containerPort": AGENT_PORT}, {"name": "health", "containerPort": AGENT_HEALTH_PORT}],
        "startupProbe": probe("/live", 2, 150),
        "livenessProbe": probe("/live", 10, 6),
        // A process that answers: whether it may take commands yet is the keeper's business, who must reach it for that.
        "readinessProbe": probe("/live", 2, 3),
        "resources": resources(images, "agent"),
        "securityContext": user_security(),
        "volumeMounts": mounts,
    })
}

/// Service and EndpointSlice of one node.
pub fn node_service(
    names: &Names,
    node: &StorageNode,
    pod: Option<&AgentPod>,
) -> Result<Vec<Child>, OperatorError> {
    let name = names.agent_service(&node.spec.node);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": names.meta(&name, "agent-node"),
        "spec": {"ports": [{"name": "frames", "port": AGENT_PORT, "targetPort": AGENT_PORT, "protocol": "TCP"}]},
    });
    let mut children = vec![Child::new(service)?];
    // Without a pod the last address stays: nobody else gets frames there, who answers shows the node's certificate.
    if let Some(address) = pod.and_then(|pod| pod.address.as_ref()) {
        let mut metadata = names.meta(&name, "agent-node");
        metadata["labels"]["kubernetes.io/service-name"] = json!(name);
        metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("diptych-operator");
        children.push(Child::new(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": if address.contains(':') { "IPv6" } else { "IPv4" },
            "ports": [{"name": "frames", "port": AGENT_PORT, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": node.spec.node}],
        }))?);
    }
    Ok(children)
}
