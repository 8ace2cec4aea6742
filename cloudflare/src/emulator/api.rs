//! The v4 API: what stands before every call (faults, token, rate limit), and the routes.

mod balancing;
mod health_checks;
mod records;
mod tunnels;
mod zones;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, OriginalUri, Request as AxumRequest};
use axum::response::{Html, IntoResponse, Response};
use axum::{Json, Router};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tower::ServiceExt;

use super::Shared;
use super::failure::{Failure, Page};
use super::faults::CallFault;
use super::limit::{Allowance, RateLimit};
use super::model::Zone;
use super::serve::{Cut, Handler};
use super::tokens::{Right, Token};

/// Path of the base URL.
pub(super) const PREFIX: &str = "/client/v4";

/// Query of a call.
type Query = axum::extract::Query<HashMap<String, String>>;
/// Who calls.
type Caller = axum::Extension<Arc<Token>>;
/// What all calls work on.
type Api = axum::extract::State<Arc<Shared>>;

/// Serves the API.
pub(super) struct ApiHandler {
    shared: Arc<Shared>,
    router: Router,
}

impl ApiHandler {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let routes = zones::routes().merge(records::routes());
        let routes =
            routes.merge(health_checks::routes()).merge(balancing::routes()).merge(tunnels::routes());
        let router = Router::new().nest(PREFIX, routes.with_state(Arc::clone(&shared))).fallback(no_route);
        Self { shared, router }
    }

    /// The call itself, behind token and rate limit.
    async fn call(&self, mut request: Request<Incoming>) -> Result<Response, Cut> {
        let path = request.uri().path().to_owned();
        if path.strip_prefix(PREFIX) == Some("/ips") {
            return Ok(self.router.clone().oneshot(request).await?);
        }
        let authenticated = self
            .shared
            .faults
            .with(|faults| self.shared.tokens.authenticate(request.headers(), &path, &faults.revoked));
        let token = match authenticated {
            Ok(token) => token,
            Err(failure) => return Ok(failure.into_response()),
        };
        match self.shared.limit.take(Instant::now()) {
            Err(locked) => Ok(rate_limited(locked.as_secs().max(1))),
            Ok(allowance) => {
                request.extensions_mut().insert(token);
                let mut response = self.router.clone().oneshot(request).await?;
                add_limit_headers(&mut response, &self.shared.limit, allowance);
                Ok(response)
            }
        }
    }
}

impl Handler for ApiHandler {
    type Body = Body;

    fn is_down(&self) -> bool {
        self.shared.faults.with(|faults| faults.api_down)
    }

    async fn handle(self: Arc<Self>, _: SocketAddr, request: Request<Incoming>) -> Result<Response, Cut> {
        if self.is_down() {
            return Err(Cut);
        }
        let Some(fault) = self.shared.faults.take(request.method()) else { return self.call(request).await };
        if fault.is_applied() {
            drop(self.call(request).await?);
        }
        match fault {
            CallFault::InternalError => {
                Ok(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, 10001, "Internal server error")
                    .into_response())
            }
            CallFault::BadGateway | CallFault::BadGatewayApplied => {
                Ok((StatusCode::BAD_GATEWAY, Html("<html><title>502 Bad Gateway</title></html>"))
                    .into_response())
            }
            CallFault::RateLimited => Ok(rate_limited(300)),
            CallFault::Timeout | CallFault::TimeoutApplied => std::future::pending().await,
            CallFault::Cut | CallFault::CutApplied => Err(Cut),
        }
    }
}

fn rate_limited(seconds: u64) -> Response {
    let message = "Please wait and consider throttling your request speed";
    let mut response = Failure::new(StatusCode::TOO_MANY_REQUESTS, 971, message).into_response();
    response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
    response
}

fn add_limit_headers(response: &mut Response, limit: &RateLimit, allowance: Allowance) {
    let state = format!("\"default\";r={};t={}", allowance.remaining, allowance.resets_in.as_secs());
    for (name, text) in [("ratelimit", state), ("ratelimit-policy", limit.policy())] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
}

async fn no_route(OriginalUri(uri): OriginalUri) -> Failure {
    let path = uri.path();
    Failure::no_route(path.strip_prefix(PREFIX).unwrap_or(path))
}

/// A JSON body; what can't be read is refused in the API's own form.
struct JsonBody<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: AxumRequest, state: &S) -> Result<Self, Failure> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(error) => {
                Err(Failure::bad_request(9207, "Request body is invalid.")
                    .because((9207, &error.body_text())))
            }
        }
    }
}

/// Whether the caller may do this in the account of a path.
fn of_account(shared: &Shared, token: &Token, account: &str, right: Right) -> Result<(), Failure> {
    if account != shared.account {
        return Err(Failure::no_route(&format!("/accounts/{account}")));
    }
    token.check_account(right)
}

/// The zone of a path, if the caller may do this there.
fn allowed<'a>(
    database: &'a super::model::Database,
    token: &Token,
    zone: &str,
    right: Right,
) -> Result<&'a Zone, Failure> {
    let found = database.zone(zone).ok_or_else(|| Failure::no_route(&format!("/zones/{zone}")))?;
    token.check(right, &found.name)?;
    Ok(found)
}

/// Changes a zone, if the caller may.
async fn edit<T: Send + 'static>(
    shared: &Arc<Shared>,
    token: Arc<Token>,
    right: Right,
    zone: String,
    act: impl FnOnce(&mut Zone) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let change = shared.store.change(move |database| {
        allowed(database, &token, &zone, right)?;
        act(database.zone_mut(&zone).ok_or_else(|| Failure::no_route(&zone))?)
    });
    change.await
}

/// `page` and `per_page`, put into bounds.
fn page(query: &HashMap<String, String>, default: usize, (least, most): (usize, usize)) -> Page {
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    Page {
        number: number("page").unwrap_or(1).max(1),
        size: number("per_page").unwrap_or(default).clamp(least, most),
    }
}
