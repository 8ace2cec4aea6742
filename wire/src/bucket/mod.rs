//! A bucket of any S3 store (Cloudflare R2, Amazon S3, MinIO, Diptych itself), as the witness and a node-agent's device use one.
//!
//! `If-Match` and `If-None-Match` are the compare of a compare-and-set, applied by the store; [`prove`] finds out whether it does.

mod calls;
mod proof;

use std::fmt;

use thiserror::Error;

pub use calls::{Calls, Delete, Got, Listed, Listing, Page, Precondition, Put};
pub use proof::{AGAIN, Proof, prove};

/// A bucket, and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketConfig {
    /// URL of the store; the bucket is in the path.
    pub endpoint: String,
    /// The bucket; it is there already.
    pub bucket: String,
    /// For the signature.
    pub region: String,
    /// Who asks.
    pub access_key: String,
    /// Its secret; it never prints.
    pub secret_key: String,
    /// Certificates that the store is checked against, PEM; None: those that this machine trusts.
    pub authority: Option<String>,
}

impl fmt::Debug for BucketConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, bucket, .. } = self;
        write!(formatter, "BucketConfig({endpoint}/{bucket})")
    }
}

/// A store that can't be asked at all.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Its address.
    #[error("the object store {endpoint}: {reason}")]
    Endpoint {
        /// As declared.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// Its certificates.
    #[error("the client of the object store can't be made")]
    Client(#[from] reqwest::Error),
}
