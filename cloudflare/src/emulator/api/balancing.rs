//! The calls on monitors and pools of the account, and on load balancers of a zone.

use std::sync::Arc;

use axum::extract::{Path, Query as UrlQuery, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Api, Caller, JsonBody, Query, allowed, of_account, page};
use crate::emulator::Shared;
use crate::emulator::balancing::{Kind, LoadBalancer, Monitor, Pool, invalid, merged};
use crate::emulator::failure::{Failure, success};
use crate::emulator::model::{Database, Zone, new_id};
use crate::emulator::tokens::{Right, Token};

/// Fields as a client sends them.
type Sent = JsonBody<Map<String, Value>>;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .merge(of_kind::<Monitor>("/accounts/{owner}/load_balancers/monitors"))
        .merge(of_kind::<Pool>("/accounts/{owner}/load_balancers/pools"))
        .merge(of_kind::<LoadBalancer>("/zones/{owner}/load_balancers"))
}

fn of_kind<K: Placed>(path: &str) -> Router<Arc<Shared>> {
    let one = get(show::<K>).patch(patch::<K>).put(put::<K>).delete(delete::<K>);
    Router::new().route(path, get(list::<K>).post(create::<K>)).route(&format!("{path}/{{id}}"), one)
}

/// Where a kind is kept, and who may see and change it.
trait Placed: Kind {
    const SEE: Right;
    const CHANGE: Right;

    /// Of that account or zone, if the caller may.
    fn all<'a>(
        shared: &Shared,
        database: &'a Database,
        token: &Token,
        owner: &str,
        right: Right,
    ) -> Result<&'a [Self], Failure>;

    fn all_mut<'a>(database: &'a mut Database, owner: &str) -> Option<&'a mut Vec<Self>>;

    fn zone<'a>(_: &'a Database, _: &str) -> Option<&'a Zone> {
        None
    }
}

impl Placed for Monitor {
    const SEE: Right = Right::PoolsRead;
    const CHANGE: Right = Right::PoolsEdit;

    fn all<'a>(
        shared: &Shared,
        database: &'a Database,
        token: &Token,
        owner: &str,
        right: Right,
    ) -> Result<&'a [Self], Failure> {
        of_account(shared, token, owner, right).map(|()| database.monitors.as_slice())
    }

    fn all_mut<'a>(database: &'a mut Database, _: &str) -> Option<&'a mut Vec<Self>> {
        Some(&mut database.monitors)
    }
}

impl Placed for Pool {
    const SEE: Right = Right::PoolsRead;
    const CHANGE: Right = Right::PoolsEdit;

    fn all<'a>(
        shared: &Shared,
        database: &'a Database,
        token: &Token,
        owner: &str,
        right: Right,
    ) -> Result<&'a [Self], Failure> {
        of_account(shared, token, owner, right).map(|()| database.pools.as_slice())
    }

    fn all_mut<'a>(database: &'a mut Database, _: &str) -> Option<&'a mut Vec<Self>> {
        Some(&mut database.pools)
    }
}

impl Placed for LoadBalancer {
    const SEE: Right = Right::LoadBalancersRead;
    const CHANGE: Right = Right::LoadBalancersEdit;

    fn all<'a>(
        _: &Shared,
        database: &'a Database,
        token: &Token,
        owner: &str,
        right: Right,
    ) -> Result<&'a [Self], Failure> {
        allowed(database, token, owner, right).map(|zone| zone.load_balancers.as_slice())
    }

    fn all_mut<'a>(database: &'a mut Database, owner: &str) -> Option<&'a mut Vec<Self>> {
        database.zone_mut(owner).map(|zone| &mut zone.load_balancers)
    }

    fn zone<'a>(database: &'a Database, owner: &str) -> Option<&'a Zone> {
        database.zone(owner)
    }
}

async fn list<K: Placed>(
    State(shared): Api,
    Extension(token): Caller,
    Path(owner): Path<String>,
    UrlQuery(query): Query,
) -> Result<Response, Failure> {
    let database = shared.store.database();
    let all = K::all(&shared, &database, &token, &owner, K::SEE)?;
    Ok(page(&query, 25, (5, 1000)).of(all.iter().map(|one| json!(one)).collect()))
}

fn missing<K: Kind>() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, 1001, format!("{} not found", K::WORD))
}

fn position<K: Kind>(all: &[K], id: &str) -> Result<usize, Failure> {
    all.iter().position(|one| one.id() == id).ok_or_else(missing::<K>)
}

async fn show<K: Placed>(
    State(shared): Api,
    Extension(token): Caller,
    Path((owner, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let database = shared.store.database();
    let all = K::all(&shared, &database, &token, &owner, K::SEE)?;
    Ok(success(&all[position(all, &id)?]))
}

/// Changes a copy of the list; only a whole success is kept.
async fn edit<K: Placed, T: Send + 'static>(
    shared: &Arc<Shared>,
    token: Arc<Token>,
    owner: String,
    act: impl FnOnce(&Database, &mut Vec<K>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let inner = Arc::clone(shared);
    let change = shared.store.change(move |database| {
        let mut all = K::all(&inner, database, &token, &owner, K::CHANGE)?.to_vec();
        let done = act(database, &mut all)?;
        if let Some(kept) = K::all_mut(database, &owner) {
            *kept = all;
        }
        Ok(done)
    });
    change.await
}

/// As if the old one were not there, so that it is not in its own way.
fn check<K: Placed>(
    one: &K,
    database: &Database,
    owner: &str,
    plan: crate::emulator::Plan,
) -> Result<(), Failure> {
    let mut others = database.clone();
    if let Some(all) = K::all_mut(&mut others, owner) {
        all.retain(|other| other.id() != one.id());
    }
    one.check(&others, K::zone(&others, owner), plan)
}

async fn create<K: Placed>(
    State(shared): Api,
    Extension(token): Caller,
    Path(owner): Path<String>,
    JsonBody(sent): Sent,
) -> Result<Response, Failure> {
    let (plan, of) = (shared.plan, owner.clone());
    let made = edit(&shared, token, owner, move |database, all: &mut Vec<K>| {
        let one: K = merged(K::blank(), sent, &new_id())?;
        check(&one, database, &of, plan)?;
        all.push(one.clone());
        Ok(one)
    });
    Ok(success(made.await?))
}

async fn patch<K: Placed>(
    api: Api,
    caller: Caller,
    path: Path<(String, String)>,
    body: Sent,
) -> Result<Response, Failure> {
    replace::<K>(api, caller, path, body, |old| json!(old)).await
}

async fn put<K: Placed>(
    api: Api,
    caller: Caller,
    path: Path<(String, String)>,
    body: Sent,
) -> Result<Response, Failure> {
    replace::<K>(api, caller, path, body, |_| K::blank()).await
}

/// Puts what was sent over what `base` takes of the one that is there.
async fn replace<K: Placed>(
    State(shared): Api,
    Extension(token): Caller,
    Path((owner, id)): Path<(String, String)>,
    JsonBody(sent): Sent,
    base: fn(&K) -> Value,
) -> Result<Response, Failure> {
    let (plan, of) = (shared.plan, owner.clone());
    let changed = edit(&shared, token, owner, move |database, all: &mut Vec<K>| {
        let at = position(all, &id)?;
        let one: K = merged(base(&all[at]), sent, &id)?;
        check(&one, database, &of, plan)?;
        all[at] = one.clone();
        Ok(one)
    });
    Ok(success(changed.await?))
}

async fn delete<K: Placed>(
    State(shared): Api,
    Extension(token): Caller,
    Path((owner, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let gone = edit(&shared, token, owner, move |database, all: &mut Vec<K>| {
        let at = position(all, &id)?;
        if all[at].users(database) > 0 {
            return Err(invalid(&format!("{} is still referenced", K::WORD)));
        }
        all.remove(at);
        Ok(id)
    });
    Ok(success(json!({"id": gone.await?})))
}
