//! From what was seen of nodes to the placement map.

use std::time::{Duration, Instant};

use diptych_core::placement::{MapDevice, MapDeviceState, MapNode, NodeShare, NodeState, PlacementMap};
use diptych_wire::agent::{AgentStatus, DeviceState};

use super::Seen;
use crate::agents::NodeEndpoint;

/// The map's nodes as they should be. A node that was never seen is not in it: nothing is known of its devices.
pub(super) fn map_nodes(
    declared: &[NodeEndpoint],
    seen: &Seen,
    old: &PlacementMap,
    dead_after: Duration,
    now: Instant,
) -> Vec<MapNode> {
    let node = |endpoint: &NodeEndpoint| -> Option<MapNode> {
        let seen = seen.nodes.get(&endpoint.name)?;
        let before = old.nodes.iter().find(|node| node.name == endpoint.name);
        let silent = now.saturating_duration_since(seen.answered);
        let was_dead = before.is_some_and(|node| node.state == NodeState::Dead);
        let state = if seen.answers || (silent < dead_after && !was_dead) {
            NodeState::Live
        } else {
            NodeState::Dead
        };
        let devices = match &seen.status {
            Some(status) => map_devices(status, &endpoint.share, before),
            None => before?.devices.clone(),
        };
        Some(MapNode {
            name: endpoint.name.clone(),
            address: endpoint.address.clone(),
            socket: endpoint.socket.as_ref().map(|path| path.display().to_string()),
            state,
            domain: endpoint.share.domain.clone(),
            weight: endpoint.share.weight,
            distance: None,
            devices,
        })
    };
    declared.iter().filter_map(node).collect()
}

fn map_devices(status: &AgentStatus, share: &NodeShare, before: Option<&MapNode>) -> Vec<MapDevice> {
    let now = status.devices.iter().filter_map(|facts| {
        let state = match facts.state {
            DeviceState::Ok => MapDeviceState::Live,
            DeviceState::Full => MapDeviceState::Full,
            DeviceState::Failed(_) | DeviceState::Missing => MapDeviceState::Dead,
            DeviceState::Unformatted => return None,
        };
        let id = facts.device?;
        let known = before.and_then(|node| node.devices.iter().find(|device| device.id == id));
        let by_size = || weight(facts.capacity, known.map(|device| device.weight));
        let weight = share.devices.get(&id).copied().unwrap_or_else(by_size);
        Some(MapDevice { id, weight, state })
    });
    let mut devices: Vec<MapDevice> = now.collect();
    // A device that the agent no longer names had rows: it is gone, and they are rebuilt elsewhere.
    for gone in before.map(|node| node.devices.as_slice()).unwrap_or_default() {
        if !devices.iter().any(|device| device.id == gone.id) {
            devices.push(MapDevice { state: MapDeviceState::Dead, ..*gone });
        }
    }
    devices.sort_by_key(|device| device.id);
    devices
}

/// A device's share of the rows: its size in GiB. One that shares its file system changes all the time, so a weight stays
/// until it is a quarter off: each new map makes writers place again.
fn weight(capacity: u64, known: Option<u32>) -> u32 {
    let now = u32::try_from(capacity >> 30).unwrap_or(u32::MAX).max(1);
    known.filter(|known| known.abs_diff(now) <= known / 4).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use diptych_core::ids::{DeviceId, Generation, Stamp};
    use diptych_wire::agent::{DeviceFacts, DeviceTakes, ScrubProgress};

    use super::super::NodeSeen;
    use super::*;

    fn endpoint() -> NodeEndpoint {
        NodeEndpoint {
            name: "n1".parse().expect("a name"),
            address: "127.0.0.1:1".to_owned(),
            socket: None,
            share: NodeShare::default(),
        }
    }

    fn facts(device: u32, state: DeviceState) -> DeviceFacts {
        DeviceFacts {
            device: Some(DeviceId(device)),
            path: "/d".into(),
            state,
            capacity: 1,
            used: 0,
            rows: 0,
            generation: Generation(1),
            takes: DeviceTakes::default(),
            scrub: ScrubProgress::default(),
            findings: vec![],
        }
    }

    fn status(devices: Vec<DeviceFacts>) -> AgentStatus {
        AgentStatus {
            site: "east".parse().expect("a name"),
            node: endpoint().name,
            version: String::new(),
            stamp: Stamp::default(),
            ready: true,
            devices,
        }
    }

    fn nodes(seen: NodeSeen, old: &PlacementMap, now: Instant) -> Vec<MapNode> {
        let seen = Seen { nodes: BTreeMap::from([(endpoint().name, seen)]), ..Seen::default() };
        map_nodes(&[endpoint()], &seen, old, Duration::from_secs(10), now)
    }

    #[test]
    fn a_node_is_dead_only_after_its_silence_and_lives_again_when_it_answers() {
        let begun = Instant::now();
        let answer = status(vec![facts(1, DeviceState::Ok)]);
        let mut seen = NodeSeen { status: Some(answer), answered: begun, answers: false };
        let mut map = PlacementMap::default();
        map.nodes = nodes(seen.clone(), &map, begun + Duration::from_secs(9));
        assert_eq!(map.nodes[0].state, NodeState::Live);
        map.nodes = nodes(seen.clone(), &map, begun + Duration::from_secs(10));
        assert_eq!(map.nodes[0].state, NodeState::Dead);
        // A keeper that begins anew does not take a dead node for live before it answers.
        seen.answered = begun + Duration::from_secs(11);
        map.nodes = nodes(seen.clone(), &map, begun + Duration::from_secs(12));
        assert_eq!(map.nodes[0].state, NodeState::Dead);
        seen.answers = true;
        map.nodes = nodes(seen, &map, begun + Duration::from_secs(12));
        assert_eq!(map.nodes[0].state, NodeState::Live);
    }

    #[test]
    fn a_device_that_is_no_longer_named_is_dead_and_stays_in_the_map() {
        let begun = Instant::now();
        let both = status(vec![facts(1, DeviceState::Ok), facts(2, DeviceState::Ok)]);
        let mut map = PlacementMap::default();
        map.nodes = nodes(NodeSeen { status: Some(both), answered: begun, answers: true }, &map, begun);
        let one = status(vec![facts(2, DeviceState::Ok)]);
        map.nodes = nodes(NodeSeen { status: Some(one), answered: begun, answers: true }, &map, begun);
        let states: Vec<_> = map.nodes[0].devices.iter().map(|device| (device.id.0, device.state)).collect();
        assert_eq!(states, [(1, MapDeviceState::Dead), (2, MapDeviceState::Live)]);
    }

    #[test]
    fn a_weight_stays_until_the_size_is_a_quarter_off() {
        assert_eq!(weight(100 << 30, None), 100);
        assert_eq!(weight(76 << 30, Some(100)), 100);
        assert_eq!(weight(74 << 30, Some(100)), 74);
    }

    #[test]
    fn what_is_declared_of_a_node_stands_in_the_map_and_comes_before_the_size_of_a_device() {
        let begun = Instant::now();
        let share = NodeShare {
            domain: Some("rack-7".parse().expect("a name")),
            weight: Some(9),
            devices: BTreeMap::from([(DeviceId(2), 500)]),
        };
        let both = status(vec![facts(1, DeviceState::Ok), facts(2, DeviceState::Ok)]);
        let seen = NodeSeen { status: Some(both), answered: begun, answers: true };
        let seen = Seen { nodes: BTreeMap::from([(endpoint().name, seen)]), ..Seen::default() };
        let map_of = |share: NodeShare, old: Vec<MapNode>| {
            let old = PlacementMap { generation: Generation(1), nodes: old };
            map_nodes(&[NodeEndpoint { share, ..endpoint() }], &seen, &old, Duration::from_secs(10), begun)
        };
        let nodes = map_of(share.clone(), Vec::new());
        assert_eq!((&nodes[0].domain, nodes[0].weight), (&share.domain, Some(9)));
        let weights =
            |nodes: &[MapNode]| nodes[0].devices.iter().map(|device| device.weight).collect::<Vec<_>>();
        assert_eq!(weights(&nodes), [1, 500]);
        let taken_back = map_of(NodeShare::default(), nodes);
        assert_eq!((&taken_back[0].domain, taken_back[0].weight), (&None, None));
        assert_eq!(weights(&taken_back), [1, 1], "its size again");
    }

    #[test]
    fn a_node_that_was_never_seen_is_not_in_the_map() {
        let begun = Instant::now();
        let seen = NodeSeen { status: None, answered: begun, answers: false };
        assert!(nodes(seen, &PlacementMap::default(), begun).is_empty());
    }
}
