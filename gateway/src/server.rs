//! Listeners: HTTP/1.1, bounded in number and time, over TLS where the options say so.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diptych_wire::http::HttpBody;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::Context;

/// Bytes that a connection gathers before it is read from.
const READ_BUFFER: usize = 128 << 10;
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time that a stop leaves to requests that are under way.
const LINGER: Duration = Duration::from_secs(10);

/// Which listener a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Front {
    /// S3.
    S3,
    /// REST, health and metrics.
    Rest,
}

impl Front {
    /// As metric labels and the peer link name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Front::S3 => "s3",
            Front::Rest => "rest",
        }
    }
}

/// Where a request is answered.
pub enum Routed {
    /// By this gateway.
    Here(Request<Incoming>),
    /// It was answered elsewhere: by the site that holds the lease.
    Answered(Response<HttpBody>),
}

/// Asked about each request before it is answered here: what comes under the public name to a site that is not active
/// goes to the one that is.
#[async_trait]
pub trait Forwarder: Send + Sync + 'static {
    /// Takes the request, or gives it back.
    async fn route(&self, front: Front, request: Request<Incoming>) -> Routed;
}

/// Answers requests.
pub(crate) type Answer =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<HttpBody>> + Send + Sync>;

/// One listener and what stands behind it.
pub(crate) struct Listening {
    pub front: Front,
    pub listener: TcpListener,
    pub tls: Option<Arc<ServerConfig>>,
    pub answer: Answer,
    pub forwarder: Option<Arc<dyn Forwarder>>,
}

impl Listening {
    /// Serves until `stop`, then lets what is under way end.
    pub(crate) async fn serve(self, context: Arc<Context>, stop: CancellationToken) {
        let turns = Arc::new(Semaphore::new(context.limits().connections));
        let acceptor = self.tls.map(TlsAcceptor::from);
        let service = Service {
            context: context.clone(),
            front: self.front,
            answer: self.answer,
            forwarder: self.forwarder,
        };
        let connections = TaskTracker::new();
        loop {
            let turn = tokio::select! {
                turn = turns.clone().acquire_owned() => turn,
                () = stop.cancelled() => break,
            };
            let Ok(turn) = turn else { break };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, mostly: to accept at once again would only spin.
                    tracing::warn!(%error, front = self.front.as_str(), "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (context, service, stop, acceptor) =
                (context.clone(), service.clone(), stop.clone(), acceptor.clone());
            connections.spawn(async move {
                context.metrics().connections.inc();
                connection(&context, stream, acceptor, service, stop).await;
                context.metrics().connections.dec();
                drop(turn);
            });
        }
        connections.close();
        if tokio::time::timeout(LINGER, connections.wait()).await.is_err() {
            tracing::warn!(
                front = self.front.as_str(),
                "requests were still under way when the time to stop was over"
            );
        }
    }
}

async fn connection(
    context: &Context,
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    service: Service,
    stop: CancellationToken,
) {
    let _: Result<(), _> = stream.set_nodelay(true);
    match acceptor {
        None => requests(context, stream, service, stop).await,
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => requests(context, stream, service, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn requests<S>(context: &Context, stream: S, service: Service, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| service.clone().answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.limits().header)
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}

#[derive(Clone)]
struct Service {
    context: Arc<Context>,
    front: Front,
    answer: Answer,
    forwarder: Option<Arc<dyn Forwarder>>,
}

impl Service {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<HttpBody>, Infallible> {
        // Held until it is answered, wherever: the lease passes on only between writes.
        let _turn = self.context.writes().take(request.method()).await;
        let request = match &self.forwarder {
            None => request,
            Some(forwarder) => match forwarder.route(self.front, request).await {
                Routed::Here(request) => request,
                Routed::Answered(response) => return Ok(response),
            },
        };
        Ok((self.answer)(request).await)
    }
}
