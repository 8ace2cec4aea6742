//! How a keeper starts: it holds nothing, and is careful about what an earlier one may have promised. First start of
//! all, a lost record, and a site without a peer are here too.

use super::event::Waiting;
use super::machine::Config;
use super::persist::Purpose;
use super::record::SiteRecord;
use super::state::{Approval, Held, Link, Loss, Published, State, WitnessView};
use super::timers::BootTime;
use super::turn::Turn;
use crate::ids::{Epoch, SiteName};
use crate::records::{Gate, Vote};

/// A keeper's state before its first step.
pub(super) fn begin(config: &Config, record: SiteRecord, now: BootTime) -> State {
    let timers = &config.timers;
    let lost = record.vote.is_none();
    let backs_peer = config.peer.as_ref().is_some_and(|peer| record.backs(peer));
    let may_hold = record.backs(&config.own) && record.gate != Gate::Closed;
    // FENCING (a start holds nothing, one valid holder): an earlier keeper may have promised the vote to the peer, or
    // lent its lease to gateways, just before this moment.
    let promise_over = if backs_peer || lost { now + timers.peer_wait } else { now };
    let own_over = if may_hold || lost { now + timers.witness_wait } else { now };
    let link = Link {
        sent: Vec::new(),
        next_renew: now,
        next_hello: now,
        connected_until: now,
        // The peer is asked first; the witness follows if it does not answer.
        switch_at: now + timers.peer_switch,
        standing: None,
    };
    let witness = WitnessView {
        calling: None,
        swap: None,
        seen: None,
        look_at: now,
        look_silent_at: now,
        next_swap: now,
        blocked_until: now,
        reachable: false,
    };
    State {
        record,
        lost,
        resigned: false,
        next_number: 0,
        persisting: None,
        reading: None,
        queued: Vec::new(),
        promise_over,
        own_over,
        lease: None,
        win: None,
        link,
        witness,
        handover: None,
        drained: false,
        received: None,
        released: None,
        loss: Loss::Unasked,
        approval: Approval::None,
        burned: None,
        yields_until: None,
        catalog_healthy: true,
        gateway_alive: true,
        devices_empty: false,
        published: Published::Nothing,
        waiting: None,
        wakes_at: BootTime::NEVER,
    }
}

/// Takes a start's wait out again.
#[cfg(any(test, feature = "mutations"))]
pub(super) fn forget(state: &mut State, guard: Option<super::guard::Guard>, now: BootTime) {
    match guard {
        Some(super::guard::Guard::StartPromise) => state.promise_over = now,
        Some(super::guard::Guard::StartOwnLease) => state.own_over = now,
        _ => {}
    }
}

impl Turn<'_> {
    /// Without a record of its vote a site grants and asks nothing: it takes over what the peer and the witness know, or
    /// finds that there was never anything.
    pub(super) fn find_record(&mut self) -> Waiting {
        let seen = self.state.witness.seen.as_ref();
        let witness =
            seen.and_then(|seen| seen.record.as_ref()).map(|record| (record.epoch, record.site.clone()));
        let standing = self.state.link.standing.clone().filter(|_| self.connected());
        let Some(standing) = standing else {
            let first = witness.is_none() && self.state.devices_empty;
            return if first { Waiting::FirstStart } else { Waiting::NoVoteRecord };
        };
        let theirs = standing.vote.filter(|vote| vote.backs.is_some());
        if let Some(Vote { epoch, backs: Some(backs) }) = theirs {
            // The higher of both: this site may itself have won it through the witness before its record was lost.
            let peer = (epoch, backs);
            let (epoch, backs) = witness.filter(|witness| witness.0 > peer.0).unwrap_or(peer);
            return self.settle(epoch, Some(backs));
        }
        let nothing_anywhere = self.state.devices_empty
            && standing.devices_empty
            && seen.is_some_and(|seen| seen.token.is_none() && seen.record.is_none());
        if !nothing_anywhere {
            return if witness.is_some() { Waiting::NoVoteRecord } else { Waiting::FirstStart };
        }
        // FENCING (unique epochs): the first epoch is begun only where nothing of an earlier one is left anywhere.
        self.state.lost = false;
        let now = self.now;
        (self.state.promise_over, self.state.own_over) = (now, now);
        if self.config.preferred == self.config.own {
            self.settle(Epoch(1), Some(self.config.own.clone()))
        } else {
            self.settle(Epoch(0), None)
        }
    }

    fn settle(&mut self, epoch: Epoch, backs: Option<SiteName>) -> Waiting {
        let new = self.state.record.with(epoch, backs, Gate::Closed);
        self.persist(new, Purpose::Settle);
        Waiting::Catalog
    }

    pub(super) fn on_force_vote(&mut self, above: Epoch) {
        let holds = self.state.peer_holds(self.now);
        if self.state.record.vote.is_none() && self.state.persisting.is_none() && !holds {
            let seen = self.state.witness.seen.as_ref().map_or(Epoch(0), super::state::Seen::epoch);
            self.settle(above.max(seen), None);
        }
    }

    /// One site without a peer has no lease: its gate is open at epoch 1, and its deadline never ends.
    pub(super) fn serve_alone(&mut self) -> Option<Waiting> {
        if self.state.persisting.is_some() {
            return self.state.lease.is_none().then_some(Waiting::Catalog);
        }
        let record = &self.state.record;
        if record.vote.is_none() && !self.state.devices_empty {
            return Some(Waiting::NoVoteRecord);
        }
        if record
            .vote
            .as_ref()
            .is_some_and(|vote| vote.backs.as_ref().is_some_and(|site| *site != self.config.own))
        {
            // It had a peer, which may hold the lease.
            return Some(Waiting::Approval);
        }
        if !self.healthy() {
            self.state.lease = None;
            return Some(Waiting::Unhealthy);
        }
        let epoch = record.epoch().max(Epoch(1));
        if record.gate == Gate::Open(epoch) && self.votes_for_self() {
            self.state.lease = Some(Held { epoch, until: BootTime::NEVER });
            return None;
        }
        let new = record.with(epoch, Some(self.config.own.clone()), Gate::Open(epoch));
        self.persist(new, Purpose::Open);
        Some(Waiting::Catalog)
    }
}
