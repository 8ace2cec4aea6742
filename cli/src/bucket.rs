//! The S3 store of devices that are places in a bucket, as a process or a command is told of it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use diptych_node_agent::bucket::BucketStore;

use crate::client::endpoints::S3Endpoint;

/// The region where nobody says another.
const REGION: &str = "us-east-1";
/// Who asks, in the environment: words of a command line can be read by others of the machine.
pub const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
/// Its secret.
pub const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";

/// Which store. Its keys are in the environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`.
#[derive(Debug, Clone, clap::Args)]
pub struct BucketOptions {
    /// URL of the S3 store that devices s3://BUCKET/PREFIX are in; its keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    #[arg(long = "bucket-endpoint", value_name = "URL", env = "AWS_ENDPOINT_URL")]
    endpoint: Option<String>,
    /// Its region
    #[arg(long = "bucket-region", value_name = "REGION", env = "AWS_REGION", default_value = REGION)]
    region: String,
    /// Certificates that it is checked against, PEM; by default those that this machine trusts
    #[arg(long = "bucket-authority", value_name = "FILE")]
    authority: Option<PathBuf>,
}

impl BucketOptions {
    /// The store; None: nobody named one.
    ///
    /// # Errors
    /// Keys that are missing, certificates that can't be read.
    pub fn store(&self) -> Result<Option<BucketStore>> {
        let Some(endpoint) = self.endpoint.clone() else { return Ok(None) };
        let key = |name: &str| {
            std::env::var(name)
                .with_context(|| format!("{name} is not in the environment: {endpoint} asks for it"))
        };
        let (access_key, secret_key) = (key(ACCESS_KEY)?, key(SECRET_KEY)?);
        let authority = self.authority.as_ref().map(|path| {
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
        });
        let (region, authority) = (self.region.clone(), authority.transpose()?);
        Ok(Some(BucketStore { endpoint, region, access_key, secret_key, authority }))
    }
}

/// That of outside nodes' devices in `diptych dev`.
pub fn of_dev(store: &S3Endpoint) -> BucketStore {
    BucketStore {
        endpoint: store.endpoint.clone(),
        region: REGION.to_owned(),
        access_key: store.access_key.clone(),
        secret_key: store.secret_key.clone(),
        authority: None,
    }
}
