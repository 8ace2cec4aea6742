//! A site that does not serve, and would: whether it may, which votes it asks for, and why it waits.

use super::event::{Effect, LossDecision, Waiting};
use super::guard::Guard;
use super::machine::Mode;
use super::persist::Purpose;
use super::state::{Approval, Loss, Seen};
use super::timers::{Millis, Timers};
use super::turn::Turn;
use crate::ids::{Epoch, SiteName};
use crate::records::Gate;

impl Turn<'_> {
    /// Does the next thing that brings this site nearer to serving, if it may.
    pub(super) fn contend(&mut self) -> Option<Waiting> {
        if !self.healthy() {
            return Some(Waiting::Unhealthy);
        }
        if self.has_won_its_vote() && !self.peer_is_above() && !self.record_is_above() {
            return Some(self.resume());
        }
        let waiting = self.barrier();
        if waiting.is_some() || !self.may_stand() {
            self.state.yields_until = None;
            if self.state.persisting.is_none() {
                self.remember_old_token();
            }
            return waiting;
        }
        self.asks = self.votes_for_self() && !self.has_won_its_vote();
        if self.state.received.is_some() && self.connected() && !self.has_yielded() {
            // The peer gave its vote away: it acknowledges at once, and the witness follows later.
            return Some(Waiting::PeerAck);
        }
        if let Some(waiting) = self.challenge_at_witness() {
            return Some(waiting);
        }
        if self.connected() {
            return Some(self.ask_the_peer());
        }
        self.state.yields_until = None;
        Some(self.waits_for_witness())
    }

    /// A lapsed holder, or one that starts: the epoch of its open gate is its own as long as nobody was given a higher
    /// one, so it takes it up again by the peer's acknowledgement or by a swap.
    fn resume(&mut self) -> Waiting {
        self.asks = true;
        self.renew_at_witness();
        if self.connected() { Waiting::PeerAck } else { self.waits_for_witness() }
    }

    /// What keeps the site from standing at all; None as well where a normal follower has nothing to wait for.
    fn barrier(&mut self) -> Option<Waiting> {
        if !self.may_stand() {
            let until = self.state.promise_over;
            return (!self.connected()).then_some(Waiting::LeaseExpiry { until });
        }
        if self.state.received.is_some() {
            return None;
        }
        if self.state.record.epoch() == Epoch(0) && self.state.approval == Approval::None {
            // The preferred site begins the first term.
            return Some(Waiting::FirstStart);
        }
        if self.state.peer_holds(self.now) {
            return Some(Waiting::PeerHolds);
        }
        self.ask_a_person()
    }

    fn may_stand(&self) -> bool {
        // FENCING (one valid holder): a vote for oneself only if no promise to the peer runs any more. After a start it
        // runs for a whole lease, whatever was promised before.
        self.votes_for_self() || self.past(self.state.promise_over) || !self.guards(Guard::OwnPromise)
    }

    /// Mode and gate on loss, asked before the vote. Before the first term there is nothing to lose.
    fn ask_a_person(&mut self) -> Option<Waiting> {
        if self.is_before_the_first_term() {
            return None;
        }
        match (self.config.mode, self.state.approval) {
            (_, Approval::AcceptLoss { .. }) => return None,
            (Mode::Manual, Approval::None) => return Some(Waiting::Approval),
            (Mode::Manual, Approval::Promote { .. })
            | (Mode::Automatic, Approval::None | Approval::Promote { .. }) => {}
        }
        let again_at = self.now + self.timers().peer_renew;
        match self.state.loss {
            Loss::Allowed { .. } => None,
            Loss::Denied { again_at } if !self.past(again_at) => Some(Waiting::Exposure),
            Loss::Asked { again_at } if !self.past(again_at) => Some(self.waits_for_loss_gate()),
            Loss::Unasked | Loss::Denied { .. } | Loss::Asked { .. } => {
                self.state.loss = Loss::Asked { again_at };
                self.effects.push(Effect::AskLossGate);
                Some(self.waits_for_loss_gate())
            }
        }
    }

    /// Asking again after a refusal is no news.
    fn waits_for_loss_gate(&self) -> Waiting {
        self.state.waiting.filter(|waiting| *waiting == Waiting::Exposure).unwrap_or(Waiting::LossGate)
    }

    fn is_before_the_first_term(&self) -> bool {
        let record = &self.state.record;
        self.votes_for_self()
            && record.epoch() == Epoch(1)
            && record.gate == Gate::Closed
            && self.seen_epoch() == Epoch(0)
    }

    fn seen_epoch(&self) -> Epoch {
        self.state.witness.seen.as_ref().map_or(Epoch(0), Seen::epoch)
    }

    pub(super) fn on_loss_gate(&mut self, decision: LossDecision) {
        self.state.loss = match decision {
            LossDecision::Allowed => Loss::Allowed { until: self.now + self.timers().loss },
            LossDecision::Denied => Loss::Denied { again_at: self.now + self.timers().witness_look_silent },
        };
    }

    /// What a person says of this takeover must not open the gate on loss for a later one: it is not heard where there is
    /// nothing to take over, ends when that is so, and by itself.
    pub(super) fn on_promote(&mut self, accept_loss: bool, lasts: Millis) {
        if self.state.no_promotion(self.now).is_some() {
            return;
        }
        let until = self.now + lasts.min(Timers::LONGEST_APPROVAL);
        self.state.approval =
            if accept_loss { Approval::AcceptLoss { until } } else { Approval::Promote { until } };
    }

    pub(super) fn expire_approval(&mut self) {
        let over = match self.state.approval {
            Approval::None => return,
            Approval::Promote { until } | Approval::AcceptLoss { until } => self.past(until),
        };
        if over || self.state.no_promotion(self.now).is_some() {
            self.state.approval = Approval::None;
        }
    }

    /// The witness's half of a challenge: vote for oneself durably, then, in a later step, swap. None if the record does
    /// not allow it now.
    pub(super) fn challenge_at_witness(&mut self) -> Option<Waiting> {
        let seen = self.state.witness.seen.as_ref()?;
        if !self.may_swap() || !self.is_free() {
            return None;
        }
        let record = seen.epoch();
        let epoch = self.next_epoch(record);
        if self.votes_for_self() && self.state.record.epoch() == epoch || !self.guards(Guard::VoteBeforeSwap)
        {
            self.swap(epoch, true);
            return Some(Waiting::WitnessAnswer);
        }
        Some(self.stand(epoch))
    }

    /// Whether the record may be overwritten by who has not won a higher epoch.
    fn is_free(&self) -> bool {
        let Some(seen) = &self.state.witness.seen else { return false };
        let own = seen.record.as_ref().is_some_and(|record| record.site == self.config.own);
        let given_up = self.state.received.is_some_and(|received| seen.epoch() < received);
        let unwon = self.votes_for_self() && seen.epoch() < self.state.record.epoch();
        // FENCING (one valid holder): its holder counts from the sending of the swap that made this record; a whole
        // witness lease since it was first seen, that holder has stopped. A vote in a higher epoch that was not won
        // changes nothing about that.
        let aged = self.past(seen.free_at) || !self.guards(Guard::WitnessAge);
        aged || own || given_up || unwon && !self.guards(Guard::OverwriteWhenWon)
    }

    /// The epoch to challenge in: the one already voted for, if it is unwon and above the record; else a new one.
    fn next_epoch(&self, record: Epoch) -> Epoch {
        let own = self.state.record.epoch();
        if !self.guards(Guard::EpochAboveBoth) {
            return Epoch(record.0 + 1);
        }
        if self.votes_for_self() && own > record && !self.has_won_its_vote() {
            return own;
        }
        // FENCING (unique epochs): above both, since the vote may be for an epoch that was won by the peer's promise
        // alone and never came to the witness.
        Epoch(own.max(record).0 + 1)
    }

    /// The vote goes to this site in `epoch`. A holder that lapsed keeps its gate, so that a late commit is still of its
    /// own epoch; coming from a vote for the peer the gate is closed already.
    fn stand(&mut self, epoch: Epoch) -> Waiting {
        let gate = if self.votes_for_self() { self.state.record.gate } else { Gate::Closed };
        let new = self.state.record.with(epoch, Some(self.config.own.clone()), gate);
        self.persist(new, Purpose::Stand);
        Waiting::Catalog
    }

    /// The peer's half: vote for oneself above what the peer has voted for, then ask.
    fn ask_the_peer(&mut self) -> Waiting {
        let Some(theirs) = self.state.link.standing.as_ref().map(|standing| standing.vote.clone()) else {
            return Waiting::PeerAck;
        };
        let own = self.state.record.epoch();
        let peer = theirs.as_ref().map_or(Epoch(0), |vote| vote.epoch);
        let ours = theirs.is_some_and(|vote| vote.backs.as_ref() == Some(&self.config.own));
        let unwon = self.votes_for_self() && !self.has_won_its_vote();
        if unwon && (own > peer || own == peer && ours) {
            return Waiting::PeerAck;
        }
        // Two sites that hold nothing would outbid each other: the one that held last, else the preferred one, goes first.
        let favoured = self.state.record.gate_epoch().is_some() || self.config.preferred == self.config.own;
        if favoured || self.has_yielded() {
            return self.stand(Epoch(own.max(peer).max(self.seen_epoch()).0 + 1));
        }
        self.waits_for_witness()
    }

    fn has_yielded(&mut self) -> bool {
        let until = self.now + self.timers().yielding;
        let until = *self.state.yields_until.get_or_insert(until);
        self.past(until)
    }

    fn waits_for_witness(&self) -> Waiting {
        match &self.state.witness.seen {
            Some(_) if self.state.witness.swap.is_some() => Waiting::WitnessAnswer,
            Some(seen) if self.state.witness.reachable && !self.past(seen.free_at) => {
                Waiting::WitnessAge { until: seen.free_at }
            }
            Some(_) if self.state.witness.reachable => Waiting::WitnessAnswer,
            Some(_) | None => Waiting::NoVoter,
        }
    }

    /// The peer, which answers, has voted above this site's own won epoch.
    fn peer_is_above(&self) -> bool {
        let vote = self.state.link.standing.as_ref().and_then(|standing| standing.vote.as_ref());
        self.connected() && vote.is_some_and(|vote| self.is_above(vote.epoch, vote.backs.as_ref()))
    }

    fn record_is_above(&self) -> bool {
        let record = self.state.witness.seen.as_ref().and_then(|seen| seen.record.as_ref());
        record.is_some_and(|record| self.is_above(record.epoch, Some(&record.site)))
    }

    fn is_above(&self, epoch: Epoch, site: Option<&SiteName>) -> bool {
        let own = self.state.record.epoch();
        epoch > own || epoch == own && site != Some(&self.config.own)
    }
}
