//! Who asks: the holder of a bearer token.

use axum::extract::{MatchedPath, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use diptych_core::keyring::Keyring;
use diptych_core::keys;
use diptych_core::records::Bucket;
use diptych_core::session::{Grant, Holder, TokenKind, TokenMark, User};
use diptych_wire::review::{Access, Resource};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::RestState;
use super::errors::RestError;
use super::files::DEFAULT_BUCKET;
use super::review::access_of;
use crate::error::{GatewayError, Result};
use crate::recent::recent;
use crate::sessions;

/// Of a request with the site's own token: the namespace that it acts in, in place of the token's.
pub(super) const NAMESPACE: &str = "x-diptych-namespace";

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

/// Who shows a good token.
pub(super) enum Bearer {
    /// One of the configuration, for this namespace.
    Configured(String),
    /// One of Kubernetes.
    User(User),
    /// One of a session.
    Session(Grant),
}

impl Bearer {
    /// Whose sessions are its own; None: those of a session are.
    pub(super) fn holder(self, keyring: &Keyring, shown: &str) -> Option<Holder> {
        match self {
            Self::Configured(namespace) => {
                Some(Holder::Configured { namespace, token: TokenMark::of(keyring, shown) })
            }
            Self::User(user) => Some(Holder::User(user)),
            Self::Session(_) => None,
        }
    }
}

/// Lets only those pass who show a token that is good for what they ask.
pub(super) async fn require(State(state): State<RestState>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let access = access_of(request.method(), path);
    let shown = shown(request.headers());
    let asked = Asked {
        access,
        namespace: request
            .headers()
            .get(NAMESPACE)
            .map(|name| String::from_utf8_lossy(name.as_bytes()).into()),
        bucket: bucket_of(path, request.uri()),
    };
    match allowed(&state, shown, &asked).await {
        Ok(namespace) => {
            request.extensions_mut().insert(Namespace(namespace));
            next.run(request).await
        }
        Err(refusal) => denied(&state, request.method(), request.uri().path(), refusal),
    }
}

/// What a request asks for, and where.
pub(super) struct Asked {
    /// What it would do.
    pub access: Access,
    /// The namespace that it names for itself: that is for the site's own token, which the operator shows for FileObjects.
    pub namespace: Option<String>,
    /// The bucket that it is about.
    pub bucket: Option<String>,
}

impl From<Access> for Asked {
    fn from(access: Access) -> Self {
        Self { access, namespace: None, bucket: None }
    }
}

/// The bucket that a request for files is about: the one that it names, or that of a file whose bucket is left out.
fn bucket_of(path: &str, uri: &Uri) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        bucket: Option<String>,
    }
    let named = Query::<Named>::try_from_uri(uri).ok().and_then(|named| named.0.bucket);
    let of_one_file = ["/api/v1/files", "/api/files", "/api/v1/fragments"];
    let implied = of_one_file.iter().any(|prefix| path.starts_with(prefix));
    named.or_else(|| implied.then(|| DEFAULT_BUCKET.to_owned()))
}

/// The namespace that whoever shows this token acts in, if it may do this.
pub(super) async fn allowed(
    state: &RestState,
    shown: Option<Zeroizing<String>>,
    asked: &Asked,
) -> Result<String> {
    let bearer = bearer(state, shown).await?;
    if let (Some(namespace), Bearer::Configured(_)) = (&asked.namespace, &bearer) {
        return Ok(namespace.clone());
    }
    if asked.namespace.is_some() {
        let text = format!(
            "{NAMESPACE} is for the site's own token: leave it out, the bucket says where it belongs"
        );
        return Err(GatewayError::AccessDenied(text));
    }
    match bearer {
        Bearer::Configured(namespace)
        | Bearer::Session(Grant { holder: Holder::Configured { namespace, .. }, .. }) => Ok(namespace),
        Bearer::User(user) | Bearer::Session(Grant { holder: Holder::User(user), .. }) => {
            reviewed(state, &user, asked).await
        }
    }
}

/// The answer to who may not, logged and counted.
pub(super) fn denied(state: &RestState, method: &Method, path: &str, refusal: GatewayError) -> Response {
    let metrics = state.objects.context().metrics();
    metrics.refusals.with_label_values(&["rest", refusal.code()]).inc();
    tracing::info!(%method, path, reason = %refusal, "denied");
    RestError(refusal).into_response()
}

fn unauthorized(reason: &str) -> GatewayError {
    GatewayError::Unauthorized(reason.to_owned())
}

/// The bearer token of a request, if it shows one.
pub(super) fn shown(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let shown = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    Some(Zeroizing::new(shown.trim().to_owned()))
}

/// Who shows a token.
pub(super) async fn bearer(state: &RestState, shown: Option<Zeroizing<String>>) -> Result<Bearer> {
    let shown = shown.ok_or_else(|| unauthorized("send it as `Authorization: Bearer …`"))?;
    let shown = shown.as_str();
    // All are compared, each in constant time: how long it takes says nothing.
    let known = state.tokens.iter().fold(None, |found, token| {
        let same: bool = token.token.as_bytes().ct_eq(shown.as_bytes()).into();
        if same { Some(&token.namespace) } else { found }
    });
    if let Some(namespace) = known {
        return Ok(Bearer::Configured(namespace.clone()));
    }
    match TokenKind::of(shown) {
        Some(TokenKind::Session) => {
            let grant = sessions::check(state.objects.context(), shown).await?;
            still(state, &grant.holder)?;
            return Ok(Bearer::Session(grant));
        }
        Some(TokenKind::Refresh) => return Err(unauthorized("a refresh token opens nothing by itself")),
        None => {}
    }
    let Some(reviews) = &state.reviews else { return Err(unauthorized("the one shown is not known")) };
    match reviews.identify(shown).await {
        Ok(Some(user)) => Ok(Bearer::User(user)),
        Ok(None) => Err(unauthorized("the one shown is not known, nor is it one of this Kubernetes cluster")),
        Err(reason) => Err(GatewayError::NotReady(format!("the token can't be reviewed now: {reason}"))),
    }
}

/// A session that was begun with a configured token is good while that one is.
pub(super) fn still(state: &RestState, holder: &Holder) -> Result<()> {
    let Holder::Configured { namespace, token } = holder else { return Ok(()) };
    let keyring = state.objects.context().keyring();
    let same = |known: &RestToken| known.namespace == *namespace && token.is_of(&keyring, &known.token);
    if state.tokens.iter().any(same) {
        return Ok(());
    }
    Err(unauthorized("the token that its session was begun with is not configured any more: begin a new one"))
}

/// The namespace that owns a bucket; None: it is not there.
async fn owner(state: &RestState, bucket: &str) -> Result<Option<String>> {
    let found: Option<Bucket> =
        recent(state.objects.context().catalog().as_ref(), &keys::bucket(bucket)).await?;
    Ok(found.map(|bucket| bucket.namespace))
}

/// The namespace that a user acts in, if it may do this there: that of the bucket which the request is about, else that of the site.
async fn reviewed(state: &RestState, user: &User, asked: &Asked) -> Result<String> {
    let Some(reviews) = &state.reviews else {
        return Err(unauthorized("it is a Kubernetes user's, and this site asks no Kubernetes cluster"));
    };
    let access = asked.access;
    let owner = match (access.resource, &asked.bucket) {
        (Resource::FileObjects, Some(bucket)) => owner(state, bucket).await?,
        (Resource::FileObjects | Resource::StorageClusters, _) => None,
    };
    let namespace = owner.unwrap_or_else(|| reviews.namespace.clone());
    match reviews.allows(user, access, &namespace).await {
        Ok(true) => Ok(namespace),
        Ok(false) => Err(GatewayError::AccessDenied(format!(
            "{} may not {} {}.{} in namespace {}: bind a Role that allows it",
            user.name,
            access.verb.as_str(),
            access.resource.plural(),
            access.resource.group(),
            namespace
        ))),
        Err(reason) => Err(GatewayError::NotReady(format!("rights can't be reviewed now: {reason}"))),
    }
}
