//! Accepts connections and serves HTTP/1.1 on them, until told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Until a client has said who it is.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// The connection is to be cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut off on purpose")]
pub(super) struct Cut;

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Answers requests; the address is the client's.
pub(super) trait Handler: Send + Sync + 'static {
    type Body: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;

    /// Are new connections to be cut at once?
    fn is_down(&self) -> bool {
        false
    }

    /// Connections are taken by TLS only, if it says so.
    fn tls(&self) -> Option<TlsAcceptor> {
        None
    }

    fn handle(
        self: Arc<Self>,
        client: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Cut>> + Send;
}

/// Binds, with the address in the error.
pub(super) async fn bind(
    what: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, super::EmulatorError> {
    TcpListener::bind(address).await.map_err(|source| super::EmulatorError::Listen { what, address, source })
}

/// Serves until stopped; open connections are then cut.
pub(super) async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if handler.is_down() => drop(stream),
            Ok((stream, client)) => {
                let (handler, stop) = (Arc::clone(&handler), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = connection(stream, client, handler) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                if is_exhausted(&error) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Out of file descriptors or memory: trying at once again would only spin.
fn is_exhausted(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

async fn connection<H: Handler>(stream: TcpStream, client: SocketAddr, handler: Arc<H>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %client, "no TCP_NODELAY");
    }
    match handler.tls() {
        None => requests(stream, client, handler).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
            Ok(Ok(stream)) => requests(stream, client, handler).await,
            Ok(Err(error)) => tracing::debug!(%error, %client, "no TLS"),
            Err(_) => tracing::debug!(%client, "no TLS in time"),
        },
    }
}

async fn requests<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: SocketAddr,
    handler: Arc<H>,
) {
    let service = service_fn(move |request| Arc::clone(&handler).handle(client, request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, %client, "a connection ended early");
    }
}
