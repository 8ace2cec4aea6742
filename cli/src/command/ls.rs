//! `diptych ls`.

use anyhow::Result;

use super::{Target, say};

/// List files.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Only keys that begin so
    #[arg(default_value = "")]
    prefix: String,
    /// The bucket
    #[arg(long, default_value = "files")]
    bucket: String,
    #[command(flatten)]
    target: Target,
}

impl Ls {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        for object in self.target.bucket(&self.bucket)?.list(&self.prefix).await? {
            say(format_args!("{:>14}  {}", object.size, object.key));
        }
        Ok(())
    }
}
