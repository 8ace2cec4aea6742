//! What a node-agent is asked and what it answers: one struct a request, named by [`Op`], in postcard.
//!
//! A frame's meta is the request, or for an answer `Result<Reply, AgentError>`; bulk bytes follow as the frame's payload.

mod error;
mod extents;
mod rows;
mod session;

use diptych_core::ids::InstanceId;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::AgentError;
pub use extents::{Cross, CrossTarget, CrossedRow, Door, ExtentFacts, FarNode, Rebuild, Rebuilt, Source};
pub use rows::{
    Abandon, Append, Begin, BeginReply, BeginRow, Delete, Describe, Inventory, InventoryPage,
    InventoryRecord, Lend, Locate, PlaceRows, Read, ReadItem, RowAt, RowFacts, RowHead, RowPlace, Seal,
    StreamId, Verified, Verify,
};
pub use session::{
    AgentStatus, DeviceFacts, DeviceKeyring, DeviceState, DeviceTakes, Finding, Format, GetKeyring, Hello,
    HelloReply, Metrics, Ping, PutKeyring, Raise, Scrub, ScrubProgress, SealedKeyring, Status,
};

/// What a request asks for; stands in the frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Op {
    /// First frame of a connection.
    Hello = 1,
    /// Nothing: is it there, and how far away.
    Ping = 2,
    /// The site's epoch.
    Raise = 3,
    /// Write whole rows.
    PlaceRows = 4,
    /// Begin to write rows whose bytes come in pieces.
    Begin = 5,
    /// More bytes of a stream.
    Append = 6,
    /// Make a stream's rows durable.
    Seal = 7,
    /// Give a stream up.
    Abandon = 8,
    /// Read ranges of rows.
    Read = 9,
    /// What a row is.
    Describe = 10,
    /// Delete rows.
    Delete = 11,
    /// List rows.
    Inventory = 12,
    /// Devices and their state.
    Status = 13,
    /// Read all of a device and check it.
    Scrub = 14,
    /// Make a lost row from k others.
    Rebuild = 15,
    /// Fetch an extent from the other site and make this site's rows.
    Cross = 16,
    /// Keep a keyring.
    PutKeyring = 17,
    /// The keyrings that are kept.
    GetKeyring = 18,
    /// Make a folder a device.
    Format = 19,
    /// Counters, as Prometheus text.
    Metrics = 20,
    /// Read a whole row from its device and check it.
    Verify = 21,
    /// Where rows lie in the files of their devices.
    Locate = 22,
    /// Lend such a file for reading.
    Lend = 23,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Hello,
        Self::Ping,
        Self::Raise,
        Self::PlaceRows,
        Self::Begin,
        Self::Append,
        Self::Seal,
        Self::Abandon,
        Self::Read,
        Self::Describe,
        Self::Delete,
        Self::Inventory,
        Self::Status,
        Self::Scrub,
        Self::Rebuild,
        Self::Cross,
        Self::PutKeyring,
        Self::GetKeyring,
        Self::Format,
        Self::Metrics,
        Self::Verify,
        Self::Locate,
        Self::Lend,
    ];

    /// Reads the number in a frame's header.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|op| *op as u16 == number)
    }

    /// For logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Ping => "ping",
            Self::Raise => "raise",
            Self::PlaceRows => "place_rows",
            Self::Begin => "begin",
            Self::Append => "append",
            Self::Seal => "seal",
            Self::Abandon => "abandon",
            Self::Read => "read",
            Self::Describe => "describe",
            Self::Delete => "delete",
            Self::Inventory => "inventory",
            Self::Status => "status",
            Self::Scrub => "scrub",
            Self::Rebuild => "rebuild",
            Self::Cross => "cross",
            Self::PutKeyring => "put_keyring",
            Self::GetKeyring => "get_keyring",
            Self::Format => "format",
            Self::Metrics => "metrics",
            Self::Verify => "verify",
            Self::Locate => "locate",
            Self::Lend => "lend",
        }
    }
}

/// A request and the type of its answer.
pub trait Call: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its number.
    const OP: Op;
    /// What the agent answers when it does not refuse.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

macro_rules! calls {
    ($($request:ident => $reply:ty),* $(,)?) => {
        $(impl Call for $request {
            const OP: Op = Op::$request;
            type Reply = $reply;
        })*
    };
}

calls! {
    Hello => HelloReply,
    Ping => (),
    Raise => (),
    PlaceRows => Vec<Result<InstanceId, AgentError>>,
    Begin => BeginReply,
    Append => Vec<(u16, AgentError)>,
    Seal => Vec<Result<InstanceId, AgentError>>,
    Abandon => (),
    Read => Vec<Result<u32, AgentError>>,
    Describe => RowFacts,
    Delete => Vec<Result<(), AgentError>>,
    Inventory => InventoryPage,
    Status => AgentStatus,
    Scrub => (),
    Rebuild => Rebuilt,
    Cross => Vec<CrossedRow>,
    PutKeyring => (),
    GetKeyring => Vec<DeviceKeyring>,
    Format => (),
    Metrics => String,
    Verify => Verified,
    Locate => Vec<Result<Option<RowPlace>, AgentError>>,
    Lend => (),
}
