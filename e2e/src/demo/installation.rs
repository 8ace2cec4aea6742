//! A running `diptych dev`, as a user starts and stops it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use diptych::client::endpoints::{AgentEndpoint, Endpoints, SiteEndpoint};
use diptych::client::rest::RestClient;
use diptych::client::s3::S3Client;
use diptych_site::status::SiteStatus;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The bucket of the demo.
pub const BUCKET: &str = "files";

/// An installation of which this process is the user.
pub struct Installation {
    child: Child,
    /// Its data folder.
    pub data_dir: PathBuf,
}

/// The program, built beside this one.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("the own program has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.join("diptych"))
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
        Ok(Self { child, data_dir: data_dir.to_path_buf() })
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

    /// Where it can be reached now.
    pub fn endpoints(&self) -> Result<Endpoints> {
        Endpoints::read(&self.data_dir)
    }

    /// S3 by the public name.
    pub fn s3(&self, patience: Duration) -> Result<Arc<S3Client>> {
        let http = diptych::client::http_client(&self.data_dir)?;
        Ok(Arc::new(S3Client::new(http, &self.endpoints()?.s3, BUCKET, patience)?))
    }

    /// A site's own REST.
    pub fn rest(&self, site: &str) -> Result<RestClient> {
        let endpoints = self.endpoints()?;
        let http = diptych::client::http_client(&self.data_dir)?;
        RestClient::new(http, &site_of(&endpoints, site)?.rest, &endpoints.token)
    }

    /// What a site says of itself.
    pub async fn status(&self, site: &str) -> Result<SiteStatus> {
        self.rest(site)?.document(&["api", "v1", "status"], &[]).await
    }

    /// Every process, by name.
    pub fn pids(&self) -> Result<Vec<(String, u32)>> {
        let endpoints = self.endpoints()?;
        let mut pids = Vec::new();
        for (name, site) in &endpoints.sites {
            pids.push((name.clone(), site.pid));
            pids.extend(site.agents.iter().map(|agent| (agent.name.clone(), agent.pid)));
        }
        pids.extend(endpoints.cloudflare.iter().map(|cloudflare| ("cloudflare".to_owned(), cloudflare.pid)));
        pids.extend(endpoints.witness.iter().map(|witness| ("witness".to_owned(), witness.pid)));
        Ok(pids.into_iter().filter(|(_, pid)| *pid != 0).collect())
    }

    /// One agent.
    pub fn agent(&self, site: &str, index: usize) -> Result<AgentEndpoint> {
        let endpoints = self.endpoints()?;
        site_of(&endpoints, site)?
            .agents
            .get(index)
            .cloned()
            .with_context(|| format!("{site} has no agent {index}"))
    }

    /// Runs another command of the program on this installation; its output, if it succeeded.
    pub async fn command(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words).await?;
        if !output.status.success() {
            bail!("diptych {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs another command of the program on this installation.
    pub async fn output(&self, words: &[&str]) -> Result<std::process::Output> {
        Ok(Command::new(program()?).args(words).arg("--data-dir").arg(&self.data_dir).output().await?)
    }
}

/// A site's endpoints.
pub fn site_of<'a>(endpoints: &'a Endpoints, site: &str) -> Result<&'a SiteEndpoint> {
    endpoints.sites.get(site).with_context(|| format!("there is no site {site}"))
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
