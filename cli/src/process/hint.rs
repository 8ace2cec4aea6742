//! Cloudflare's notifications, taken as a hint: one has this site look at Cloudflare's verdicts at once. What it says is not read, and
//! nothing follows from it but the look.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use diptych_site::config::PeerConfig;
use http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// Where notifications come in, and where a gateway hands them to its keeper.
pub(super) const PATH: &str = "/hooks/cloudflare";
/// Cloudflare sends the secret in it as it is.
const SECRET: &str = "cf-webhook-auth";

/// Who looks.
#[async_trait]
pub(super) trait Looks: Send + Sync + 'static {
    /// Has it look, and says whether it will.
    async fn look(&self) -> Response;
}

/// The loops of this process.
#[async_trait]
impl Looks for Notify {
    async fn look(&self) -> Response {
        self.notify_one();
        StatusCode::NO_CONTENT.into_response()
    }
}

struct Hook {
    secret: Zeroizing<String>,
    looks: Arc<dyn Looks>,
}

/// For everybody who knows the secret; None: none is configured, and nobody is heard.
pub(super) fn public(peer: Option<&PeerConfig>, looks: Arc<dyn Looks>) -> Option<Router> {
    let secret = peer?.notification_secret.clone().filter(|secret| !secret.is_empty())?;
    let hook = Hook { secret: Zeroizing::new(secret), looks };
    Some(Router::new().route(PATH, post(notified)).with_state(Arc::new(hook)))
}

async fn notified(State(hook): State<Arc<Hook>>, headers: HeaderMap) -> Response {
    let shown = headers.get(SECRET).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let same: bool = hook.secret.as_bytes().ct_eq(shown).into();
    if !same {
        tracing::warn!("a notification without the secret that is configured was refused");
        return (StatusCode::UNAUTHORIZED, format!("{SECRET} is not the secret that is configured\n"))
            .into_response();
    }
    hook.looks.look().await
}

/// For the gateways of this site, which have looked at the secret.
pub(super) fn of_keeper(looks: Arc<dyn Looks>) -> Router {
    let look = async |State(looks): State<Arc<dyn Looks>>| looks.look().await;
    Router::new().route(PATH, post(look)).with_state(looks)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    fn hook(looks: &Arc<Notify>) -> Router {
        let hook = Hook { secret: Zeroizing::new("s3cret".to_owned()), looks: Arc::clone(looks) as _ };
        Router::new().route(PATH, post(notified)).with_state(Arc::new(hook))
    }

    async fn told(router: Router, secret: Option<&str>) -> StatusCode {
        let mut request = Request::post(PATH);
        if let Some(secret) = secret {
            request = request.header(SECRET, secret);
        }
        let body = Body::from(r#"{"text": "whatever it says"}"#);
        router.oneshot(request.body(body).expect("a request")).await.expect("infallible").status()
    }

    #[tokio::test]
    async fn a_notification_starts_a_look_and_one_without_the_secret_nothing() {
        let looks = Arc::new(Notify::new());
        for wrong in [None, Some(""), Some("s3cre"), Some("s3cret ")] {
            assert_eq!(told(hook(&looks), wrong).await, StatusCode::UNAUTHORIZED, "{wrong:?}");
        }
        let mut woken = wake_up(&looks);
        assert!(!woken(), "nobody is woken by one that was refused");
        assert_eq!(told(hook(&looks), Some("s3cret")).await, StatusCode::NO_CONTENT);
        assert!(woken(), "the look begins");
        assert_eq!(told(of_keeper(Arc::clone(&looks) as _), None).await, StatusCode::NO_CONTENT);
        assert!(woken(), "the keeper's own path asks for no secret: only gateways reach it");
    }

    /// Whether a wake-up is there, taken if so.
    fn wake_up(looks: &Arc<Notify>) -> impl FnMut() -> bool + use<> {
        let looks = Arc::clone(looks);
        move || {
            let waited = std::pin::pin!(looks.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            waited.poll(&mut context).is_ready()
        }
    }
}
