//! The calls on health checks. The verdicts come from the prober.

use std::sync::Arc;

use axum::extract::{Path, Query as UrlQuery, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Caller, JsonBody, Query, allowed, edit, page};
use crate::emulator::Shared;
use crate::emulator::failure::{Failure, success};
use crate::emulator::model::{HealthCheck, Zone, new_id, now};
use crate::emulator::tokens::{Right, Token};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/zones/{zone}/healthchecks", get(list).post(create))
        .route("/zones/{zone}/healthchecks/{check}", get(show).patch(patch).put(put).delete(delete))
}

/// Fields as a client sends them.
#[derive(Debug, Default, Deserialize)]
struct Input {
    name: Option<String>,
    address: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    description: Option<String>,
    check_regions: Option<Vec<String>>,
    interval: Option<u32>,
    timeout: Option<u32>,
    retries: Option<u32>,
    consecutive_fails: Option<u32>,
    consecutive_successes: Option<u32>,
    suspended: Option<bool>,
    http_config: Option<Value>,
    tcp_config: Option<Value>,
}

/// A check with Cloudflare's defaults.
fn blank() -> HealthCheck {
    let at = now();
    HealthCheck {
        id: new_id(),
        name: String::new(),
        address: String::new(),
        kind: "HTTP".to_owned(),
        description: String::new(),
        check_regions: None,
        interval: 60,
        timeout: 5,
        retries: 2,
        consecutive_fails: 1,
        consecutive_successes: 1,
        suspended: false,
        http_config: None,
        tcp_config: None,
        created_on: at.clone(),
        modified_on: at,
    }
}

fn merged(check: HealthCheck, input: Input) -> Result<HealthCheck, Failure> {
    let check = HealthCheck {
        name: input.name.unwrap_or(check.name),
        address: input.address.unwrap_or(check.address),
        kind: input.kind.map_or(check.kind, |kind| kind.to_ascii_uppercase()),
        description: input.description.unwrap_or(check.description),
        check_regions: input.check_regions.or(check.check_regions),
        interval: input.interval.unwrap_or(check.interval),
        timeout: input.timeout.unwrap_or(check.timeout),
        retries: input.retries.unwrap_or(check.retries),
        consecutive_fails: input.consecutive_fails.unwrap_or(check.consecutive_fails).max(1),
        consecutive_successes: input.consecutive_successes.unwrap_or(check.consecutive_successes).max(1),
        suspended: input.suspended.unwrap_or(check.suspended),
        http_config: input.http_config.filter(|value| !value.is_null()).or(check.http_config),
        tcp_config: input.tcp_config.filter(|value| !value.is_null()).or(check.tcp_config),
        modified_on: now(),
        id: check.id,
        created_on: check.created_on,
    };
    let refuse = |message: &str| Err(Failure::bad_request(1002, message));
    if check.name.is_empty() || check.address.is_empty() {
        return refuse("name and address are required");
    }
    match check.kind.as_str() {
        "HTTP" | "HTTPS" if check.tcp_config.is_some() => refuse("tcp_config is only for type TCP"),
        "TCP" if check.http_config.is_some() => refuse("http_config is only for types HTTP and HTTPS"),
        "HTTP" | "HTTPS" | "TCP" if (10..=3600).contains(&check.interval) => Ok(check),
        "HTTP" | "HTTPS" | "TCP" => refuse("interval must be between 10 and 3600 seconds"),
        _ => refuse("type must be HTTP, HTTPS or TCP"),
    }
}

/// As the API shows it: with the verdict.
fn to_api(shared: &Shared, check: &HealthCheck) -> Value {
    let verdict = shared.verdicts.get(&check.id);
    let mut value = json!(check);
    value["status"] = json!(if check.suspended { "suspended" } else { verdict.status });
    value["failure_reason"] = json!(verdict.reason);
    value
}

async fn list(
    State(shared): Api,
    Extension(token): Caller,
    Path(zone): Path<String>,
    UrlQuery(query): Query,
) -> Result<Response, Failure> {
    let database = shared.store.database();
    let zone = allowed(&database, &token, &zone, Right::HealthChecksRead)?;
    let all = zone.health_checks.iter().map(|check| to_api(&shared, check)).collect();
    Ok(page(&query, 25, (5, 1000)).of(all))
}

async fn show(
    State(shared): Api,
    Extension(token): Caller,
    Path((zone, check)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let database = shared.store.database();
    let zone = allowed(&database, &token, &zone, Right::HealthChecksRead)?;
    Ok(success(to_api(&shared, &zone.health_checks[position(zone, &check)?])))
}

fn position(zone: &Zone, id: &str) -> Result<usize, Failure> {
    let missing = || Failure::new(StatusCode::NOT_FOUND, 1001, "health check not found");
    zone.health_checks.iter().position(|check| check.id == id).ok_or_else(missing)
}

async fn create(
    State(shared): Api,
    Extension(token): Caller,
    Path(zone): Path<String>,
    JsonBody(input): JsonBody<Input>,
) -> Result<Response, Failure> {
    let limit = shared.plan.health_check_limit();
    let act = move |zone: &mut Zone| {
        if zone.health_checks.len() >= limit {
            let message = format!("health checks of this plan: {limit}, all in use");
            return Err(Failure::new(StatusCode::FORBIDDEN, 1004, message));
        }
        let check = merged(blank(), input)?;
        zone.health_checks.push(check.clone());
        Ok(check)
    };
    let check = edit(&shared, token, Right::HealthChecksEdit, zone, act).await?;
    Ok(success(to_api(&shared, &check)))
}

async fn patch(
    State(shared): Api,
    Extension(token): Caller,
    Path((zone, check)): Path<(String, String)>,
    JsonBody(input): JsonBody<Input>,
) -> Result<Response, Failure> {
    replace(&shared, token, zone, check, input, HealthCheck::clone).await
}

async fn put(
    State(shared): Api,
    Extension(token): Caller,
    Path((zone, check)): Path<(String, String)>,
    JsonBody(input): JsonBody<Input>,
) -> Result<Response, Failure> {
    let anew =
        |old: &HealthCheck| HealthCheck { id: old.id.clone(), created_on: old.created_on.clone(), ..blank() };
    replace(&shared, token, zone, check, input, anew).await
}

/// Puts the input over what `base` takes of the check that is there.
async fn replace(
    shared: &Arc<Shared>,
    token: Arc<Token>,
    zone: String,
    check: String,
    input: Input,
    base: impl FnOnce(&HealthCheck) -> HealthCheck + Send + 'static,
) -> Result<Response, Failure> {
    let act = move |zone: &mut Zone| {
        let at = position(zone, &check)?;
        zone.health_checks[at] = merged(base(&zone.health_checks[at]), input)?;
        Ok(zone.health_checks[at].clone())
    };
    let check = edit(shared, token, Right::HealthChecksEdit, zone, act).await?;
    Ok(success(to_api(shared, &check)))
}

async fn delete(
    State(shared): Api,
    Extension(token): Caller,
    Path((zone, check)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let act = move |zone: &mut Zone| {
        let at = position(zone, &check)?;
        Ok(zone.health_checks.remove(at).id)
    };
    let id = edit(&shared, token, Right::HealthChecksEdit, zone, act).await?;
    Ok(success(json!({"id": id})))
}
