//! How a node-agent gets its certificate: its pod shows the token of its service account, the API server says on which
//! node that pod is, and the operator signs for that node's name and no other. The key never leaves the pod, which asks
//! again when a third of the certificate's life is left.
//!
//! With the certificate comes the agent's configuration: the numbers of its devices.

pub mod client;
mod sign;
pub mod site;
mod tls;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use diptych_site::config::DeviceConfig;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::error::OperatorError;
use crate::options::OperatorOptions;

pub use sign::{AgentPod, agent_pod};

/// Path of the one call.
pub const PATH: &str = "/v1/join";
/// What the service account's token must be for.
pub const AUDIENCE: &str = "diptych";

/// What a pod asks for.
#[derive(Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Signing request, PEM. Only its key counts.
    pub csr: String,
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
pub struct Joined {
    /// The installation.
    pub cluster: String,
    /// The site.
    pub site: String,
    /// The node, as the API server knows it.
    pub node: String,
    /// Certificate and the authority's, PEM.
    pub chain: String,
    /// Its devices with their numbers.
    pub devices: Vec<DeviceConfig>,
}

/// Serves it until it fails.
pub async fn serve(options: OperatorOptions) -> Result<(), OperatorError> {
    let failed =
        |source| OperatorError::Local { what: format!("can't listen on {} for joins", options.join), source };
    let listener = tokio::net::TcpListener::bind(options.join).await.map_err(failed)?;
    let config = tls::wait_for_identity(&options).await;
    let router = Router::new().route(PATH, post(join)).with_state(Arc::new(options.clone()));
    axum::serve(tls::TlsListener::new(listener, config), router).await.map_err(failed)
}

async fn join(
    State(options): State<Arc<OperatorOptions>>,
    headers: HeaderMap,
    Json(request): Json<JoinRequest>,
) -> Response {
    let token = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = token.and_then(|value| value.strip_prefix("Bearer ")) else {
        return (StatusCode::UNAUTHORIZED, "a pod shows the token of its service account").into_response();
    };
    let pod = match agent_pod(&options, token).await {
        Ok(Some(pod)) => pod,
        Ok(None) => {
            tracing::warn!("denied: a token that is no node-agent's asked for a certificate");
            return (StatusCode::FORBIDDEN, "only the pods of node-agents get certificates here")
                .into_response();
        }
        Err(error) => return unavailable(&error),
    };
    match sign::sign(&options, &pod, &request.csr).await {
        Ok(Some(joined)) => {
            tracing::info!(node = pod.node, pod = pod.pod, "a node-agent joined");
            Json(joined).into_response()
        }
        Ok(None) => {
            let text = format!("node {} is not registered yet: ask again", pod.node);
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &OperatorError) -> Response {
    tracing::warn!(error = error.chain(), "a join could not be answered");
    (StatusCode::SERVICE_UNAVAILABLE, error.chain()).into_response()
}
