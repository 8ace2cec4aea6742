//! HTTP/1.1 between processes of a cluster: control, the peer link, the witness. Over mTLS; who asks is known by certificate.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower::Service;

use crate::identity::{Expected, Identity};
use crate::tls::{Credentials, TlsError, no_name, peer_identity};

/// Name of HTTP/1.1 in TLS.
const ALPN: &str = "http/1.1";
/// Longest time for a connection and its handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Of an address over the one that is tried after it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Connections of one listener at once.
const CONNECTIONS: usize = 512;

/// Anything that can go wrong with a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any kind.
pub type HttpBody = UnsyncBoxBody<Bytes, BoxError>;

/// No body.
pub fn empty() -> HttpBody {
    full(Bytes::new())
}

/// A body that is here already.
pub fn full(bytes: impl Into<Bytes>) -> HttpBody {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Serves `service` to callers that are `expected`; each request carries its caller's [`Identity`] as an extension. Goes on
/// until it is dropped.
pub async fn serve<S, B>(
    listener: TcpListener,
    credentials: &Credentials,
    expected: Expected,
    service: S,
) -> Result<(), TlsError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = std::convert::Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let acceptor = TlsAcceptor::from(credentials.server_config(expected, &[ALPN])?);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, service) = (acceptor.clone(), service.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, acceptor, service).await {
                tracing::info!(%error, "a connection ended");
            }
            drop(place);
        });
    }
}

async fn connection<S, B>(stream: TcpStream, acceptor: TlsAcceptor, service: S) -> Result<(), BoxError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = std::convert::Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(CONNECT_LIMIT, acceptor.accept(stream)).await??;
    let identity = peer_identity(stream.get_ref().1)?;
    let service = TowerToHyperService::new(Named { service, identity });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_mins(1))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

/// Adds the caller's identity to each request.
#[derive(Clone)]
struct Named<S> {
    service: S,
    identity: Identity,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Named<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> S::Future {
        request.extensions_mut().insert(self.identity.clone());
        self.service.call(request)
    }
}

/// A request that was not answered.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No connection: nothing was sent.
    #[error("{address} can't be reached: {reason}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// Why.
        reason: String,
    },
    /// It broke after sending: whether it was done is unknown.
    #[error("{address} did not answer: {reason}; whether it was done is unknown")]
    Unclear {
        /// `host:port`.
        address: String,
        /// Why.
        reason: String,
    },
}

/// A client of one peer, with kept connections. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    /// The first of its addresses: what it is called in requests and errors.
    address: String,
    client: Client<Connector, HttpBody>,
}

impl HttpClient {
    /// To `host:port`, where `expected` must answer.
    pub fn new(address: String, credentials: &Credentials, expected: Expected) -> Result<Self, TlsError> {
        Self::of_any(&[address], credentials, expected)
    }

    /// To whichever of these addresses answers; they lead to the same peer. The one that answered last is tried first.
    pub fn of_any(
        addresses: &[String],
        credentials: &Credentials,
        expected: Expected,
    ) -> Result<Self, TlsError> {
        let address = addresses.first().cloned().unwrap_or_default();
        let tls = TlsConnector::from(credentials.client_config(expected, &[ALPN])?);
        let connector = Connector { addresses: addresses.into(), last_good: Arc::default(), tls };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Self { address, client })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The absolute form of a path, as requests need it.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder().scheme("http").authority(self.address.as_str()).path_and_query(path_and_query).build()
    }

    /// Sends one request.
    pub async fn send(&self, request: Request<HttpBody>) -> Result<Response<Incoming>, HttpError> {
        self.client.request(request).await.map_err(|error| {
            let address = self.address.clone();
            let reason = chain(&error);
            if error.is_connect() {
                HttpError::Unreachable { address, reason }
            } else {
                HttpError::Unclear { address, reason }
            }
        })
    }
}

/// An error with its causes, in a line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[derive(Clone)]
struct Connector {
    addresses: Arc<[String]>,
    /// Index of the one that answered last.
    last_good: Arc<AtomicUsize>,
    tls: TlsConnector,
}

impl Connector {
    async fn connect(self) -> Result<Tls, BoxError> {
        let first = self.last_good.load(Ordering::Relaxed);
        let order = (0..self.addresses.len()).map(|step| (first + step) % self.addresses.len());
        let mut attempts: FuturesUnordered<_> = order
            .enumerate()
            .map(|(rank, index)| {
                let (address, tls) = (&self.addresses[index], &self.tls);
                async move {
                    if rank > 0 {
                        tokio::time::sleep(HEAD_START * rank as u32).await;
                    }
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    std::io::Result::Ok((index, tls.connect(no_name(), stream).await?))
                }
            })
            .collect();
        let mut first_error = None;
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok((index, stream)) => {
                    self.last_good.store(index, Ordering::Relaxed);
                    return Ok(Tls(TokioIo::new(stream)));
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.map_or_else(|| "there is no address".into(), Into::into))
    }
}

impl Service<Uri> for Connector {
    type Response = Tls;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Tls, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connect = self.clone().connect();
        Box::pin(async move { tokio::time::timeout(CONNECT_LIMIT, connect).await? })
    }
}

/// A connection to a process of the cluster.
struct Tls(TokioIo<TlsStream<TcpStream>>);

impl Connection for Tls {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        hyper::rt::Write::poll_write(Pin::new(&mut self.0), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        hyper::rt::Write::poll_flush(Pin::new(&mut self.0), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        hyper::rt::Write::poll_shutdown(Pin::new(&mut self.0), context)
    }
}
