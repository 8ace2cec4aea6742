//! Changes of the site's record, one at a time: what rests on a change is done when it was observed durable.

use super::event::{CallId, Effect, Persisted, Waiting};
use super::guard::Guard;
use super::message::Message;
use super::record::SiteRecord;
use super::state::{Approval, Held, Loss, Reading};
use super::timers::BootTime;
use super::turn::Turn;
use crate::ids::Epoch;
use crate::records::{Gate, Position};

/// Why the record is changed: what to do once it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// A vote for the peer; then this acknowledgement.
    Grant(Message),
    /// A vote for the own site.
    Stand,
    /// The gate opens at a won epoch; then serve.
    Open,
    /// The gate is sealed for a handover.
    Seal,
    /// A handover was given up.
    Unseal,
    /// The vote goes to the peer, which has everything up to here.
    Release(Position),
    /// The vote is taken over from the peer.
    Receive,
    /// The witness's token is known to be old.
    Remember,
    /// The first vote of a site that had none.
    Settle,
}

/// A change under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Persisting {
    pub(super) call: CallId,
    pub(super) new: SiteRecord,
    pub(super) purpose: Purpose,
    /// The last answer was unclear: ask for the same again then. Nothing else may be asked for before it is known.
    pub(super) retry_at: Option<BootTime>,
}

impl Turn<'_> {
    /// Asks for a change. The caller has made sure that none is under way.
    pub(super) fn persist(&mut self, new: SiteRecord, purpose: Purpose) {
        let call = CallId(self.number());
        let expect = self.state.record.clone();
        self.effects.push(Effect::Persist { call, new: new.clone(), expect });
        self.state.persisting = Some(Persisting { call, new, purpose, retry_at: None });
        // FENCING (a win has two votes): an answer to the peer rests on a read after its question, and that read must
        // not be older than this site's own last change.
        if let Some(reading) = &mut self.state.reading {
            reading.void = true;
        }
        self.state.queued.clear();
    }

    pub(super) fn retry_persist(&mut self) {
        let now = self.now;
        if self
            .state
            .persisting
            .as_ref()
            .is_none_or(|persisting| persisting.retry_at.is_none_or(|retry| now < retry))
        {
            return;
        }
        if let Some(persisting) = self.state.persisting.take() {
            self.persist(persisting.new, persisting.purpose);
        }
    }

    pub(super) fn on_persisted(&mut self, call: CallId, outcome: Persisted) {
        let Some(mut persisting) = self.state.persisting.take() else { return };
        if persisting.call != call || persisting.retry_at.is_some() {
            self.state.persisting = Some(persisting);
            return;
        }
        match outcome {
            Persisted::Stored { at } => self.on_stored(persisting, at),
            Persisted::Refused { record: Some(record), at } if record == persisting.new => {
                self.on_stored(persisting, at);
            }
            Persisted::Refused { record: Some(record), .. } if record.keeper == self.state.record.keeper => {
                // The peer's entries raised the vote meanwhile.
                self.adopt(record);
            }
            Persisted::Refused { .. } => self.resign(),
            Persisted::Unknown => {
                persisting.retry_at = Some(self.now + self.timers().peer_renew);
                self.state.persisting = Some(persisting);
            }
        }
    }

    fn on_stored(&mut self, persisting: Persisting, at: Position) {
        self.adopt(persisting.new);
        match persisting.purpose {
            Purpose::Grant(renewal) => self.acknowledge(&renewal),
            Purpose::Open => self.on_gate_open(),
            Purpose::Seal => self.on_sealed(at),
            Purpose::Release(revision) => self.on_released(revision),
            Purpose::Receive => {
                // FENCING (a win has two votes): the promise to the peer was for the epoch that it has given up.
                self.state.promise_over = self.now;
                self.state.received = Some(self.state.record.epoch());
            }
            Purpose::Stand | Purpose::Unseal | Purpose::Remember | Purpose::Settle => {}
        }
    }

    /// The record is this, durably: whatever in memory does not agree with it is dropped.
    pub(super) fn adopt(&mut self, record: SiteRecord) {
        let moved = record.vote != self.state.record.vote;
        self.state.record = record;
        let own = self.votes_for_self();
        let keeps_win = own || !self.guards(Guard::VoteStands) || !self.guards(Guard::VoteBeforeSwap);
        let state = &mut *self.state;
        let gate = state.record.gate_epoch();
        state.lease = state.lease.filter(|held| Some(held.epoch) == gate);
        state.win = state.win.filter(|held| keeps_win && held.epoch >= state.record.epoch());
        state.received = state.received.filter(|epoch| own && *epoch == state.record.epoch());
        state.burned = state.burned.filter(|epoch| own && *epoch >= state.record.epoch());
        if moved {
            // Ask at once in the new epoch.
            state.link.next_renew = self.now;
        }
        if !own && state.handover.is_some() {
            self.end_handover();
        }
    }

    /// Opens the gate at an epoch whose second vote was counted.
    pub(super) fn open_gate(&mut self, epoch: Epoch) -> Waiting {
        // FENCING (unique epochs): the transaction compares the record in which the vote still stands.
        if self.stands_in(epoch) || !self.guards(Guard::VoteStands) {
            let new = self.state.record.with_gate(Gate::Open(epoch));
            self.persist(new, Purpose::Open);
        } else if !self.guards(Guard::VoteBeforeSwap) && self.state.record.epoch() <= epoch {
            let new = self.state.record.with(epoch, Some(self.config.own.clone()), Gate::Open(epoch));
            self.persist(new, Purpose::Open);
        } else {
            self.state.win = None;
        }
        Waiting::Catalog
    }

    fn on_gate_open(&mut self) {
        let state = &mut *self.state;
        let gate = state.record.gate_epoch();
        let won: Option<Held> =
            state.win.take().filter(|win| Some(win.epoch) == gate && self.now < win.until);
        if won.is_some() {
            state.lease = won;
        }
        state.loss = Loss::Unasked;
        state.approval = Approval::None;
        if state.witness.seen.as_ref().is_some_and(|seen| Some(seen.epoch()) < gate) {
            // Won by the peer's vote: the record at the witness and the public name follow at once.
            state.witness.next_swap = self.now;
        }
    }

    pub(super) fn on_record_seen(&mut self, record: &SiteRecord) {
        // What a watch shows may be older than this site's own last change, so it only causes a read.
        if *record != self.state.record && self.state.persisting.is_none() {
            self.read_record(None);
        }
    }

    /// Reads the record; `question` is answered from what is read.
    pub(super) fn read_record(&mut self, question: Option<Message>) {
        if self.state.reading.is_some() {
            // FENCING (a win has two votes): that read may have begun before this question came.
            if let Some(question) = question {
                let kind = std::mem::discriminant(&question);
                self.state.queued.retain(|queued| std::mem::discriminant(queued) != kind);
                self.state.queued.push(question);
            }
            return;
        }
        let call = CallId(self.number());
        self.effects.push(Effect::ReadRecord { call });
        self.state.reading = Some(Reading { call, questions: question.into_iter().collect(), void: false });
    }

    pub(super) fn on_record_read(&mut self, call: CallId, record: Option<SiteRecord>) {
        let Some(reading) = self.state.reading.take_if(|reading| reading.call == call) else { return };
        if let Some(record) = record {
            if record.keeper != self.state.record.keeper {
                self.resign();
                return;
            }
            if !reading.void {
                if record != self.state.record {
                    self.adopt(record);
                }
                for question in reading.questions {
                    self.answer(&question);
                }
            }
        }
        if self.state.persisting.is_none() && !self.state.queued.is_empty() {
            let call = CallId(self.number());
            self.effects.push(Effect::ReadRecord { call });
            let questions = std::mem::take(&mut self.state.queued);
            self.state.reading = Some(Reading { call, questions, void: false });
        }
    }

    /// Another keeper speaks for the site.
    fn resign(&mut self) {
        let state = &mut *self.state;
        state.resigned = true;
        state.lease = None;
        state.win = None;
        self.effects.push(Effect::Stop);
        self.effects.push(Effect::Resign);
    }
}
