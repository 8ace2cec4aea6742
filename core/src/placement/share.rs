//! What is declared of a node's place among the others, and how a map keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PlacementMap;
use crate::ids::{DeviceId, DomainName};
use crate::records::{MORE, Record, RecordError, decode_more, encode_more};

/// A node's failure domain, and the weights that a person gave it and its devices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeShare {
    /// Nodes of one fall together; None: it falls alone.
    pub domain: Option<DomainName>,
    /// Its share of the extra rows among nodes; None: the sum of its devices'.
    pub weight: Option<u32>,
    /// Shares of devices, beside others' sizes in GiB; one that is not here has its size.
    pub devices: BTreeMap<DeviceId, u32>,
}

impl NodeShare {
    /// The greatest weight: a node of so many GiB has a PiB.
    pub const MOST: u32 = 1 << 20;

    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Domain and weight of each node, in the order of the nodes; none, where nothing is declared of any.
type Declared = Vec<(Option<DomainName>, Option<u32>)>;

/// The first format has what a map without domains and weights of nodes says; with the second one these come first.
impl Record for PlacementMap {
    const NAME: &'static str = "PlacementMap";
    const FORMAT: u8 = MORE;

    fn encode(&self) -> Vec<u8> {
        let mut declared: Declared =
            self.nodes.iter().map(|node| (node.domain.clone(), node.weight)).collect();
        if declared.iter().all(|node| *node == (None, None)) {
            declared.clear();
        }
        encode_more(&declared, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (declared, mut map) = decode_more::<Declared, Self>(bytes)?;
        for (node, (domain, weight)) in map.nodes.iter_mut().zip(declared) {
            (node.domain, node.weight) = (domain, weight);
        }
        Ok(map)
    }
}
