//! A keeper and the gateways of its site, where they are processes of their own: what gateways ask, what they are told,
//! and how a keeper knows that all of them hold back or have stopped.
//!
//! A gateway asks every quarter of a second and says how it stands; nothing is ever pushed to it. What it was lent runs
//! out by itself, so one that is gone need not be waited for longer than that.
//!
//! | request | answer |
//! |---|---|
//! | `POST /keeper/v1/ask` [`Ask`] | [`Told`] |
//! | `POST /keeper/v1/lease` a `lease::Message` of the peer, come through a door | 204 |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use diptych_core::ids::{Epoch, KeeperNumber};
use diptych_core::lease::{BootTime, Loan, Message, Role};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::keeper::{KeeperHandle, boot_time};
use crate::peer::follow::Followed;

/// Path of a gateway's question.
pub const ASK: &str = "/keeper/v1/ask";
/// Path of a peer's lease message that a gateway hands on.
pub const LEASE: &str = "/keeper/v1/lease";
/// Between two questions.
pub const ASK_EVERY: Duration = Duration::from_millis(250);
/// While writes are held, or the site is about to stop: the sooner it is known, the shorter the switch.
pub const ASK_SOON: Duration = Duration::from_millis(25);

/// How a gateway stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Its name, unique in the site.
    pub gateway: String,
    /// The hold under which no write is under way in it; 0: none.
    pub holds: u64,
    /// It acknowledges nothing any more under this epoch or lower ones.
    pub stopped: Epoch,
}

/// What a gateway is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What it is lent.
    pub loan: Option<Loan>,
    /// Who speaks for the site.
    pub keeper: KeeperNumber,
    /// Newest epoch known.
    pub epoch: Epoch,
    /// Where the site stands.
    pub stands: Stands,
    /// Number of the hold that is in force; 0: writes go on.
    pub hold: u64,
    /// Nothing may be acknowledged under this epoch or lower ones.
    pub stop: Epoch,
    /// The term that the peer says to be active in.
    pub peer_term: Option<Epoch>,
}

/// Where a site stands, for a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stands {
    /// It takes writes.
    Active,
    /// It follows.
    Passive,
    /// Neither, until it knows more.
    Fenced,
}

impl From<Role> for Stands {
    fn from(role: Role) -> Self {
        match role {
            Role::Holder | Role::HandingOver => Self::Active,
            Role::Follower => Self::Passive,
            Role::NoRecord | Role::Candidate | Role::Lapsed | Role::Resigned => Self::Fenced,
        }
    }
}

/// What was heard of a gateway and lent to it.
#[derive(Debug, Clone, Copy)]
struct Borrower {
    holds: u64,
    stopped: Epoch,
    /// By the keeper's clock; the gateway counts from its asking, so for it the time ends before.
    lent_until: BootTime,
}

#[derive(Debug, Default)]
struct Orders {
    hold: u64,
    last_hold: u64,
    stop: Epoch,
    borrowers: BTreeMap<String, Borrower>,
}

/// The gateways of a site, as its keeper knows them.
pub struct Fleet {
    keeper: KeeperHandle,
    followed: Mutex<Option<watch::Receiver<Followed>>>,
    orders: Mutex<Orders>,
    heard: Notify,
}

impl Fleet {
    /// None are known at first.
    pub fn new(keeper: KeeperHandle) -> Arc<Self> {
        Arc::new(Self { keeper, followed: Mutex::default(), orders: Mutex::default(), heard: Notify::new() })
    }

    /// From now on gateways hear what the peer says of itself.
    pub fn follows(&self, followed: watch::Receiver<Followed>) {
        *self.followed.lock().unwrap_or_else(PoisonError::into_inner) = Some(followed);
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a gateway.
    pub fn answer(&self, ask: &Ask) -> Told {
        let state = self.keeper.state();
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let peer_term = followed.as_ref().and_then(|followed| followed.borrow().term);
        drop(followed);
        // FENCING (a handover misses nothing): what is lent and what is ordered change under one lock, so that after an
        // order no loan is given that the one who waits for it does not know of.
        let mut orders = self.orders();
        let now = boot_time();
        let loan = state.loan(now).filter(|loan| loan.epoch > orders.stop);
        let told = tell(&mut orders, ask, loan, now);
        drop(orders);
        self.heard.notify_waiters();
        Told {
            loan,
            keeper: state.keeper,
            epoch: state.epoch,
            stands: state.role.into(),
            hold: told.0,
            stop: told.1,
            peer_term,
        }
    }

    /// Has all gateways hold writes back; returns when none is under way.
    pub async fn hold(&self) {
        let number = {
            let mut orders = self.orders();
            orders.last_hold += 1;
            orders.hold = orders.last_hold;
            orders.hold
        };
        self.when(|orders, now| {
            orders.borrowers.values().all(|one| one.holds == number || now >= one.lent_until)
        })
        .await;
    }

    /// Lets writes go on.
    pub fn release(&self) {
        self.orders().hold = 0;
    }

    /// Has all gateways stop under `epoch`; returns when all have said so, or what they were lent has run out.
    pub async fn stop(&self, epoch: Epoch) {
        {
            let mut orders = self.orders();
            orders.stop = orders.stop.max(epoch);
        }
        self.when(|orders, now| {
            orders.borrowers.values().all(|one| one.stopped >= epoch || now >= one.lent_until)
        })
        .await;
    }

    async fn when(&self, done: impl Fn(&Orders, BootTime) -> bool) {
        loop {
            let heard = self.heard.notified();
            if done(&self.orders(), boot_time()) {
                return;
            }
            tokio::select! {
                () = heard => {}
                () = tokio::time::sleep(ASK_SOON) => {}
            }
        }
    }

    /// The keeper's service for the gateways of its site; who may ask is the listener's business.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().route(ASK, post(ask)).route(LEASE, post(lease)).with_state(self)
    }
}

/// Notes how the gateway stands and what it is lent; the hold and the stop that are in force.
fn tell(orders: &mut Orders, ask: &Ask, loan: Option<Loan>, now: BootTime) -> (u64, Epoch) {
    let before = orders.borrowers.get(&ask.gateway).map_or(now, |known| known.lent_until);
    let lent_until = loan.map_or(before, |loan| before.max(now + loan.left));
    let borrower = Borrower { holds: ask.holds, stopped: ask.stopped, lent_until };
    orders.borrowers.insert(ask.gateway.clone(), borrower);
    // Gateways that are gone for good are forgotten once nothing of theirs can count any more.
    orders.borrowers.retain(|name, one| *name == ask.gateway || one.lent_until > now);
    (orders.hold, orders.stop)
}

async fn ask(State(fleet): State<Arc<Fleet>>, body: Bytes) -> Response {
    match postcard::from_bytes(&body) {
        Ok(ask) => match postcard::to_stdvec(&fleet.answer(&ask)) {
            Ok(told) => told.into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        Err(error) => {
            (StatusCode::BAD_REQUEST, format!("the question can't be read: {error}")).into_response()
        }
    }
}

async fn lease(State(fleet): State<Arc<Fleet>>, body: Bytes) -> Response {
    match postcard::from_bytes::<Message>(&body) {
        Ok(message) => {
            fleet.keeper.deliver(message);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => {
            (StatusCode::BAD_REQUEST, format!("the message can't be read: {error}")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::lease::Millis;

    use super::*;

    fn ask(gateway: &str, holds: u64, stopped: u64) -> Ask {
        Ask { gateway: gateway.to_owned(), holds, stopped: Epoch(stopped) }
    }

    fn loan(left: u64) -> Loan {
        Loan { epoch: Epoch(3), keeper: KeeperNumber(1), left: Millis(left) }
    }

    #[test]
    fn what_was_lent_is_remembered_though_the_next_answer_lends_nothing() {
        let mut orders = Orders::default();
        tell(&mut orders, &ask("g1", 0, 0), Some(loan(900)), BootTime(1_000));
        tell(&mut orders, &ask("g1", 0, 0), None, BootTime(1_100));
        assert_eq!(orders.borrowers["g1"].lent_until, BootTime(1_900));
    }

    #[test]
    fn a_gateway_that_is_gone_counts_until_its_time_has_run_out() {
        let mut orders = Orders::default();
        tell(&mut orders, &ask("g1", 0, 0), Some(loan(900)), BootTime(1_000));
        tell(&mut orders, &ask("g2", 0, 0), Some(loan(900)), BootTime(1_500));
        assert_eq!(orders.borrowers.len(), 2);
        tell(&mut orders, &ask("g2", 0, 0), Some(loan(900)), BootTime(1_900));
        assert_eq!(orders.borrowers.keys().collect::<Vec<_>>(), ["g2"]);
    }

    #[test]
    fn an_answer_to_an_earlier_hold_is_none_to_a_later_one() {
        let mut orders = Orders { hold: 2, last_hold: 2, ..Orders::default() };
        let (hold, _) = tell(&mut orders, &ask("g1", 1, 0), Some(loan(900)), BootTime(1_000));
        assert_eq!(hold, 2);
        assert_ne!(orders.borrowers["g1"].holds, orders.hold);
    }
}
