//! The HTTP edge: takes requests for proxied names and passes them, streaming, to the origin that DNS has for them.
//!
//! Nothing is cached or buffered. A request is repeated only where nothing of it was sent: then the next address is tried.

mod body;
mod headers;
mod origins;
mod page;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response, Version};
use http_body::Body as _;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::body::{Upload, UploadState};
use self::origins::{Origins, SendFailure};
use self::page::{EdgeFailure, Ray};
use self::tls::EdgeTls;
use super::options::EmulatorOptions;
use super::serve::{Cut, Handler, bind, serve};
use super::{EmulatorError, Shared, local_address};

/// From an origin, or a page of the edge.
type EdgeBody = Either<Incoming, Full<Bytes>>;

/// Binds all listeners and serves them; the addresses in the order of the options.
pub(super) async fn start(
    options: &EmulatorOptions,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
) -> Result<Vec<SocketAddr>, EmulatorError> {
    let (clients, to_origins) = match options.edge_tls.as_ref().map(EdgeTls::load).transpose()? {
        Some(tls) => (Some(tls.clients), Some(tls.origins)),
        None => (None, None),
    };
    let origins = Arc::new(Origins::new(options.origin_connect_limit, to_origins));
    let mut bound = Vec::new();
    for edge in &options.edges {
        let listener = bind("the edge", edge.listen).await?;
        bound.push(local_address("the edge", edge.listen, &listener)?);
        let handler = Edge {
            shared: Arc::clone(shared),
            origins: Arc::clone(&origins),
            tls: clients.clone(),
            origin_port: edge.origin_port,
            default_host: options.default_host.as_deref().map(str::to_ascii_lowercase),
            body_limit: options.body_limit,
            answer_limit: options.origin_answer_limit,
        };
        tokio::spawn(serve(listener, Arc::new(handler), stop.clone()));
    }
    Ok(bound)
}

struct Edge {
    shared: Arc<Shared>,
    origins: Arc<Origins>,
    tls: Option<TlsAcceptor>,
    origin_port: u16,
    default_host: Option<String>,
    body_limit: u64,
    answer_limit: Duration,
}

impl Handler for Edge {
    type Body = EdgeBody;

    fn is_down(&self) -> bool {
        self.shared.faults.with(|faults| faults.edge_down)
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }

    async fn handle(
        self: Arc<Self>,
        client: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<EdgeBody>, Cut> {
        if self.is_down() {
            return Err(Cut);
        }
        let ray = Ray::new();
        Ok(match self.pass(client, request, &ray).await {
            Ok(response) => headers::to_client(response, &ray).map(Either::Left),
            Err(failure) => page::response(failure, &ray).map(Either::Right),
        })
    }
}

impl Edge {
    async fn pass(
        &self,
        client: SocketAddr,
        request: Request<Incoming>,
        ray: &Ray,
    ) -> Result<Response<Incoming>, EdgeFailure> {
        let (name, addresses) = self.route(&request)?;
        let length =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.body_limit) {
            return Err(EdgeFailure::BodyTooLarge);
        }
        let upload = Arc::new(UploadState::new(request.body().is_end_stream()));
        let request = headers::to_origin(request, client.ip(), self.scheme(), ray)?;
        let request = request.map(|body| Upload::new(body, self.body_limit, Arc::clone(&upload)));
        let sent = self.send(&name, addresses, request);
        let response = tokio::select! {
            sent = sent => sent,
            () = upload.stalled(self.answer_limit) => Err(EdgeFailure::AnswerTimedOut),
        };
        // A body that was cut at the limit breaks the request to the origin: the cause counts.
        if upload.is_too_large() { Err(EdgeFailure::BodyTooLarge) } else { response }
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Where the request goes: its name, and all addresses of it, as far as the edge has heard.
    fn route(&self, request: &Request<Incoming>) -> Result<(String, Vec<SocketAddr>), EdgeFailure> {
        let host = request.uri().host().or_else(|| request.headers().get(HOST)?.to_str().ok());
        let host =
            without_port(host.ok_or(EdgeFailure::BadRequest)?).trim_end_matches('.').to_ascii_lowercase();
        let is_address = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let name = match &self.default_host {
            Some(default) if is_address => default.clone(),
            _ => host,
        };
        let view = self.shared.propagation.view();
        if !view.lookup(&name).is_some_and(|entry| entry.is_proxied()) {
            return Err(EdgeFailure::UnknownName);
        }
        if let Some(tunnel) = view.tunnel(&name) {
            return Ok((name.clone(), vec![self.through(tunnel, &name)?]));
        }
        let addresses = view.addresses(&name, &self.shared.verdicts);
        if addresses.is_empty() {
            return Err(EdgeFailure::UnknownName);
        }
        Ok((name, addresses.into_iter().map(|ip| SocketAddr::new(ip, self.origin_port)).collect()))
    }

    /// The service that a connector of the tunnel asks for the name.
    fn through(&self, tunnel: &str, name: &str) -> Result<SocketAddr, EdgeFailure> {
        let database = self.shared.store.database();
        let tunnel = database.tunnels.iter().find(|known| known.id == tunnel && known.deleted_at.is_none());
        let service = tunnel.and_then(|tunnel| tunnel.service(name)).ok_or(EdgeFailure::NoTunnel)?;
        let host = service.split_once("://").map_or(service, |(_, host)| host);
        host.parse().map_err(|_| EdgeFailure::NoRoute)
    }

    /// Tries the addresses in turn, for as long as nothing of the request was sent.
    async fn send(
        &self,
        name: &str,
        addresses: Vec<SocketAddr>,
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, EdgeFailure> {
        let first = if addresses.len() > 1 { rand::random_range(0..addresses.len()) } else { 0 };
        let mut failure = EdgeFailure::UnknownName;
        for address in addresses.iter().cycle().skip(first).take(addresses.len()) {
            if self.shared.faults.with(|faults| faults.unreached.contains(&address.ip())) {
                failure = EdgeFailure::ConnectTimedOut;
                continue;
            }
            match self.origins.send(name, *address, request).await {
                Ok(response) => return Ok(response),
                Err(SendFailure::Unsent(returned, reason)) => {
                    tracing::debug!(%address, ?reason, "an origin can't be reached");
                    (request, failure) = (*returned, reason);
                }
                Err(SendFailure::Broken(error)) => {
                    tracing::debug!(%address, %error, "an origin broke off");
                    return Err(EdgeFailure::BrokenAnswer);
                }
            }
        }
        Err(failure)
    }
}

/// `name:port` and `[v6]:port` without the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !ends_inside_brackets(host) =>
        {
            name
        }
        _ => host,
    }
}

fn ends_inside_brackets(host: &str) -> bool {
    host.ends_with(']')
}

impl UploadState {
    /// Ends when neither the upload nor, after it, the answer has come on for so long.
    async fn stalled(&self, limit: Duration) {
        let mut deadline = Instant::now() + limit;
        let mut seen = self.bytes();
        loop {
            sleep_until(deadline).await;
            let now = self.bytes();
            if now == seen {
                return;
            }
            (seen, deadline) = (now, Instant::now() + limit);
        }
    }
}

/// Requests to origins are HTTP/1.1, whatever the client spoke.
const ORIGIN_VERSION: Version = Version::HTTP_11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_dropped_and_an_ipv6_address_kept_whole() {
        assert_eq!(without_port("files.example.com:8080"), "files.example.com");
        assert_eq!(without_port("files.example.com"), "files.example.com");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
