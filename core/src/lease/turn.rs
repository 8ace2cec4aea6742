//! One step: an event is noted, then all that is due at this moment is done, in one fixed order.

use super::event::{Effect, Waiting};
use super::guard::Guard;
use super::machine::Config;
use super::state::{Held, Loss, Published, State};
use super::timers::{BootTime, Timers};
use crate::ids::Epoch;
use crate::records::Gate;

/// A step under way.
pub(super) struct Turn<'a> {
    pub(super) config: &'a Config,
    pub(super) state: &'a mut State,
    pub(super) now: BootTime,
    pub(super) effects: Vec<Effect>,
    /// This step found that the vote for the own site may be asked of the peer, though nothing is held.
    pub(super) asks: bool,
    #[cfg(any(test, feature = "mutations"))]
    pub(super) without: Option<Guard>,
}

impl Turn<'_> {
    /// Whether a guard is in force. In production each is.
    #[cfg(any(test, feature = "mutations"))]
    pub(super) fn guards(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    /// Whether a guard is in force. In production each is.
    #[cfg(not(any(test, feature = "mutations")))]
    #[expect(clippy::unused_self, reason = "the same call as where guards can be taken out")]
    pub(super) const fn guards(&self, _: Guard) -> bool {
        true
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.config.timers
    }

    /// A number that no call, message or nonce of this keeper had before.
    pub(super) fn number(&mut self) -> u64 {
        self.state.next_number += 1;
        self.state.next_number
    }

    pub(super) fn past(&self, due: BootTime) -> bool {
        self.now >= due
    }

    pub(super) fn connected(&self) -> bool {
        !self.past(self.state.link.connected_until)
    }

    pub(super) fn healthy(&self) -> bool {
        self.state.catalog_healthy && self.state.gateway_alive
    }

    pub(super) fn votes_for_self(&self) -> bool {
        self.state.record.backs(&self.config.own)
    }

    /// The vote is for this site, in an epoch that it won.
    pub(super) fn has_won_its_vote(&self) -> bool {
        self.votes_for_self() && self.state.record.gate == Gate::Open(self.state.record.epoch())
    }

    /// The vote for this site in `epoch` is durable, and nothing under way moves it or seals the gate.
    pub(super) fn stands_in(&self, epoch: Epoch) -> bool {
        let stands = |record: &super::SiteRecord| {
            record.epoch() == epoch
                && record.backs(&self.config.own)
                && !matches!(record.gate, Gate::Sealed(_))
        };
        stands(&self.state.record)
            && self.state.persisting.as_ref().is_none_or(|persisting| stands(&persisting.new))
    }

    /// Counts the second vote for `epoch`: it holds until `until`, and by a voter's count until `over`.
    pub(super) fn count(&mut self, epoch: Epoch, until: BootTime, over: BootTime) {
        // FENCING (one valid holder): a vote that came for an own vote which has moved on since, or is about to, was
        // given for nothing; the peer may have this site's promise by now.
        let must_stand = self.guards(Guard::VoteStands) && self.guards(Guard::VoteBeforeSwap);
        if must_stand && !self.stands_in(epoch) || self.past(until) {
            return;
        }
        let state = &mut *self.state;
        state.own_over = state.own_over.max(over);
        // FENCING (a win has two votes): only a gate that was observed open at this epoch is served under; a win waits
        // for its own transaction.
        let held = if state.record.gate == Gate::Open(epoch) { &mut state.lease } else { &mut state.win };
        let before = held.filter(|held| held.epoch == epoch).map_or(until, |held| held.until);
        *held = Some(Held { epoch, until: until.max(before) });
    }

    /// Does all that is due, and gives the effects back.
    pub(super) fn finish(mut self) -> Vec<Effect> {
        if self.state.resigned {
            return self.effects;
        }
        self.expire();
        let waiting = if self.config.peer.is_some() { self.advance() } else { self.serve_alone() };
        if self.config.peer.is_some() {
            self.talk_to_peer();
            self.look_at_witness();
        }
        self.undrain();
        self.publish(waiting);
        self.effects
    }

    /// Forgets what has run out.
    fn expire(&mut self) {
        let now = self.now;
        let state = &mut *self.state;
        state.lease = state.lease.filter(|held| now < held.until);
        state.win = state.win.filter(|held| now < held.until);
        if let Loss::Allowed { until } = state.loss
            && now >= until
        {
            state.loss = Loss::Unasked;
        }
        self.expire_approval();
        self.expire_link();
        self.expire_witness();
        self.retry_persist();
    }

    /// What comes next for a site of two, in order of urgency; says what it waits for.
    fn advance(&mut self) -> Option<Waiting> {
        if self.state.persisting.is_some() {
            return self.waits_for_catalog();
        }
        if self.state.record.vote.is_none() {
            return Some(self.find_record());
        }
        if let Some(win) = self.state.win {
            return Some(self.open_gate(win.epoch));
        }
        if self.state.handover.is_some() {
            return self.hand_over();
        }
        if let Gate::Sealed(epoch) = self.state.record.gate {
            return Some(self.unseal(epoch));
        }
        if self.state.lease.is_some() {
            return self.hold();
        }
        self.contend()
    }

    fn waits_for_catalog(&mut self) -> Option<Waiting> {
        if self.state.lease.is_some() {
            self.renew_at_witness();
            return self.state.handover.as_ref().map(|_| Waiting::Catalog);
        }
        Some(Waiting::Catalog)
    }

    /// The site serves: keep it so.
    fn hold(&mut self) -> Option<Waiting> {
        self.state.yields_until = None;
        if self.raise_above_burned() {
            return None;
        }
        if self.has_won_its_vote() {
            self.renew_at_witness();
        } else if self.past(self.state.link.switch_at) && self.healthy() {
            // The vote was raised above an epoch that the peer had burned, and then the peer fell silent.
            self.challenge_at_witness();
        }
        None
    }

    /// Tells what has changed, and when to come back.
    fn publish(&mut self, waiting: Option<Waiting>) {
        let serving = self.state.serving();
        let published = serving.map_or(Published::Stopped, Published::Serving);
        if published != self.state.published {
            let before = std::mem::replace(&mut self.state.published, published);
            let fenced =
                matches!((before, serving), (Published::Serving(old), Some(new)) if old.epoch == new.epoch);
            let keeper = self.state.record.keeper;
            self.effects.push(serving.map_or(Effect::Stop, |held| Effect::Serve {
                epoch: held.epoch,
                keeper,
                until: held.until,
            }));
            if let Some(held) = serving.filter(|_| !fenced) {
                // In parallel with serving, never before: it is the votes that give the right, not the fence.
                self.effects.push(Effect::FencePeer { epoch: held.epoch });
            }
        }
        if waiting != self.state.waiting {
            self.state.waiting = waiting;
            self.effects.push(Effect::Report(waiting));
        }
        let now = self.now;
        let mut wake = BootTime::NEVER;
        self.state.each_due(&mut |due| {
            if *due > now {
                wake = wake.min(*due);
            }
        });
        if wake != self.state.wakes_at && wake != BootTime::NEVER {
            self.state.wakes_at = wake;
            self.effects.push(Effect::WakeAt(wake));
        }
    }
}

impl State {
    /// What gateways are lent: nothing from the moment on that a handover stops them.
    pub(super) fn serving(&self) -> Option<Held> {
        self.lease.filter(|_| self.handover.as_ref().is_none_or(|handover| !handover.stops_gateways()))
    }
}
