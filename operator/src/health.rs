//! `/live` and `/ready` of the operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use http::StatusCode;

use crate::error::OperatorError;

/// Whether the operator does its work.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves both.
pub async fn serve(address: SocketAddr, readiness: Readiness) -> Result<(), OperatorError> {
    let ready = move || async move {
        if readiness.get() {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "starting")
        }
    };
    let router = Router::new().route("/live", get(|| async { "live" })).route("/ready", get(ready));
    let failed =
        |source| OperatorError::Local { what: format!("can't listen on {address} for probes"), source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    axum::serve(listener, router).await.map_err(failed)
}
