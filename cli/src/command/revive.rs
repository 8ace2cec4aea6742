//! `diptych dev revive`.

use anyhow::Result;

use super::{Target, say};

/// Runs it.
pub async fn run(target: &Target, name: &str) -> Result<()> {
    let pid = crate::dev::control::revive(&target.data_dir, name).await?;
    say(format_args!("{name} runs, with pid {pid}"));
    Ok(())
}
