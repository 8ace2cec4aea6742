//! The peer's keeper: renewals and requests for a vote, their answers, and what an acknowledgement is worth.

use super::event::Effect;
use super::guard::Guard;
use super::message::{Message, Seq, Standing};
use super::persist::Purpose;
use super::state::{Released, Sent};
use super::turn::Turn;
use crate::ids::{Epoch, SiteName};
use crate::records::Gate;

impl Turn<'_> {
    pub(super) fn on_message(&mut self, message: Message) {
        match message {
            Message::Hello { .. } => self.ask_the_record(message),
            Message::Renew { ref wrote, .. } => {
                self.hear_of_witness(wrote.clone());
                if self.guards(Guard::ReadBeforeAck) {
                    self.ask_the_record(message);
                } else {
                    self.answer(&message);
                }
            }
            Message::Greeting { seq, standing } => {
                if self.on_answer(seq).is_some() {
                    self.state.link.standing = Some(standing);
                }
            }
            Message::Ack { epoch, seq } => self.on_ack(epoch, seq),
            Message::Refuse { seq, standing } => self.on_refuse(seq, standing),
            Message::Release { epoch, .. } => self.on_release(epoch),
        }
    }

    fn ask_the_record(&mut self, question: Message) {
        // While a change of the record is under way no answer would be sure; the peer asks again.
        if self.state.persisting.is_none() {
            // FENCING (a win has two votes): the record is read after the question came, or a keeper that was replaced
            // while it slept would promise a vote that its successor has given elsewhere.
            self.read_record(Some(question));
        }
    }

    /// Answers a question of the peer; the record was read after it came, and stands.
    pub(super) fn answer(&mut self, question: &Message) {
        if self.state.persisting.is_some() {
            return;
        }
        match question {
            Message::Hello { seq } => {
                let standing = self.standing();
                self.send(Message::Greeting { seq: *seq, standing });
            }
            Message::Renew { epoch, seq, .. } => self.on_renew(*epoch, *seq, question),
            Message::Greeting { .. }
            | Message::Ack { .. }
            | Message::Refuse { .. }
            | Message::Release { .. } => {}
        }
    }

    fn on_renew(&mut self, epoch: Epoch, seq: Seq, question: &Message) {
        let Some(peer) = self.config.peer.clone() else { return };
        let record = &self.state.record;
        if record.vote.is_some() && record.epoch() == epoch && record.backs(&peer) {
            self.acknowledge(question);
        } else if record.vote.is_some() && epoch > record.epoch() && self.may_vote_for(&peer) {
            // FENCING (epochs never fall, one valid holder): the vote and the closed gate are one transaction, and the
            // promise goes out once that was observed durable.
            let new = record.with(epoch, Some(peer), Gate::Closed);
            self.persist(new, Purpose::Grant(question.clone()));
        } else {
            let standing = self.standing();
            self.send(Message::Refuse { seq, standing });
        }
    }

    /// Whether a vote for a higher epoch of the peer would take nothing from this site.
    fn may_vote_for(&self, peer: &SiteName) -> bool {
        // FENCING (one valid holder): while gateways may still answer under the own lease, by a voter's count, or
        // two votes are counted and the gate is about to open, the peer gets no vote.
        let over = self.past(self.state.own_over);
        let shut = self.state.record.gate == Gate::Closed && !self.state.lost;
        let idle = self.state.win.is_none() && (shut || over);
        self.state.record.backs(peer) || idle || !self.guards(Guard::NoVoteWhileHolding)
    }

    /// The promise runs from now.
    pub(super) fn acknowledge(&mut self, renewal: &Message) {
        let Message::Renew { epoch, seq, .. } = *renewal else { return };
        self.state.promise_over = self.state.promise_over.max(self.now + self.timers().peer_wait);
        self.state.released = self.state.released.filter(|released| released.epoch > epoch);
        self.send(Message::Ack { epoch, seq });
    }

    /// A message of this keeper was answered: both directions work.
    fn on_answer(&mut self, seq: Seq) -> Option<Sent> {
        // FENCING (a start holds nothing): only what this very keeper sent.
        let own = seq.keeper == self.state.record.keeper;
        let sent = *self.state.link.sent.iter().find(|sent| own && sent.number == seq.number)?;
        let until = sent.at + self.timers().peer_silence;
        self.state.link.connected_until = self.state.link.connected_until.max(until);
        Some(sent)
    }

    fn on_ack(&mut self, epoch: Epoch, seq: Seq) {
        let Some(sent) = self.on_answer(seq) else { return };
        if sent.renews != Some(epoch) {
            return;
        }
        // FENCING (one valid holder): counted from the sending. The voter counts from when it answered, which is later.
        let from = if self.guards(Guard::AckFromSend) { sent.at } else { self.now };
        let timers = self.timers();
        let (until, over) = (from + timers.peer_hold, from + timers.peer_wait);
        self.state.link.switch_at = self.state.link.switch_at.max(sent.at + timers.peer_switch);
        self.count(epoch, until, over);
    }

    fn on_refuse(&mut self, seq: Seq, standing: Standing) {
        if self.on_answer(seq).is_none() {
            return;
        }
        let vote = standing.vote.as_ref();
        let ours = |epoch: Epoch, backs: Option<&SiteName>| {
            epoch < self.state.record.epoch()
                || epoch == self.state.record.epoch() && backs == Some(&self.config.own)
        };
        if let Some(vote) = vote.filter(|vote| !ours(vote.epoch, vote.backs.as_ref()))
            && !standing.holding
            && self.votes_for_self()
        {
            self.state.burned = self.state.burned.max(Some(vote.epoch));
        }
        self.state.link.standing = Some(standing);
    }

    /// A holder whose epoch the peer can't acknowledge any more, though it holds nothing, raises its vote above it and
    /// serves on under the old epoch. True if it did.
    pub(super) fn raise_above_burned(&mut self) -> bool {
        let Some(burned) = self.state.burned else { return false };
        if !self.votes_for_self() || !self.healthy() {
            return false;
        }
        // FENCING (unique epochs): above both votes.
        let epoch = Epoch(burned.max(self.state.record.epoch()).0 + 1);
        let new = self.state.record.with(epoch, Some(self.config.own.clone()), self.state.record.gate);
        self.persist(new, Purpose::Stand);
        true
    }

    fn on_release(&mut self, epoch: Epoch) {
        let record = &self.state.record;
        if self.state.persisting.is_some() || record.vote.is_none() || epoch <= record.epoch() {
            return;
        }
        let new = record.with(epoch, Some(self.config.own.clone()), Gate::Closed);
        self.persist(new, Purpose::Receive);
    }

    pub(super) fn standing(&self) -> Standing {
        let record = &self.state.record;
        let holding = self.votes_for_self() && record.gate != Gate::Closed && !self.past(self.state.own_over);
        Standing {
            vote: record.vote.clone(),
            holding: holding || self.state.win.is_some(),
            devices_empty: self.state.devices_empty,
        }
    }

    pub(super) fn expire_link(&mut self) {
        let keeps = self.guards(Guard::AckFromSend);
        let (now, hold, connected) = (self.now, self.timers().peer_hold, self.connected());
        let link = &mut self.state.link;
        link.sent.retain(|sent| now < sent.at + hold || !keeps);
        if !keeps {
            let surplus = link.sent.len().saturating_sub(4);
            link.sent.drain(..surplus);
        }
        if !connected {
            link.standing = None;
        }
    }

    /// Renews, asks for a vote, or says hello, whatever is due.
    pub(super) fn talk_to_peer(&mut self) {
        self.release_again();
        let epoch = self.state.record.epoch();
        let entitled =
            self.votes_for_self() && self.stands_in(epoch) && !self.votes_are_blocked() && self.healthy();
        let serves = self.state.lease.is_some();
        let asks = self.connected() && (self.asks || self.state.win.is_some());
        if entitled && (serves || asks) {
            if self.past(self.state.link.next_renew) {
                self.state.link.next_renew = self.now + self.timers().peer_renew;
                let seq = self.sequence(Some(epoch));
                let wrote = self.wrote_at_witness(epoch);
                self.send(Message::Renew { epoch, seq, wrote });
            }
        } else if self.past(self.state.link.next_hello) {
            // A site without a lease that renewed would keep the peer's promise alive even if it can't hear the
            // answers: it says hello until one was answered.
            self.state.link.next_hello = self.now + self.timers().peer_renew;
            let seq = self.sequence(None);
            self.send(Message::Hello { seq });
        }
    }

    /// A release may be lost: it is said again until the peer asks in its epoch, or the promise ends.
    fn release_again(&mut self) {
        let Some(released) = self.state.released else { return };
        let stands = self.state.record.epoch() == released.epoch && !self.votes_for_self();
        if !stands || self.past(self.state.promise_over) {
            self.state.released = None;
        } else if self.past(released.again_at) {
            let again_at = self.now + self.timers().peer_renew;
            self.state.released = Some(Released { again_at, ..released });
            self.send(Message::Release { epoch: released.epoch, revision: released.revision });
        }
    }

    fn sequence(&mut self, renews: Option<Epoch>) -> Seq {
        let number = self.number();
        self.state.link.sent.push(Sent { number, at: self.now, renews });
        Seq { keeper: self.state.record.keeper, number }
    }

    pub(super) fn send(&mut self, message: Message) {
        self.effects.push(Effect::SendPeer(message));
    }
}
