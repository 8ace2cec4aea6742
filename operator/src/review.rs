//! Tokens of Kubernetes at the REST listener: whose one is, and what its holder may do, by the API server's word. Gateways have
//! no rights there; they ask the keeper's process.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::StatusCode;
use k8s_openapi::api::authentication::v1::{TokenReview, UserInfo};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{Api, PostParams};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Asked, OperatorError};
use crate::options::OperatorOptions;

/// Where a keeper is asked: [`Question`] → [`Answer`].
pub const REVIEW: &str = "/keeper/v1/review";

/// Whether the holder of a token may do something in the operator's namespace.
#[derive(Serialize, Deserialize)]
pub struct Question {
    /// As it was shown.
    pub token: String,
    /// Of Kubernetes.
    pub verb: String,
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
}

/// What the API server said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It may.
    Allowed,
    /// This one may not.
    Denied(String),
    /// The token is nobody's.
    Unknown,
}

/// The keeper's service for its gateways.
pub fn router(options: OperatorOptions) -> Router {
    Router::new().route(REVIEW, post(review)).with_state(options)
}

async fn review(State(options): State<OperatorOptions>, body: Bytes) -> Response {
    let Ok(question) = postcard::from_bytes::<Question>(&body) else {
        return (StatusCode::BAD_REQUEST, "the question can't be read").into_response();
    };
    let answer = answer(&options, &question).await.and_then(|answer| {
        postcard::to_stdvec(&answer).map_err(|error| OperatorError::Internal(error.to_string()))
    });
    match answer {
        Ok(bytes) => bytes.into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.chain()).into_response(),
    }
}

async fn answer(options: &OperatorOptions, question: &Question) -> Result<Answer, OperatorError> {
    let Some(user) = holder(&reviewed(options, &question.token, None).await?) else {
        return Ok(Answer::Unknown);
    };
    let api: Api<SubjectAccessReview> = Api::all(options.client.clone());
    let body = made(access_of(&user, question, &options.namespace))?;
    let review =
        api.create(&PostParams::default(), &body).await.asked(|| "review somebody's rights".to_owned())?;
    let allowed = review.status.is_some_and(|status| status.allowed);
    Ok(if allowed { Answer::Allowed } else { Answer::Denied(user.username.unwrap_or_default()) })
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

fn holder(review: &TokenReview) -> Option<UserInfo> {
    let status = review.status.as_ref()?;
    status.user.clone().filter(|user| status.authenticated == Some(true) && user.username.is_some())
}

fn access_of(user: &UserInfo, question: &Question, namespace: &str) -> Value {
    json!({"metadata": {}, "spec": {
        "user": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        "resourceAttributes": {"namespace": namespace, "verb": question.verb, "group": question.group,
            "resource": question.resource}}})
}

#[cfg(test)]
mod tests {
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
        assert_eq!(holder(&review(false)), None);
        let user = holder(&review(true)).expect("jane");
        let question = Question {
            token: String::new(),
            verb: "get".to_owned(),
            group: "files.diptych.dev".to_owned(),
            resource: "fileobjects".to_owned(),
        };
        let asked: SubjectAccessReview = made(access_of(&user, &question, "diptych")).expect("a review");
        assert_eq!(asked.spec.user.as_deref(), Some("jane"));
        assert_eq!(asked.spec.groups, Some(vec!["ops".to_owned()]));
        let attributes = asked.spec.resource_attributes.expect("attributes");
        assert_eq!(attributes.namespace.as_deref(), Some("diptych"));
        assert_eq!(
            (attributes.verb.as_deref(), attributes.resource.as_deref()),
            (Some("get"), Some("fileobjects"))
        );
    }
}
