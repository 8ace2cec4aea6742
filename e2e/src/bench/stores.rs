//! What is measured: `diptych dev` with one site of 3 nodes and 2 devices each, which codes 4 of 6, and MinIO with 6 drives and
//! EC:2, both encrypting everything.

use std::path::Path;

use anyhow::{Context, Result};
use diptych::client::endpoints::S3Endpoint;

use super::BenchOptions;
use super::report::Side;
use crate::demo::installation::Installation;
use crate::minio::Minio;

/// A running store.
pub(super) struct Store {
    /// Which one.
    pub(super) side: Side,
    /// `host:port` of its S3 listener: a gateway's own, no edge before it.
    pub(super) address: String,
    /// For clients.
    pub(super) access_key: String,
    /// For clients.
    pub(super) secret_key: String,
    running: Running,
}

enum Running {
    Ours(Installation),
    Minio(Minio),
}

impl Store {
    /// Its processes.
    pub(super) fn pids(&self) -> Result<Vec<u32>> {
        match &self.running {
            Running::Ours(installation) => Ok(installation.pids()?.into_iter().map(|(_, pid)| pid).collect()),
            Running::Minio(minio) => Ok(minio.pid().into_iter().collect()),
        }
    }

    async fn stop(self) -> Result<()> {
        match self.running {
            Running::Ours(installation) => installation.stop().await,
            Running::Minio(minio) => minio.stop().await,
        }
    }
}

/// What is measured beside each other.
pub(super) struct Stores(Vec<Store>);

impl Stores {
    /// Starts them.
    pub(super) async fn start(options: &BenchOptions, folder: &Path) -> Result<Self> {
        let mut stores = vec![ours(&options.diptych, &folder.join("diptych")).await?];
        if !options.alone {
            stores.push(minio(&options.tools, &folder.join("minio")).await?);
        }
        Ok(Self(stores))
    }

    /// In the order in which they are measured.
    pub(super) fn all(&self) -> impl Iterator<Item = &Store> {
        self.0.iter()
    }

    /// Ends them.
    pub(super) async fn stop(self) -> Result<()> {
        for store in self.0 {
            store.stop().await?;
        }
        Ok(())
    }
}

async fn ours(program: &Path, folder: &Path) -> Result<Store> {
    let words = ["--sites", "1", "--nodes", "3", "--devices", "2"];
    let installation = Installation::start_program(program, folder, &words).await?;
    let endpoints = installation.endpoints()?;
    let site = endpoints.sites.values().next().context("there is no site")?;
    let address = site.s3.strip_prefix("http://").context("S3 is not plain http")?.to_owned();
    Ok(Store {
        side: Side::Ours,
        address,
        access_key: endpoints.s3.access_key,
        secret_key: endpoints.s3.secret_key,
        running: Running::Ours(installation),
    })
}

async fn minio(tools: &Path, folder: &Path) -> Result<Store> {
    let minio = Minio::start(tools, folder).await?;
    let S3Endpoint { access_key, secret_key, .. } = minio.endpoint();
    let address = minio.address.clone();
    Ok(Store { side: Side::Minio, address, access_key, secret_key, running: Running::Minio(minio) })
}
