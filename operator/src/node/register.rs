//! Which nodes there are, and the numbers of their devices.

use std::collections::BTreeSet;

use diptych_api::storage_cluster::StorageClusterSpec;
use diptych_api::storage_node::NumberedDevice;
use diptych_api::{ClusterRef, StorageNode, StorageNodeSpec};
use serde_json::json;

use crate::apply::Child;
use crate::cluster::AgentPod;
use crate::error::OperatorError;
use crate::names::{Names, fitting};

/// All StorageNodes, the new ones too, in order of their names; and what is to be applied for it.
///
/// A number is never given twice and never taken back: rows are found by it.
pub fn register(
    names: &Names,
    spec: &StorageClusterSpec,
    pods: &[AgentPod],
    known: &[StorageNode],
) -> Result<(Vec<StorageNode>, Vec<Child>), OperatorError> {
    let mut next =
        known.iter().flat_map(|node| &node.spec.devices).map(|device| device.id).max().unwrap_or(0) + 1;
    let mut nodes = known.to_vec();
    nodes.sort_by(|one, other| one.spec.node.cmp(&other.spec.node));
    let mut children = Vec::new();
    for node in &mut nodes {
        if number(&mut node.spec, spec, &mut next) {
            children.push(child(names, &node.spec)?);
        }
    }
    let there: BTreeSet<String> = nodes.iter().map(|node| node.spec.node.clone()).collect();
    let new: BTreeSet<&String> =
        pods.iter().map(|pod| &pod.node).filter(|node| !there.contains(*node)).collect();
    for node in new {
        let cluster_ref = ClusterRef { name: names.cluster.clone() };
        let mut made = StorageNodeSpec {
            cluster_ref,
            node: node.clone(),
            devices: Vec::new(),
            domain: None,
            weight: None,
            drain: false,
            outside: None,
        };
        number(&mut made, spec, &mut next);
        children.push(child(names, &made)?);
        nodes.push(StorageNode::new(&resource_name(names, node), made));
    }
    nodes.sort_by(|one, other| one.spec.node.cmp(&other.spec.node));
    Ok((nodes, children))
}

/// Gives numbers to devices that have none; true: there were some.
fn number(node: &mut StorageNodeSpec, spec: &StorageClusterSpec, next: &mut i64) -> bool {
    let mut changed = false;
    for device in &spec.node_agents.devices {
        if node.devices.iter().any(|known| known.path == device.path) {
            continue;
        }
        node.devices.push(NumberedDevice {
            id: *next,
            path: device.path.clone(),
            weight: None,
            drain: false,
        });
        *next += 1;
        changed = true;
    }
    changed
}

/// The node's own name, with the StorageCluster's before it.
pub(super) fn resource_name(names: &Names, node: &str) -> String {
    fitting(&names.cluster, node)
}

fn child(names: &Names, spec: &StorageNodeSpec) -> Result<Child, OperatorError> {
    // Not owned: a StorageCluster that is deleted and applied again finds its devices under their numbers.
    let metadata = names.lasting_meta(&resource_name(names, &spec.node), "agent-node");
    // Whether it is drained, its domain and weights are a person's to say, and never this operator's to own.
    let numbered = |device: &NumberedDevice| NumberedDevice { weight: None, drain: false, ..device.clone() };
    let devices = spec.devices.iter().map(numbered).collect();
    let spec = StorageNodeSpec { domain: None, weight: None, drain: false, devices, ..spec.clone() };
    Child::new(
        json!({"apiVersion": "diptych.dev/v1alpha1", "kind": "StorageNode", "metadata": metadata, "spec": spec}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(paths: &[&str]) -> StorageClusterSpec {
        let devices: Vec<_> = paths.iter().map(|path| json!({"path": path})).collect();
        let spec = json!({"site": "east", "nodeAgents": {"devices": devices}, "encryption": {"keySecretRef": {"name": "k"}}});
        serde_json::from_value(spec).expect("a spec")
    }

    fn pod(node: &str) -> AgentPod {
        AgentPod { node: node.to_owned(), address: None, ready: false }
    }

    fn ids(nodes: &[StorageNode]) -> Vec<(&str, Vec<i64>)> {
        nodes
            .iter()
            .map(|node| (node.spec.node.as_str(), node.spec.devices.iter().map(|device| device.id).collect()))
            .collect()
    }

    #[test]
    fn every_device_of_a_site_has_a_number_of_its_own() {
        let (nodes, made) =
            register(&Names::for_tests(), &spec(&["/a", "/b"]), &[pod("n2"), pod("n1"), pod("n2")], &[])
                .expect("registered");
        assert_eq!(ids(&nodes), [("n1", vec![1, 2]), ("n2", vec![3, 4])]);
        assert_eq!(made.len(), 2);
    }

    #[test]
    fn numbers_stay_when_nodes_come_and_pods_go() {
        let (first, _) =
            register(&Names::for_tests(), &spec(&["/a"]), &[pod("n1"), pod("n3")], &[]).expect("registered");
        let (then, made) =
            register(&Names::for_tests(), &spec(&["/b", "/a"]), &[pod("n2")], &first).expect("registered");
        assert_eq!(ids(&then), [("n1", vec![1, 3]), ("n2", vec![5, 6]), ("n3", vec![2, 4])]);
        assert_eq!(made.len(), 3);
        let (same, made) =
            register(&Names::for_tests(), &spec(&["/a", "/b"]), &[], &then).expect("registered");
        assert_eq!((ids(&same), made.len()), (ids(&then), 0));
    }
}
