//! Whether this gateway lives, is ready, is well, and may write.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use diptych_core::keys;
use diptych_core::lease::{BootTime, Millis};
use futures::future::join_all;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::RestState;
use crate::authority::boot_time;
use crate::context::{Coding, Context};

/// Time that a check has.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// One check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What was checked.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// How long the answer took.
    pub response_ms: f64,
    /// What was found.
    pub detail: String,
}

/// All checks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// `ok`; `degraded`: something is not well and files are served all the same; `failed`.
    pub status: String,
    /// The site.
    pub site: String,
    /// Its role.
    pub role: String,
    /// Each check.
    pub checks: Vec<HealthCheck>,
}

pub(super) async fn live() -> Response {
    (StatusCode::OK, Json(json!({"status": "live"}))).into_response()
}

/// Ready: the catalog answers, a plan and a map are there.
pub(super) async fn ready(State(state): State<RestState>) -> Response {
    let context = state.objects.context();
    let checks = [catalog(context).await, plan(context)];
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if ok { "ready" } else { "not ready" };
    (status, Json(json!({"status": word, "checks": checks}))).into_response()
}

/// Well: 503 where files can't be served; agents that are missing only degrade.
pub(super) async fn health(State(state): State<RestState>) -> Response {
    let context = state.objects.context();
    let vital = [catalog(context).await, plan(context)];
    let failed = vital.iter().any(|check| !check.ok);
    let mut checks: Vec<HealthCheck> = vital.into();
    checks.push(clock(context));
    checks.extend(agents(context).await);
    let (status, word) = match (failed, checks.iter().all(|check| check.ok)) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        (false, true) => (StatusCode::OK, "ok"),
        (false, false) => (StatusCode::OK, "degraded"),
    };
    let role = context.authority().role().as_str().to_owned();
    let health = Health { status: word.to_owned(), site: context.site().to_string(), role, checks };
    (status, [(CACHE_CONTROL, "no-store")], Json(health)).into_response()
}

/// 200 only while the sub-lease runs: load balancers look here.
pub(super) async fn lease(State(state): State<RestState>) -> Response {
    let context = state.objects.context();
    let authority = context.authority();
    let now = boot_time();
    let running = authority.sub_lease().filter(|lease| lease.admits(now, lease.epoch));
    let expires_in_ms = running.and_then(|lease| match now.until(lease.until) {
        Millis::FOREVER => None,
        Millis(left) => Some(left),
    });
    let document = json!({
        "site": context.site().to_string(),
        "role": authority.role().as_str(),
        "epoch": running.map_or(authority.epoch(), |lease| lease.epoch).0,
        "expires_in_ms": expires_in_ms,
        "never_expires": running.is_some_and(|lease| lease.until == BootTime::NEVER),
    });
    let status = if running.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CACHE_CONTROL, "no-store")], Json(document)).into_response()
}

pub(super) async fn metrics(State(state): State<RestState>) -> Response {
    let context = state.objects.context();
    if let Some(status) = site_status(context).await {
        context.metrics().note_site(&status);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], context.metrics().text()).into_response()
}

/// What the keeper last wrote of the site; None: nothing that can be read within a check's time.
async fn site_status(context: &Context) -> Option<serde_json::Value> {
    let view = tokio::time::timeout(CHECK_LIMIT, context.catalog().view()).await.ok()?.ok()?;
    let raw = view.get(&keys::site_status(context.site())).ok()??;
    serde_json::from_slice(&raw).ok()
}

fn finished(name: impl Into<String>, begun: Instant, found: Result<String, String>) -> HealthCheck {
    let response_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let (ok, detail) = match found {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    HealthCheck { name: name.into(), ok, response_ms, detail }
}

async fn catalog(context: &Context) -> HealthCheck {
    let begun = Instant::now();
    let found = match tokio::time::timeout(CHECK_LIMIT, context.catalog().position()).await {
        Ok(Ok(position)) => Ok(format!("at revision {}", position.revision)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in 2 s".to_owned()),
    };
    finished("catalog", begun, found)
}

fn plan(context: &Context) -> HealthCheck {
    let begun = Instant::now();
    let agents = context.agents();
    let found = match context.coding() {
        Ok(Coding { plan, rows }) if !agents.map().nodes.is_empty() => {
            Ok(format!("{} of {} rows on {} nodes", plan.needed, rows.len(), agents.map().nodes.len()))
        }
        Ok(_) => Err("there is no placement map yet".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    finished("coding plan", begun, found)
}

fn clock(context: &Context) -> HealthCheck {
    let found = context.clock().check().map(|()| "no time ahead of it was seen".to_owned());
    finished("clock", Instant::now(), found.map_err(|skew| skew.to_string()))
}

async fn agents(context: &Context) -> Vec<HealthCheck> {
    let agents = context.agents();
    let mut nodes: Vec<_> = agents.map().nodes.iter().map(|node| node.name.clone()).collect();
    nodes.sort();
    let check = |node: diptych_core::ids::NodeName| {
        let client = agents.client(&node).cloned();
        async move {
            let begun = Instant::now();
            let found = match client {
                None => Err("the placement map calls it dead".to_owned()),
                Some(client) => match tokio::time::timeout(CHECK_LIMIT, client.ping()).await {
                    Ok(Ok(())) => Ok("it answers".to_owned()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("no answer in 2 s".to_owned()),
                },
            };
            finished(format!("agent {node}"), begun, found)
        }
    };
    join_all(nodes.into_iter().map(check)).await
}
