//! The right to write, as a gateway has it from a keeper in another process: asked for again and again, counted from the
//! asking, gone by itself.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use diptych_catalog::Catalog;
use diptych_core::ids::Epoch;
use diptych_core::keys;
use diptych_core::lease::{Borrowed, Message, SubLease};
use diptych_core::records::{KeeperLease, Record};
use diptych_gateway::authority::{Authority, Role};
use diptych_gateway::{Gateway, HeldWrites};
use diptych_site::door::DoorKeeper;
use diptych_site::drill::CutSwitch;
use diptych_site::fleet::{ASK, ASK_EVERY, ASK_SOON, Ask, LEASE, News, Stands, Told};
use diptych_site::keeper::boot_time;
use diptych_wire::http::{HttpBody, HttpClient, full};
use diptych_wire::identity::{Expected, Role as Identity};
use diptych_wire::tls::Credentials;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::process::forward::WhoIsActive;
use crate::process::site::GatewayCell;

/// A keeper that is silent for longer is looked up anew.
const LIMIT: Duration = Duration::from_secs(1);

/// What the keeper lent and told.
pub(super) struct Lent {
    gateway: String,
    borrowed: Mutex<Borrowed>,
    stopped: Mutex<Epoch>,
    told: watch::Sender<Option<News>>,
    to_keeper: mpsc::Sender<Message>,
    cut: CutSwitch,
}

impl Lent {
    /// Nothing yet. Messages for the keeper come out at the other end.
    pub(super) fn new(gateway: String) -> (Arc<Self>, mpsc::Receiver<Message>) {
        let (to_keeper, messages) = mpsc::channel(64);
        let lent = Self {
            gateway,
            borrowed: Mutex::default(),
            stopped: Mutex::new(Epoch(0)),
            told: watch::Sender::new(None),
            to_keeper,
            cut: CutSwitch::default(),
        };
        (Arc::new(lent), messages)
    }

    /// Whether a drill has cut the site off, as the keeper said last. It ends here by itself too.
    pub(super) fn cut(&self) -> &CutSwitch {
        &self.cut
    }

    fn borrowed(&self) -> MutexGuard<'_, Borrowed> {
        self.borrowed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> Epoch {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer to what was asked at `asked`.
    fn take(&self, asked: diptych_core::lease::BootTime, told: &Told) {
        let mut borrowed = self.borrowed();
        let running = borrowed.running(boot_time());
        // FENCING (a handover misses nothing): stopped before it is said so, which the next question does.
        if running.is_some_and(|lease| lease.epoch <= told.news.stop) {
            borrowed.stop(boot_time(), told.keeper);
        }
        if let Some(loan) = told.loan {
            borrowed.take(asked, loan);
        }
        drop(borrowed);
        match told.cut {
            Some(left) => self.cut.cut_until(asked + left),
            None => self.cut.restore(),
        }
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        *stopped = (*stopped).max(told.news.stop);
    }
}

impl Authority for Lent {
    fn sub_lease(&self) -> Option<SubLease> {
        let stopped = self.stopped();
        self.borrowed().running(boot_time()).filter(|lease| lease.epoch > stopped)
    }

    fn epoch(&self) -> Epoch {
        self.told.borrow().map_or(Epoch(0), |news| news.epoch)
    }

    fn role(&self) -> Role {
        match self.told.borrow().map(|news| news.stands) {
            Some(Stands::Active) => Role::Active,
            Some(Stands::Passive) => Role::Passive,
            Some(Stands::Fenced) | None => Role::Fenced,
        }
    }
}

impl DoorKeeper for Lent {
    fn deliver(&self, message: Message) {
        // A full queue: the keeper is away, and the message would be old when it is back.
        let _ = self.to_keeper.try_send(message);
    }

    fn serves(&self) -> Option<Epoch> {
        self.sub_lease().map(|lease| lease.epoch)
    }
}

/// For the way to the active site.
pub(super) struct ByLent(pub(super) Arc<Lent>);

#[async_trait]
impl WhoIsActive for ByLent {
    fn serves(&self) -> bool {
        self.0.sub_lease().is_some()
    }

    async fn decided(&self) -> Option<bool> {
        let mut told = self.0.told.subscribe();
        loop {
            told.mark_unchanged();
            if self.serves() {
                return Some(true);
            }
            let there =
                told.borrow().is_some_and(|news| news.peer_term.is_some_and(|term| term >= news.epoch));
            if there {
                return Some(false);
            }
            told.changed().await.ok()?;
        }
    }
}

/// The way to the keeper: the process that the catalog names.
pub(super) struct ToKeeper {
    catalog: Arc<dyn Catalog>,
    credentials: Credentials,
    expected: Expected,
    client: Mutex<Option<HttpClient>>,
}

impl ToKeeper {
    /// Of the catalog's site.
    pub(super) fn new(catalog: Arc<dyn Catalog>, credentials: &Credentials) -> Self {
        let own = credentials.identity();
        let expected = Expected {
            cluster: own.cluster,
            sites: vec![own.site.clone()],
            roles: vec![Identity::Operator],
            name: None,
        };
        Self { catalog, credentials: credentials.clone(), expected, client: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Option<HttpClient>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self) -> Result<HttpClient> {
        if let Some(client) = self.known().clone() {
            return Ok(client);
        }
        let raw = self.catalog.view().await?.get(&keys::site_keeper(self.catalog.site()))?;
        let keeper = KeeperLease::decode(&raw.context("no keeper was elected yet")?)?;
        let client = HttpClient::new(keeper.holder, &self.credentials, self.expected.clone())?;
        *self.known() = Some(client.clone());
        Ok(client)
    }

    /// Sends a request to the keeper. One that fails is looked up anew the next time.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: HttpBody,
    ) -> Result<Response<Incoming>> {
        let client = self.client().await?;
        let request = Request::builder().method(method).uri(client.uri(path)?).body(body)?;
        let sent = client.send(request).await;
        if sent.is_err() {
            self.forget();
        }
        Ok(sent?)
    }

    fn forget(&self) {
        self.known().take();
    }

    pub(super) async fn call(&self, path: &str, question: &impl Serialize) -> Result<bytes::Bytes> {
        let call = async {
            let answer = self.send(Method::POST, path, full(postcard::to_stdvec(question)?)).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            if !status.is_success() {
                bail!("{status}: {}", String::from_utf8_lossy(&body));
            }
            Ok(body)
        };
        let Ok(answer) = tokio::time::timeout(LIMIT, call).await else {
            self.forget();
            bail!("no answer in 1 s");
        };
        answer
    }
}

/// Asks the keeper for ever, and does as it is told.
pub(super) async fn borrow(lent: Arc<Lent>, keeper: Arc<ToKeeper>, cell: GatewayCell) {
    let mut held = Held::default();
    let mut silent = false;
    let mut knows = None;
    loop {
        // FENCING (one valid holder): the time counts from here.
        let asked = boot_time();
        let ask = Ask { gateway: lent.gateway.clone(), holds: held.holds(), stopped: lent.stopped(), knows };
        match keeper.call(ASK, &ask).await.and_then(|body| Ok(postcard::from_bytes::<Told>(&body)?)) {
            Ok(told) => {
                lent.take(asked, &told);
                let news = told.news;
                held.obey(news.hold, cell.get());
                silent = false;
                lent.told.send_replace(Some(news));
                // The keeper may wait for this gateway: it is told as soon as it is so, and not kept waiting.
                let owes = ask.holds != news.hold || ask.stopped < news.stop;
                knows = (!owes).then_some(news);
                if owes {
                    tokio::time::sleep(ASK_SOON).await;
                }
            }
            Err(error) => {
                if !silent {
                    tracing::warn!(%error, "the keeper does not answer");
                    silent = true;
                }
                // Nobody waits any more for what a keeper that is gone ordered; without its time nothing is acknowledged.
                if lent.sub_lease().is_none() {
                    held.obey(0, None);
                }
                knows = None;
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }
}

/// Hands the peer's messages on.
pub(super) async fn hand_on(mut messages: mpsc::Receiver<Message>, keeper: Arc<ToKeeper>) {
    // None waits for another: any may be late.
    let mut handing = JoinSet::new();
    while let Some(message) = messages.recv().await {
        while handing.try_join_next().is_some() {}
        let keeper = Arc::clone(&keeper);
        handing.spawn(async move {
            if let Err(error) = keeper.call(LEASE, &message).await {
                tracing::debug!(%error, "a lease message could not be handed on");
            }
        });
    }
}

/// Writes that are held back.
#[derive(Default)]
struct Held {
    ordered: u64,
    reached: Arc<OnceLock<HeldWrites>>,
}

impl Held {
    /// The hold under which nothing is under way any more; 0: none.
    fn holds(&self) -> u64 {
        if self.reached.get().is_some() { self.ordered } else { 0 }
    }

    fn obey(&mut self, hold: u64, gateway: Option<&Gateway>) {
        if hold == self.ordered {
            return;
        }
        // What was held goes on when the last of it is dropped; the task of an earlier hold drops its own.
        self.reached = Arc::default();
        self.ordered = hold;
        if let (true, Some(gateway)) = (hold != 0, gateway) {
            let (context, reached) = (Arc::clone(gateway.context()), Arc::downgrade(&self.reached));
            tokio::spawn(async move {
                let held = context.hold_writes().await;
                if let Some(reached) = reached.upgrade() {
                    let _ = reached.set(held);
                }
            });
        }
    }
}
