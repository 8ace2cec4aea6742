//! What a keeper knows: the record as last observed, and what is in memory only and ends with the process.

use super::event::{CallId, NoPromotion, Waiting};
use super::handover::Handover;
use super::message::{Message, Standing, WitnessRecord};
use super::persist::Persisting;
use super::record::{SiteRecord, Token};
use super::timers::BootTime;
use crate::ids::Epoch;
use crate::records::Position;

/// Votes that run: the right to answer for an epoch until a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) epoch: Epoch,
    pub(super) until: BootTime,
}

/// A message to the peer whose answer may still count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) at: BootTime,
    /// None: a hello.
    pub(super) renews: Option<Epoch>,
}

/// The link to the peer's keeper.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Link {
    pub(super) sent: Vec<Sent>,
    pub(super) next_renew: BootTime,
    pub(super) next_hello: BootTime,
    /// Both directions worked for something that was sent a short while before this.
    pub(super) connected_until: BootTime,
    /// From here on the holder uses the witness.
    pub(super) switch_at: BootTime,
    /// What the peer last said of itself; forgotten when it falls silent.
    pub(super) standing: Option<Standing>,
}

/// A read of the own record that is under way, with the peer's messages that are answered by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    pub(super) call: CallId,
    pub(super) questions: Vec<Message>,
    /// A change of the record began after the read: its answer tells nothing.
    pub(super) void: bool,
}

/// A call to the witness that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Calling {
    pub(super) call: CallId,
    pub(super) until: BootTime,
    pub(super) swaps: bool,
}

/// The last swap, until its result is known or can't count any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Swap {
    /// Its number is the nonce's too.
    pub(super) call: CallId,
    pub(super) epoch: Epoch,
    pub(super) sent: BootTime,
}

/// The witness's record as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// None: there is no record.
    pub(super) token: Option<Token>,
    pub(super) record: Option<WitnessRecord>,
    /// From here on it has stood for a witness lease.
    pub(super) free_at: BootTime,
}

impl Seen {
    pub(super) fn epoch(&self) -> Epoch {
        self.record.as_ref().map_or(Epoch(0), |record| record.epoch)
    }
}

/// The witness.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WitnessView {
    pub(super) calling: Option<Calling>,
    pub(super) swap: Option<Swap>,
    pub(super) seen: Option<Seen>,
    /// Next look while the peer answers, and while it is silent.
    pub(super) look_at: BootTime,
    pub(super) look_silent_at: BootTime,
    pub(super) next_swap: BootTime,
    pub(super) blocked_until: BootTime,
    /// The last call was answered.
    pub(super) reachable: bool,
}

/// The gate on loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Loss {
    Unasked,
    Asked { again_at: BootTime },
    Allowed { until: BootTime },
    Denied { again_at: BootTime },
}

/// What a person said in favour of this site. It ends by itself: it was said of how things were then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Approval {
    None,
    Promote { until: BootTime },
    AcceptLoss { until: BootTime },
}

/// A release that the peer has not taken up yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Released {
    pub(super) epoch: Epoch,
    pub(super) revision: Position,
    pub(super) again_at: BootTime,
}

/// What the gateways and the role were last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Published {
    Nothing,
    Stopped,
    Serving(Held),
}

/// All that a keeper knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) record: SiteRecord,
    /// There was no record at the start: what an earlier keeper held or promised is unknown.
    pub(super) lost: bool,
    pub(super) resigned: bool,
    /// Calls, messages and nonces are counted together.
    pub(super) next_number: u64,
    pub(super) persisting: Option<Persisting>,
    pub(super) reading: Option<Reading>,
    pub(super) queued: Vec<Message>,

    /// The promise to the peer ends.
    pub(super) promise_over: BootTime,
    /// The own lease is over everywhere, by a voter's count.
    pub(super) own_over: BootTime,
    pub(super) lease: Option<Held>,
    /// Two votes are counted, the gate is not open yet.
    pub(super) win: Option<Held>,
    pub(super) link: Link,
    pub(super) witness: WitnessView,

    pub(super) handover: Option<Handover>,
    /// Writes were asked to be held back.
    pub(super) drained: bool,
    /// The peer gave this epoch to this site.
    pub(super) received: Option<Epoch>,
    /// This site gave this epoch to the peer.
    pub(super) released: Option<Released>,
    pub(super) loss: Loss,
    pub(super) approval: Approval,
    /// A peer that does not hold has voted in this epoch, too high for one's own to be acknowledged.
    pub(super) burned: Option<Epoch>,
    /// When the site that is not favoured may ask the peer.
    pub(super) yields_until: Option<BootTime>,

    pub(super) catalog_healthy: bool,
    pub(super) gateway_alive: bool,
    pub(super) devices_empty: bool,

    pub(super) published: Published,
    pub(super) waiting: Option<Waiting>,
    pub(super) wakes_at: BootTime,
}

impl State {
    /// Every moment that means "from here on". What lies in the past is all alike.
    pub(super) fn each_due(&mut self, visit: &mut dyn FnMut(&mut BootTime)) {
        visit(&mut self.promise_over);
        visit(&mut self.own_over);
        for held in self.lease.iter_mut().chain(&mut self.win) {
            visit(&mut held.until);
        }
        if let Some(retry) = self.persisting.as_mut().and_then(|persisting| persisting.retry_at.as_mut()) {
            visit(retry);
        }
        let link = &mut self.link;
        for due in
            [&mut link.next_renew, &mut link.next_hello, &mut link.connected_until, &mut link.switch_at]
        {
            visit(due);
        }
        let witness = &mut self.witness;
        let looks = [&mut witness.look_at, &mut witness.look_silent_at];
        for due in looks.into_iter().chain([&mut witness.next_swap, &mut witness.blocked_until]) {
            visit(due);
        }
        if let Some(calling) = &mut witness.calling {
            visit(&mut calling.until);
        }
        if let Some(seen) = &mut witness.seen {
            visit(&mut seen.free_at);
        }
        if let Some(due) = self.handover.as_mut().and_then(Handover::due) {
            visit(due);
        }
        if let Some(released) = &mut self.released {
            visit(&mut released.again_at);
        }
        match &mut self.loss {
            Loss::Unasked => {}
            Loss::Asked { again_at: due } | Loss::Denied { again_at: due } | Loss::Allowed { until: due } => {
                visit(due);
            }
        }
        match &mut self.approval {
            Approval::None => {}
            Approval::Promote { until: due } | Approval::AcceptLoss { until: due } => visit(due),
        }
        if let Some(due) = &mut self.yields_until {
            visit(due);
        }
    }

    /// The peer answers, and says that it may hold the lease.
    pub(super) fn peer_holds(&self, now: BootTime) -> bool {
        now < self.link.connected_until
            && self.link.standing.as_ref().is_some_and(|standing| standing.holding)
    }

    /// Why there is no takeover that a person could approve.
    pub(super) fn no_promotion(&self, now: BootTime) -> Option<NoPromotion> {
        if self.lease.is_some_and(|held| now < held.until) {
            return Some(NoPromotion::Active);
        }
        self.peer_holds(now).then_some(NoPromotion::PeerHolds)
    }
}
