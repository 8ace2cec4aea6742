//! `diptych get`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;

use super::Target;

/// Fetch a file.
#[derive(Debug, clap::Args)]
pub struct Get {
    /// Its key
    key: String,
    /// Where to write it; standard output by default
    file: Option<PathBuf>,
    /// Its bucket
    #[arg(long, default_value = "files")]
    bucket: String,
    #[command(flatten)]
    target: Target,
}

impl Get {
    /// Runs it. A file appears under its name only when it is whole.
    pub async fn run(self) -> Result<()> {
        let mut answer = self.target.bucket(&self.bucket)?.get(&self.key).await?;
        let Some(path) = self.file else {
            let mut output = std::io::stdout();
            while let Some(bytes) = answer.chunk().await? {
                std::io::Write::write_all(&mut output, &bytes)?;
            }
            return Ok(std::io::Write::flush(&mut output)?);
        };
        let mut name = path.file_name().context("the target has no file name")?.to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let mut file = tokio::fs::File::create(&part).await.with_context(|| format!("{}", part.display()))?;
        while let Some(bytes) = answer.chunk().await? {
            file.write_all(&bytes).await?;
        }
        file.flush().await?;
        tokio::fs::rename(&part, &path).await.with_context(|| format!("{}", path.display()))
    }
}
