//! Tokens of Kubernetes at the REST listener: whose one is, and what its holder may do, by the API server's word. Gateways have
//! no rights there; they ask the keeper's process.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use diptych_core::session::User;
use diptych_wire::review::{IDENTIFY, Question, REVIEW};
use http::StatusCode;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{Api, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Asked, OperatorError};
use crate::options::OperatorOptions;

/// The keeper's service for its gateways.
pub fn router(options: OperatorOptions) -> Router {
    Router::new().route(IDENTIFY, post(identify)).route(REVIEW, post(review)).with_state(options)
}

async fn identify(State(options): State<OperatorOptions>, body: Bytes) -> Response {
    let Ok(token) = postcard::from_bytes::<String>(&body) else { return unreadable() };
    answered(reviewed(&options, &token, None).await.map(holder))
}

async fn review(State(options): State<OperatorOptions>, body: Bytes) -> Response {
    let Ok(question) = postcard::from_bytes::<Question>(&body) else { return unreadable() };
    answered(allowed(&options, &question).await)
}

fn unreadable() -> Response {
    (StatusCode::BAD_REQUEST, "the question can't be read").into_response()
}

fn answered(answer: Result<impl Serialize, OperatorError>) -> Response {
    let answer = answer.and_then(|answer| {
        postcard::to_stdvec(&answer).map_err(|error| OperatorError::Internal(error.to_string()))
    });
    match answer {
        Ok(bytes) => bytes.into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.chain()).into_response(),
    }
}

async fn allowed(options: &OperatorOptions, question: &Question) -> Result<bool, OperatorError> {
    let api: Api<SubjectAccessReview> = Api::all(options.client.clone());
    let body = made(review_of(question))?;
    let review =
        api.create(&PostParams::default(), &body).await.asked(|| "review somebody's rights".to_owned())?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

/// What the API server says of a token. None of an audience: its own, which `kubectl create token` makes tokens for.
pub(crate) async fn reviewed(
    options: &OperatorOptions,
    token: &str,
    audience: Option<&str>,
) -> Result<TokenReview, OperatorError> {
    let audiences: Vec<&str> = audience.into_iter().collect();
    let body = made(json!({"metadata": {}, "spec": {"token": token, "audiences": audiences}}))?;
    let api: Api<TokenReview> = Api::all(options.client.clone());
    api.create(&PostParams::default(), &body).await.asked(|| "review a token".to_owned())
}

fn made<T: DeserializeOwned>(body: Value) -> Result<T, OperatorError> {
    serde_json::from_value(body).map_err(|error| OperatorError::Internal(error.to_string()))
}

fn holder(review: TokenReview) -> Option<User> {
    let status = review.status.filter(|status| status.authenticated == Some(true))?;
    let user = status.user?;
    Some(User {
        name: user.username?,
        uid: user.uid,
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
}

fn review_of(Question { user, access, namespace }: &Question) -> Value {
    json!({"metadata": {}, "spec": {
        "user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        "resourceAttributes": {"namespace": namespace, "verb": access.verb.as_str(),
            "group": access.resource.group(), "resource": access.resource.plural()}}})
}

#[cfg(test)]
mod tests {
    use diptych_wire::review::{Access, Resource, Verb};

    use super::*;

    #[test]
    fn only_who_was_authenticated_is_somebody() {
        let review = |authenticated: bool| -> TokenReview {
            serde_json::from_value(
                json!({"metadata": {}, "spec": {}, "status": {"authenticated": authenticated,
                "user": {"username": "jane", "groups": ["ops"], "extra": {"a/b": ["c"]}}}}),
            )
            .expect("a review")
        };
        assert_eq!(holder(review(false)), None);
        let user = holder(review(true)).expect("jane");
        let access = Access { verb: Verb::Get, resource: Resource::FileObjects };
        let question = Question { user, access, namespace: "shop".to_owned() };
        let asked: SubjectAccessReview = made(review_of(&question)).expect("a review");
        assert_eq!(asked.spec.user.as_deref(), Some("jane"));
        assert_eq!(asked.spec.groups, Some(vec!["ops".to_owned()]));
        assert_eq!(asked.spec.extra, Some([("a/b".to_owned(), vec!["c".to_owned()])].into()));
        let attributes = asked.spec.resource_attributes.expect("attributes");
        assert_eq!(attributes.namespace.as_deref(), Some("shop"));
        assert_eq!(
            (attributes.verb.as_deref(), attributes.resource.as_deref()),
            (Some("get"), Some("fileobjects"))
        );
    }
}
