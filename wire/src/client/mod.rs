//! Client of one node's agent: over its unix socket where that is on this machine, else over mTLS.
//!
//! One connection for small requests and a few for bulk, so that a megabyte never stands before a kilobyte; one for what an agent on this machine lends.

mod calls;
mod connection;
mod lane;
mod loan;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{NodeName, SiteName};
use thiserror::Error;

use crate::agent::{AgentError, Call};
use crate::tls::{Credentials, TlsError};
use lane::{Kind, Lane};

pub use loan::Loan;
pub use stream::RowStream;

/// Requests and answers up to this go over the connection for small ones.
pub const SMALL: usize = 16 << 10;

/// A call that did not succeed.
#[derive(Debug, Clone, Error)]
pub enum CallError {
    /// The agent answered, and refused or failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// No connection: nothing was sent.
    #[error("the agent of node {node} can't be reached: {reason}")]
    Unreachable {
        /// Node.
        node: String,
        /// Why.
        reason: String,
    },
    /// No answer in time: whether it was done is unknown.
    #[error("the agent of node {node} has not answered {op} in {after:?}: whether it was done is unknown")]
    TimedOut {
        /// Node.
        node: String,
        /// What was asked.
        op: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke: whether it was done is unknown.
    #[error(
        "the connection to the agent of node {node} broke during {op}, whether it was done is unknown: {reason}"
    )]
    Disconnected {
        /// Node.
        node: String,
        /// What was asked.
        op: &'static str,
        /// Why.
        reason: String,
    },
    /// The agent sent what can't be read.
    #[error("the agent of node {node} breaks the protocol: {reason}")]
    Protocol {
        /// Node.
        node: String,
        /// How.
        reason: String,
    },
    /// More than a frame holds: nothing was sent.
    #[error("{op} to node {node} is larger than a frame: send it in parts")]
    TooLarge {
        /// Node.
        node: String,
        /// What was asked.
        op: &'static str,
    },
}

impl CallError {
    /// What the agent answered, if it did.
    pub const fn agent(&self) -> Option<&AgentError> {
        if let Self::Agent(error) = self { Some(error) } else { None }
    }

    /// The node may be down, or the way to it.
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Disconnected { .. })
    }
}

/// Where an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its site.
    pub site: SiteName,
    /// Its node: must be the name in its certificate.
    pub node: NodeName,
    /// `host:port` of its TLS listener.
    pub address: String,
    /// Its unix socket, if it may be on this machine.
    pub socket: Option<PathBuf>,
}

/// Times and numbers of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// For a connection, its handshake and greeting.
    pub connect: Duration,
    /// For a small call.
    pub call: Duration,
    /// For a call with bulk bytes, or one that waits for a disk.
    pub bulk: Duration,
    /// Connections for bulk.
    pub bulk_connections: usize,
    /// Appends of a stream that may be unanswered.
    pub window: usize,
    /// Between two looks whether the agent is still there.
    pub heartbeat: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            call: Duration::from_secs(5),
            bulk: Duration::from_secs(20),
            bulk_connections: 3,
            window: 4,
            heartbeat: Duration::from_secs(2),
        }
    }
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    options: ClientOptions,
    small: Lane,
    bulk: Vec<Lane>,
    lender: Lane,
    turn: AtomicUsize,
    round_trip: Arc<AtomicU64>,
}

/// Client of one agent. Cheap to clone. Connects when it is first used and again after a break; while an agent can't be
/// reached, calls fail at once until the next attempt is due.
#[derive(Debug, Clone)]
pub struct AgentClient {
    inner: Arc<Inner>,
}

impl AgentClient {
    /// A client that speaks as `credentials` say. Must be used inside a tokio runtime.
    pub fn new(
        endpoint: Endpoint,
        credentials: &Credentials,
        options: ClientOptions,
    ) -> Result<Self, TlsError> {
        let round_trip = Arc::new(AtomicU64::new(0));
        let dial = Arc::new(lane::Dial::new(endpoint.clone(), credentials, &options)?);
        let lane = |kind| Lane::new(dial.clone(), kind, round_trip.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                small: lane(Kind::Any),
                bulk: (0..options.bulk_connections.max(1)).map(|_| lane(Kind::Any)).collect(),
                lender: lane(Kind::Lending),
                endpoint,
                options,
                turn: AtomicUsize::new(0),
                round_trip: round_trip.clone(),
            }),
        })
    }

    /// Where the agent is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Smoothed round-trip time. None: not measured yet.
    pub fn round_trip(&self) -> Option<Duration> {
        match self.inner.round_trip.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Any call, within `limit`. `answer` is how many bulk bytes the answer may have: chooses the connection.
    pub async fn call<C: Call>(
        &self,
        request: &C,
        payload: Vec<Bytes>,
        answer: usize,
        limit: Duration,
    ) -> Result<(C::Reply, Bytes), CallError> {
        let size = answer + payload.iter().map(Bytes::len).sum::<usize>();
        let lane = if size <= SMALL { &self.inner.small } else { self.bulk_lane() };
        let connection = lane.connection().await?;
        connection.call(request, payload, limit).await
    }

    fn bulk_lane(&self) -> &Lane {
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        &self.inner.bulk[turn % self.inner.bulk.len()]
    }
}
