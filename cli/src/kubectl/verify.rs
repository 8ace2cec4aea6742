//! `kubectl diptych verify`: a deep check of one file, by a gateway of the site, reached through the API server.

use anyhow::{Context, Result, bail};
use diptych_core::drill::Samples;
use http::Method;

use super::Site;
use super::gateway::{Gateway, Token};
use crate::command::losses::Rest;
use crate::command::{human, say};

/// Read a file from this site's own rows alone and verify every tag
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The file's key
    key: String,
    /// Its bucket
    #[arg(long, default_value = "files")]
    bucket: String,
    #[command(flatten)]
    token: Token,
}

impl Verify {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        let gateway = Gateway::reach(site, &self.token).await?;
        let query = [("id", self.key.as_str()), ("bucket", self.bucket.as_str())];
        let body = gateway.ask(Method::POST, &["api", "v1", "verify"], &query).await?;
        let samples: Samples = serde_json::from_slice(&body).context("the gateway's answer can't be read")?;
        if let Some(failed) = samples.failed.first() {
            bail!("it does not read from the rows of {} alone: {failed}", site.cluster.spec.site);
        }
        let (place, bytes) = (&site.cluster.spec.site, human(samples.bytes));
        say(format_args!(
            "{}/{}: {bytes} read from the rows of {place} alone, every tag is right",
            self.bucket, self.key
        ));
        Ok(())
    }
}
