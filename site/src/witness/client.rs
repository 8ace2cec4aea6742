//! A keeper's client of the outside witness.

use async_trait::async_trait;
use diptych_core::ids::{ClusterId, SiteName};
use diptych_core::lease::{SwapResult, Token, WitnessRead, WitnessRecord};
use diptych_wire::http::{HttpBody, HttpClient, HttpError, empty, full};
use diptych_wire::identity::{Expected, Role};
use diptych_wire::tls::{Credentials, TlsError};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};

use super::record::{PATH, Stored, SwapRequest};
use crate::keeper::witness::Witness;

const MAX_ANSWER: usize = 64 << 10;

/// The witness process at an address.
pub struct OutsideWitness {
    http: HttpClient,
}

impl OutsideWitness {
    /// At `host:port`.
    pub fn new(address: String, cluster: ClusterId, own: &Credentials) -> Result<Self, TlsError> {
        let mut expected = Expected::any_of(cluster);
        expected.sites = vec![SiteName::outside()];
        expected.roles = vec![Role::Witness];
        Ok(Self { http: HttpClient::new(address, own, expected)? })
    }

    async fn call(&self, method: Method, body: HttpBody) -> Result<(StatusCode, Vec<u8>), CallError> {
        let uri = self.http.uri(PATH).map_err(|_| CallError::NotSent)?;
        let request =
            Request::builder().method(method).uri(uri).body(body).map_err(|_| CallError::NotSent)?;
        let answer = self.http.send(request).await.map_err(|error| {
            tracing::debug!(%error, "the witness did not answer");
            match error {
                HttpError::Unreachable { .. } => CallError::NotSent,
                HttpError::Unclear { .. } => CallError::Unclear,
            }
        })?;
        let status = answer.status();
        let body =
            Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|_| CallError::Unclear)?;
        Ok((status, body.to_bytes().to_vec()))
    }
}

enum CallError {
    NotSent,
    Unclear,
}

#[async_trait]
impl Witness for OutsideWitness {
    async fn read(&self) -> WitnessRead {
        match self.call(Method::GET, empty()).await {
            Ok((StatusCode::OK, body)) => match postcard::from_bytes::<Stored>(&body) {
                Ok(Stored { token, record }) => WitnessRead::Found { token, record },
                Err(_) => WitnessRead::Failed,
            },
            Ok((StatusCode::NOT_FOUND, _)) => WitnessRead::Absent,
            Ok(_) | Err(_) => WitnessRead::Failed,
        }
    }

    async fn swap(&self, token: Option<Token>, record: WitnessRecord, _with_name: bool) -> SwapResult {
        let Ok(body) = postcard::to_stdvec(&SwapRequest { token, record }) else { return SwapResult::Lost };
        match self.call(Method::POST, full(body)).await {
            Ok((StatusCode::OK, body)) => match postcard::from_bytes::<Stored>(&body) {
                Ok(Stored { token, .. }) => SwapResult::Won { token },
                Err(_) => SwapResult::Unknown,
            },
            Ok((StatusCode::PRECONDITION_FAILED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST, _))
            | Err(CallError::NotSent) => SwapResult::Lost,
            Ok(_) | Err(CallError::Unclear) => SwapResult::Unknown,
        }
    }
}
