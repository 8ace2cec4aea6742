//! The members of an etcd cluster: calls go to one of them until it falls silent, then to another.
//!
//! etcd-client's own balancer spreads calls over all members, those that are dead too, and each such call fails
//! (<https://github.com/etcdv3/etcd-client/issues/39>).

use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Error, GetOptions, KvClient};
use futures::future::{Either, select, select_ok};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::EtcdOptions;
use super::client::read_error;
use crate::CatalogError;

/// etcd refuses pings that come more often than each 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A member that answered nothing for so long is asked. A lease of 3 s must outlive the loss of a member.
const QUIET: Duration = Duration::from_millis(500);
/// A member that was asked and has not answered in this time is asked again: a question that was on its way to a leader
/// that died is answered late or never, the same one after the election at once.
const ASKED: Duration = Duration::from_secs(1);
/// The chosen member's head start over the others, when it is asked.
const HEAD_START: Duration = Duration::from_millis(700);
/// What calls to a member that was left have to come to their end.
const GRACE: Duration = Duration::from_millis(500);
/// A proposal that was on its way to a leader that died is never answered; the outcome is unclear long before etcd says so.
const COMMIT: Duration = Duration::from_secs(2);
/// Between two attempts of what may be tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// etcd, or the connection to it, says so.
    Etcd(Error),
    /// Nothing came in this time.
    Silent(Duration),
    /// The member was silent while another one answered.
    Left,
}

impl Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd(error) => write!(formatter, "etcd says: {error}"),
            Self::Silent(patience) => write!(formatter, "etcd did not answer within {patience:?}"),
            Self::Left => formatter.write_str("a member of etcd fell silent, another one is used now"),
        }
    }
}

impl CallError {
    /// Whether another member, or the same a moment later, may say something else.
    fn is_passing(&self) -> bool {
        /// gRPC's numbers for cancelled, unknown, deadline exceeded, internal, unavailable.
        const PASSING: [i32; 5] = [1, 2, 4, 13, 14];
        match self {
            Self::Etcd(Error::GRpcStatus(status)) => PASSING.contains(&i32::from(status.code())),
            Self::Etcd(Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_)) | Self::Left => {
                true
            }
            Self::Etcd(_) | Self::Silent(_) => false,
        }
    }
}

/// One connection a member.
pub(super) struct Members {
    clients: Mutex<Vec<Client>>,
    /// Which of them is used.
    chosen: watch::Sender<usize>,
    /// When it answered last.
    answered: Mutex<Instant>,
    /// Has it looked at now.
    suspicion: Notify,
    patience: Duration,
    /// What is asked to see whether a member answers.
    probe: Vec<u8>,
}

impl fmt::Debug for Members {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Members").field("chosen", &*self.chosen.borrow()).finish_non_exhaustive()
    }
}

impl Members {
    /// Chooses the first that answers, and watches it from then on.
    pub(super) async fn connect(options: &EtcdOptions, probe: &[u8]) -> Result<Arc<Self>, CatalogError> {
        let members = Self {
            clients: Mutex::new(clients(options).await?),
            chosen: watch::Sender::new(0),
            answered: Mutex::new(Instant::now()),
            suspicion: Notify::new(),
            patience: options.timeout,
            probe: probe.to_vec(),
        };
        members.choose(members.first_to_answer().await.map_err(|error| read_error(&error))?);
        let members = Arc::new(members);
        tokio::spawn(watch_over(Arc::downgrade(&members)));
        Ok(members)
    }

    /// Makes all connections anew, with other certificates. What is under way ends on those that are there.
    pub(super) async fn renew(&self, options: &EtcdOptions) -> Result<(), CatalogError> {
        let renewed = clients(options).await?;
        *self.clients() = renewed;
        Ok(())
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member that is used now; and what is ready once another one is.
    pub(super) fn chosen(&self) -> (Client, impl Future<Output = ()> + use<>) {
        let mut chosen = self.chosen.subscribe();
        let client = self.clients()[*chosen.borrow_and_update()].clone();
        let left = async move {
            if chosen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        (client, left)
    }

    /// How long a call waits.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    fn answered(&self) -> MutexGuard<'_, Instant> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the member that is used now, once: for what changes something. Whether an unanswered call was done nobody knows.
    pub(super) async fn commit<T, F: Future<Output = Result<T, Error>>>(
        &self,
        call: impl FnOnce(KvClient) -> F,
    ) -> Result<T, CallError> {
        self.call(self.patience.min(COMMIT), call).await
    }

    async fn call<T, F: Future<Output = Result<T, Error>>>(
        &self,
        patience: Duration,
        call: impl FnOnce(KvClient) -> F,
    ) -> Result<T, CallError> {
        let (client, left) = self.chosen();
        let left = async {
            left.await;
            tokio::time::sleep(GRACE).await;
        };
        let answer = tokio::select! {
            answer = timeout(patience, call(client.kv_client())) => match answer {
                Ok(answer) => answer.map_err(CallError::Etcd),
                Err(_) => Err(CallError::Silent(patience)),
            },
            () = left => Err(CallError::Left),
        };
        match &answer {
            Ok(_) => *self.answered() = Instant::now(),
            Err(error) if error.is_passing() => self.suspicion.notify_one(),
            Err(_) => {}
        }
        answer
    }

    /// Calls, again if need be: for what changes nothing.
    pub(super) async fn read<T, F: Future<Output = Result<T, Error>>>(
        &self,
        call: impl Fn(KvClient) -> F,
    ) -> Result<T, CatalogError> {
        let begun = Instant::now();
        loop {
            match self.call(self.patience, &call).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_passing() && begun.elapsed() < self.patience => {
                    tracing::debug!(%error, "a read of the catalog is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(read_error(&error)),
            }
        }
    }

    fn choose(&self, member: usize) {
        *self.answered() = Instant::now();
        let moved = self.chosen.send_if_modified(|chosen| std::mem::replace(chosen, member) != member);
        if moved {
            tracing::info!(member, "another member of etcd is used from now on");
        }
    }

    /// Reads what only a member that hears a majority can answer.
    async fn answers(&self, member: usize) -> Result<usize, CallError> {
        let options = GetOptions::new().with_keys_only();
        let mut client = self.clients()[member].kv_client();
        let patience = self.patience.min(ASKED);
        let answer = timeout(patience, client.get(self.probe.clone(), Some(options))).await;
        answer.map_err(|_| CallError::Silent(patience))?.map_err(CallError::Etcd)?;
        Ok(member)
    }

    /// Asks again where nothing else is known: while a leader is elected the living refuse too, and do so once.
    async fn answers_in_the_end(&self, member: usize) -> Result<usize, CallError> {
        let begun = Instant::now();
        loop {
            match self.answers(member).await {
                Err(CallError::Silent(_)) if begun.elapsed() < self.patience => {}
                Err(error) if error.is_passing() && begun.elapsed() < self.patience => {
                    tokio::time::sleep(PAUSE).await;
                }
                answered => return answered,
            }
        }
    }

    async fn first_to_answer(&self) -> Result<usize, CallError> {
        let count = self.clients().len();
        let all = (0..count).map(|member| Box::pin(self.answers_in_the_end(member)));
        select_ok(all).await.map(|(member, _)| member)
    }

    /// The chosen member if it answers at once, else whoever does first.
    async fn look(&self) {
        let own = Box::pin(self.answers(*self.chosen.borrow()));
        let others = Box::pin(async {
            tokio::time::sleep(HEAD_START).await;
            self.first_to_answer().await
        });
        let answered = match select(own, others).await {
            Either::Left((Err(_), _)) => self.first_to_answer().await,
            Either::Left((answered, _)) | Either::Right((answered, _)) => answered,
        };
        if let Ok(member) = answered {
            self.choose(member);
        }
    }
}

/// One for each member, with the certificates of `options`. They connect when they are used.
async fn clients(options: &EtcdOptions) -> Result<Vec<Client>, CatalogError> {
    // Without a leader a watch is cancelled rather than left silent.
    let mut connection = ConnectOptions::new()
        .with_connect_timeout(options.timeout)
        .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if let Some(tls) = &options.tls {
        connection = connection.with_tls(tls.options());
    }
    let mut clients = Vec::with_capacity(options.endpoints.len());
    for endpoint in &options.endpoints {
        let client = Client::connect([endpoint], Some(connection.clone())).await;
        clients.push(client.map_err(|error| read_error(&CallError::Etcd(error)))?);
    }
    Ok(clients)
}

async fn watch_over(members: Weak<Members>) {
    loop {
        let Some(members) = members.upgrade() else { return };
        let suspected = timeout(QUIET, members.suspicion.notified()).await.is_ok();
        let quiet = members.answered().elapsed() >= QUIET;
        if suspected || quiet {
            members.look().await;
        }
    }
}
