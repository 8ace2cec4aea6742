//! Connections to origins: kept and used again, and given up fast where an origin is gone.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::body::Upload;
use super::page::EdgeFailure;

/// Idle connections to one origin.
const IDLE_MOST: usize = 256;
/// An idle connection older than this is not used again.
const IDLE_LIMIT: Duration = Duration::from_mins(1);

/// The connections, by address: what DNS says decides the address, so a kept one never outlives a flip.
pub(super) struct Origins {
    idle: Arc<Mutex<HashMap<SocketAddr, Vec<Idle>>>>,
    connect_limit: Duration,
    tls: Option<TlsConnector>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Upload>,
    since: Instant,
}

/// How a request did not get through.
#[derive(Debug)]
pub(super) enum SendFailure {
    /// Nothing of it was sent; here it is again.
    Unsent(Box<Request<Upload>>, EdgeFailure),
    /// It was sent, perhaps in part.
    Broken(hyper::Error),
}

impl Origins {
    pub(super) fn new(connect_limit: Duration, tls: Option<TlsConnector>) -> Self {
        Self { idle: Arc::default(), connect_limit, tls }
    }

    /// Sends on a kept connection, or on a new one; `name` is what the origin's certificate must be for.
    pub(super) async fn send(
        &self,
        name: &str,
        address: SocketAddr,
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, SendFailure> {
        while let Some(sender) = self.take(address) {
            match self.send_on(address, sender, request).await {
                // The origin closed it meanwhile: no news about the origin.
                Err(SendFailure::Unsent(returned, _)) => request = *returned,
                done => return done,
            }
        }
        match self.connect(name, address).await {
            Ok(sender) => self.send_on(address, sender, request).await,
            Err(error) => Err(SendFailure::Unsent(Box::new(request), classify(&error))),
        }
    }

    async fn send_on(
        &self,
        address: SocketAddr,
        mut sender: SendRequest<Upload>,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, SendFailure> {
        match sender.try_send_request(request).await {
            Ok(response) => {
                self.give_back(address, sender);
                Ok(response)
            }
            Err(mut error) => match error.take_message() {
                Some(request) => Err(SendFailure::Unsent(Box::new(request), EdgeFailure::BrokenAnswer)),
                None => Err(SendFailure::Broken(error.into_error())),
            },
        }
    }

    async fn connect(&self, name: &str, address: SocketAddr) -> io::Result<SendRequest<Upload>> {
        let limit = self.connect_limit;
        let stream = timeout(limit, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        give_up_fast(&stream, limit)?;
        let Some(tls) = &self.tls else { return http(stream, address).await };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        http(timeout(limit, tls.connect(name, stream)).await??, address).await
    }

    fn take(&self, address: SocketAddr) -> Option<SendRequest<Upload>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&address)?;
        while let Some(newest) = kept.pop() {
            if newest.sender.is_ready() && newest.since.elapsed() < IDLE_LIMIT {
                return Some(newest.sender);
            }
        }
        None
    }

    /// Keeps the connection once the answer has gone through whole.
    fn give_back(&self, address: SocketAddr, mut sender: SendRequest<Upload>) {
        let idle = Arc::clone(&self.idle);
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
                let kept = idle.entry(address).or_default();
                if kept.len() < IDLE_MOST {
                    kept.push(Idle { sender, since: Instant::now() });
                }
            }
        });
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
) -> io::Result<SendRequest<Upload>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, %address, "a connection to an origin ended");
        }
    });
    Ok(sender)
}

/// An origin that vanished without a word (power, network) is noticed within about the limit, sending or waiting.
fn give_up_fast(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let limit = limit.max(Duration::from_secs(1));
    sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).clamp(1, 127))?;
    Ok(())
}

fn classify(error: &io::Error) -> EdgeFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => return EdgeFailure::BadCertificate,
        Some(_) => return EdgeFailure::NoTls,
        None => {}
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => EdgeFailure::Refused,
        io::ErrorKind::TimedOut => EdgeFailure::ConnectTimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => EdgeFailure::NoRoute,
        _ => EdgeFailure::BrokenAnswer,
    }
}
