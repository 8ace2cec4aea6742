//! A running `diptych dev`, as a user starts and stops it.

use std::ops::Deref;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::reach::{Reach, program};

/// An installation of which this process is the user.
pub struct Installation {
    child: Child,
    reach: Reach,
}

impl Deref for Installation {
    type Target = Reach;

    fn deref(&self) -> &Reach {
        &self.reach
    }
}

impl Installation {
    /// Starts one and waits until it says `ready`.
    pub async fn start(data_dir: &Path, words: &[&str]) -> Result<Self> {
        let program = program()?;
        let mut child = Command::new(&program)
            .arg("dev")
            .args(words)
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started: build it first", program.display()))?;
        let output = child.stdout.take().context("no output")?;
        let ready = async {
            let mut lines = BufReader::new(output).lines();
            while let Some(line) = lines.next_line().await? {
                if line == "ready" {
                    return Ok(());
                }
            }
            bail!("it ended before it was ready; see {}", data_dir.join("logs").display())
        };
        tokio::time::timeout(Duration::from_secs(90), ready).await.context("not ready after 90 s")??;
        Ok(Self { child, reach: Reach::new(data_dir) })
    }

    /// Asks it to end, and waits.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().context("it has ended already")?;
        signal(pid, "TERM")?;
        let status = tokio::time::timeout(Duration::from_secs(30), self.child.wait())
            .await
            .context("it does not end")??;
        if !status.success() {
            bail!("it ended with {status}");
        }
        Ok(())
    }
}

/// Sends a signal, as a person would.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let status = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).status()?;
    if !status.success() {
        bail!("pid {pid} can't be sent SIG{name}");
    }
    Ok(())
}

/// Waits until something is so, looking every 100 ms; what was last seen stands in the error.
pub async fn until<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Result<T, String>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let seen = match look().await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}; last seen: {seen}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
