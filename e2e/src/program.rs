//! Programs that nobody here wrote, run to their end; what they said when they failed stands in the error.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The slowest that has an end of its own: a cluster that is made.
const LIMIT: Duration = Duration::from_mins(15);

/// What became of a program.
struct Ended {
    shown: String,
    output: std::process::Output,
}

impl Ended {
    /// Both outputs, as text.
    fn said(&self) -> String {
        [&self.output.stdout, &self.output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
    }

    fn must_succeed(&self) -> Result<()> {
        if !self.output.status.success() {
            bail!("{} ended with {}: {}", self.shown, self.output.status, self.said().trim());
        }
        Ok(())
    }
}

async fn ended(command: &mut Command, input: &str, limit: Duration) -> Result<Ended> {
    let shown = show(command);
    let run = async {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{shown} can't be started: is it installed?"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says why by itself.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        anyhow::Ok(child.wait_with_output().await?)
    };
    // On the heap: steps that call a dozen programs are futures of many of these.
    let output = tokio::time::timeout(limit, Box::pin(run))
        .await
        .with_context(|| format!("{shown} did not end within {limit:?}"))??;
    Ok(Ended { shown, output })
}

fn show(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What it wrote to standard output, if it succeeded.
pub async fn output(command: &mut Command) -> Result<String> {
    fed(command, "").await
}

/// The same, with something on its standard input.
pub async fn fed(command: &mut Command, input: &str) -> Result<String> {
    let ended = ended(command, input, LIMIT).await?;
    ended.must_succeed()?;
    Ok(String::from_utf8(ended.output.stdout)?)
}

/// What it said on both outputs, if it succeeded.
pub async fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let ended = ended(command, "", limit).await?;
    ended.must_succeed()?;
    Ok(ended.said())
}

/// Whether it succeeded, and what it said on both outputs.
pub async fn outcome(command: &mut Command, limit: Duration) -> Result<(bool, String)> {
    let ended = ended(command, "", limit).await?;
    Ok((ended.output.status.success(), ended.said()))
}

/// Where the project keeps what it builds, fetches and remembers for this user.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("diptych"))
}

/// The Python of an environment that `cargo xtask test` made.
pub fn python(environment: &str) -> Result<PathBuf> {
    let python = cache()?.join(format!("venv-{environment}")).join("bin").join("python");
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
