//! `diptych rm`.

use anyhow::Result;

use super::Target;

/// Delete files.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Their keys
    #[arg(required = true)]
    keys: Vec<String>,
    /// Their bucket
    #[arg(long, default_value = "files")]
    bucket: String,
    #[command(flatten)]
    target: Target,
}

impl Rm {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        let s3 = self.target.bucket(&self.bucket)?;
        for key in &self.keys {
            s3.delete(key).await?;
        }
        Ok(())
    }
}
