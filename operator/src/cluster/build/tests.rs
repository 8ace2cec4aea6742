//! What goes to the API server, checked against Kubernetes' own types.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PodSpec;

use super::*;
use crate::names::Names;
use crate::secrets::Foundation;

fn images() -> Images {
    Images {
        product: "diptych/diptych:dev".to_owned(),
        catalog: "etcd".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: Vec::new(),
        resources: json!({"agent": {"limits": {"memory": "512Mi"}}, "gateway": "nonsense"}),
    }
}

fn spec() -> diptych_api::StorageClusterSpec {
    let spec = json!({"site": "east", "nodeAgents": {"devices": [{"path": "/d0"}, {"path": "/d1"}]}, "encryption": {"keySecretRef": {"name": "k"}}});
    serde_json::from_value(spec).expect("a spec")
}

fn restricted(pod: &PodSpec) {
    let security = pod.security_context.as_ref().expect("a security context");
    assert_eq!((security.run_as_non_root, security.run_as_user), (Some(true), Some(USER)));
    assert_eq!(
        security.seccomp_profile.as_ref().map(|profile| profile.type_.as_str()),
        Some("RuntimeDefault")
    );
    assert!(pod.volumes.iter().flatten().all(|volume| volume.host_path.is_none()));
    assert_eq!(pod.automount_service_account_token, Some(false));
    for container in &pod.containers {
        let security = container.security_context.as_ref().expect("a security context");
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        let capabilities = security.capabilities.as_ref().expect("capabilities");
        assert_eq!(capabilities.drop.as_deref(), Some(["ALL".to_owned()].as_slice()));
        assert!(container.liveness_probe.is_some() && container.readiness_probe.is_some());
    }
}

#[test]
fn the_catalogs_pods_are_restricted_and_its_disks_outlive_it() {
    let foundation = Foundation::create().expect("a foundation");
    let children = catalog(&Names::for_tests(), &images(), &spec(), &foundation).expect("built");
    let set: StatefulSet = serde_json::from_value(children[2].body.clone()).expect("a StatefulSet");
    let spec = set.spec.expect("a spec");
    restricted(&spec.template.spec.expect("a pod"));
    let policy = spec.persistent_volume_claim_retention_policy.expect("a policy");
    assert_eq!(policy.when_deleted.as_deref(), Some("Retain"));
}

#[test]
fn only_agents_see_folders_of_their_node_and_only_those_of_devices() {
    let child = agents(&Names::for_tests(), &images(), &spec(), Duration::from_hours(12)).expect("built");
    let set: DaemonSet = serde_json::from_value(child.body).expect("a DaemonSet");
    let pod = set.spec.expect("a spec").template.spec.expect("a pod");
    let folders: Vec<String> = pod
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.host_path.clone())
        .map(|path| path.path)
        .collect();
    assert_eq!(folders, ["/d0", "/d1"]);
    let root: Vec<String> = pod
        .init_containers
        .iter()
        .flatten()
        .chain(&pod.containers)
        .filter(|container| {
            container.security_context.as_ref().is_some_and(|security| security.run_as_user == Some(0))
        })
        .map(|container| container.name.clone())
        .collect();
    assert_eq!(root, ["prepare-devices"]);
    let mut words =
        pod.init_containers.iter().flatten().flat_map(|container| container.args.iter().flatten());
    assert!(words.any(|word| word == "--scrub-every-s=43200"), "scrub.every reaches the agent");
    let join = pod.init_containers.iter().flatten().find(|container| container.name == "join");
    for mount in join.expect("it joins").volume_mounts.iter().flatten() {
        let same = pod.containers[0].volume_mounts.iter().flatten().any(|own| own == mount);
        assert!(same, "the agent renews its certificate by what it joined with: {}", mount.mount_path);
    }
    assert_eq!(
        pod.containers[0]
            .resources
            .as_ref()
            .and_then(|resources| resources.limits.as_ref())
            .map(std::collections::BTreeMap::len),
        Some(1)
    );
}

#[test]
fn resources_that_are_none_are_left_out() {
    assert_eq!(resources(&images(), "gateway"), json!({}));
    assert_eq!(resources(&images(), "other"), json!({}));
}

#[test]
fn nothing_that_is_built_has_a_type_that_kubernetes_does_not_know() {
    let foundation = Foundation::create().expect("a foundation");
    let mut all = catalog(&Names::for_tests(), &images(), &spec(), &foundation).expect("built");
    all.push(agents(&Names::for_tests(), &images(), &spec(), Duration::from_hours(12)).expect("built"));
    for child in all {
        let back = match child.body["kind"].as_str().expect("a kind") {
            "Deployment" => {
                serde_json::from_value::<Deployment>(child.body.clone()).and_then(serde_json::to_value)
            }
            "StatefulSet" => {
                serde_json::from_value::<StatefulSet>(child.body.clone()).and_then(serde_json::to_value)
            }
            "DaemonSet" => {
                serde_json::from_value::<DaemonSet>(child.body.clone()).and_then(serde_json::to_value)
            }
            _ => continue,
        };
        let back = back.expect("it reads");
        lost(&child.title(), &child.body, &back);
    }
}

/// Whatever reading and writing it with Kubernetes' types drops is a field that the API server would refuse or ignore.
fn lost(path: &str, built: &Value, known: &Value) {
    match built {
        Value::Object(fields) => {
            for (name, value) in fields {
                let empty = value.is_null()
                    || value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(serde_json::Map::is_empty);
                assert!(empty || known.get(name).is_some(), "{path}.{name} is unknown");
                if !empty {
                    lost(&format!("{path}.{name}"), value, &known[name]);
                }
            }
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, item)| lost(&format!("{path}[{index}]"), item, &known[index])),
        _ => {}
    }
}
