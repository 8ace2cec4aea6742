//! How a site is: what status pages, metrics and the command line show.

use diptych_catalog::Catalog;
use diptych_core::drill::Prediction;
use diptych_core::ids::{DomainName, Epoch, Generation, SiteName};
use diptych_core::keys;
use serde::{Deserialize, Serialize};

use crate::drill::DrillSummary;
use crate::edge::EdgeStatus;
use crate::error::SiteError;
use crate::lost::lacking::{LackingObject, LackingPage};
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
    /// Of the declaration that the keeper's loops run with; 0: nothing was declared.
    #[serde(default)]
    pub generation: i64,
    /// The placement map in force.
    pub map_generation: Generation,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// The nodes in neither site; None: there are none, and none are declared.
    #[serde(default)]
    pub outside: Option<OutsideStatus>,
    /// Its extents.
    pub health: Health,
    /// What is repaired and waits for it.
    #[serde(default)]
    pub repair: RepairStatus,
    /// What the last comparison of devices and catalog found.
    #[serde(default)]
    pub inventory: InventoryStatus,
    /// Bytes that nothing names any more, and what is done about those that share an extent with others.
    #[serde(default)]
    pub compaction: CompactionStatus,
    /// What a resurrection would be made of.
    #[serde(default)]
    pub journal: JournalStatus,
    /// The keyring, and how far an exchange of the cluster key is; None: there is no keyring yet.
    #[serde(default)]
    pub keys: Option<KeysStatus>,
    /// What the catalog keeps for those who follow it.
    #[serde(default)]
    pub feed: FeedStatus,
    /// The right to write, as the keeper has it.
    #[serde(default)]
    pub lease: LeaseStatus,
    /// What the other site has not confirmed; None without one.
    pub exposure: Option<Exposure>,
    /// What a promotion would lose, while one waits for a person because of it.
    #[serde(default)]
    pub would_lose: Option<WouldLose>,
    /// What a failover would be like now; None with one site.
    #[serde(default)]
    pub prediction: Option<Prediction>,
    /// The newest drill of either site.
    #[serde(default)]
    pub last_drill: Option<DrillSummary>,
    /// The newest that did more than look, and passed.
    #[serde(default)]
    pub passed_drill: Option<DrillSummary>,
    /// Why the public name can't be kept; None: it can, or there is none.
    #[serde(default)]
    pub name_trouble: Option<String>,
    /// The same in one word.
    #[serde(default)]
    pub name_trouble_reason: Option<String>,
    /// Whether this site has pointed the name here; None: there is none, or it was not looked at yet.
    #[serde(default)]
    pub name_points_here: Option<bool>,
    /// What the edge says of both sites; None: it is not asked, or was not yet.
    #[serde(default)]
    pub edge: Option<EdgeStatus>,
    /// Why the preferred site does not have the lease back; None: it has it, or this site is not active.
    #[serde(default)]
    pub failback: Option<FailbackStatus>,
    /// Milliseconds since 1970 when this was seen.
    pub seen_ms: u64,
}

/// A site's status as its keeper wrote it last; None: none yet, or one of a newer version.
pub async fn last_written(catalog: &dyn Catalog) -> Result<Option<SiteStatus>, SiteError> {
    let raw = catalog.view().await?.get(&keys::site_status(catalog.site()))?;
    Ok(raw.and_then(|raw| serde_json::from_slice(&raw).ok()))
}

/// Why the lease is not given back yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailbackStatus {
    /// One word.
    pub waiting: String,
    /// The same as a sentence.
    pub waiting_for: String,
    /// Milliseconds since 1970 when it is due if all stays well; 0: that can't be said.
    pub due_ms: u64,
}

/// How much of repair is left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Extents that wait.
    pub waiting: u64,
    /// Extents that are being repaired.
    pub running: u64,
    /// Of both, those that lack rows outside only: margin, and no damage.
    #[serde(default)]
    pub outside: u64,
    /// Of both, those whose rows are all there and only belong elsewhere: no damage either.
    #[serde(default)]
    pub moving: u64,
    /// Bytes that both will move.
    pub bytes: u64,
    /// Seconds that this will take; None: a budget is zero, nothing moves.
    pub seconds_left: Option<u64>,
    /// Rows that were made anew since this keeper began.
    pub rows: u64,
    /// Rows that were moved since then.
    #[serde(default)]
    pub moved: u64,
}

impl RepairStatus {
    /// Extents that are not whole yet in this site.
    pub const fn queue(&self) -> u64 {
        (self.waiting + self.running).saturating_sub(self.outside + self.moving)
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

/// What is dead and not freed yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionStatus {
    /// Bytes of ciphertext that nothing names and that lie in each site still.
    pub dead_bytes: u64,
    /// New extents whose versions wait for being switched.
    pub extents: u64,
    /// Versions that were switched to new extents since this keeper began.
    pub versions: u64,
    /// Bytes that were read and written for that.
    pub bytes: u64,
}

/// What the active site has written down of its catalog outside of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Milliseconds since 1970 when the oldest change came that no journal holds; 0: there is none.
    pub waiting_since_ms: u64,
    /// Journals behind the newest checkpoint.
    pub journals: u64,
    /// Their bytes.
    pub journal_bytes: u64,
    /// Keys of the newest whole checkpoint; 0: there is none.
    pub checkpoint_keys: u64,
    /// Its bytes.
    pub checkpoint_bytes: u64,
    /// Why nothing is written; None: it is.
    pub trouble: Option<String>,
}

/// The keyring of a site, and how far an exchange of the cluster key is. No key stands in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysStatus {
    /// Of the keyring.
    pub generation: Generation,
    /// Id of the cluster key that wraps it.
    pub wrapped_by: String,
    /// Ids of the cluster keys that this site is given, the newest first.
    pub held: Vec<String>,
    /// The ring key that new bytes are sealed by.
    pub current: u32,
    /// All ring keys.
    pub ring_keys: Vec<RingKeyStatus>,
    /// Where in this site the keyring was not read back.
    pub missing: Vec<String>,
    /// Nothing needs another cluster key than the newest.
    pub over: bool,
    /// The key before may be taken away.
    pub may_go: bool,
    /// How far the exchange of the cluster key is: one word.
    pub waiting: String,
    /// The same as a sentence, with what a person can do.
    pub waiting_for: String,
    /// Why the keyring is not looked after; None: it is.
    pub trouble: Option<String>,
}

/// A ring key as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingKeyStatus {
    /// Its number.
    pub number: u32,
    /// Milliseconds since 1970 when it was made.
    pub made_ms: u64,
    /// It may seal; if not, not every device is known to have it.
    pub in_use: bool,
}

impl KeysStatus {
    /// Nothing is waited for.
    pub fn is_settled(&self) -> bool {
        self.over && self.missing.is_empty() && self.ring_keys.iter().all(|key| key.in_use)
    }
}

/// The feed of a site's catalog, and the room that both take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// Commits that it goes back, at most.
    pub entries: u64,
    /// Bytes of the catalog, its feed among them.
    pub bytes: u64,
    /// Bytes at which it refuses every write; None: as much as its disk has.
    pub limit: Option<u64>,
    /// Milliseconds since 1970 when older ones were forgotten last; 0: not since this keeper began.
    pub forgotten_ms: u64,
    /// Why room is short, and what to do; None: it is not.
    pub trouble: Option<String>,
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
    /// Why the witness can't be used; None: it can, or it does not say.
    #[serde(default)]
    pub witness_trouble: Option<String>,
}

/// What would be lost if this site vanished now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Extents of objects' bytes that the other site lacks.
    pub extents: u64,
    /// Their bytes of ciphertext.
    pub bytes: u64,
    /// Commits that the other site has not confirmed.
    pub commits: u64,
    /// Objects that they made, changed or deleted.
    #[serde(default)]
    pub objects: u64,
    /// Milliseconds since all was confirmed; 0: it is.
    pub age_ms: u64,
}

/// Objects whose newest version a promotion would lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldLose {
    /// How many were counted.
    pub objects: u64,
    /// Bytes of ciphertext that they lack.
    pub bytes: u64,
    /// There are more than were counted.
    pub more: bool,
    /// The first of them, in the order of buckets and keys.
    pub first: Vec<LackingObject>,
}

impl WouldLose {
    /// Objects that are named.
    const NAMED: usize = 10;

    /// Of a page that begins with the first.
    pub fn of(page: LackingPage) -> Self {
        let LackingPage { objects: mut first, next } = page;
        let (objects, bytes) = (first.len() as u64, first.iter().map(|object| object.lacking).sum());
        first.truncate(Self::NAMED);
        Self { objects, bytes, more: next.is_some(), first }
    }

    /// For a person who has to decide.
    pub fn sentence(&self) -> String {
        let names: Vec<String> =
            self.first.iter().map(|object| format!("{}/{}", object.bucket, object.key)).collect();
        let least = if self.more { "at least " } else { "" };
        let others = if self.more || self.objects > names.len() as u64 { ", …" } else { "" };
        format!(
            "it would lose {least}{} objects, {} bytes of them: {}{others}",
            self.objects,
            self.bytes,
            names.join(", ")
        )
    }
}

/// The nodes in neither site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideStatus {
    /// Rows that each extent shall have on them.
    pub rows: u8,
    /// The nodes. Their devices are known to the active site only.
    pub nodes: Vec<NodeStatus>,
}

/// A node as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `live`, `silent`, `draining`, `drained`, `dead`; of an outside node that has not joined yet `waiting`.
    pub state: String,
    /// Its failure domain; None: none is declared.
    #[serde(default)]
    pub domain: Option<DomainName>,
    /// How far it is emptied; None: nobody asked for that, or it is dead.
    #[serde(default)]
    pub drain: Option<DrainStatus>,
    /// Its devices.
    pub devices: Vec<DeviceStatus>,
}

impl NodeStatus {
    /// It answers, and what lies on it can be read.
    pub fn answers(&self) -> bool {
        matches!(self.state.as_str(), "live" | "draining" | "drained")
    }

    /// The folders of its devices that take many times what the others take.
    pub fn slow_devices(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().filter(|device| device.slow).map(|device| device.path.as_str())
    }
}

/// How far a node, or those of its devices that a person wants emptied, is emptied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Nothing is left: the last survey found no row there that is named.
    pub done: bool,
    /// Rows that are left.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Extents that have no better place for theirs.
    pub stuck: u64,
    /// Why, as a sum; None: all goes well.
    pub why: Option<String>,
}

/// A device as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its number.
    pub id: u32,
    /// Its folder.
    pub path: String,
    /// `ok`, `full`, `draining`, `drained`, `missing`, or why it failed.
    pub state: String,
    /// It takes many times what the others take to answer.
    #[serde(default)]
    pub slow: bool,
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
