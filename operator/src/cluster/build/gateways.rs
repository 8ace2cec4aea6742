//! Gateways: a Deployment spread over nodes, a Service for clients and one for the peer door.

use diptych_api::storage_cluster::StorageClusterSpec;
use serde_json::{Value, json};

use super::{budget, container_security, pod_security, probe, pull_secrets, quick_eviction, resources};
use crate::apply::Child;
use crate::config::{Paths, PodConfig};
use crate::error::OperatorError;
use crate::names::{Names, PEER_PORT, REST_PORT, S3_PORT, short_hash};
use crate::options::Images;
use crate::secrets;

/// Configuration, Deployment, Services, disruption budget.
pub fn gateways(
    names: &Names,
    images: &Images,
    spec: &StorageClusterSpec,
    config: &PodConfig,
) -> Result<Vec<Child>, OperatorError> {
    let json = |config: &PodConfig| {
        serde_json::to_string_pretty(config).map_err(|error| OperatorError::Internal(error.to_string()))
    };
    let config = config.clone().at(&Paths::of_gateway());
    let (text, read) = (json(&config)?, json(&config.of_gateways())?);
    Ok(vec![
        secrets::owned(names, &names.child("site"), "gateway", &[("site.json", &text)])?,
        Child::new(deployment(names, images, spec, &short_hash(read.as_bytes())))?,
        Child::new(clients(names, spec))?,
        Child::new(door(names, spec))?,
        budget(names, "gateway")?,
    ])
}

fn deployment(names: &Names, images: &Images, spec: &StorageClusterSpec, hash: &str) -> Value {
    let labels = names.labels("gateway");
    let selector = names.selector("gateway");
    let secret = |name: &str, secret: &str| json!({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}});
    let mut volumes = vec![
        secret("config", &names.child("site")),
        secret("identity", &names.child("gateway-identity")),
        secret("catalog", &names.child("catalog-client-identity")),
        secret("cluster-key", &spec.encryption.key_secret_ref.name),
        json!({"name": "mirror", "emptyDir": {"sizeLimit": "4Gi"}}),
    ];
    if let Some(tls) = &spec.gateway.tls_secret_ref {
        volumes.push(secret("public-tls", &tls.name));
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": names.meta(&names.child("gateway"), "gateway"),
        "spec": {
            "replicas": spec.gateway.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}},
            "template": {
                // A new configuration makes new pods, one after the other.
                "metadata": {"labels": labels, "annotations": {"diptych.dev/config": hash}},
                "spec": {
                    "serviceAccountName": names.account("gateway"),
                    "automountServiceAccountToken": false,
                    "imagePullSecrets": pull_secrets(images),
                    "securityContext": pod_security(),
                    "tolerations": quick_eviction(),
                    "terminationGracePeriodSeconds": 30,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": selector},
                    }],
                    "containers": [container(images, spec)],
                    "volumes": volumes,
                },
            },
        },
    })
}

fn container(images: &Images, spec: &StorageClusterSpec) -> Value {
    let scheme = if spec.gateway.tls_secret_ref.is_some() { "HTTPS" } else { "HTTP" };
    let probe = |path, period, failures| probe("rest", scheme, path, period, failures);
    let mut mounts = vec![
        json!({"name": "config", "mountPath": "/etc/diptych/config", "readOnly": true}),
        json!({"name": "identity", "mountPath": "/etc/diptych/identity", "readOnly": true}),
        json!({"name": "catalog", "mountPath": "/etc/diptych/catalog", "readOnly": true}),
        json!({"name": "cluster-key", "mountPath": "/etc/diptych/cluster-key", "readOnly": true}),
        json!({"name": "mirror", "mountPath": "/var/lib/diptych"}),
    ];
    if spec.gateway.tls_secret_ref.is_some() {
        mounts.push(json!({"name": "public-tls", "mountPath": "/etc/diptych/public-tls", "readOnly": true}));
    }
    json!({
        "name": "gateway", "image": images.product, "imagePullPolicy": images.pull_policy,
        "args": ["gateway", "--config=/etc/diptych/config/site.json"],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "ports": [
            {"name": "s3", "containerPort": S3_PORT},
            {"name": "rest", "containerPort": REST_PORT},
            {"name": "peer", "containerPort": PEER_PORT},
        ],
        // The site that joins has no keyring, and so no listener, before the other one's feed brought it.
        "startupProbe": probe("/live", 2, 900),
        "livenessProbe": probe("/live", 10, 6),
        "readinessProbe": probe("/ready", 2, 3),
        "resources": resources(images, "gateway"),
        "securityContext": container_security(),
        "volumeMounts": mounts,
    })
}

fn clients(names: &Names, spec: &StorageClusterSpec) -> Value {
    let service = &spec.gateway.service;
    let mut ports = [
        json!({"name": "s3", "port": S3_PORT, "targetPort": "s3"}),
        json!({"name": "rest", "port": REST_PORT, "targetPort": "rest"}),
    ];
    if let Some(fixed) = &service.node_ports {
        ports[0]["nodePort"] = json!(fixed.s3);
        ports[1]["nodePort"] = json!(fixed.rest);
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": names.meta(&names.child("gateway"), "gateway"),
        "spec": {"type": service.kind.as_str(), "selector": names.selector("gateway"), "ports": ports},
    })
}

/// The peer door is there before a gateway is ready: what makes it ready comes through it.
fn door(names: &Names, spec: &StorageClusterSpec) -> Value {
    let service = &spec.gateway.service;
    let mut port = json!({"name": "peer", "port": PEER_PORT, "targetPort": "peer"});
    if let Some(fixed) = &service.node_ports {
        port["nodePort"] = json!(fixed.peer);
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": names.meta(&names.child("peer"), "gateway"),
        "spec": {"type": service.kind.as_str(), "selector": names.selector("gateway"), "publishNotReadyAddresses": true, "ports": [port]},
    })
}
