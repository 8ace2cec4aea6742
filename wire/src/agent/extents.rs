//! Work on whole extents that an agent does by itself: rebuild a row, fetch an extent from the other site.

use diptych_core::ids::{
    DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, NodeName, Row, SiteName, Stamp,
};
use diptych_core::records::Holds;
use serde::{Deserialize, Serialize};

use super::{Begin, BeginRow, RowHead};

/// What must be known of an extent to make a row of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentFacts {
    /// Which.
    pub extent: ExtentId,
    /// k: rows that are needed to decode.
    pub needed: u8,
    /// What it holds.
    pub holds: Holds,
    /// Bytes of its ciphertext, its tail with them.
    pub length: u32,
    /// BLAKE3 of them.
    pub hash: [u8; 32],
    /// Term in which it was born.
    pub birth_epoch: Epoch,
    /// When it was born.
    pub birth_hlc: Hlc,
}

impl ExtentFacts {
    /// To write rows of it in pieces.
    pub fn begin(&self, stamp: Stamp, map_generation: Generation, rows: Vec<BeginRow>) -> Begin {
        Begin {
            stamp,
            map_generation,
            extent: self.extent,
            needed: self.needed,
            holds: self.holds,
            birth_epoch: self.birth_epoch,
            birth_hlc: self.birth_hlc,
            rows,
        }
    }

    /// A whole row of it, of `len` bytes.
    pub fn head(&self, device: DeviceId, row: Row, len: u32) -> RowHead {
        RowHead {
            device,
            extent: self.extent,
            row,
            needed: self.needed,
            holds: self.holds,
            extent_len: self.length,
            extent_hash: self.hash,
            birth_epoch: self.birth_epoch,
            birth_hlc: self.birth_hlc,
            len,
        }
    }
}

/// Where a row can be read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `host:port` of the agent; None: the agent that is asked.
    pub address: Option<String>,
    /// Site of that agent.
    pub site: SiteName,
    /// Its node.
    pub node: NodeName,
    /// Device there.
    pub device: DeviceId,
    /// Which row.
    pub row: Row,
    /// Which record of it.
    pub instance: InstanceId,
}

/// An agent of another place that gets a row: an outside node's, of which nothing is known here but this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarNode {
    /// `host:port` of the agent.
    pub address: String,
    /// Where it is.
    pub site: SiteName,
    /// Its node.
    pub node: NodeName,
    /// Of the placement map of that place.
    pub map_generation: Generation,
}

/// Make a row from k others, check the extent's hash, write, sync and read it back. Where the row itself is among the sources
/// it moves: its bytes are copied, and k others are read only where that fails. Answer: [`Rebuilt`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Term and keeper that the sender knows.
    pub stamp: Stamp,
    /// Of the placement map of this agent's site.
    pub map_generation: Generation,
    /// Extent.
    pub extent: ExtentFacts,
    /// The row that is wanted.
    pub row: Row,
    /// Device that shall hold it.
    pub device: DeviceId,
    /// The agent that has the device; None: the one that is asked.
    pub far: Option<FarNode>,
    /// At least k other rows, nearest first; more allow for one that is wrong. The row itself, if it is to be copied.
    pub sources: Vec<Source>,
    /// Bytes a second at most to read from other agents; None: no limit.
    pub budget: Option<u64>,
}

/// A row that was made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Its record, read back from the device.
    pub instance: InstanceId,
    /// Sources whose bytes are wrong although their checksums are right: rebuild these too.
    pub liars: Vec<Source>,
}

/// A listener of the other site that gives extents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// `host:port`.
    pub address: String,
    /// Site that must answer there.
    pub site: SiteName,
}

/// Who shall hold a row that crosses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossTarget {
    /// Which row to make.
    pub row: Row,
    /// Node that shall hold it.
    pub node: NodeName,
    /// `host:port` of its agent; None: the agent that is asked.
    pub address: Option<String>,
    /// Device there.
    pub device: DeviceId,
}

/// Fetch an extent from the other site, check its hash, and make this site's rows. Answer: where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cross {
    /// Term and keeper that the sender knows.
    pub stamp: Stamp,
    /// Of the placement map that chose the devices.
    pub map_generation: Generation,
    /// Extent.
    pub extent: ExtentFacts,
    /// The other site's doors; tried in order.
    pub doors: Vec<Door>,
    /// This site's rows.
    pub targets: Vec<CrossTarget>,
    /// Bytes a second at most to fetch; None: no limit.
    pub budget: Option<u64>,
}

/// A row that crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossedRow {
    /// Which.
    pub row: Row,
    /// Where it is.
    pub device: DeviceId,
    /// Which record there.
    pub instance: InstanceId,
}
