//! Faults that a test asks for. The product never does.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use serde::{Deserialize, Serialize};

/// What is wrong at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Milliseconds until edge and DNS see a change.
    pub propagation_ms: u64,
    /// More milliseconds, by chance, for each name by itself.
    pub jitter_ms: u64,
    /// Connections to the API are cut without an answer.
    pub api_down: bool,
    /// DNS queries get no answer.
    pub dns_down: bool,
    /// Addresses that neither the edge nor health checks reach: connections to them time out.
    pub unreached: BTreeSet<IpAddr>,
    /// Connections to the edge are cut without an answer.
    pub edge_down: bool,
    /// Ids (or secrets) of tokens that are unknown from now on.
    pub revoked: BTreeSet<String>,
    /// What the next calls of the API get, in this order.
    pub next: Vec<NextCalls>,
}

/// A fault for some calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextCalls {
    /// How many; used up one by one.
    pub calls: u32,
    /// What they get.
    pub fault: CallFault,
    /// Which calls are meant; others pass by.
    #[serde(default)]
    pub only: Only,
}

/// Which calls a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// Each.
    #[default]
    Any,
    /// `GET`.
    Reads,
    /// All others.
    Writes,
}

/// What a call gets instead of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallFault {
    /// 500, not applied.
    InternalError,
    /// 502, not applied.
    BadGateway,
    /// 502, but applied.
    BadGatewayApplied,
    /// 429 with `retry-after: 300`, not applied.
    RateLimited,
    /// No answer, not applied.
    Timeout,
    /// No answer, but applied.
    TimeoutApplied,
    /// Connection cut, not applied.
    Cut,
    /// Connection cut, but applied.
    CutApplied,
}

impl CallFault {
    /// Does the call take effect?
    pub(super) fn is_applied(self) -> bool {
        match self {
            Self::BadGatewayApplied | Self::TimeoutApplied | Self::CutApplied => true,
            Self::InternalError | Self::BadGateway | Self::RateLimited | Self::Timeout | Self::Cut => false,
        }
    }
}

/// The faults, shared.
#[derive(Debug, Default)]
pub(super) struct FaultBoard(Mutex<Faults>);

impl FaultBoard {
    pub(super) fn new(faults: Faults) -> Self {
        Self(Mutex::new(faults))
    }

    pub(super) fn get(&self) -> Faults {
        self.lock().clone()
    }

    pub(super) fn set(&self, faults: Faults) {
        *self.lock() = faults;
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&Faults) -> T) -> T {
        look(&self.lock())
    }

    /// Takes the fault that is meant for this call.
    pub(super) fn take(&self, method: &Method) -> Option<CallFault> {
        let mut faults = self.lock();
        let meant = |next: &NextCalls| match next.only {
            Only::Any => true,
            Only::Reads => method == Method::GET,
            Only::Writes => method != Method::GET,
        };
        let at = faults.next.iter().position(|next| next.calls > 0 && meant(next))?;
        let next = &mut faults.next[at];
        next.calls -= 1;
        let fault = next.fault;
        faults.next.retain(|next| next.calls > 0);
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
