//! `diptych put`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Target, say};

/// Store a file.
#[derive(Debug, clap::Args)]
pub struct Put {
    /// The file
    file: PathBuf,
    /// Its key; the file's name by default
    key: Option<String>,
    /// Its bucket, made if it is not there
    #[arg(long, default_value = "files")]
    bucket: String,
    #[command(flatten)]
    target: Target,
}

impl Put {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        let name = self.file.file_name().map(|name| name.to_string_lossy().into_owned());
        let key = self.key.or(name).context("a key is needed: the path has no file name")?;
        let s3 = self.target.bucket(&self.bucket)?;
        s3.create_bucket().await?;
        s3.put_file(&key, &self.file).await?;
        say(format_args!("{}/{key}", self.bucket));
        Ok(())
    }
}
