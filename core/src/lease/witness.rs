//! The witness: looks at its record, swaps of it, and what their answers are worth.

use super::event::{CallId, Effect, SwapResult, WitnessRead};
use super::guard::Guard;
use super::message::{Nonce, WitnessRecord, Wrote};
use super::persist::Purpose;
use super::record::Token;
use super::state::{Calling, Seen, Swap};
use super::timers::Millis;
use super::turn::Turn;
use crate::ids::Epoch;

impl Turn<'_> {
    fn may_call(&self) -> bool {
        self.state.witness.calling.is_none() && self.past(self.state.witness.blocked_until)
    }

    pub(super) fn may_swap(&self) -> bool {
        self.may_call() && self.past(self.state.witness.next_swap)
    }

    fn call(&mut self, swaps: bool) -> CallId {
        let call = CallId(self.number());
        let until = self.now + self.timers().witness_call;
        self.state.witness.calling = Some(Calling { call, until, swaps });
        call
    }

    /// Looks, if it is time: seldom while the peer answers, for the age of the record and for its token.
    pub(super) fn look_at_witness(&mut self) {
        let witness = &self.state.witness;
        let due = if self.connected() { witness.look_at } else { witness.look_silent_at };
        if !self.past(due) || !self.may_call() {
            return;
        }
        let (often, seldom) = (self.timers().witness_look_silent, self.timers().witness_look);
        self.state.witness.look_silent_at = self.now + often;
        self.state.witness.look_at = self.now + seldom;
        let call = self.call(false);
        self.effects.push(Effect::ReadWitness { call });
    }

    fn look_now(&mut self) {
        self.state.witness.look_silent_at = self.now;
        self.state.witness.look_at = self.now;
    }

    /// The holder's use of the witness: its own record, or one of a lower epoch, is swapped at once. A higher one makes
    /// the lease lapse.
    pub(super) fn renew_at_witness(&mut self) {
        let epoch = self.state.record.epoch();
        if !self.has_won_its_vote() || !self.stands_in(epoch) || !self.healthy() || !self.may_swap() {
            return;
        }
        let Some(seen) = &self.state.witness.seen else { return };
        let mine = seen.record.as_ref().is_some_and(|record| record.site == self.config.own);
        let current = mine && seen.epoch() == epoch;
        let silent = self.past(self.state.link.switch_at);
        if (current && silent) || seen.epoch() < epoch {
            self.swap(epoch, !current);
        }
    }

    /// Swaps the record for one that names this site in `epoch`.
    pub(super) fn swap(&mut self, epoch: Epoch, with_name: bool) {
        // FENCING (a win has two votes): the own vote is durable before the swap is sent, and nothing that moves it is
        // under way; else the peer could be given this vote while the swap flies.
        if self.guards(Guard::VoteBeforeSwap) && !self.stands_in(epoch) {
            return;
        }
        let token = self.state.witness.seen.as_ref().and_then(|seen| seen.token.clone());
        let call = self.call(true);
        let nonce = self.nonce(call);
        let sent = self.now;
        self.state.witness.swap = Some(Swap { call, epoch, sent });
        self.state.witness.next_swap = sent + self.timers().witness_renew;
        let record = WitnessRecord { epoch, site: self.config.own.clone(), nonce };
        self.effects.push(Effect::SwapWitness { call, token, record, with_name });
    }

    const fn nonce(&self, call: CallId) -> Nonce {
        Nonce { seed: self.config.seed, keeper: self.state.record.keeper, number: call.0 }
    }

    pub(super) fn on_swap_answered(&mut self, call: CallId, result: SwapResult) {
        self.state.witness.calling.take_if(|calling| calling.call == call);
        let Some(swap) = self.state.witness.swap.filter(|swap| swap.call == call) else { return };
        match result {
            SwapResult::Won { token } => {
                let record = WitnessRecord {
                    epoch: swap.epoch,
                    site: self.config.own.clone(),
                    nonce: self.nonce(swap.call),
                };
                self.on_swap_won(swap, token, record);
            }
            SwapResult::Lost => {
                self.state.witness.reachable = true;
                self.state.witness.swap = None;
                self.state.witness.seen = None;
                self.state.witness.next_swap = swap.sent + self.timers().peer_renew;
                self.look_now();
            }
            SwapResult::Unknown => {
                self.state.witness.reachable = false;
                self.look_now();
            }
            SwapResult::RateLimited { retry_after } => {
                self.state.witness.swap = None;
                self.block(retry_after);
            }
        }
    }

    fn on_swap_won(&mut self, swap: Swap, token: Token, record: WitnessRecord) {
        let free_at = self.now + self.timers().witness_wait;
        let witness = &mut self.state.witness;
        witness.reachable = true;
        witness.swap = None;
        witness.seen = Some(Seen { token: Some(token), record: Some(record), free_at });
        witness.look_silent_at = self.now + self.config.timers.witness_look_silent;
        witness.look_at = self.now + self.config.timers.witness_look;
        // FENCING (one valid holder): counted from the sending; a challenger counts from when it first saw the record,
        // which is later.
        let from = if self.guards(Guard::SwapFromSend) { swap.sent } else { self.now };
        let timers = self.timers();
        let (until, over) = (from + timers.witness_hold, from + timers.witness_wait);
        self.count(swap.epoch, until, over);
    }

    pub(super) fn on_witness_read(&mut self, call: CallId, result: WitnessRead) {
        if self.state.witness.calling.take_if(|calling| calling.call == call).is_none() {
            return;
        }
        match result {
            WitnessRead::Found { token, record } => {
                self.state.witness.reachable = true;
                self.on_found(token, record);
            }
            WitnessRead::Absent => {
                self.state.witness.reachable = true;
                self.note(None, None);
            }
            WitnessRead::Failed => self.state.witness.reachable = false,
            WitnessRead::RateLimited { retry_after } => self.block(retry_after),
        }
    }

    fn on_found(&mut self, token: Token, record: WitnessRecord) {
        let swap = self.state.witness.swap.filter(|swap| record.nonce == self.nonce(swap.call));
        if let Some(swap) = swap {
            // The answer to the swap was unclear or lost; the record is of that swap.
            self.on_swap_won(swap, token, record);
            return;
        }
        // FENCING (a start holds nothing): a record that names this site, but is not of a swap whose sending this keeper
        // remembers, is no lease: nobody here knows from when it counts.
        if !self.guards(Guard::OwnNonce) && record.site == self.config.own {
            let (hold, wait) = (self.timers().witness_hold, self.timers().witness_wait);
            self.count(record.epoch, self.now + hold, self.now + wait);
        }
        self.note(Some(token), Some(record));
    }

    /// Notes what stands at the witness; the same token as before goes on ageing.
    fn note(&mut self, token: Option<Token>, record: Option<WitnessRecord>) {
        let old = token.is_some() && token == self.state.record.old;
        let fresh = self.now + self.timers().witness_wait;
        let witness = &mut self.state.witness;
        let since = witness.seen.as_ref().filter(|seen| seen.token == token).map(|seen| seen.free_at);
        let free_at = if old { self.now } else { since.unwrap_or(fresh) };
        witness.seen = Some(Seen { token, record, free_at });
    }

    /// What stands at the witness of this site's own writing in `epoch`.
    pub(super) fn wrote_at_witness(&self, epoch: Epoch) -> Option<Wrote> {
        let seen = self.state.witness.seen.as_ref()?;
        let (token, record) = (seen.token.clone()?, seen.record.clone()?);
        (record.site == self.config.own && record.epoch == epoch).then_some(Wrote { token, record })
    }

    /// The peer says what it wrote: a look of this site could have shown that the moment the message came, or before, so
    /// it ages from now on. A takeover soon after a term began need not wait for the next look.
    pub(super) fn hear_of_witness(&mut self, wrote: Option<Wrote>) {
        let Some(Wrote { token, record }) = wrote else { return };
        let known = self.state.witness.seen.as_ref().map_or(Epoch(0), Seen::epoch);
        // A message may be late; what is newer by its epoch is not forgotten for it. Of one epoch the peer says the newest
        // again with each renewal, and a swap that compares an older token fails.
        if known <= record.epoch {
            self.note(Some(token), Some(record));
        }
    }

    fn block(&mut self, retry_after: Millis) {
        self.state.witness.reachable = false;
        self.state.witness.blocked_until = self.now + retry_after;
    }

    pub(super) fn expire_witness(&mut self) {
        let (now, hold) = (self.now, self.timers().witness_hold);
        let keeps = self.guards(Guard::SwapFromSend);
        let witness = &mut self.state.witness;
        if let Some(late) = witness.calling.take_if(|calling| now >= calling.until) {
            witness.reachable = false;
            if late.swaps {
                witness.look_silent_at = now;
                witness.look_at = now;
            }
        }
        witness.swap.take_if(|swap| keeps && now >= swap.sent + hold);
    }

    /// Writes down that the record's token is old, so that a keeper that starts later need not wait for it again.
    pub(super) fn remember_old_token(&mut self) {
        let Some(seen) = &self.state.witness.seen else { return };
        if seen.token.is_some()
            && seen.token != self.state.record.old
            && self.past(seen.free_at)
            && self.healthy()
        {
            let mut new = self.state.record.clone();
            new.old.clone_from(&seen.token);
            self.persist(new, Purpose::Remember);
        }
    }
}
