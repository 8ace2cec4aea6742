//! The calls on records.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query as UrlQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::{Value, json};

use super::{Api, Caller, JsonBody, Query, allowed, edit, page};
use crate::emulator::Shared;
use crate::emulator::failure::{Failure, success};
use crate::emulator::model::Record;
use crate::emulator::records::{self, BatchInput, Input};
use crate::emulator::tokens::Right;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/zones/{zone}/dns_records", get(list).post(create))
        .route("/zones/{zone}/dns_records/batch", post(batch))
        .route("/zones/{zone}/dns_records/{record}", get(show).patch(patch).put(put).delete(delete))
}

async fn list(
    State(shared): Api,
    Extension(token): Caller,
    Path(zone): Path<String>,
    UrlQuery(query): Query,
) -> Result<Response, Failure> {
    let database = shared.store.database();
    let zone = allowed(&database, &token, &zone, Right::DnsRead)?;
    let mut found: Vec<&Record> = zone.records.iter().filter(|record| is_wanted(record, &query)).collect();
    sort(&mut found, &query);
    let found = found.into_iter().map(Record::to_api).collect();
    Ok(page(&query, 100, (1, 5_000_000)).of(found))
}

/// All filters of the query (`match=any`: one of them).
fn is_wanted(record: &Record, query: &HashMap<String, String>) -> bool {
    let any = query.get("match").is_some_and(|text| text == "any");
    let mut verdicts = query.iter().filter_map(|(key, value)| verdict(record, key, value));
    if any {
        verdicts.next().is_none_or(|first| first || verdicts.any(|other| other))
    } else {
        verdicts.all(|fits| fits)
    }
}

/// Whether the record fits one filter; none: the parameter is no filter.
fn verdict(record: &Record, key: &str, value: &str) -> Option<bool> {
    let (field, how) = key.split_once('.').unwrap_or((key, "exact"));
    Some(match field {
        "name" => compare(&record.name, how, value.trim_end_matches('.')),
        "content" => compare(&record.content, how, value),
        "type" => record.kind.eq_ignore_ascii_case(value),
        "proxied" => record.proxied == (value == "true"),
        "comment" => match (how, &record.comment) {
            ("absent", comment) => comment.is_none(),
            (_, None) => false,
            (_, Some(comment)) => compare(comment, how, value),
        },
        "tag" => match how {
            "absent" => !record.tags.iter().any(|tag| tag.split(':').next() == Some(value)),
            "present" => record.tags.iter().any(|tag| tag.split(':').next() == Some(value)),
            _ => record.tags.iter().any(|tag| compare(tag, how, value)),
        },
        "search" => {
            let fields = [Some(&record.name), Some(&record.content), record.comment.as_ref()];
            fields.into_iter().flatten().any(|text| compare(text, "contains", value))
        }
        _ => return None,
    })
}

/// Filters look at letters, not at their case.
fn compare(text: &str, how: &str, value: &str) -> bool {
    let (text, value) = (text.to_lowercase(), value.to_lowercase());
    match how {
        "contains" => text.contains(&value),
        "startswith" => text.starts_with(&value),
        "endswith" => text.ends_with(&value),
        "present" => true,
        _ => text == value,
    }
}

fn sort(found: &mut [&Record], query: &HashMap<String, String>) {
    match query.get("order").map(String::as_str) {
        Some("type") => found.sort_by(|one, other| one.kind.cmp(&other.kind)),
        Some("name") => found.sort_by(|one, other| one.name.cmp(&other.name)),
        Some("content") => found.sort_by(|one, other| one.content.cmp(&other.content)),
        Some("ttl") => found.sort_by_key(|record| record.ttl),
        Some("proxied") => found.sort_by_key(|record| record.proxied),
        _ => {}
    }
    if query.get("direction").is_some_and(|text| text == "desc") {
        found.reverse();
    }
}

async fn show(
    State(shared): Api,
    Extension(token): Caller,
    Path((zone, record)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let database = shared.store.database();
    let zone = allowed(&database, &token, &zone, Right::DnsRead)?;
    let found = zone.records.iter().find(|held| held.id == record);
    let missing = || Failure::new(http::StatusCode::NOT_FOUND, 81044, "Record does not exist.");
    Ok(success(found.ok_or_else(missing)?.to_api()))
}

async fn create(
    State(shared): Api,
    Extension(token): Caller,
    Path(zone): Path<String>,
    JsonBody(input): JsonBody<Input>,
) -> Result<Response, Failure> {
    let plan = shared.plan;
    let record =
        edit(&shared, token, Right::DnsEdit, zone, move |zone| records::post(zone, input, plan)).await?;
    Ok(success(record.to_api()))
}

async fn patch(
    State(shared): Api,
    Extension(token): Caller,
    Path((zone, record)): Path<(String, String)>,
    JsonBody(input): JsonBody<Input>,
) -> Result<Response, Failure> {
    let record =
        edit(&shared, token, Right::DnsEdit, zone, move |zone| records::patch(zone, &record, input)).await?;
    Ok(success(record.to_api()))
}

async fn put(
    State(shared): Api,
    Extension(token): Caller,
    Path((zone, record)): Path<(String, String)>,
    JsonBody(input): JsonBody<Input>,
) -> Result<Response, Failure> {
    let record =
        edit(&shared, token, Right::DnsEdit, zone, move |zone| records::put(zone, &record, input)).await?;
    Ok(success(record.to_api()))
}

async fn delete(
    State(shared): Api,
    Extension(token): Caller,
    Path((zone, record)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let record =
        edit(&shared, token, Right::DnsEdit, zone, move |zone| records::delete(zone, &record)).await?;
    Ok(success(json!({"id": record.id})))
}

async fn batch(
    State(shared): Api,
    Extension(token): Caller,
    Path(zone): Path<String>,
    JsonBody(input): JsonBody<BatchInput>,
) -> Result<Response, Failure> {
    let plan = shared.plan;
    let done: Value =
        edit(&shared, token, Right::DnsEdit, zone, move |zone| records::batch(zone, input, plan)).await?;
    Ok(success(done))
}
