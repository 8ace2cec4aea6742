//! Failure domains and weights: what StorageNodes and labels of Kubernetes nodes say of them.

use std::collections::BTreeMap;

use diptych_api::StorageNode;
use diptych_core::ids::{DeviceId, DomainName};
use diptych_core::placement::NodeShare;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::error::{Asked, OperatorError};

/// By Kubernetes node that is there: its domain, if its label says one.
pub type DomainLabels = BTreeMap<String, Option<DomainName>>;

/// Reads the label of all nodes, as the API server has them in its cache.
///
/// # Errors
/// The API server does not answer, or does not let this operator see nodes.
pub async fn domain_labels(client: &Client, label: &str) -> Result<DomainLabels, OperatorError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let cached = ListParams::default().match_any();
    let found = nodes.list_metadata(&cached).await.asked(|| format!("read label {label} of nodes"))?;
    let domain = |labels: &BTreeMap<String, String>| labels.get(label).and_then(|value| value.parse().ok());
    Ok(found.items.iter().map(|node| (node.name_any(), domain(node.labels()))).collect())
}

/// A node's place among the others. What its StorageNode says comes first. A Kubernetes node that is gone says nothing: its rows
/// stay in the domain where they were.
pub fn share(node: &StorageNode, labels: &DomainLabels) -> NodeShare {
    let spec = &node.spec;
    let before = || node.status.as_ref().and_then(|status| status.domain.as_ref()?.parse().ok());
    let by_label = || match labels.get(&spec.node) {
        _ if spec.outside.is_some() => None,
        Some(domain) => domain.clone(),
        None => before(),
    };
    let said = spec.domain.as_ref().and_then(|domain| domain.parse().ok());
    let weight =
        |weight: i64| u32::try_from(weight).ok().filter(|weight| (1..=NodeShare::MOST).contains(weight));
    let of_devices = spec
        .devices
        .iter()
        .filter_map(|device| Some((DeviceId(device.id as u32), device.weight.and_then(weight)?)));
    NodeShare {
        domain: said.or_else(by_label),
        weight: spec.weight.and_then(weight),
        devices: of_devices.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(more: &serde_json::Value) -> StorageNode {
        let mut spec =
            json!({"clusterRef": {"name": "main"}, "node": "n1", "devices": [{"id": 1, "path": "/a"}]});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        StorageNode::new("main-n1", serde_json::from_value(spec).expect("a spec"))
    }

    fn labels(domain: Option<&str>) -> DomainLabels {
        DomainLabels::from([("n1".to_owned(), domain.map(|domain| domain.parse().expect("a name")))])
    }

    fn domain(node: &StorageNode, labels: &DomainLabels) -> Option<String> {
        share(node, labels).domain.map(String::from)
    }

    #[test]
    fn a_storage_node_says_its_domain_before_the_label_of_its_kubernetes_node_does() {
        let zone = labels(Some("zone-a"));
        assert_eq!(domain(&node(&json!({})), &zone).as_deref(), Some("zone-a"));
        assert_eq!(domain(&node(&json!({"domain": "rack-7"})), &zone).as_deref(), Some("rack-7"));
        assert_eq!(domain(&node(&json!({})), &labels(None)), None);
        let outside = node(&json!({"outside": {"address": "192.0.2.1:8446"}}));
        assert_eq!(domain(&outside, &zone), None, "it is another machine of that name");
    }

    #[test]
    fn a_kubernetes_node_that_is_gone_stays_in_its_domain() {
        let mut gone = node(&json!({}));
        gone.status = Some(serde_json::from_value(json!({"domain": "zone-a"})).expect("a status"));
        assert_eq!(domain(&gone, &DomainLabels::new()).as_deref(), Some("zone-a"));
        assert_eq!(domain(&gone, &labels(None)), None, "its label was taken away");
    }

    #[test]
    fn weights_are_those_that_a_person_gave() {
        let devices = json!([{"id": 1, "path": "/a", "weight": 500}, {"id": 2, "path": "/b"}]);
        let share = share(&node(&json!({"weight": 2_000, "devices": devices})), &DomainLabels::new());
        assert_eq!((share.weight, share.devices), (Some(2_000), BTreeMap::from([(DeviceId(1), 500)])));
        assert!(super::share(&node(&json!({})), &DomainLabels::new()).is_empty());
    }
}
