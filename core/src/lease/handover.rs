//! The planned way to pass the lease on: drain, seal, wait until the peer lacks nothing, stop the gateways, give the
//! vote away. Until the vote moves all of it can be taken back; afterwards nothing.

use super::event::{Effect, Waiting};
use super::guard::Guard;
use super::persist::Purpose;
use super::state::Released;
use super::timers::BootTime;
use super::turn::Turn;
use crate::ids::Epoch;
use crate::records::{Gate, Position};

/// How far a handover has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Handover {
    /// Writes in flight end; votes are still renewed.
    Draining { until: BootTime, confirmed: Option<Position> },
    /// The seal is being stored. From here on votes are neither renewed nor counted.
    Sealing { until: BootTime, cancelled: bool, confirmed: Option<Position> },
    /// Sealed here; the peer may lack something.
    Confirming { sealed: Position, until: BootTime },
    /// The peer lacks nothing up to here; gateways stop, or their deadlines pass.
    Stopping { sealed: Position },
    /// The vote is being moved: no way back.
    Releasing,
}

impl Handover {
    pub(super) const fn stops_gateways(&self) -> bool {
        match self {
            Self::Draining { .. } | Self::Sealing { .. } | Self::Confirming { .. } => false,
            Self::Stopping { .. } | Self::Releasing => true,
        }
    }

    pub(super) const fn due(&mut self) -> Option<&mut BootTime> {
        match self {
            Self::Draining { until, .. } | Self::Sealing { until, .. } | Self::Confirming { until, .. } => {
                Some(until)
            }
            Self::Stopping { .. } | Self::Releasing => None,
        }
    }
}

impl Turn<'_> {
    /// A sealed site neither renews nor counts votes.
    pub(super) fn votes_are_blocked(&self) -> bool {
        self.state.handover.as_ref().is_some_and(|handover| !matches!(handover, Handover::Draining { .. }))
    }

    pub(super) fn on_handover(&mut self) {
        let ready = self.state.lease.is_some() && self.has_won_its_vote() && self.connected();
        if self.state.handover.is_none() && ready {
            let until = self.now + self.timers().handover;
            self.state.handover = Some(Handover::Draining { until, confirmed: None });
            self.state.drained = true;
            self.effects.push(Effect::Drain { epoch: self.state.record.epoch() });
        }
    }

    pub(super) fn on_cancel_handover(&mut self) {
        match &mut self.state.handover {
            Some(Handover::Draining { .. } | Handover::Confirming { .. } | Handover::Stopping { .. }) => {
                self.end_handover();
            }
            Some(Handover::Sealing { cancelled, .. }) => *cancelled = true,
            // Once the vote is on its way to the peer it can't be called back.
            Some(Handover::Releasing) | None => {}
        }
    }

    /// A sealed gate is opened again by the next step that may.
    pub(super) fn end_handover(&mut self) {
        self.state.handover = None;
    }

    /// Lets held writes go on once no handover is under way, and none of them would meet a sealed gate.
    pub(super) fn undrain(&mut self) {
        let state = &mut *self.state;
        if state.drained && state.handover.is_none() && !matches!(state.record.gate, Gate::Sealed(_)) {
            state.drained = false;
            self.effects.push(Effect::Undrain { epoch: state.record.epoch() });
        }
    }

    pub(super) fn on_drained(&mut self) {
        if let Some(Handover::Draining { until, confirmed }) = self.state.handover
            && self.state.persisting.is_none()
            && self.has_won_its_vote()
        {
            self.state.handover = Some(Handover::Sealing { until, cancelled: false, confirmed });
            let new = self.state.record.with_gate(Gate::Sealed(self.state.record.epoch()));
            self.persist(new, Purpose::Seal);
        }
    }

    pub(super) fn on_sealed(&mut self, sealed: Position) {
        match self.state.handover {
            Some(Handover::Sealing { cancelled: false, confirmed: Some(_), .. })
                if !self.guards(Guard::LookAfterSeal) =>
            {
                self.on_nothing_missing(sealed);
            }
            Some(Handover::Sealing { cancelled: false, until, .. }) => {
                self.state.handover = Some(Handover::Confirming { sealed, until });
                self.effects.push(Effect::AwaitPeer { position: sealed });
                if !self.guards(Guard::NothingMissing) {
                    self.on_nothing_missing(sealed);
                }
            }
            Some(_) => self.end_handover(),
            None => {}
        }
    }

    pub(super) fn on_peer_confirmed(&mut self, position: Position) {
        match &mut self.state.handover {
            // FENCING (a handover misses nothing): only what was looked at after the seal was durable counts, and only
            // in the catalog that was sealed.
            Some(Handover::Confirming { sealed, .. })
                if position.incarnation == sealed.incarnation && position.revision >= sealed.revision =>
            {
                let sealed = *sealed;
                self.on_nothing_missing(sealed);
            }
            Some(Handover::Draining { confirmed, .. } | Handover::Sealing { confirmed, .. }) => {
                *confirmed = Some(position);
            }
            Some(Handover::Confirming { .. } | Handover::Stopping { .. } | Handover::Releasing) | None => {}
        }
    }

    fn on_nothing_missing(&mut self, sealed: Position) {
        self.state.handover = Some(Handover::Stopping { sealed });
        self.effects.push(Effect::StopGateways { epoch: self.state.record.epoch() });
    }

    pub(super) fn on_gateways_stopped(&mut self, epoch: Epoch) {
        if let Some(Handover::Stopping { .. }) = self.state.handover
            && epoch == self.state.record.epoch()
        {
            self.state.lease = None;
            self.state.own_over = self.now;
        }
    }

    /// Takes the handover one step on, or gives it up.
    pub(super) fn hand_over(&mut self) -> Option<Waiting> {
        match self.state.handover {
            Some(Handover::Draining { until, .. }) => {
                if self.past(until) || self.state.lease.is_none() {
                    self.end_handover();
                } else {
                    let _ = self.raise_above_burned();
                    self.renew_at_witness();
                }
                Some(Waiting::Drain)
            }
            // The seal was refused: the record has moved.
            Some(Handover::Sealing { .. } | Handover::Releasing) => {
                self.end_handover();
                None
            }
            Some(Handover::Confirming { until, .. }) => {
                if self.past(until) {
                    self.end_handover();
                }
                Some(Waiting::PeerConfirmation)
            }
            Some(Handover::Stopping { sealed }) => Some(self.release(sealed)),
            None => None,
        }
    }

    fn release(&mut self, sealed: Position) -> Waiting {
        // FENCING (one valid holder): no gateway answers under the old epoch any more, by its own word or by a voter's
        // count, before the peer gets the vote.
        if self.guards(Guard::StoppedBeforeRelease) && !self.past(self.state.own_over) {
            return Waiting::GatewaysStop { until: self.state.own_over };
        }
        let epoch = Epoch(self.state.record.epoch().0 + 1);
        let new = self.state.record.with(epoch, self.config.peer.clone(), Gate::Closed);
        self.state.handover = Some(Handover::Releasing);
        self.persist(new, Purpose::Release(sealed));
        Waiting::Catalog
    }

    /// The vote has moved, durably.
    pub(super) fn on_released(&mut self, revision: Position) {
        let epoch = self.state.record.epoch();
        self.state.promise_over = self.state.promise_over.max(self.now + self.timers().peer_wait);
        self.state.released = Some(Released { epoch, revision, again_at: self.now });
    }

    /// A gate that is sealed without a handover under way (it was given up, or its keeper died): the vote has not moved,
    /// so it may open again.
    pub(super) fn unseal(&mut self, epoch: Epoch) -> Waiting {
        if self.votes_for_self() && self.healthy() {
            self.persist(self.state.record.with_gate(Gate::Open(epoch)), Purpose::Unseal);
        }
        Waiting::Catalog
    }
}
