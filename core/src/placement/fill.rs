//! Row after row to the place that has the fewest.

use std::collections::BTreeMap;

use super::hash::{Cost, device_cost, node_cost};
use super::{MapDevice, MapNode, PlacementMap};
use crate::ids::{DeviceId, DomainName, ExtentId, Row};

/// Fills level by level: row after row to the node that has the fewest, among those with a device that has the fewest, and
/// of equal ones to that of the domain that has the fewest. With [`Fill::domains_first`] domains count before nodes. Ties go
/// by how far they are, then by the extent's ranking.
#[derive(Clone)]
pub(super) struct Fill<'a> {
    extent: ExtentId,
    nodes: Vec<FillNode<'a>>,
    domains: Vec<FillDomain>,
    /// Most rows on a node while domains come first; None: nodes do.
    most_on_node: Option<usize>,
}

/// What comes first of equal places: how far it is, then the extent's ranking.
type Rank = (u32, Cost);

#[derive(Clone)]
struct FillNode<'a> {
    map: &'a MapNode,
    /// Its index in `domains`.
    domain: usize,
    rank: Rank,
    /// Rows on all its devices, also those that take no more: they fall with the node.
    rows: usize,
    /// Devices that take rows.
    devices: Vec<FillDevice>,
    /// Fewest rows on a device that takes rows.
    emptiest: usize,
}

#[derive(Clone)]
struct FillDomain {
    /// Its best node's. The least of ranks by rendezvous comes first as often as the sum of its nodes' weights says.
    rank: Rank,
    /// Rows on all its nodes, also those that take no more: they fall with it.
    rows: usize,
}

#[derive(Clone)]
struct FillDevice {
    id: DeviceId,
    weight: u32,
    rows: usize,
}

impl<'a> Fill<'a> {
    pub(super) fn new(
        map: &'a PlacementMap,
        extent: ExtentId,
        staying: &[(Row, DeviceId)],
        takes: impl Fn(&MapNode, &MapDevice) -> bool,
        remoteness: impl Fn(&MapNode) -> u32,
    ) -> Self {
        let rows_on = |id: DeviceId| staying.iter().filter(|&&(_, device)| device == id).count();
        let (mut nodes, mut domains) = (Vec::new(), Vec::<FillDomain>::new());
        let mut named: BTreeMap<&DomainName, usize> = BTreeMap::new();
        for node in &map.nodes {
            let own = domains.len();
            let domain = node.domain.as_ref().map_or(own, |name| *named.entry(name).or_insert(own));
            if domain == own {
                domains.push(FillDomain { rank: (u32::MAX, Cost::MAX), rows: 0 });
            }
            let rows = node.devices.iter().map(|device| rows_on(device.id)).sum();
            domains[domain].rows += rows;
            let taking = node.devices.iter().filter(|device| takes(node, device));
            let devices: Vec<FillDevice> = taking
                .map(|device| FillDevice { id: device.id, weight: device.weight, rows: rows_on(device.id) })
                .collect();
            let Some(emptiest) = devices.iter().map(|device| device.rows).min() else { continue };
            let rank = (remoteness(node), node_cost(extent, &node.name, node.share()));
            domains[domain].rank = domains[domain].rank.min(rank);
            nodes.push(FillNode { map: node, domain, rank, rows, devices, emptiest });
        }
        Self { extent, nodes, domains, most_on_node: None }
    }

    /// Domains come first from now on, if so many rows fit with `most` on a node at the most. Nodes that come first show it:
    /// no other way has fewer rows on the fullest of them.
    pub(super) fn domains_first(&mut self, rows: usize, most: usize) {
        if self.nodes.iter().all(|node| node.map.domain.is_none()) {
            return;
        }
        let mut nodes_first = self.clone();
        let placed = (0..rows).all(|_| nodes_first.take().is_some());
        if placed && nodes_first.nodes.iter().all(|node| node.rows <= most) {
            self.most_on_node = Some(most);
        }
    }

    /// The device of the next row; none where no device takes rows.
    pub(super) fn take(&mut self) -> Option<DeviceId> {
        // A device's second row waits until every device of every node has one.
        let emptiest = self.nodes.iter().map(|node| node.emptiest).min()?;
        let (domains, most_on_node) = (&self.domains, self.most_on_node);
        let order = |node: &&mut FillNode<'a>| {
            let domain = &domains[node.domain];
            let before_domains = most_on_node.map_or(node.rows, |most| usize::from(node.rows >= most));
            (before_domains, domain.rows, domain.rank, node.rows, node.rank, &node.map.name)
        };
        let open = self.nodes.iter_mut().filter(|node| node.emptiest == emptiest);
        let node = open.min_by_key(order)?;
        let cost = |device: &FillDevice| {
            (device.rows, device_cost(self.extent, device.id, device.weight), device.id)
        };
        let device = node.devices.iter_mut().min_by_key(|device| cost(device))?;
        let id = device.id;
        device.rows += 1;
        node.rows += 1;
        node.emptiest = node.devices.iter().map(|device| device.rows).min()?;
        self.domains[node.domain].rows += 1;
        Some(id)
    }
}
