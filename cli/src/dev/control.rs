//! `diptych dev revive NAME`: asks the running `diptych dev` to start a process again that was killed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::plan::DevPlan;
use super::supervise::Supervisor;

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("dev.sock")
}

/// Where requests come in.
pub fn listen(data_dir: &Path) -> Result<UnixListener> {
    let path = socket(data_dir);
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| format!("{} can't be listened on", path.display()))
}

/// Answers requests until `end`.
pub async fn serve(
    listener: UnixListener,
    plan: &DevPlan,
    supervisor: &mut Supervisor,
    data_dir: &Path,
    end: impl Future<Output = ()>,
) -> Result<()> {
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            connection = listener.accept() => {
                let answered = answer(connection?.0, plan, supervisor, data_dir).await;
                if let Err(error) = answered {
                    tracing::warn!(%error, "a request for a revival failed");
                }
            }
        }
    }
}

async fn answer(
    stream: UnixStream,
    plan: &DevPlan,
    supervisor: &mut Supervisor,
    data_dir: &Path,
) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut name = String::new();
    stream.read_line(&mut name).await?;
    let outcome = supervisor.revive(name.trim());
    super::write_endpoints(plan, supervisor, data_dir)?;
    let line = match outcome {
        Ok(pid) => format!("ok {pid}\n"),
        Err(error) => format!("error {error:#}\n"),
    };
    stream.get_mut().write_all(line.as_bytes()).await?;
    Ok(())
}

/// Asks for a revival; the new process id.
pub async fn revive(data_dir: &Path, name: &str) -> Result<u32> {
    let path = socket(data_dir);
    let mut stream = UnixStream::connect(&path)
        .await
        .with_context(|| format!("no `diptych dev` runs on {}", data_dir.display()))?;
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.trim().split_once(' ') {
        Some(("ok", pid)) => Ok(pid.parse()?),
        Some(("error", reason)) => bail!("{reason}"),
        _ => bail!("`diptych dev` answered {answer:?}"),
    }
}
