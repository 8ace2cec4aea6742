//! The calls on tunnels of the account.

use std::sync::Arc;

use axum::extract::{Path, Query as UrlQuery, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Caller, JsonBody, Query, of_account, page};
use crate::emulator::Shared;
use crate::emulator::failure::{Failure, success};
use crate::emulator::model::Database;
use crate::emulator::tokens::{Right, Token};
use crate::emulator::tunnels::{self, Input};

pub(super) fn routes() -> Router<Arc<Shared>> {
    const ONE: &str = "/accounts/{account}/cfd_tunnel/{tunnel}";
    Router::new()
        .route("/accounts/{account}/cfd_tunnel", get(list).post(create))
        .route(ONE, get(show).patch(patch).delete(delete))
        .route(&format!("{ONE}/token"), get(token))
        .route(&format!("{ONE}/configurations"), get(configuration).put(configure))
        .route(&format!("{ONE}/connections"), get(connections).delete(clean_up))
}

/// Account and tunnel.
type One = Path<(String, String)>;

async fn list(
    State(shared): Api,
    Extension(caller): Caller,
    Path(account): Path<String>,
    UrlQuery(query): Query,
) -> Result<Response, Failure> {
    of_account(&shared, &caller, &account, Right::TunnelsRead)?;
    let database = shared.store.database();
    let named = |tunnel: &&tunnels::Tunnel| query.get("name").is_none_or(|name| tunnel.name == *name);
    let deleted = |tunnel: &&tunnels::Tunnel| {
        query.get("is_deleted").is_none_or(|text| tunnel.deleted_at.is_some() == (text == "true"))
    };
    let found = database.tunnels.iter().filter(named).filter(deleted);
    Ok(page(&query, 100, (1, 1000)).of(found.map(|tunnel| tunnel.to_api(&account)).collect()))
}

/// Changes the tunnels, if the caller may.
async fn edit<T: Send + 'static>(
    shared: &Arc<Shared>,
    caller: &Token,
    account: &str,
    act: impl FnOnce(&mut Database) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    of_account(shared, caller, account, Right::TunnelsEdit)?;
    shared.store.change(act).await
}

async fn create(
    State(shared): Api,
    Extension(caller): Caller,
    Path(account): Path<String>,
    JsonBody(input): JsonBody<Input>,
) -> Result<Response, Failure> {
    let act = move |database: &mut Database| tunnels::create(database, input);
    Ok(success(edit(&shared, &caller, &account, act).await?.to_api(&account)))
}

async fn show(
    State(shared): Api,
    Extension(caller): Caller,
    Path((account, id)): One,
) -> Result<Response, Failure> {
    of_account(&shared, &caller, &account, Right::TunnelsRead)?;
    Ok(success(tunnels::find(&shared.store.database(), &id)?.to_api(&account)))
}

async fn patch(
    State(shared): Api,
    Extension(caller): Caller,
    Path((account, id)): One,
    JsonBody(input): JsonBody<Input>,
) -> Result<Response, Failure> {
    let act = move |database: &mut Database| tunnels::patch(database, &id, input);
    Ok(success(edit(&shared, &caller, &account, act).await?.to_api(&account)))
}

async fn delete(
    State(shared): Api,
    Extension(caller): Caller,
    Path((account, id)): One,
) -> Result<Response, Failure> {
    let act = move |database: &mut Database| tunnels::delete(database, &id);
    Ok(success(edit(&shared, &caller, &account, act).await?.to_api(&account)))
}

/// Whoever has it can answer for the tunnel's names, so seeing tunnels is not enough.
async fn token(
    State(shared): Api,
    Extension(caller): Caller,
    Path((account, id)): One,
) -> Result<Response, Failure> {
    of_account(&shared, &caller, &account, Right::TunnelsEdit)?;
    Ok(success(tunnels::find(&shared.store.database(), &id)?.token(&account)))
}

fn configured(tunnel: &tunnels::Tunnel, account: &str) -> Value {
    json!({
        "account_id": account, "tunnel_id": tunnel.id, "version": tunnel.version, "config": tunnel.config,
        "source": "cloudflare",
    })
}

async fn configuration(
    State(shared): Api,
    Extension(caller): Caller,
    Path((account, id)): One,
) -> Result<Response, Failure> {
    of_account(&shared, &caller, &account, Right::TunnelsRead)?;
    Ok(success(configured(tunnels::find(&shared.store.database(), &id)?, &account)))
}

/// Body of a configuration.
#[derive(Deserialize)]
struct Put {
    config: Value,
}

async fn configure(
    State(shared): Api,
    Extension(caller): Caller,
    Path((account, id)): One,
    JsonBody(put): JsonBody<Put>,
) -> Result<Response, Failure> {
    let act = move |database: &mut Database| tunnels::configure(database, &id, put.config);
    Ok(success(configured(&edit(&shared, &caller, &account, act).await?, &account)))
}

async fn connections(
    State(shared): Api,
    Extension(caller): Caller,
    Path((account, id)): One,
) -> Result<Response, Failure> {
    of_account(&shared, &caller, &account, Right::TunnelsRead)?;
    let database = shared.store.database();
    let conns = &tunnels::find(&database, &id)?.connections;
    let clients = if conns.is_empty() { json!([]) } else { json!([{"id": id, "conns": conns}]) };
    Ok(success(clients))
}

async fn clean_up(
    State(shared): Api,
    Extension(caller): Caller,
    Path((account, id)): One,
) -> Result<Response, Failure> {
    let act = move |database: &mut Database| tunnels::clean_up(database, &id);
    edit(&shared, &caller, &account, act).await?;
    Ok(success(json!({})))
}
