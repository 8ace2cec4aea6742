//! Who asks: a bearer token.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::RestState;
use super::errors::RestError;
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

/// Lets only those pass who show a token.
pub(super) async fn require(State(state): State<RestState>, mut request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let known = |shown: &str| {
        // All are compared, each in constant time: how long it takes says nothing.
        state.tokens.iter().fold(None, |found, token| {
            let same: bool = token.token.as_bytes().ct_eq(shown.as_bytes()).into();
            if same { Some(&token.namespace) } else { found }
        })
    };
    let reason = match shown.map(|shown| (shown, known(shown))) {
        Some((_, Some(namespace))) => {
            request.extensions_mut().insert(Namespace(namespace.clone()));
            return next.run(request).await;
        }
        Some((_, None)) => "the one shown is not known",
        None => "send it as `Authorization: Bearer …`",
    };
    let metrics = state.objects.context().metrics();
    metrics.refusals.with_label_values(&["rest", "Unauthorized"]).inc();
    tracing::info!(method = %request.method(), path = request.uri().path(), reason, "denied");
    RestError(GatewayError::Unauthorized(reason.to_owned())).into_response()
}
