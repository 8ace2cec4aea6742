//! An S3 store outside both sites: Diptych itself, one site of one node on this machine, reached as the witness is.

use std::time::Duration;

use anyhow::Result;
use diptych::client::endpoints::S3Endpoint;
use diptych::client::s3::S3Client;
use tempfile::TempDir;

use crate::demo::installation::Installation;
use crate::kind::network::gateway_address;
use crate::kind::proof::ground::Ground;

const PATIENCE: Duration = Duration::from_secs(30);

/// It runs until it is stopped; its bytes go with it.
pub(super) struct Store {
    installation: Installation,
    pub(super) endpoint: S3Endpoint,
    pub(super) bucket: S3Client,
    _folder: TempDir,
}

impl Store {
    /// With a bucket in it.
    pub(super) async fn start(ground: &Ground<'_>, bucket: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("store-").tempdir_in(&ground.state.folder)?;
        let place = format!("east={}", gateway_address().await?);
        let words = ["--sites", "1", "--nodes", "1", "--devices", "2", "--place", place.as_str()];
        let installation = Installation::start(&folder.path().join("data"), &words).await?;
        let endpoint = installation.endpoints()?.s3;
        let http = diptych::client::http_client(&installation.data_dir)?;
        let bucket = S3Client::new(http, &endpoint, bucket, PATIENCE)?;
        bucket.create_bucket().await?;
        Ok(Self { installation, endpoint, bucket, _folder: folder })
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.installation.stop().await
    }
}
