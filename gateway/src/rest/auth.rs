//! Who asks: a bearer token.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::RestState;
use super::errors::RestError;
use super::review::{Access, Verdict};
use crate::error::GatewayError;

/// A bearer token and what it reaches. It never prints.
#[derive(Clone)]
pub struct RestToken {
    /// What the client sends.
    pub token: Zeroizing<String>,
    /// Namespace whose buckets it reaches.
    pub namespace: String,
}

impl std::fmt::Debug for RestToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RestToken").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// The caller's namespace, for handlers.
#[derive(Debug, Clone)]
pub(super) struct Namespace(pub String);

/// Lets only those pass who show a token that is good for what they ask.
pub(super) async fn require(State(state): State<RestState>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let access = Access::of(request.method(), path);
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).map(|token| token.trim().to_owned());
    match namespace(&state, shown.as_deref(), access).await {
        Ok(namespace) => {
            request.extensions_mut().insert(Namespace(namespace));
            next.run(request).await
        }
        Err(refusal) => {
            let metrics = state.objects.context().metrics();
            metrics.refusals.with_label_values(&["rest", refusal.code()]).inc();
            let (method, path) = (request.method(), request.uri().path());
            tracing::info!(%method, path, reason = %refusal, "denied");
            RestError(refusal).into_response()
        }
    }
}

/// The namespace that the one who shows this token acts in.
async fn namespace(state: &RestState, shown: Option<&str>, access: Access) -> Result<String, GatewayError> {
    let unauthorized = |reason: &str| GatewayError::Unauthorized(reason.to_owned());
    let shown = shown.ok_or_else(|| unauthorized("send it as `Authorization: Bearer …`"))?;
    // All are compared, each in constant time: how long it takes says nothing.
    let known = state.tokens.iter().fold(None, |found, token| {
        let same: bool = token.token.as_bytes().ct_eq(shown.as_bytes()).into();
        if same { Some(&token.namespace) } else { found }
    });
    if let Some(namespace) = known {
        return Ok(namespace.clone());
    }
    let Some(reviews) = &state.reviews else { return Err(unauthorized("the one shown is not known")) };
    match reviews.review(shown, access).await {
        Ok(Verdict::Allowed) => Ok(reviews.namespace.clone()),
        Ok(Verdict::Denied(who)) => Err(GatewayError::AccessDenied(format!(
            "{who} may not {} {}.{} in namespace {}: bind a Role that allows it",
            access.verb, access.resource, access.group, reviews.namespace
        ))),
        Ok(Verdict::Unknown) => {
            Err(unauthorized("the one shown is not known, nor is it one of this Kubernetes cluster"))
        }
        Err(reason) => Err(GatewayError::NotReady(format!("the token can't be reviewed now: {reason}"))),
    }
}
