//! Which of the operators reconciles: a Kubernetes Lease. It guards nothing but needless work: what must never happen
//! twice is guarded in the catalog.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::error::{Asked, OperatorError};

const DURATION: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(4);

/// The lock.
pub struct Leader {
    api: Api<Lease>,
    name: String,
    holder: String,
}

impl Leader {
    /// Of the operators of a release.
    pub fn new(client: kube::Client, namespace: &str, release: &str, holder: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: format!("{release}-operator"), holder: holder.to_owned() }
    }

    /// Waits until this process leads.
    pub async fn acquire(&self) {
        // Clocks of nodes differ: what counts is how long the lease stood still under the own eyes.
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            match self.try_once(&mut seen).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = error.chain(), "the operators' lease can't be read"),
            }
            tokio::time::sleep(RENEW / 2).await;
        }
    }

    async fn try_once(&self, seen: &mut Option<(Option<String>, Instant)>) -> Result<bool, OperatorError> {
        let found = self.api.get_opt(&self.name).await.asked(|| "read the operators' lease".to_owned())?;
        let Some(mut lease) = found else {
            let body = json!({"metadata": {"name": self.name}, "spec": {
                "holderIdentity": self.holder, "leaseDurationSeconds": DURATION.as_secs(), "renewTime": MicroTime(Timestamp::now())}});
            let lease: Lease =
                serde_json::from_value(body).map_err(|error| OperatorError::Internal(error.to_string()))?;
            return Ok(self.api.create(&PostParams::default(), &lease).await.is_ok());
        };
        let version = lease.metadata.resource_version.clone();
        let since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => seen.insert((version, Instant::now())).1,
        };
        let spec = lease.spec.get_or_insert_default();
        let free =
            spec.holder_identity.as_deref().is_none_or(|holder| holder.is_empty() || holder == self.holder);
        if !free && since.elapsed() < DURATION {
            return Ok(false);
        }
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        // The resource version goes with it: who comes second is refused.
        Ok(self.api.replace(&self.name, &PostParams::default(), &lease).await.is_ok())
    }

    /// Renews until another one leads, or the API server was silent for too long.
    pub async fn hold(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW).await;
            match self.renew().await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return,
                Err(error) if renewed.elapsed() >= DURATION => {
                    tracing::warn!(error = error.chain(), "the operators' lease could not be renewed");
                    return;
                }
                Err(_) => {}
            }
        }
    }

    async fn renew(&self) -> Result<bool, OperatorError> {
        let mut lease = self.api.get(&self.name).await.asked(|| "read the operators' lease".to_owned())?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.holder) {
            return Ok(false);
        }
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let renewed = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        renewed.map(|_| true).asked(|| "renew the operators' lease".to_owned())
    }
}
