//! The side that answers: listeners for TLS and unix sockets, a task for each connection, bounds on what is in flight.

mod session;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustls::ServerConfig;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::{AgentError, Call, Hello, HelloReply, Op};
use crate::frame;
use crate::identity::Identity;
use crate::tls::peer_identity;

/// How a peer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// mTLS; the identity is its certificate's.
    Tls(SocketAddr),
    /// A unix socket; the identity is what it says of itself, and the uid was allowed.
    Unix {
        /// Of the process at the other end.
        uid: u32,
    },
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub identity: Identity,
    /// By which way.
    pub transport: Transport,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked.
    pub op: Op,
    /// The message.
    pub meta: Bytes,
    /// Bulk bytes.
    pub payload: Bytes,
}

impl Request {
    /// Reads the message.
    pub fn decode<C: Call>(&self) -> Result<C, AgentError> {
        frame::decode(&self.meta).map_err(|error| AgentError::Invalid { reason: error.to_string() })
    }
}

/// An answer, encoded.
#[derive(Debug)]
pub struct Answer {
    meta: Vec<u8>,
    payload: Vec<Bytes>,
    descriptor: Option<OwnedFd>,
    hold: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// The answer to a call of `Reply` type `R`.
    pub fn of<R: Serialize>(result: &Result<R, AgentError>, payload: Vec<Bytes>) -> Self {
        let meta = postcard::to_stdvec(result).or_else(|error| {
            let failed: Result<(), _> =
                Err(AgentError::Internal { reason: format!("the answer can't be encoded: {error}") });
            postcard::to_stdvec(&failed)
        });
        Self { meta: meta.unwrap_or_default(), payload, descriptor: None, hold: None }
    }

    /// A descriptor goes with it. Only over a unix socket: another connection breaks.
    pub fn lending(mut self, descriptor: OwnedFd) -> Self {
        self.descriptor = Some(descriptor);
        self
    }

    /// Keeps room in a budget until the answer was written.
    pub fn holding(mut self, permit: Option<OwnedSemaphorePermit>) -> Self {
        self.hold = permit;
        self
    }
}

/// What answers requests.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// First frame of a connection: whether this peer may speak here at all. An error is answered, then the connection
    /// is closed.
    async fn greet(&self, peer: &Peer, hello: &Hello) -> Result<HelloReply, AgentError>;

    /// A request. Runs beside others of the same connection, and to its end even if the peer goes.
    async fn handle(&self, peer: &Peer, request: Request) -> Answer;
}

/// Bounds of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Connections at once.
    pub connections: usize,
    /// Requests of one connection at once.
    pub requests: usize,
    /// Bytes of requests that are being handled, of all connections together.
    pub bytes: usize,
    /// For the handshake and the first frame.
    pub greeting: Duration,
    /// For what is being handled when the server stops.
    pub grace: Duration,
    /// Uids besides its own and root's that may come by the unix socket.
    pub uids: Vec<u32>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: 512,
            requests: 64,
            bytes: 64 << 20,
            greeting: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            uids: Vec::new(),
        }
    }
}

/// What a server counted since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Connections that are open.
    pub open: AtomicU64,
    /// Connections closed because what came was no frame.
    pub garbage: AtomicU64,
    /// Connections refused: handshake, identity, uid or greeting.
    pub refused: AtomicU64,
    /// Requests.
    pub requests: AtomicU64,
}

/// Adds one.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Where a server listens.
#[derive(Debug, Default)]
pub struct Listeners {
    /// mTLS.
    pub tls: Option<(TcpListener, Arc<ServerConfig>)>,
    /// Processes of this machine.
    pub unix: Option<UnixListener>,
}

/// A server of frames.
pub struct Server<H> {
    handler: Arc<H>,
    options: ServerOptions,
    counters: Arc<Counters>,
    connections: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl<H: Handler> Server<H> {
    /// A server that stops when `shutdown` is cancelled.
    pub fn new(handler: Arc<H>, options: ServerOptions, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            handler,
            counters: Arc::default(),
            connections: Arc::new(Semaphore::new(options.connections)),
            bytes: Arc::new(Semaphore::new(options.bytes.min(u32::MAX as usize))),
            options,
            tasks: TaskTracker::new(),
            shutdown,
        })
    }

    /// What it counted.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Accepts connections until the shutdown, then lets what is being handled end, for `grace` at most.
    pub async fn serve(self: Arc<Self>, listeners: Listeners) {
        if let Some((listener, config)) = listeners.tls {
            self.tasks.spawn(self.clone().accept_tls(listener, TlsAcceptor::from(config)));
        }
        if let Some(listener) = listeners.unix {
            self.tasks.spawn(self.clone().accept_unix(listener));
        }
        self.shutdown.cancelled().await;
        self.tasks.close();
        if tokio::time::timeout(self.options.grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(grace = ?self.options.grace, "stopping although requests are still being handled");
        }
    }

    async fn accept_tls(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Some(place) = self.place().await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let task = self.clone().serve_tls(stream, address, acceptor.clone(), place);
                    self.tasks.spawn(task);
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    async fn accept_unix(self: Arc<Self>, listener: UnixListener) {
        while let Some(place) = self.place().await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.tasks.spawn(self.clone().serve_unix(stream, place));
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            place = self.connections.clone().acquire_owned() => place.ok(),
            () = self.shutdown.cancelled() => None,
        }
    }

    async fn serve_tls(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        acceptor: TlsAcceptor,
        place: OwnedSemaphorePermit,
    ) {
        count(&self.counters.accepted);
        let handshake = async {
            stream.set_nodelay(true)?;
            acceptor.accept(stream).await
        };
        let stream = match tokio::time::timeout(self.options.greeting, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.refuse_handshake(address, &error),
            Err(_) => return self.refuse(&address.to_string(), "no handshake in time"),
        };
        match peer_identity(stream.get_ref().1) {
            Ok(identity) => {
                let (read, write) = tokio::io::split(stream);
                self.session(read, write, Some(identity), Transport::Tls(address)).await;
            }
            Err(error) => self.refuse(&address.to_string(), &error.to_string()),
        }
        drop(place);
    }

    async fn serve_unix(self: Arc<Self>, stream: UnixStream, place: OwnedSemaphorePermit) {
        count(&self.counters.accepted);
        let uid = match stream.peer_cred() {
            Ok(credentials) => credentials.uid(),
            Err(error) => return self.refuse("unix socket", &error.to_string()),
        };
        let own = rustix::process::getuid().as_raw();
        if uid != own && uid != 0 && !self.options.uids.contains(&uid) {
            return self.refuse("unix socket", &format!("uid {uid} may not use it"));
        }
        let (read, write) = stream.into_split();
        self.session(read, write, None, Transport::Unix { uid }).await;
        drop(place);
    }

    /// What does not even begin as TLS is garbage; the rest is a peer that is not to be trusted.
    fn refuse_handshake(&self, address: SocketAddr, error: &std::io::Error) {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidMessage(_)) = tls {
            count(&self.counters.garbage);
            tracing::warn!(peer = %address, %error, "closed: what came is not TLS");
        } else {
            self.refuse(&address.to_string(), &error.to_string());
        }
    }

    fn refuse(&self, peer: &str, reason: &str) {
        count(&self.counters.refused);
        tracing::warn!(peer, reason, "connection refused");
    }
}

/// Out of file handles, mostly: accepting again at once would spin.
async fn pause_after(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
