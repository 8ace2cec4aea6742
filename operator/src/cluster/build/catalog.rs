//! The catalog: an etcd of its own, mTLS throughout, its disks kept when all else goes.

use diptych_api::storage_cluster::StorageClusterSpec;
use serde_json::json;

use super::{budget, container_security, pod_security, probe, pull_secrets, quick_eviction, resources};
use crate::apply::Child;
use crate::error::OperatorError;
use crate::names::Names;
use crate::options::Images;
use crate::secrets::Foundation;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const HEALTH_PORT: u16 = 2381;
/// etcd refuses writes past it.
const QUOTA: u64 = 4 << 30;

/// Client URLs of all members.
pub fn endpoints(names: &Names, replicas: i32) -> Vec<String> {
    members(names, replicas).map(|(_, host)| format!("https://{host}:{CLIENT_PORT}")).collect()
}

fn members(names: &Names, replicas: i32) -> impl Iterator<Item = (String, String)> {
    let service = names.host(&names.child("catalog"));
    let name = names.child("catalog");
    (0..replicas).map(move |member| (format!("{name}-{member}"), format!("{name}-{member}.{service}")))
}

/// StatefulSet, Service, disruption budget.
pub fn catalog(
    names: &Names,
    images: &Images,
    spec: &StorageClusterSpec,
    foundation: &Foundation,
) -> Result<Vec<Child>, OperatorError> {
    let name = names.child("catalog");
    let labels = names.labels("catalog");
    let selector = names.selector("catalog");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": names.meta(&name, "catalog"),
        "spec": {
            "clusterIP": "None", "selector": selector,
            // Members find each other before any of them is ready.
            "publishNotReadyAddresses": true,
            "ports": [
                {"name": "client", "port": CLIENT_PORT, "targetPort": "client"},
                {"name": "peer", "port": PEER_PORT, "targetPort": "peer"},
            ],
        },
    });
    let mut claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": spec.catalog.storage.size}}});
    if let Some(class) = &spec.catalog.storage.class_name {
        claim["storageClassName"] = json!(class);
    }
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": names.meta(&name, "catalog"),
        "spec": {
            "serviceName": name, "replicas": spec.catalog.replicas,
            // A lost majority comes back only if all may start at once.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": labels}, "spec": claim}],
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": names.account("catalog"),
                    "automountServiceAccountToken": false,
                    "imagePullSecrets": pull_secrets(images),
                    "securityContext": pod_security(),
                    "tolerations": quick_eviction(),
                    "terminationGracePeriodSeconds": 20,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": selector},
                    }],
                    "containers": [container(names, images, spec, foundation)],
                    "volumes": [{"name": "identity", "secret": {"secretName": names.child("catalog-identity"), "defaultMode": 0o440}}],
                },
            },
        },
    });
    Ok(vec![Child::new(service)?, budget(names, "catalog")?, Child::new(set)?])
}

fn container(
    names: &Names,
    images: &Images,
    spec: &StorageClusterSpec,
    foundation: &Foundation,
) -> serde_json::Value {
    let all = members(names, spec.catalog.replicas)
        .map(|(name, host)| format!("{name}=https://{host}:{PEER_PORT}"));
    let host = format!("$(POD_NAME).{}", names.host(&names.child("catalog")));
    let file = |name: &str| format!("/etc/diptych/identity/{name}");
    let command = [
        "etcd".to_owned(),
        "--name=$(POD_NAME)".to_owned(),
        "--data-dir=/var/lib/etcd/data".to_owned(),
        format!("--listen-client-urls=https://0.0.0.0:{CLIENT_PORT}"),
        format!("--advertise-client-urls=https://{host}:{CLIENT_PORT}"),
        format!("--listen-peer-urls=https://0.0.0.0:{PEER_PORT}"),
        format!("--initial-advertise-peer-urls=https://{host}:{PEER_PORT}"),
        format!("--initial-cluster={}", all.collect::<Vec<_>>().join(",")),
        format!("--initial-cluster-token={}", foundation.cluster),
        "--initial-cluster-state=new".to_owned(),
        "--client-cert-auth=true".to_owned(),
        format!("--trusted-ca-file={}", file("ca.crt")),
        format!("--cert-file={}", file("tls.crt")),
        format!("--key-file={}", file("tls.key")),
        "--peer-client-cert-auth=true".to_owned(),
        // A member's address is not that of its Service; the authority is the catalog's own.
        "--peer-skip-client-san-verification=true".to_owned(),
        format!("--peer-trusted-ca-file={}", file("ca.crt")),
        format!("--peer-cert-file={}", file("tls.crt")),
        format!("--peer-key-file={}", file("tls.key")),
        format!("--listen-metrics-urls=http://0.0.0.0:{HEALTH_PORT}"),
        format!("--quota-backend-bytes={QUOTA}"),
        "--heartbeat-interval=200".to_owned(),
        "--election-timeout=2000".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    let probe = |path, period, failures| probe("health", "HTTP", path, period, failures);
    json!({
        "name": "etcd", "image": images.catalog, "imagePullPolicy": images.pull_policy, "command": command,
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [
            {"name": "client", "containerPort": CLIENT_PORT},
            {"name": "peer", "containerPort": PEER_PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
        ],
        "startupProbe": probe("/livez", 2, 150),
        "livenessProbe": probe("/livez", 10, 6),
        "readinessProbe": probe("/readyz", 2, 3),
        "resources": resources(images, "catalog"),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/etcd"},
            {"name": "identity", "mountPath": "/etc/diptych/identity", "readOnly": true},
        ],
    })
}
