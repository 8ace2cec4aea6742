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
        Self::start_program(&program()?, data_dir, words).await
    }

    /// The same with a program of another build.
    pub async fn start_program(program: &Path, data_dir: &Path, words: &[&str]) -> Result<Self> {
        let mut child = Command::new(program)
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

    /// Kills every process of it, as a loss of power would, and waits until they are gone; those that are dead already are no matter.
    pub async fn kill(mut self) -> Result<()> {
        let pids: Vec<u32> = self.pids()?.into_iter().map(|(_, pid)| pid).collect();
        for pid in &pids {
            let _ = signal(*pid, "KILL");
        }
        self.child.kill().await?;
        until("all processes are gone", Duration::from_secs(30), || async {
            Ok(pids.iter().find(|pid| lives(**pid)).map_or(Ok(()), |pid| Err(format!("{pid} lives"))))
        })
        .await
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

/// Whether a process may have files open still. One that nobody waited for has none once all of its threads have ended; the
/// first of them ends before one that syncs a disk.
fn lives(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let ended = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    threads.count() > 1 || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !ended(stat))
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
