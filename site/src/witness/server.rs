//! The witness's own process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use diptych_core::ids::ClusterId;
use diptych_core::lease::Token;
use diptych_wire::http;
use diptych_wire::identity::{Expected, Identity, Role};
use diptych_wire::tls::{Credentials, TlsError};
use tokio::net::TcpListener;

use super::record::{PATH, RecordFile, Stored, SwapRequest};

/// What a witness is started with.
pub struct WitnessOptions {
    /// Whom it serves.
    pub cluster: ClusterId,
    /// Where the record is kept.
    pub state: PathBuf,
}

/// Why a witness does not run.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The record can't be read: it must not begin with nothing.
    #[error(
        "the record {path} can't be read: repair or restore it; without it a site could win an epoch twice"
    )]
    Record {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

type Shared = Arc<Mutex<RecordFile>>;

/// Serves gateways and operators of the cluster until it is dropped.
pub async fn serve(
    listener: TcpListener,
    credentials: &Credentials,
    options: WitnessOptions,
) -> Result<(), WitnessError> {
    let open = RecordFile::open(&options.state);
    let record = open.map_err(|source| WitnessError::Record { path: options.state, source })?;
    let shared: Shared = Arc::new(Mutex::new(record));
    let router = Router::new().route(PATH, get(read).post(swap)).with_state(shared);
    let mut expected = Expected::any_of(options.cluster);
    expected.roles = vec![Role::Gateway, Role::Operator];
    http::serve(listener, credentials, expected, router).await?;
    Ok(())
}

async fn read(State(shared): State<Shared>) -> Response {
    let file = shared.lock().unwrap_or_else(PoisonError::into_inner);
    match &file.current {
        Some(stored) => answer(stored),
        None => ::http::StatusCode::NOT_FOUND.into_response(),
    }
}

async fn swap(State(shared): State<Shared>, Extension(who): Extension<Identity>, body: Bytes) -> Response {
    let Ok(request) = postcard::from_bytes::<SwapRequest>(&body) else {
        return ::http::StatusCode::BAD_REQUEST.into_response();
    };
    if request.record.site != who.site {
        return (::http::StatusCode::FORBIDDEN, "a site writes for itself only").into_response();
    }
    // A few hundred bytes, seldom: the lock is held over the sync, so that writes have one order.
    let swapped = tokio::task::spawn_blocking(move || {
        let mut file = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if file.current.as_ref().map(|stored| &stored.token) != request.token.as_ref() {
            return Ok(None);
        }
        let nonce = request.record.nonce;
        let token = Token(format!("{:016x}.{}.{}", nonce.seed, nonce.keeper, nonce.number));
        let stored = Stored { token, record: request.record };
        file.replace(stored.clone())?;
        Ok::<_, std::io::Error>(Some(stored))
    });
    match swapped.await {
        Ok(Ok(Some(stored))) => {
            tracing::info!(epoch = %stored.record.epoch, site = %stored.record.site, "the record was swapped");
            answer(&stored)
        }
        Ok(Ok(None)) => ::http::StatusCode::PRECONDITION_FAILED.into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "the record could not be written");
            ::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => ::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn answer(stored: &Stored) -> Response {
    match postcard::to_stdvec(stored) {
        Ok(bytes) => bytes.into_response(),
        Err(_) => ::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
