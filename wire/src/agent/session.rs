//! Who speaks to whom, the agent's state, and what concerns all of it.

use std::path::PathBuf;
use std::time::Duration;

use diptych_core::ids::{
    ClusterId, DeviceId, ExtentId, Generation, InstanceId, NodeName, Row, SiteName, Stamp,
};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// First frame of each connection. Over TLS the certificate speaks, over a unix socket this and the peer's uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub sender: Identity,
    /// Node that the sender means to speak to; another one refuses.
    pub expects: Option<NodeName>,
}

/// The agent's answer to `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// Its site.
    pub site: SiteName,
    /// Its node.
    pub node: NodeName,
    /// Version of its program.
    pub version: String,
    /// Highest stamp that it has heard.
    pub stamp: Stamp,
    /// It has heard its site's epoch since it started, so it takes commands.
    pub ready: bool,
    /// Its devices.
    pub devices: Vec<DeviceFacts>,
}

/// Nothing: measures the way, and keeps it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

/// The site's epoch, and the keeper that says so. From now on lower stamps are refused, also after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// Epoch and keeper.
    pub stamp: Stamp,
}

/// State of the agent and its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// Answer to `Status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its site.
    pub site: SiteName,
    /// Its node.
    pub node: NodeName,
    /// Version of its program.
    pub version: String,
    /// Highest stamp that it has heard.
    pub stamp: Stamp,
    /// It has heard its site's epoch since it started.
    pub ready: bool,
    /// Its devices.
    pub devices: Vec<DeviceFacts>,
}

/// A device as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// Its number; None: the folder is there and was not made a device yet.
    pub device: Option<DeviceId>,
    /// Its folder.
    pub path: PathBuf,
    /// Whether it can be used.
    pub state: DeviceState,
    /// Bytes of the file system that it may fill.
    pub capacity: u64,
    /// Bytes that its segments take.
    pub used: u64,
    /// Rows on it.
    pub rows: u64,
    /// Grows each time that it is opened anew after a failure or made.
    pub generation: Generation,
    /// What it takes lately.
    pub takes: DeviceTakes,
    /// How far the present scrub has come.
    pub scrub: ScrubProgress,
    /// Rows that are rotten and want a rebuild, at most a thousand.
    pub findings: Vec<Finding>,
}

/// What 99 of 100 requests took at most of late, the device alone, without the way to it. None: too few were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceTakes {
    /// To read a range.
    pub read: Option<Duration>,
    /// Until a whole row was durable.
    pub write: Option<Duration>,
}

/// Whether a device can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    /// Reads and writes.
    Ok,
    /// Reads, deletes and repair; no more writes of clients.
    Full,
    /// Closed after an error; reopened when it can be.
    Failed(String),
    /// Its path is not there.
    Missing,
    /// Its folder is empty and waits for its number (`Format`).
    Unformatted,
}

/// How far a scrub has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScrubProgress {
    /// One is under way.
    pub running: bool,
    /// Rows read since it began.
    pub rows: u64,
    /// Bytes read since it began.
    pub bytes: u64,
    /// Milliseconds since 1970 when the last whole one ended; 0: never.
    pub finished_ms: u64,
}

/// A row that does not read as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Extent it is of.
    pub extent: ExtentId,
    /// Its number.
    pub row: Row,
    /// Which record.
    pub instance: InstanceId,
    /// What is wrong with it.
    pub reason: String,
}

/// Read all of a device and check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    /// Which; None: all.
    pub device: Option<DeviceId>,
    /// At once and without its budget, the answer when it is done; else the answer at once.
    pub now: bool,
}

/// Keep a keyring on every device. An older generation than the one kept is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutKeyring {
    /// Term and keeper that the sender knows.
    pub stamp: Stamp,
    /// The keyring.
    pub keyring: SealedKeyring,
}

/// The keyring of each device in use, read from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetKeyring {}

/// What one device answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKeyring {
    /// The device.
    pub device: DeviceId,
    /// None: it keeps none.
    pub keyring: Option<SealedKeyring>,
}

/// A keyring as it is kept: wrapped by the cluster key, which no agent has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKeyring {
    /// Grows with each change.
    pub generation: Generation,
    /// Its sealed form.
    pub sealed: Vec<u8>,
}

/// Make the empty folder at `path` a device of this agent. The path must be one that the agent was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Term and keeper that the sender knows.
    pub stamp: Stamp,
    /// Folder.
    pub path: PathBuf,
    /// Its number, which no other device of the site has or had.
    pub device: DeviceId,
}

/// Counters and gauges, as Prometheus text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {}
