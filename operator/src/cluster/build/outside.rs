//! Nodes in neither site: the tokens that they join with, and what the keeper is told of them.

use std::net::{IpAddr, SocketAddr};

use diptych_api::StorageNode;
use diptych_api::storage_cluster::GatewayService;
use diptych_site::config::{OutsideConfig, OutsideNodeConfig};
use diptych_site::outside::OutsideToken;
use diptych_wire::agent::Door;

use crate::apply::Child;
use crate::cluster::{Declared, Observed};
use crate::error::OperatorError;
use crate::names::{Names, PEER_PORT};
use crate::node;
use crate::secrets::{Foundation, TOKEN, owned, random_text, text};

/// A token for each node that has none. One whose Secret is deleted gets another, which takes the place of the old one.
pub(in crate::cluster) fn tokens(
    names: &Names,
    declared: &Declared,
    foundation: &Foundation,
    seen: &Observed,
) -> Result<Vec<Child>, OperatorError> {
    let has_none = |node: &&StorageNode| !seen.secrets.contains_key(&names.outside_token(&node.spec.node));
    // They join at the door between two sites.
    let wanted = seen.outside.iter().filter(|_| declared.peer.is_some()).filter(has_none);
    wanted.map(|node| token(names, node, foundation, doors(declared, seen))).collect()
}

fn token(
    names: &Names,
    node: &StorageNode,
    foundation: &Foundation,
    doors: Vec<Door>,
) -> Result<Child, OperatorError> {
    let name = random_text(8);
    let internal = |error: &dyn std::fmt::Display| OperatorError::Internal(format!("a token: {error}"));
    let made = OutsideToken::make(&foundation.authority, foundation.cluster, &name, doors)
        .map_err(|error| internal(&error))?;
    let json = serde_json::to_string_pretty(&made).map_err(|error| internal(&error))?;
    let entries = [(TOKEN, name.as_str()), ("token.json", json.as_str())];
    owned(names, &names.outside_token(&node.spec.node), "outside", &entries)
}

/// The doors of both sites, as a node in neither reaches them.
fn doors(declared: &Declared, seen: &Observed) -> Vec<Door> {
    let port = door_port(&seen.cluster.spec.gateway.service);
    let own = |address: &IpAddr| Door {
        address: SocketAddr::new(*address, port).to_string(),
        site: declared.site.clone(),
    };
    let mut doors: Vec<Door> = declared.public_addresses.iter().map(own).collect();
    if let (Some(peer), Some(spec)) = (&declared.peer, &seen.cluster.spec.peer) {
        let there = |address: &String| Door { address: address.clone(), site: peer.site.clone() };
        doors.extend(spec.endpoints.iter().map(there));
    }
    doors
}

/// Of the peer door at the site's public addresses.
fn door_port(service: &GatewayService) -> u16 {
    service.node_ports.and_then(|fixed| u16::try_from(fixed.peer).ok()).unwrap_or(PEER_PORT)
}

/// What the keeper is told. A node whose token is not made yet comes with the next look.
pub(super) fn config(names: &Names, seen: &Observed) -> OutsideConfig {
    let node = |node: &StorageNode| {
        let secret = seen.secrets.get(&names.outside_token(&node.spec.node))?;
        Some(OutsideNodeConfig {
            name: node.spec.node.parse().ok()?,
            address: node.spec.outside.as_ref()?.address.clone(),
            devices: node::devices(node),
            token: text(secret, TOKEN).ok()?,
            share: node::share(node, &seen.domains),
        })
    };
    let mut nodes: Vec<OutsideNodeConfig> = seen.outside.iter().filter_map(node).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    OutsideConfig { rows: u8::try_from(seen.cluster.spec.outside.rows).unwrap_or_default(), nodes }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_door_is_reached_at_the_port_of_every_node_where_one_is_declared() {
        let port = |service| door_port(&serde_json::from_value(service).expect("a service"));
        let fixed = json!({"type": "NodePort", "nodePorts": {"s3": 30_080, "rest": 30_081, "peer": 30_443}});
        assert_eq!((port(fixed), port(json!({"type": "LoadBalancer"}))), (30_443, PEER_PORT));
    }

    #[test]
    fn a_token_is_a_file_for_the_node_and_the_name_that_the_keeper_knows_it_by() {
        let made = Foundation::create().expect("it is made");
        let spec = json!({"clusterRef": {"name": "main"}, "node": "o1", "devices": [],
            "outside": {"address": "192.0.2.1:8446"}});
        let node = StorageNode::new("main-outside-o1", serde_json::from_value(spec).expect("a spec"));
        let doors =
            vec![Door { address: "192.0.2.7:8443".to_owned(), site: "east".parse().expect("a name") }];
        let child = token(&Names::for_tests(), &node, &made, doors.clone()).expect("a Secret");
        let secret: Secret = serde_json::from_value(child.body).expect("a Secret");
        assert_eq!(secret.name_any(), "main-outside-o1");
        let json = text(&secret, "token.json").expect("an entry");
        let read: OutsideToken = serde_json::from_str(&json).expect("a token");
        assert_eq!(
            (read.doors.as_slice(), &read.fingerprint),
            (doors.as_slice(), &made.authority.fingerprint())
        );
        let credentials = read.credentials().expect("it is whole");
        assert_eq!(credentials.identity().name, text(&secret, TOKEN).expect("an entry"));
    }
}
