//! What a user needs to reach an installation, wherever it runs: the folder with its `endpoints.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use diptych::client::endpoints::{AgentEndpoint, Endpoints, SiteEndpoint};
use diptych::client::rest::RestClient;
use diptych::client::s3::S3Client;
use diptych_site::status::SiteStatus;
use tokio::process::Command;

/// The bucket of the demo.
pub const BUCKET: &str = "files";

/// A way to an installation.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The folder of `endpoints.json`.
    pub data_dir: PathBuf,
    /// `NODE=FOLDER`: where the file systems of nodes are found that are not this machine's own.
    pub mounted: Vec<String>,
}

/// The program, built beside this one.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("the own program has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.join("diptych"))
}

impl Reach {
    /// By the folder of `endpoints.json`.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_path_buf(), mounted: Vec::new() }
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
        self.rest_by(site, &self.endpoints()?.token)
    }

    /// A site's own REST, for the holder of another token.
    pub fn rest_by(&self, site: &str, token: &str) -> Result<RestClient> {
        let http = diptych::client::http_client(&self.data_dir)?;
        RestClient::new(http, &site_of(&self.endpoints()?, site)?.rest, token)
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
        pids.extend(endpoints.outside.iter().map(|agent| (agent.name.clone(), agent.pid)));
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
