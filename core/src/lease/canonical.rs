//! For model checking: states that behave alike made equal. Time stands still and the state ages instead, and numbers
//! are those in use, counted anew.

use super::event::CallId;
use super::machine::Lease;
use super::message::{Message, Seq};
use super::state::Published;
use super::timers::{BootTime, Millis};

/// The numbers that a state refers to, in the order of their first use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    known: Vec<u64>,
}

impl Labels {
    /// The new number of `old`, which is in use from here on.
    pub fn note(&mut self, old: u64) -> u64 {
        let place = self.known.iter().position(|known| *known == old).unwrap_or_else(|| {
            self.known.push(old);
            self.known.len() - 1
        });
        place as u64 + 1
    }

    /// The new number of `old`, if it is in use.
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
        self.state.each_due(&mut |due| shift(due, now.0));
        for sent in &mut self.state.link.sent {
            shift(&mut sent.at, now.0.saturating_sub(longest.0));
        }
        if let Some(swap) = &mut self.state.witness.swap {
            shift(&mut swap.sent, now.0.saturating_sub(longest.0));
        }
    }

    /// Counts the numbers in use anew, and forgets what has no effect. `elsewhere` are numbers that the rest of the
    /// model refers to; sends that it does not refer to can't be answered, and are dropped.
    pub fn renumber(&mut self, elsewhere: &dyn Fn(u64) -> bool) -> Labels {
        let state = &mut self.state;
        state.link.sent.retain(|sent| elsewhere(sent.number));
        state.link.sent.sort_by_key(|sent| (sent.at, sent.renews));
        state.published = Published::Nothing;
        state.waiting = None;
        state.wakes_at = BootTime::NEVER;
        let mut labels = Labels::default();
        let mut note = |number: &mut u64| *number = labels.note(*number);
        for sent in &mut state.link.sent {
            note(&mut sent.number);
        }
        if let Some(CallId(number)) = state.persisting.as_mut().map(|persisting| &mut persisting.call) {
            note(number);
        }
        if let Some(CallId(number)) = state.reading.as_mut().map(|reading| &mut reading.call) {
            note(number);
        }
        if let Some(CallId(number)) = state.witness.calling.as_mut().map(|calling| &mut calling.call) {
            note(number);
        }
        if let Some(swap) = &mut state.witness.swap {
            note(&mut swap.call.0);
            swap.number = swap.call.0;
        }
        state.next_number = labels.known.len() as u64;
        labels
    }

    /// The numbers that the peer's questions under way in this machine refer to.
    pub fn questions(&self) -> Vec<Seq> {
        let reading = self.state.reading.iter().flat_map(|reading| &reading.questions);
        reading.chain(&self.state.queued).filter_map(number_of).collect()
    }
}

fn number_of(message: &Message) -> Option<Seq> {
    match message {
        Message::Hello { seq } | Message::Renew { seq, .. } => Some(*seq),
        Message::Greeting { .. } | Message::Ack { .. } | Message::Refuse { .. } | Message::Release { .. } => None,
    }
}
