//! For the model checker: states that behave alike made equal. Time stands still and the state ages instead; numbers are
//! those in use, counted anew; and what a site could know at once it is told at once.

use super::event::CallId;
use super::machine::Lease;
use super::message::{Seq, Standing, WitnessRecord};
use super::record::{SiteRecord, Token};
use super::state::{Loss, Published, Seen};
use super::timers::{BootTime, Millis};

/// The numbers that a state refers to, in the order of their first use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    known: Vec<u64>,
}

impl Labels {
    fn note(&mut self, old: u64) -> u64 {
        let place = self.known.iter().position(|known| *known == old).unwrap_or_else(|| {
            self.known.push(old);
            self.known.len() - 1
        });
        place as u64 + 1
    }

    /// The new number of `old`; None if nothing refers to it any more.
    pub fn of(&self, old: u64) -> Option<u64> {
        self.known.iter().position(|known| *known == old).map(|place| place as u64 + 1)
    }
}

impl Lease {
    /// Makes the state `by` older, while its clock stands at `now`; what is past stays just past.
    pub fn age(&mut self, now: BootTime, by: Millis) {
        let timers = self.timers();
        let longest = timers.peer_hold.max(timers.witness_hold);
        let shift = |time: &mut BootTime, least: u64| {
            if *time != BootTime::NEVER {
                time.0 = time.0.saturating_sub(by.0).max(least);
            }
        };
        let state = &mut self.state;
        state.each_due(&mut |due| shift(due, now.0));
        for sent in &mut state.link.sent {
            shift(&mut sent.at, now.0.saturating_sub(longest.0));
        }
        if let Some(swap) = &mut state.witness.swap {
            shift(&mut swap.sent, now.0.saturating_sub(longest.0));
        }
        // Whatever has run out is as good as gone.
        state.lease = state.lease.filter(|held| now < held.until);
        state.win = state.win.filter(|held| now < held.until);
    }

    /// Forgets what has no effect on what may happen, and counts the numbers in use anew. `elsewhere` tells which numbers
    /// the rest of the model refers to: other sends can't be answered any more.
    pub fn canonicalize(&mut self, now: BootTime, elsewhere: &dyn Fn(u64) -> bool) -> Labels {
        self.age(now, Millis(0));
        let state = &mut self.state;
        state.published = Published::Nothing;
        state.waiting = None;
        state.wakes_at = BootTime::NEVER;
        state.loss = Loss::Unasked;
        state.yields_until = None;
        state.witness.calling = None;
        state.witness.reachable = true;
        state.witness.swap.take_if(|swap| !elsewhere(swap.call.0));
        state.link.sent.retain(|sent| elsewhere(sent.number));
        state.link.sent.sort_by_key(|sent| (sent.at, sent.renews, sent.number));
        let mut labels = Labels::default();
        for sent in &mut state.link.sent {
            sent.number = labels.note(sent.number);
        }
        let persisting = state.persisting.iter_mut().map(|persisting| &mut persisting.call);
        let reading = state.reading.iter_mut().map(|reading| &mut reading.call);
        let swap = state.witness.swap.iter_mut().map(|swap| &mut swap.call);
        for CallId(number) in persisting.chain(reading).chain(swap) {
            *number = labels.note(*number);
        }
        state.next_number = labels.known.len() as u64;
        labels
    }

    /// What the peer could have said in a greeting that came just now.
    pub fn hear(&mut self, standing: Standing) {
        self.state.link.connected_until = BootTime::NEVER;
        self.state.link.standing = Some(standing);
    }

    /// What a look at the witness could show that was taken the moment the record was written.
    pub fn show_witness(&mut self, now: BootTime, token: Token, record: WitnessRecord, free_in: Millis) {
        let free_at = now + free_in;
        self.state.witness.seen = Some(Seen { token: Some(token), record: Some(record), free_at });
    }

    /// Other names for the tokens that this keeper knows.
    pub fn rename_tokens(&mut self, rename: &dyn Fn(&Token) -> Token) {
        let seen = self.state.witness.seen.as_mut().and_then(|seen| seen.token.as_mut());
        for token in seen.into_iter().chain(&mut self.state.record.old) {
            *token = rename(token);
        }
    }

    /// The record in this keeper's memory, for a model that changes both it and the stored one.
    pub fn record_mut(&mut self) -> &mut SiteRecord {
        &mut self.state.record
    }

    /// The swap whose answer would still count.
    pub fn pending_swap(&self) -> Option<CallId> {
        self.state.witness.swap.map(|swap| swap.call)
    }

    /// The token that this keeper last saw.
    pub fn seen_token(&self) -> Option<&Token> {
        self.state.witness.seen.as_ref().and_then(|seen| seen.token.as_ref())
    }

    /// Whether this message of the keeper may still be answered to effect.
    pub fn awaits(&self, seq: Seq) -> bool {
        seq.keeper == self.keeper() && self.state.link.sent.iter().any(|sent| sent.number == seq.number)
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state
    }
}

impl Eq for Lease {}

impl std::hash::Hash for Lease {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.state.hash(hasher);
    }
}
