//! A keeper and the gateways of its site, where they are processes of their own: what gateways ask, what they are told,
//! and how a keeper knows that all of them hold back or have stopped.
//!
//! A gateway asks again and again and says how it stands; it is answered when there is news for it, or after a quarter of a
//! second. What it was lent runs out by itself, so one that is gone need not be waited for longer than that.
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
use diptych_core::lease::{BootTime, Loan, Message, Millis, Role};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::drill::CutSwitch;
use crate::keeper::{KeeperHandle, boot_time};
use crate::peer::follow::Followed;

/// Path of a gateway's question.
pub const ASK: &str = "/keeper/v1/ask";
/// Path of a peer's lease message that a gateway hands on.
pub const LEASE: &str = "/keeper/v1/lease";
/// A question waits so long for news before it is answered; so long a gateway waits that was not answered.
pub const ASK_EVERY: Duration = Duration::from_millis(250);
/// Between two questions while writes are held, or the site is about to stop: the sooner it is known, the shorter the switch.
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
    /// What it was told last: it waits for something else. None: it wants an answer at once.
    pub knows: Option<News>,
}

/// What a gateway is to hear of at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Newest epoch known.
    pub epoch: Epoch,
    /// Where the site stands.
    pub stands: Stands,
    /// Whether something is lent at all.
    pub lends: bool,
    /// Number of the hold that is in force; 0: writes go on.
    pub hold: u64,
    /// Nothing may be acknowledged under this epoch or lower ones.
    pub stop: Epoch,
    /// The term that the peer says to be active in.
    pub peer_term: Option<Epoch>,
}

/// What a gateway is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What it is lent.
    pub loan: Option<Loan>,
    /// Who speaks for the site.
    pub keeper: KeeperNumber,
    /// What else there is to know.
    pub news: News,
    /// For how long a drill cuts the site off; None: it does not.
    pub cut: Option<Millis>,
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
    ordered: Notify,
    cut: CutSwitch,
}

impl Fleet {
    /// None are known at first.
    pub fn new(keeper: KeeperHandle, cut: CutSwitch) -> Arc<Self> {
        Arc::new(Self {
            keeper,
            cut,
            followed: Mutex::default(),
            orders: Mutex::default(),
            heard: Notify::new(),
            ordered: Notify::new(),
        })
    }

    /// From now on gateways hear what the peer says of itself.
    pub fn follows(&self, followed: watch::Receiver<Followed>) {
        *self.followed() = Some(followed);
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a gateway when there is news for it, or after [`ASK_EVERY`].
    pub async fn answer(&self, ask: &Ask) -> Told {
        // How it stands is heard at once.
        self.orders().hear(ask);
        self.heard.notify_waiters();
        if let Some(known) = ask.knows {
            let _ = tokio::time::timeout(ASK_EVERY, self.differs_from(known)).await;
        }
        self.tell(ask)
    }

    async fn differs_from(&self, known: News) {
        let mut state = self.keeper.watch();
        let mut followed = self.followed().clone();
        loop {
            let ordered = self.ordered.notified();
            state.mark_unchanged();
            if self.news(&self.orders(), boot_time()).0 != known {
                return;
            }
            let peer = async {
                match &mut followed {
                    Some(followed) => followed.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            let goes_on = tokio::select! {
                () = ordered => true,
                changed = state.changed() => changed.is_ok(),
                goes_on = peer => goes_on,
            };
            if !goes_on {
                return;
            }
        }
    }

    fn followed(&self) -> MutexGuard<'_, Option<watch::Receiver<Followed>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is so now, and what may be lent.
    fn news(&self, orders: &Orders, now: BootTime) -> (News, Option<Loan>) {
        let state = self.keeper.state();
        let peer_term = self.followed().as_ref().and_then(|followed| followed.borrow().term);
        let loan = state.loan(now).filter(|loan| loan.epoch > orders.stop);
        let news = News {
            epoch: state.epoch,
            stands: state.role.into(),
            lends: loan.is_some(),
            hold: orders.hold,
            stop: orders.stop,
            peer_term,
        };
        (news, loan)
    }

    fn tell(&self, ask: &Ask) -> Told {
        // FENCING (a handover misses nothing): what is lent and what is ordered change under one lock, so that after an
        // order no loan is given that the one who waits for it does not know of.
        let mut orders = self.orders();
        let now = boot_time();
        let (news, loan) = self.news(&orders, now);
        orders.lend(ask, loan, now);
        drop(orders);
        Told { loan, keeper: self.keeper.state().keeper, news, cut: self.cut.left() }
    }

    /// Has all gateways hold writes back; returns when none is under way.
    pub async fn hold(&self) {
        let number = {
            let mut orders = self.orders();
            orders.last_hold += 1;
            orders.hold = orders.last_hold;
            orders.hold
        };
        self.ordered.notify_waiters();
        self.when(|orders, now| {
            orders.borrowers.values().all(|one| one.holds == number || now >= one.lent_until)
        })
        .await;
    }

    /// Lets writes go on.
    pub fn release(&self) {
        self.orders().hold = 0;
        self.ordered.notify_waiters();
    }

    /// Has all gateways stop under `epoch`; returns when all have said so, or what they were lent has run out.
    pub async fn stop(&self, epoch: Epoch) {
        {
            let mut orders = self.orders();
            orders.stop = orders.stop.max(epoch);
        }
        self.ordered.notify_waiters();
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

impl Orders {
    /// How a gateway says to stand; one that was lent nothing is not waited for.
    fn hear(&mut self, ask: &Ask) {
        if let Some(known) = self.borrowers.get_mut(&ask.gateway) {
            (known.holds, known.stopped) = (ask.holds, ask.stopped);
        }
    }

    /// Notes how the gateway stands and what it is lent.
    fn lend(&mut self, ask: &Ask, loan: Option<Loan>, now: BootTime) {
        let before = self.borrowers.get(&ask.gateway).map_or(now, |known| known.lent_until);
        let lent_until = loan.map_or(before, |loan| before.max(now + loan.left));
        let borrower = Borrower { holds: ask.holds, stopped: ask.stopped, lent_until };
        self.borrowers.insert(ask.gateway.clone(), borrower);
        // Gateways that are gone for good are forgotten once nothing of theirs can count any more.
        self.borrowers.retain(|name, one| *name == ask.gateway || one.lent_until > now);
    }
}

async fn ask(State(fleet): State<Arc<Fleet>>, body: Bytes) -> Response {
    match postcard::from_bytes(&body) {
        Ok(ask) => match postcard::to_stdvec(&fleet.answer(&ask).await) {
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
    use super::*;
    use crate::keeper::KeeperState;

    fn ask(gateway: &str, holds: u64, stopped: u64) -> Ask {
        Ask { gateway: gateway.to_owned(), holds, stopped: Epoch(stopped), knows: None }
    }

    fn loan(left: u64) -> Loan {
        Loan { epoch: Epoch(3), keeper: KeeperNumber(1), left: Millis(left) }
    }

    /// Of a keeper that holds the lease, as long as the sender lives.
    fn fleet() -> (Arc<Fleet>, watch::Sender<KeeperState>) {
        let serves = Some((Epoch(3), BootTime::NEVER));
        let state = KeeperState { serves, role: Role::Holder, ..KeeperState::at_start() };
        let (state, seen) = watch::channel(state);
        let keeper = KeeperHandle::new(tokio::sync::mpsc::unbounded_channel().0, seen);
        (Fleet::new(keeper, CutSwitch::default()), state)
    }

    #[tokio::test]
    async fn a_question_waits_for_news_and_a_hold_is_news() {
        let (fleet, _keeper) = fleet();
        let told = fleet.answer(&ask("g1", 0, 0)).await;
        assert!(told.news.lends && told.news.hold == 0, "who knows nothing is answered at once: {told:?}");
        let knows = Ask { knows: Some(told.news), ..ask("g1", 0, 0) };
        let mut waits = Box::pin(fleet.answer(&knows));
        assert!(futures::poll!(&mut waits).is_pending());
        let mut hold = Box::pin(fleet.hold());
        assert!(futures::poll!(&mut hold).is_pending(), "the gateway has not said that it holds back");
        let std::task::Poll::Ready(told) = futures::poll!(&mut waits) else { panic!("it waits on") };
        assert_eq!(told.news.hold, 1);
        fleet.answer(&ask("g1", 1, 0)).await;
        assert!(futures::poll!(&mut hold).is_ready());
    }

    #[test]
    fn what_was_lent_is_remembered_though_the_next_answer_lends_nothing() {
        let mut orders = Orders::default();
        orders.lend(&ask("g1", 0, 0), Some(loan(900)), BootTime(1_000));
        orders.lend(&ask("g1", 0, 0), None, BootTime(1_100));
        assert_eq!(orders.borrowers["g1"].lent_until, BootTime(1_900));
    }

    #[test]
    fn a_gateway_that_is_gone_counts_until_its_time_has_run_out() {
        let mut orders = Orders::default();
        orders.lend(&ask("g1", 0, 0), Some(loan(900)), BootTime(1_000));
        orders.lend(&ask("g2", 0, 0), Some(loan(900)), BootTime(1_500));
        assert_eq!(orders.borrowers.len(), 2);
        orders.lend(&ask("g2", 0, 0), Some(loan(900)), BootTime(1_900));
        assert_eq!(orders.borrowers.keys().collect::<Vec<_>>(), ["g2"]);
    }

    #[test]
    fn an_answer_to_an_earlier_hold_is_none_to_a_later_one() {
        let (fleet, _keeper) = fleet();
        *fleet.orders() = Orders { hold: 2, last_hold: 2, ..Orders::default() };
        assert_eq!(fleet.tell(&ask("g1", 1, 0)).news.hold, 2);
        assert_ne!(fleet.orders().borrowers["g1"].holds, 2);
    }
}
