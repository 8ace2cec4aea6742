//! Programs that nobody here wrote, as a test runs them: to their end, with all that they said in the error.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

/// Runs a program to its end; what it said, on both outputs, if it succeeded.
pub async fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let (succeeded, said) = outcome(command, limit).await?;
    if !succeeded {
        bail!("{:?} failed:\n{said}", command.as_std());
    }
    Ok(said)
}

/// Runs a program to its end; whether it succeeded, and what it said on both outputs.
pub async fn outcome(command: &mut Command, limit: Duration) -> Result<(bool, String)> {
    let shown = format!("{:?}", command.as_std());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(limit, command.output())
        .await
        .with_context(|| format!("{shown} did not end within {limit:?}"))?
        .with_context(|| format!("{shown} can't be started: `cargo xtask test` installs what tests need"))?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((output.status.success(), said))
}

/// The Python of an environment that `cargo xtask test` made.
pub fn python(environment: &str) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from);
    let python = cache.join("diptych").join(format!("venv-{environment}")).join("bin").join("python");
    ensure!(python.is_file(), "{} is missing: `cargo xtask test` makes it", python.display());
    Ok(python)
}

/// Gives a proof a folder of its own; where it fails the folder stays, and the error names it.
pub async fn in_folder(name: &str, proof: impl AsyncFnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::Builder::new().prefix(&format!("diptych-{name}-")).tempdir()?;
    match proof(folder.path()).await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("see {}", folder.keep().display()))),
    }
}
