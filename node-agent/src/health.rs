//! Probes and metrics by plain HTTP: it tells nothing that is secret, and takes nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_wire::server::Counters;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::start::StartError;

/// Connections at once.
const CONNECTIONS: usize = 32;
/// For a request's head.
const HEAD: Duration = Duration::from_secs(5);

/// Answers until the shutdown; gives the address.
pub(crate) async fn serve(
    address: SocketAddr,
    agent: Arc<Agent>,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
) -> Result<SocketAddr, StartError> {
    let failed = |source| StartError::Listen { place: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, agent, counters) => {}
            () = shutdown.cancelled() => {}
        }
    });
    Ok(bound)
}

async fn accept(listener: TcpListener, agent: Arc<Agent>, counters: Arc<Counters>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (agent, counters) = (agent.clone(), counters.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &agent, &counters));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a probe's connection broke");
            }
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    agent: &Agent,
    counters: &Counters,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/live") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/ready") => ready(agent),
        (&Method::GET, "/metrics") => (StatusCode::OK, agent.metrics_text(Some(counters)).await),
        _ => (StatusCode::NOT_FOUND, "there are /live, /ready and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; version=0.0.4"));
    Ok(response)
}

/// Ready to read and, once the epoch was heard, to write: at least one device is in use.
fn ready(agent: &Agent) -> (StatusCode, String) {
    let open = agent.devices.open().len();
    let all = agent.devices.slots().len();
    let status = if open > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let epoch = if agent.fence.is_ready() { "heard" } else { "not heard yet" };
    (status, format!("{open} of {all} devices in use, epoch {epoch}\n"))
}
