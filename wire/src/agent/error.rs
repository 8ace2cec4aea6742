//! Why an agent refuses or fails: typed, because callers choose by it what to do next.

use diptych_core::ids::{ClusterId, DeviceId, Generation, Stamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Answer of an agent that did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum AgentError {
    /// The command is of a term or keeper that is over: the sender must stop and look at the catalog.
    #[error(
        "the command's stamp is older than {have}, which this agent has heard: nothing was changed; read the site's epoch again"
    )]
    StaleStamp {
        /// Highest stamp heard.
        have: Stamp,
    },
    /// The command was planned on an older placement map.
    #[error(
        "the command's placement map is older than generation {have}: nothing was changed; read the map and place again"
    )]
    StaleMap {
        /// Highest generation heard.
        have: Generation,
    },
    /// Since its start the agent has heard no epoch.
    #[error("this agent has started and not yet heard its site's epoch: raise it first, reads are served")]
    NotReady,
    /// No room for this kind of write.
    #[error("device {device} is full: nothing was written to it")]
    DeviceFull {
        /// Which.
        device: DeviceId,
    },
    /// Its folder or disk gave an error; it takes and gives nothing until it is reopened.
    #[error("device {device} has failed and is closed until it can be reopened: {reason}")]
    DeviceFailed {
        /// Which.
        device: DeviceId,
        /// What the system said.
        reason: String,
    },
    /// This agent has no such device.
    #[error("device {device} is not on this node or its path is missing")]
    DeviceMissing {
        /// Which.
        device: DeviceId,
    },
    /// No such row, or another instance of it.
    #[error("the row is not on the device")]
    NotFound,
    /// The record's checksums do not fit its bytes; it is quarantined and wants a rebuild.
    #[error("the record on device {device} is rotten and quarantined: read other rows and rebuild this one")]
    Rotten {
        /// Which.
        device: DeviceId,
    },
    /// The range ends after the row does.
    #[error("the range ends past the row's end at byte {len}")]
    OutOfRange {
        /// Bytes of the row.
        len: u32,
    },
    /// Sender and agent belong to different clusters.
    #[error("this agent belongs to cluster {have}")]
    WrongCluster {
        /// The agent's.
        have: ClusterId,
    },
    /// The sender's role may not ask for this.
    #[error("{who} may not ask for {op}")]
    Denied {
        /// Its identity.
        who: String,
        /// What it asked for.
        op: String,
    },
    /// The stream was sealed, given up, or timed out.
    #[error("the stream is not open: it was sealed, given up, or idle for too long; begin again")]
    NoSuchStream,
    /// Bytes from elsewhere do not have the extent's hash, and no single row can be blamed.
    #[error(
        "the extent's bytes do not have its hash, whichever rows are taken: nothing was written; more rows would tell which one is wrong"
    )]
    WrongExtent,
    /// Fewer than k rows could be read.
    #[error("{present} rows could be read and {needed} are needed: {reason}")]
    InsufficientRows {
        /// Rows that answered.
        present: u8,
        /// Rows needed.
        needed: u8,
        /// What the others said.
        reason: String,
    },
    /// The other site's door says that the extent is no longer there: read the feed on.
    #[error("the other site no longer has the extent: it was replaced or deleted there, read the feed on")]
    Gone,
    /// A machine that this agent needs for the task can't be reached.
    #[error("{what} can't be reached: {reason}")]
    Unreachable {
        /// Who.
        what: String,
        /// Why.
        reason: String,
    },
    /// The request contradicts itself.
    #[error("the request is not valid: {reason}")]
    Invalid {
        /// In which way.
        reason: String,
    },
    /// The agent is doing as much as it may; come again.
    #[error("the agent is busy: try again")]
    Busy,
    /// The agent stops.
    #[error("the agent is shutting down")]
    ShuttingDown,
    /// Anything else; the text says what.
    #[error("the agent failed: {reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
}

impl AgentError {
    /// Metric label and Event reason.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::StaleStamp { .. } => "stale_stamp",
            Self::StaleMap { .. } => "stale_map",
            Self::NotReady => "not_ready",
            Self::DeviceFull { .. } => "device_full",
            Self::DeviceFailed { .. } => "device_failed",
            Self::DeviceMissing { .. } => "device_missing",
            Self::NotFound => "not_found",
            Self::Rotten { .. } => "rotten",
            Self::OutOfRange { .. } => "out_of_range",
            Self::WrongCluster { .. } => "wrong_cluster",
            Self::Denied { .. } => "denied",
            Self::NoSuchStream => "no_such_stream",
            Self::WrongExtent => "wrong_extent",
            Self::InsufficientRows { .. } => "insufficient_rows",
            Self::Gone => "gone",
            Self::Unreachable { .. } => "unreachable",
            Self::Invalid { .. } => "invalid",
            Self::Busy => "busy",
            Self::ShuttingDown => "shutting_down",
            Self::Internal { .. } => "internal",
        }
    }
}
