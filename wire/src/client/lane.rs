//! A place for one connection, which is opened when it is needed and again after a break.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::{CallError, ClientOptions, Endpoint};
use crate::agent::{Hello, Ping};
use crate::descriptors::Inlet;
use crate::identity::Expected;
use crate::tls::{Credentials, TlsError, no_name};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How to reach an agent.
#[derive(Debug)]
pub(super) struct Dial {
    endpoint: Endpoint,
    credentials: Credentials,
    tls: Arc<ClientConfig>,
    connect: Duration,
    heartbeat: Duration,
}

impl Dial {
    pub(super) fn new(
        endpoint: Endpoint,
        credentials: &Credentials,
        options: &ClientOptions,
    ) -> Result<Self, TlsError> {
        let cluster = credentials.identity().cluster;
        let expected = Expected::agent(cluster, endpoint.site.clone(), endpoint.node.as_str());
        Ok(Self {
            tls: credentials.client_config(expected, &[])?,
            endpoint,
            credentials: credentials.clone(),
            connect: options.connect,
            heartbeat: options.heartbeat,
        })
    }

    async fn open(&self, kind: Kind, round_trip: &Arc<AtomicU64>) -> Result<Arc<Connection>, CallError> {
        let late = || self.unreachable(format!("no answer in {:?}", self.connect));
        let dialled = async {
            match kind {
                Kind::Any => self.dial().await,
                Kind::Lending => self.dial_lender().await,
            }
        };
        let connection = tokio::time::timeout(self.connect, dialled).await.map_err(|_| late())??;
        let me = self.credentials.identity();
        let hello = Hello { cluster: me.cluster, sender: me, expects: Some(self.endpoint.node.clone()) };
        let started = Instant::now();
        connection.call(&hello, Vec::new(), self.connect).await.map_err(|error| match error {
            CallError::Disconnected { reason, .. } => self.unreachable(reason),
            CallError::TimedOut { .. } => late(),
            other => other,
        })?;
        smooth(round_trip, started.elapsed());
        let connection = Arc::new(connection);
        tokio::spawn(watch(Arc::downgrade(&connection), self.heartbeat, round_trip.clone()));
        Ok(connection)
    }

    async fn dial(&self) -> Result<Connection, CallError> {
        let node = self.endpoint.node.to_string();
        if let Some(socket) = &self.endpoint.socket
            && let Ok(stream) = UnixStream::connect(socket).await
        {
            let (read, write) = stream.into_split();
            return Ok(Connection::start(node, read, write, None));
        }
        let failed = |error: std::io::Error| self.unreachable(error.to_string());
        let stream = TcpStream::connect(&self.endpoint.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let stream = TlsConnector::from(self.tls.clone()).connect(no_name(), stream).await.map_err(failed)?;
        let (read, write) = tokio::io::split(stream);
        Ok(Connection::start(node, read, write, None))
    }

    async fn dial_lender(&self) -> Result<Connection, CallError> {
        let elsewhere = || self.unreachable("it is not on this machine".to_owned());
        let socket = self.endpoint.socket.as_ref().ok_or_else(elsewhere)?;
        let stream =
            UnixStream::connect(socket).await.map_err(|error| self.unreachable(error.to_string()))?;
        let (read, write) = stream.into_split();
        let (read, received) = Inlet::new(read);
        Ok(Connection::start(self.endpoint.node.to_string(), read, write, Some(received)))
    }

    fn unreachable(&self, reason: String) -> CallError {
        CallError::Unreachable { node: self.endpoint.node.to_string(), reason }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Requests and answers, by whichever way there is.
    Any,
    /// Descriptors, too: over the unix socket or not at all.
    Lending,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Option<Arc<Connection>>,
    /// The last failure, when the next attempt is due, and how long was waited for it.
    failure: Option<(CallError, Instant, Duration)>,
}

#[derive(Debug)]
pub(super) struct Lane {
    dial: Arc<Dial>,
    kind: Kind,
    slot: Mutex<Slot>,
    round_trip: Arc<AtomicU64>,
}

impl Lane {
    pub(super) fn new(dial: Arc<Dial>, kind: Kind, round_trip: Arc<AtomicU64>) -> Self {
        Self { dial, kind, slot: Mutex::default(), round_trip }
    }

    /// The open connection, or a new one. Callers that come while one is being opened wait for it.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, CallError> {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = slot.connection.as_ref().filter(|connection| connection.is_open()) {
            return Ok(connection.clone());
        }
        slot.connection = None;
        if let Some((error, due, _)) = &slot.failure
            && Instant::now() < *due
        {
            return Err(error.clone());
        }
        match self.dial.open(self.kind, &self.round_trip).await {
            Ok(connection) => {
                *slot = Slot { connection: Some(connection.clone()), failure: None };
                Ok(connection)
            }
            Err(error) => {
                let pause = slot
                    .failure
                    .as_ref()
                    .map_or(FIRST_PAUSE, |(_, _, pause)| (*pause * 2).min(LONGEST_PAUSE));
                slot.failure = Some((error.clone(), Instant::now() + pause, pause));
                Err(error)
            }
        }
    }
}

/// Closes a connection whose other end has gone silently, and measures the way while it is there.
async fn watch(connection: std::sync::Weak<Connection>, heartbeat: Duration, round_trip: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(heartbeat).await;
        let Some(connection) = connection.upgrade().filter(|connection| connection.is_open()) else {
            return;
        };
        let started = Instant::now();
        match connection.call(&Ping {}, Vec::new(), heartbeat * 2).await {
            Ok(_) => smooth(&round_trip, started.elapsed()),
            Err(error) => {
                connection.close(&error.to_string());
                return;
            }
        }
    }
}

/// Exponentially weighted mean; a new measurement counts an eighth, as TCP's does.
fn smooth(mean: &AtomicU64, measured: Duration) {
    let measured = u64::try_from(measured.as_nanos()).unwrap_or(u64::MAX).max(1);
    let old = mean.load(Ordering::Relaxed);
    let new = if old == 0 { measured } else { old - old / 8 + measured / 8 };
    mean.store(new.max(1), Ordering::Relaxed);
}
