//! Where a request goes that came to a site that is not active: what is meant for the public name, and every write, to the
//! site that holds the lease, over the peer link.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use diptych_gateway::{Forwarder, Front, Routed};
use diptych_site::keeper::{KeeperHandle, boot_time};
use diptych_site::peer::PeerClient;
use diptych_site::peer::follow::Followed;
use diptych_wire::http::{BoxError, HttpBody};
use diptych_wire::peer::FORWARD;
use http::header::{CONNECTION, HOST, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::hint;

/// While a lease passes from site to site, requests wait this long for one that is active.
const WAIT: Duration = Duration::from_millis(1_800);

/// Paths that speak of this very gateway.
const OWN: [&str; 5] = ["/live", "/ready", "/health", "/lease", "/metrics"];
/// Paths that speak of this very site, also where they ask for something to be done.
const OF_SITE: [&str; 9] = [
    hint::PATH,
    "/api/v1/status",
    "/api/v1/scrub",
    "/api/v1/promote",
    "/api/v1/force-vote",
    "/api/v1/verify",
    "/api/v1/drill",
    "/api/v1/drill/abort",
    "/api/v1/drill/restore",
];
/// Paths that a site which a drill has cut off still answers: so that its processes are not taken for dead, and people can look
/// and end it.
///
/// `/ready` is what puts a gateway behind its site's Service: without it nobody could ask for status or end. What the edge
/// looks at, `/health` and `/lease`, is not among them.
const WHILE_CUT: [&str; 6] =
    ["/live", "/ready", "/metrics", "/api/v1/status", "/api/v1/drill", "/api/v1/drill/restore"];

/// Which site is active, as far as this process knows.
#[async_trait]
pub(super) trait WhoIsActive: Send + Sync + 'static {
    /// This one, just now.
    fn serves(&self) -> bool;

    /// Waits until one of the two is known to be active; true: it is this one.
    async fn decided(&self) -> Option<bool>;
}

/// What the keeper in the same process and the peer's feed say.
pub(super) struct ByKeeper {
    /// The keeper.
    pub(super) keeper: KeeperHandle,
    /// The feed.
    pub(super) followed: watch::Receiver<Followed>,
}

#[async_trait]
impl WhoIsActive for ByKeeper {
    fn serves(&self) -> bool {
        self.keeper.state().loan(boot_time()).is_some()
    }

    async fn decided(&self) -> Option<bool> {
        let (mut state, mut followed) = (self.keeper.watch(), self.followed.clone());
        loop {
            state.mark_unchanged();
            followed.mark_unchanged();
            if self.serves() {
                return Some(true);
            }
            if followed.borrow().active_since(self.keeper.state().epoch) {
                return Some(false);
            }
            tokio::select! {
                changed = state.changed() => changed.ok()?,
                changed = followed.changed() => changed.ok()?,
            }
        }
    }
}

/// The way to the active site.
pub(super) struct ToActive {
    peer: PeerClient,
    active: Box<dyn WhoIsActive>,
    hosts: Vec<String>,
}

impl ToActive {
    pub(super) fn new(peer: PeerClient, active: Box<dyn WhoIsActive>, hosts: Vec<String>) -> Self {
        Self { peer, active, hosts }
    }

    fn serves(&self) -> bool {
        self.active.serves()
    }

    async fn active(&self) -> Option<bool> {
        tokio::time::timeout(WAIT, self.active.decided()).await.ok().flatten()
    }

    async fn forward(&self, front: Front, request: Request<Incoming>) -> Response<HttpBody> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = self.peer.http().uri(path) else { return unavailable(front) };
        // The client's own Host stays: its signature covers it.
        if !parts.headers.contains_key(HOST)
            && let Some(host) =
                parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
        {
            parts.headers.insert(HOST, host);
        }
        parts.uri = uri;
        parts.extensions = http::Extensions::new();
        parts.headers.insert(FORWARD, HeaderValue::from_static(front.as_str()));
        parts.headers.remove(CONNECTION);
        let body = body.map_err(|error| Box::new(error) as BoxError).boxed_unsync();
        match self.peer.http().send(Request::from_parts(parts, body)).await {
            Ok(answer) => answer.map(|body| body.map_err(|error| Box::new(error) as BoxError).boxed_unsync()),
            Err(error) => {
                tracing::info!(%error, "a request could not be forwarded");
                unavailable(front)
            }
        }
    }
}

/// Nobody takes the request just now.
fn unavailable(front: Front) -> Response<HttpBody> {
    refused(front, "NotActive", "no site is active or reachable just now; nothing was done, try again")
}

/// What a site that is cut off says to everybody.
fn cut_off(front: Front) -> Response<HttpBody> {
    let message = "a drill has cut this site off for a while; nothing was done, try again";
    let mut answer = refused(front, "CutOff", message);
    // A client that keeps its connection would stay with a site that is away.
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// 503 with Retry-After, in the words of the front; S3 has one code for it.
fn refused(front: Front, code: &str, message: &str) -> Response<HttpBody> {
    let text = match front {
        Front::S3 => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code><Message>{message}</Message></Error>"
        ),
        Front::Rest => format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"{message}\"}}}}"),
    };
    let body = http_body_util::Full::new(Bytes::from(text));
    let mut answer = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

#[async_trait]
impl Forwarder for ToActive {
    async fn route(&self, front: Front, request: Request<Incoming>) -> Routed {
        if self.peer.cut().is_cut() {
            let told = front == Front::Rest && WHILE_CUT.contains(&request.uri().path());
            return if told { Routed::Here(request) } else { Routed::Answered(cut_off(front)) };
        }
        if self.serves() || (front == Front::Rest && OWN.contains(&request.uri().path())) {
            return Routed::Here(request);
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let public = host.is_some_and(|host| {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            self.hosts.iter().any(|known| known == host || known == name)
        });
        // A read at this site's own address is answered from its own rows.
        let of_site = front == Front::Rest && OF_SITE.contains(&request.uri().path());
        if !public && (request.method().is_safe() || of_site) {
            return Routed::Here(request);
        }
        match self.active().await {
            Some(true) => Routed::Here(request),
            Some(false) => Routed::Answered(self.forward(front, request).await),
            None => Routed::Answered(unavailable(front)),
        }
    }
}
