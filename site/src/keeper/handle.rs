//! What the rest of a site asks its keeper.

use diptych_core::ids::{Epoch, KeeperNumber};
use diptych_core::lease::{BootTime, Command, Event, Loan, Message, NoPromotion, Role, SubLease, Waiting};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::boot_time;

/// What a keeper publishes after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeeperState {
    /// Where the site stands.
    pub role: Role,
    /// Epoch of its vote: the newest that it knows.
    pub epoch: Epoch,
    /// This keeper.
    pub keeper: KeeperNumber,
    /// What may be lent: an epoch, and until when by this machine's clock.
    pub serves: Option<(Epoch, BootTime)>,
    /// The peer answers.
    pub peer_connected: bool,
    /// The witness answered the last call.
    pub witness_reachable: bool,
    /// When the other site was last seen to have renewed at the witness.
    pub peer_renewed: Option<BootTime>,
    /// When this keeper promised the other site last that it votes for nobody else: by that it may have gone on.
    pub peer_promised: Option<BootTime>,
    /// When the witness's record will have stood long enough for whoever wants to take over, at worst.
    pub witness_aged: Option<BootTime>,
    /// Why a promotion would not be heard; None: it would.
    pub no_promotion: Option<NoPromotion>,
    /// Why it does not serve, or a handover does not go on.
    pub waiting: Option<Waiting>,
}

impl KeeperState {
    /// Of a keeper that has read nothing and heard of nobody.
    pub const fn at_start() -> Self {
        Self {
            role: Role::NoRecord,
            epoch: Epoch(0),
            keeper: KeeperNumber(0),
            serves: None,
            peer_connected: false,
            witness_reachable: false,
            peer_renewed: None,
            peer_promised: None,
            witness_aged: None,
            no_promotion: None,
            waiting: None,
        }
    }

    /// What a gateway that asks now is lent.
    pub fn loan(&self, now: BootTime) -> Option<Loan> {
        let (epoch, until) = self.serves?;
        (now < until).then(|| Loan { epoch, keeper: self.keeper, left: now.until(until) })
    }

    /// The sub-lease of a gateway in the same process: same clock, same deadline.
    pub fn sub_lease(&self) -> Option<SubLease> {
        self.serves.map(|(epoch, until)| SubLease { epoch, keeper: self.keeper, until })
    }
}

/// Answer to `GET /lease` and the like.
#[derive(Debug, Clone, Serialize)]
pub struct LeaseView {
    /// Epoch of the vote.
    pub epoch: u64,
    /// Milliseconds left; 0: nothing is held.
    pub left_ms: u64,
    /// Why nothing happens.
    pub waiting: Option<&'static str>,
}

/// The keeper, from outside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeeperHandle {
    events: mpsc::UnboundedSender<Event>,
    state: watch::Receiver<KeeperState>,
}

impl KeeperHandle {
    pub(crate) fn new(events: mpsc::UnboundedSender<Event>, state: watch::Receiver<KeeperState>) -> Self {
        Self { events, state }
    }

    /// A message of the peer's keeper came.
    pub fn deliver(&self, message: Message) {
        self.tell(Event::FromPeer(message));
    }

    /// A person, or a rule, wants something.
    pub fn command(&self, command: Command) {
        self.tell(Event::Command(command));
    }

    /// Something happened. After the keeper's end it is lost, as after a crash.
    pub fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// How things are.
    pub fn state(&self) -> KeeperState {
        *self.state.borrow()
    }

    /// How things are, as they change.
    pub fn watch(&self) -> watch::Receiver<KeeperState> {
        self.state.clone()
    }

    /// For people.
    pub fn view(&self) -> LeaseView {
        let state = self.state();
        LeaseView {
            epoch: state.epoch.0,
            left_ms: state.loan(boot_time()).map_or(0, |loan| loan.left.0),
            waiting: state.waiting.map(Waiting::reason),
        }
    }
}
