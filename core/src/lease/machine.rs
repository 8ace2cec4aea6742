//! The state machine's outside: configuration, start, `step`, and what may be asked of it at any time.

use std::sync::Arc;

use super::event::{Command, Effect, Event, NoPromotion};
#[cfg(any(test, feature = "mutations"))]
use super::guard::Guard;
use super::record::SiteRecord;
use super::start;
use super::state::{Approval, State};
use super::sublease::Loan;
use super::timers::{BootTime, Timers};
use super::turn::Turn;
use crate::ids::{Epoch, KeeperNumber, SiteName};
use crate::records::Gate;

/// `failover.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The passive site takes over by itself, if the gate on loss allows it.
    Automatic,
    /// A person says so. An own lapsed epoch is resumed, and a handover finished, without one.
    Manual,
}

/// What does not change while a keeper lives, but for the mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This site.
    pub own: SiteName,
    /// The other site; None: there is none, and no lease is needed.
    pub peer: Option<SiteName>,
    /// The site that is active in the first term; asks first when neither holds anything.
    pub preferred: SiteName,
    /// `failover.mode`.
    pub mode: Mode,
    /// Lengths of time.
    pub timers: Timers,
    /// Random, drawn for this keeper: part of each nonce.
    pub seed: u64,
}

/// Where a site stands. The diagram is in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// No record of a vote: grants and asks nothing.
    NoRecord,
    /// Backs the peer, or none yet.
    Follower,
    /// Backs itself in an epoch that it has not won.
    Candidate,
    /// Serves.
    Holder,
    /// Has won the epoch of its vote, and its votes have run out, or it has not counted any since its start.
    Lapsed,
    /// On the way to give its epoch to the peer.
    HandingOver,
    /// Another keeper speaks for the site.
    Resigned,
}

/// What a site knows of the lease, for conditions and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status {
    /// Where it stands.
    pub role: Role,
    /// Of its vote.
    pub epoch: Epoch,
    /// Which epoch it serves, and until when by this machine's clock.
    pub serves: Option<(Epoch, BootTime)>,
    /// The peer answers.
    pub peer_connected: bool,
    /// The witness answered the last call.
    pub witness_reachable: bool,
    /// When the other site was last seen to have renewed at the witness: it still went on then, or a little before.
    pub peer_renewed: Option<BootTime>,
    /// When the witness's record will have stood unchanged for a witness lease, at worst, for whoever wants to take over; None: no
    /// record was seen. The other site may see only at its next look what this site wrote.
    pub witness_aged: Option<BootTime>,
    /// Why a promotion would not be heard; None: it would.
    pub no_promotion: Option<NoPromotion>,
}

/// The lease of one site, as its keeper drives it.
#[derive(Debug, Clone)]
pub struct Lease {
    config: Arc<Config>,
    pub(super) state: State,
    #[cfg(any(test, feature = "mutations"))]
    without: Option<Guard>,
}

impl Lease {
    /// A keeper begins. `record` is the site's as its election left it (its `keeper` is this one), and `now` was taken
    /// after the election was confirmed. It holds nothing; `step` with a `Tick` comes next.
    pub fn new(config: Arc<Config>, record: SiteRecord, now: BootTime) -> Self {
        let state = start::begin(&config, record, now);
        Self {
            config,
            state,
            #[cfg(any(test, feature = "mutations"))]
            without: None,
        }
    }

    /// One event, at a moment of this machine's clock that was read after the event came. Effects are to be carried out
    /// before the next step's.
    pub fn step(&mut self, now: BootTime, event: Event) -> Vec<Effect> {
        if self.state.resigned {
            return Vec::new();
        }
        if let Event::ModeDeclared(mode) = event {
            Arc::make_mut(&mut self.config).mode = mode;
        }
        let mut turn = self.turn(now);
        match event {
            Event::Tick | Event::ModeDeclared(_) => {}
            Event::FromPeer(message) => turn.on_message(message),
            Event::RecordRead { call, record } => turn.on_record_read(call, record),
            Event::Persisted { call, outcome } => turn.on_persisted(call, outcome),
            Event::RecordSeen(record) => turn.on_record_seen(&record),
            Event::WitnessRead { call, result } => turn.on_witness_read(call, result),
            Event::SwapAnswered { call, result } => turn.on_swap_answered(call, result),
            Event::LossGate(decision) => turn.on_loss_gate(decision),
            Event::CatalogHealthy(healthy) => turn.state.catalog_healthy = healthy,
            Event::GatewayAlive(alive) => turn.state.gateway_alive = alive,
            Event::DevicesEmpty(empty) => turn.state.devices_empty = empty,
            Event::Drained => turn.on_drained(),
            Event::PeerConfirmed { position } => turn.on_peer_confirmed(position),
            Event::GatewaysStopped { epoch } => turn.on_gateways_stopped(epoch),
            Event::Command(Command::Handover) => turn.on_handover(),
            Event::Command(Command::CancelHandover) => turn.on_cancel_handover(),
            Event::Command(Command::Promote { accept_loss, lasts }) => turn.on_promote(accept_loss, lasts),
            Event::Command(Command::CancelPromotion) => turn.state.approval = Approval::None,
            Event::Command(Command::ForceVote { above }) => turn.on_force_vote(above),
        }
        turn.finish()
    }

    /// What a gateway that asks at `now` is lent; None: nothing.
    pub fn loan(&self, now: BootTime) -> Option<Loan> {
        let held = self.state.serving()?;
        (now < held.until).then(|| Loan {
            epoch: held.epoch,
            keeper: self.state.record.keeper,
            left: now.until(held.until),
        })
    }

    /// The site's record as last observed durable.
    pub fn record(&self) -> &SiteRecord {
        &self.state.record
    }

    /// Number of this keeper.
    pub fn keeper(&self) -> KeeperNumber {
        self.state.record.keeper
    }

    /// For conditions and metrics.
    pub fn status(&self, now: BootTime) -> Status {
        let state = &self.state;
        let serves = state.serving().filter(|held| now < held.until);
        Status {
            role: self.role(serves.is_some()),
            epoch: state.record.epoch(),
            serves: serves.map(|held| (held.epoch, held.until)),
            peer_connected: now < state.link.connected_until,
            witness_reachable: state.witness.reachable,
            peer_renewed: self.peer_renewed(),
            witness_aged: self.witness_aged(),
            no_promotion: state.no_promotion(now),
        }
    }

    fn peer_renewed(&self) -> Option<BootTime> {
        let seen = self.state.witness.seen.as_ref()?;
        let of_peer = seen.record.as_ref().is_some_and(|record| record.site != self.config.own);
        // A token that had aged before this keeper began says nothing of when it was new.
        let aged = seen.token.is_some() && seen.token == self.state.record.old;
        let since = seen.free_at.0.saturating_sub(self.config.timers.witness_wait.0);
        (of_peer && !aged).then_some(BootTime(since))
    }

    fn witness_aged(&self) -> Option<BootTime> {
        let seen = self.state.witness.seen.as_ref()?;
        let own = seen.record.as_ref().is_some_and(|record| record.site == self.config.own);
        Some(if own { seen.free_at + self.config.timers.witness_look } else { seen.free_at })
    }

    fn role(&self, serves: bool) -> Role {
        let state = &self.state;
        let record = &state.record;
        if state.resigned {
            Role::Resigned
        } else if record.vote.is_none() {
            Role::NoRecord
        } else if !record.backs(&self.config.own) {
            Role::Follower
        } else if state.handover.is_some() {
            Role::HandingOver
        } else if serves {
            Role::Holder
        } else if record.gate == Gate::Open(record.epoch()) {
            Role::Lapsed
        } else {
            Role::Candidate
        }
    }

    #[cfg(any(test, feature = "mutations"))]
    pub(super) fn timers(&self) -> &Timers {
        &self.config.timers
    }

    fn turn(&mut self, now: BootTime) -> Turn<'_> {
        Turn {
            config: &self.config,
            state: &mut self.state,
            now,
            effects: Vec::new(),
            asks: false,
            #[cfg(any(test, feature = "mutations"))]
            without: self.without,
        }
    }

    /// Takes a guard out, to show that the properties fall without it.
    #[cfg(any(test, feature = "mutations"))]
    #[must_use]
    pub const fn without(mut self, guard: Option<Guard>) -> Self {
        self.without = guard;
        self
    }

    /// A start, with a guard taken out: its wait as well, if the guard is one.
    #[cfg(any(test, feature = "mutations"))]
    pub fn start_without(
        config: Arc<Config>,
        record: SiteRecord,
        now: BootTime,
        guard: Option<Guard>,
    ) -> Self {
        let mut lease = Self::new(config, record, now).without(guard);
        start::forget(&mut lease.state, guard, now);
        lease
    }
}
