//! The witness in a bucket of any S3 store that has conditional writes (Cloudflare R2, Amazon S3, MinIO, Diptych itself):
//! one object, whose ETag is the token.
//!
//! The nonce in each record gives each write another ETag.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use diptych_core::ids::ClusterId;
use diptych_core::lease::{Millis, SwapResult, Token, WitnessRead, WitnessRecord};
use diptych_wire::bucket::{self, BucketConfig, Calls, Got, Precondition, Proof, Put, SetupError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::keeper::witness::Witness;

/// Where the record lies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStoreConfig {
    /// URL of the store; the bucket is in the path.
    pub endpoint: String,
    /// The bucket; it is there already.
    pub bucket: String,
    /// Key of the record.
    pub key: String,
    /// For the signature.
    pub region: String,
    /// Who asks.
    pub access_key: String,
    /// Its secret; it never prints.
    pub secret_key: String,
    /// Certificates that the store is checked against, PEM; None: those that this machine trusts.
    #[serde(default)]
    pub authority: Option<String>,
}

impl fmt::Debug for ObjectStoreConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, bucket, key, .. } = self;
        write!(formatter, "ObjectStoreConfig({endpoint}/{bucket}/{key})")
    }
}

impl ObjectStoreConfig {
    fn bucket(&self) -> BucketConfig {
        let Self { endpoint, bucket, key: _, region, access_key, secret_key, authority } = self.clone();
        BucketConfig { endpoint, bucket, region, access_key, secret_key, authority }
    }
}

/// Bytes of a record at most.
const MAX_RECORD: u64 = 64 << 10;

/// The object, as it lies there; JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    /// Whose it is.
    cluster: ClusterId,
    record: WitnessRecord,
}

/// The record in its bucket.
pub struct ObjectStoreWitness {
    store: Arc<Store>,
    _trial: Trial,
}

struct Store {
    calls: Calls,
    key: String,
    cluster: ClusterId,
    proof: watch::Sender<Proof>,
    /// Of the last call.
    trouble: Mutex<Option<String>>,
}

/// Ends the task when dropped.
struct Trial(AbortHandle);

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ObjectStoreWitness {
    /// Begins to try whether the store honours conditions; must be called inside a tokio runtime. Until that is known nothing is
    /// swapped.
    pub fn new(config: &ObjectStoreConfig, cluster: ClusterId) -> Result<Self, SetupError> {
        let store = Arc::new(Store {
            calls: Calls::new(&config.bucket())?,
            key: config.key.clone(),
            cluster,
            proof: watch::Sender::new(Proof::Untried),
            trouble: Mutex::default(),
        });
        let trial = tokio::spawn(try_until_known(Arc::clone(&store)));
        Ok(Self { store, _trial: Trial(trial.abort_handle()) })
    }
}

async fn try_until_known(store: Arc<Store>) {
    let key = format!("{}.trial-{}", store.key, hex::encode(rand::random::<[u8; 8]>()));
    loop {
        let proof = bucket::prove(&store.calls, &key).await;
        match &proof {
            Proof::Untried => {}
            Proof::Holds => tracing::info!("the witness's store honours conditional writes"),
            Proof::Unclear(reason) => tracing::warn!(reason, "the witness's store could not be tried"),
            Proof::Broken(how) => {
                tracing::error!(how, "the witness's store can't be trusted: it is not used");
            }
        }
        let known = matches!(proof, Proof::Holds | Proof::Broken(_));
        store.proof.send_replace(proof);
        if known {
            return;
        }
        tokio::time::sleep(bucket::AGAIN).await;
    }
}

impl Store {
    /// Why the store is not trusted; None: it is, or that will be known in a moment.
    fn distrust(&self) -> Option<String> {
        match &*self.proof.borrow() {
            Proof::Untried | Proof::Holds => None,
            Proof::Unclear(reason) => Some(format!("the witness's store could not be tried yet: {reason}")),
            Proof::Broken(how) => Some(format!(
                "the witness's store can't be trusted: {how}; use one that has conditional writes, or an outside node"
            )),
        }
    }

    fn note(&self, trouble: Option<String>) {
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!(trouble, "the witness's store");
            }
            *known = trouble;
        }
    }

    fn found(&self, etag: String, body: &[u8]) -> Result<WitnessRead, String> {
        let key = &self.key;
        let document: Document = serde_json::from_slice(body).map_err(|error| {
            format!("object {key} of the witness's bucket is no record of a lease ({error}): delete it, or choose another key")
        })?;
        if document.cluster != self.cluster {
            let other = document.cluster;
            return Err(format!(
                "object {key} of the witness's bucket is cluster {other}'s: choose another key, one a cluster"
            ));
        }
        Ok(WitnessRead::Found { token: Token(etag), record: document.record })
    }
}

fn millis(pause: std::time::Duration) -> Millis {
    Millis(pause.as_millis() as u64)
}

#[async_trait]
impl Witness for ObjectStoreWitness {
    async fn read(&self) -> WitnessRead {
        let store = &self.store;
        if matches!(*store.proof.borrow(), Proof::Broken(_)) {
            return WitnessRead::Failed;
        }
        let read = match store.calls.get(&store.key, None, MAX_RECORD).await {
            Got::Found { etag, body } => store.found(etag, &body),
            Got::Absent => Ok(WitnessRead::Absent),
            Got::Limited(pause) => Ok(WitnessRead::RateLimited { retry_after: millis(pause) }),
            Got::Failed(reason) => Err(reason),
        };
        store.note(read.as_ref().err().cloned());
        read.unwrap_or(WitnessRead::Failed)
    }

    async fn swap(&self, token: Option<Token>, record: WitnessRecord, _with_name: bool) -> SwapResult {
        let store = &self.store;
        // FENCING (unique epochs): a store that was not seen to refuse a write with a wrong condition swaps nothing.
        if *store.proof.borrow() != Proof::Holds {
            return SwapResult::Lost;
        }
        let Ok(body) = serde_json::to_vec(&Document { cluster: store.cluster, record }) else {
            return SwapResult::Lost;
        };
        let condition = token.as_ref().map_or(Precondition::Absent, |token| Precondition::Is(&token.0));
        let put = store.calls.put(&store.key, Bytes::from(body), Some(condition)).await;
        match put {
            Put::Written { etag } => {
                store.note(None);
                SwapResult::Won { token: Token(etag) }
            }
            // Most often the other site was faster; what it was otherwise the next read will meet too.
            Put::NotWritten(_) => SwapResult::Lost,
            Put::Limited(pause) => SwapResult::RateLimited { retry_after: millis(pause) },
            Put::Unclear(reason) => {
                store.note(Some(reason));
                SwapResult::Unknown
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        let of_call = || self.store.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.store.distrust().or_else(of_call)
    }
}
