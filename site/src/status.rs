//! How a site is: what status pages, metrics and the command line show.

use diptych_core::ids::{Epoch, Generation, SiteName};
use serde::{Deserialize, Serialize};

use crate::survey::Health;

/// What the keeper last saw; JSON under `s/site/<site>/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// The site.
    pub site: SiteName,
    /// `active`, `passive`, `fenced`.
    pub role: String,
    /// Newest epoch known.
    pub epoch: Epoch,
    /// The placement map in force.
    pub map_generation: Generation,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Its extents.
    pub health: Health,
    /// The same, with bytes and time.
    #[serde(default)]
    pub repair: RepairStatus,
    /// What the last comparison of devices and catalog found.
    #[serde(default)]
    pub inventory: InventoryStatus,
    /// The right to write, as the keeper has it.
    #[serde(default)]
    pub lease: LeaseStatus,
    /// What the other site has not confirmed; None without one.
    pub exposure: Option<Exposure>,
    /// Why the public name can't be kept; None: it can, or there is none.
    #[serde(default)]
    pub name_trouble: Option<String>,
    /// Milliseconds since 1970 when this was seen.
    pub seen_ms: u64,
}

/// How much of repair is left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Extents that wait.
    pub waiting: u64,
    /// Extents that are being repaired.
    pub running: u64,
    /// Bytes that both will move.
    pub bytes: u64,
    /// Seconds that this will take; None: a budget is zero, nothing moves.
    pub seconds_left: Option<u64>,
    /// Rows that were made anew since this keeper began.
    pub rows: u64,
}

impl RepairStatus {
    /// Extents that are not whole yet.
    pub const fn queue(&self) -> u64 {
        self.waiting + self.running
    }
}

/// Where devices and catalog differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryStatus {
    /// Rows on devices that the catalog does not name, and that wait for their hold.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Rows that the catalog names and their device lacks.
    pub lost: u64,
}

/// The right to write, as a keeper has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Milliseconds since 1970 until when it runs if nobody renews it; 0: none runs, or it never ends.
    pub until_ms: u64,
    /// Why this site does not serve, or a handover does not go on: one word.
    pub waiting: Option<String>,
    /// The same as a sentence, with what a person can do.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// The other site's keeper answers.
    pub peer_connected: bool,
    /// The witness answered the last call.
    pub witness_reachable: bool,
}

/// What would be lost if this site vanished now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Extents that the other site lacks.
    pub extents: u64,
    /// Their bytes of ciphertext.
    pub bytes: u64,
    /// Commits that the other site has not applied.
    pub commits: u64,
    /// Milliseconds since all was confirmed; 0: it is.
    pub age_ms: u64,
}

/// A node as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `live`, `silent`, `draining`, `dead`.
    pub state: String,
    /// Its devices.
    pub devices: Vec<DeviceStatus>,
}

/// A device as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its number.
    pub id: u32,
    /// Its folder.
    pub path: String,
    /// `ok`, `full`, `missing`, or why it failed.
    pub state: String,
    /// Bytes that it can hold.
    pub capacity: u64,
    /// Bytes that it holds.
    pub used: u64,
    /// Rows on it.
    pub rows: u64,
    /// Rows that were found rotten and wait for repair.
    pub rotten: u64,
    /// Milliseconds since 1970 when all of it was last read and found right; 0: never.
    pub scrubbed_ms: u64,
}
