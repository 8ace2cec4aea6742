//! Token check, zones, page rules (none), addresses of the edge.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Path, Query as UrlQuery, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, Caller, Query, allowed, page};
use crate::emulator::Shared;
use crate::emulator::failure::{Failure, success};
use crate::emulator::tokens::Right;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/user/tokens/verify", get(verify))
        .route("/accounts/{account}/tokens/verify", get(verify))
        .route("/zones", get(list))
        .route("/zones/{zone}", get(show))
        .route("/zones/{zone}/pagerules", get(page_rules))
        .route("/ips", get(addresses))
}

async fn verify(Extension(token): Caller) -> Response {
    let result = json!({"id": token.id, "status": "active"});
    let message = json!({"code": 10000, "message": "This API Token is valid and active", "type": null});
    axum::response::IntoResponse::into_response(axum::Json(
        json!({"success": true, "errors": [], "messages": [message], "result": result}),
    ))
}

async fn list(
    State(shared): Api,
    Extension(token): Caller,
    UrlQuery(query): Query,
) -> Result<Response, Failure> {
    if !token.may(Right::ZoneRead) {
        return Err(Failure::new(StatusCode::FORBIDDEN, 10000, "Authentication error"));
    }
    let wanted =
        |field: &str, value: &str| query.get(field).is_none_or(|text| text.eq_ignore_ascii_case(value));
    let database = shared.store.database();
    let zones: Vec<Value> = database
        .zones
        .iter()
        .filter(|zone| token.sees(&zone.name) && wanted("name", &zone.name))
        .filter(|_| wanted("status", "active") && wanted("account.id", &shared.account))
        .map(|zone| zone.to_api(&shared.account, shared.plan.name()))
        .collect();
    Ok(page(&query, 20, (5, 50)).of(zones))
}

async fn show(
    State(shared): Api,
    Extension(token): Caller,
    Path(zone): Path<String>,
) -> Result<Response, Failure> {
    let database = shared.store.database();
    let zone = allowed(&database, &token, &zone, Right::ZoneRead)?;
    Ok(success(zone.to_api(&shared.account, shared.plan.name())))
}

async fn page_rules(
    State(shared): Api,
    Extension(token): Caller,
    Path(zone): Path<String>,
) -> Result<Response, Failure> {
    allowed(&shared.store.database(), &token, &zone, Right::PageRulesRead)?;
    Ok(success(json!([])))
}

async fn addresses(State(shared): Api, UrlQuery(_): UrlQuery<HashMap<String, String>>) -> Response {
    let networks = |v4: bool| -> Vec<String> {
        let of_kind = shared.edge_addresses.iter().filter(|address| address.is_ipv4() == v4);
        of_kind
            .map(|address| format!("{address}/{}", if IpAddr::is_ipv4(address) { 32 } else { 128 }))
            .collect()
    };
    success(json!({
        "ipv4_cidrs": networks(true), "ipv6_cidrs": networks(false), "etag": "38f79d050aa027e3be3865e495dcc9bc",
    }))
}
