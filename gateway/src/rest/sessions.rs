//! `/api/v1/sessions`: begun by who shows a token of the configuration or of Kubernetes, refreshed, ended.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use diptych_core::session::{Holder, TokenKind, Tokens};
use diptych_wire::review::{Access, Resource, Verb};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::RestState;
use super::auth::{Bearer, allowed, bearer, denied, shown, still};
use crate::clock::instant;
use crate::error::{GatewayError, Result};
use crate::sessions;

/// Bytes that the body of a refresh may have.
pub(super) const BODY_LIMIT: usize = 16 << 10;

/// `POST /api/v1/sessions`
pub(super) async fn begin(
    State(state): State<RestState>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&state, (&method, &uri), begun(&state, &headers).await)
}

async fn begun(state: &RestState, headers: &HeaderMap) -> Result<Response> {
    let context = state.objects.context();
    let token = shown(headers);
    let bearer = bearer(state, token.clone()).await?;
    let holder = bearer.holder(&context.keyring(), &token.unwrap_or_default()).ok_or_else(|| {
        let reason =
            "a session begins with a token of Kubernetes or of the configuration; refresh this one instead";
        GatewayError::AccessDenied(reason.to_owned())
    })?;
    let (family, tokens) = sessions::begin(context, holder.clone()).await?;
    tracing::info!(holder = who(&holder), %family, "a session begins");
    Ok(handed_out(StatusCode::CREATED, &tokens))
}

/// `POST /api/v1/sessions/refresh`
pub(super) async fn refresh(
    State(state): State<RestState>,
    method: Method,
    uri: Uri,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Response {
    answer(&state, (&method, &uri), refreshed(&state, body.ok()).await)
}

/// `{"refresh_token": …}`
#[derive(Deserialize)]
struct Shown {
    refresh_token: String,
}

async fn refreshed(state: &RestState, body: Option<Bytes>) -> Result<Response> {
    let shown = body.and_then(|body| serde_json::from_slice::<Shown>(&body).ok());
    let shown = shown.ok_or_else(|| {
        GatewayError::InvalidArgument("the body must be {\"refresh_token\": \"…\"}".to_owned())
    })?;
    let token = Zeroizing::new(shown.refresh_token);
    let holds = |holder: &Holder| still(state, holder);
    let (grant, tokens) = sessions::refresh(state.objects.context(), &token, holds).await?;
    tracing::info!(holder = who(&grant.holder), family = %grant.family, "a session is refreshed");
    Ok(handed_out(StatusCode::OK, &tokens))
}

/// Whose sessions an administrator ends.
#[derive(Deserialize)]
pub(super) struct Whose {
    /// All of this user of Kubernetes.
    user: Option<String>,
    /// This one, as it stands in the log of its beginning.
    family: Option<String>,
}

/// `DELETE /api/v1/sessions`: the one whose token is shown; with `?user=` or `?family=` others', for who may update
/// StorageClusters.
pub(super) async fn end(
    State(state): State<RestState>,
    method: Method,
    uri: Uri,
    Query(whose): Query<Whose>,
    headers: HeaderMap,
) -> Response {
    let done = match (&whose.user, &whose.family) {
        (None, None) => ended(&state, &headers).await,
        _ => ended_by_administrator(&state, &headers, &whose).await,
    };
    answer(&state, (&method, &uri), done)
}

async fn ended_by_administrator(state: &RestState, headers: &HeaderMap, whose: &Whose) -> Result<Response> {
    let access = Access { verb: Verb::Update, resource: Resource::StorageClusters };
    allowed(state, shown(headers), &access.into()).await?;
    let context = state.objects.context();
    let mut ended = 0;
    if let Some(user) = &whose.user {
        ended += sessions::end_of_user(context, user).await?;
    }
    if let Some(family) = &whose.family {
        let unknown = || GatewayError::InvalidArgument(format!("there is no session {family:?}"));
        match sessions::end(context, family.parse().map_err(|_| unknown())?).await {
            Err(GatewayError::Unauthorized(_)) => return Err(unknown()),
            other => other?,
        }
        ended += 1;
    }
    let (user, family) = (&whose.user, &whose.family);
    tracing::info!(?user, ?family, ended, "sessions are ended by an administrator");
    Ok(Json(json!({"ended": ended})).into_response())
}

/// Its own.
async fn ended(state: &RestState, headers: &HeaderMap) -> Result<Response> {
    let Bearer::Session(grant) = bearer(state, shown(headers)).await? else {
        let reason =
            format!("only a session ends: show its token, which begins with {}", TokenKind::Session.prefix());
        return Err(GatewayError::InvalidArgument(reason));
    };
    sessions::end(state.objects.context(), grant.family).await?;
    tracing::info!(holder = who(&grant.holder), "a session is ended");
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn answer(state: &RestState, (method, uri): (&Method, &Uri), result: Result<Response>) -> Response {
    result.unwrap_or_else(|refusal| denied(state, method, uri.path(), refusal))
}

fn who(holder: &Holder) -> &str {
    match holder {
        Holder::Configured { namespace, .. } => namespace,
        Holder::User(user) => &user.name,
    }
}

fn handed_out(status: StatusCode, tokens: &Tokens) -> Response {
    let document = json!({
        "token": *tokens.session,
        "expires": instant(tokens.session_expires_ms),
        "refresh_token": *tokens.refresh,
        "refresh_expires": instant(tokens.record.ends_ms),
    });
    (status, [(CACHE_CONTROL, "private, no-store")], Json(document)).into_response()
}
