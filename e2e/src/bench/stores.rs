//! What is measured: `diptych dev` with one site of 3 nodes and 2 devices each, which codes 4 of 6, and MinIO with 6 drives and
//! EC:2, both encrypting everything.

use std::path::Path;

use anyhow::{Context, Result};
use diptych::client::endpoints::{Endpoints, S3Endpoint};

use super::BenchOptions;
use crate::demo::installation::Installation;
use crate::minio::Minio;

/// A running store.
pub(super) struct Store {
    /// `host:port` of its S3 listener: a gateway's own, no edge before it.
    pub(super) address: String,
    /// For clients.
    pub(super) access_key: String,
    /// For clients.
    pub(super) secret_key: String,
    /// Its processes.
    pub(super) pids: Vec<u32>,
}

impl Store {
    /// A gateway of an installation.
    pub(super) fn of(installation: &Installation, site: &str) -> Result<Self> {
        let Endpoints { sites, s3, .. } = installation.endpoints()?;
        let site = sites.get(site).context("there is no such site")?;
        let address = site.s3.strip_prefix("http://").context("S3 is not plain http")?.to_owned();
        let pids = installation.pids()?.into_iter().map(|(_, pid)| pid).collect();
        Ok(Self { address, access_key: s3.access_key, secret_key: s3.secret_key, pids })
    }

    /// MinIO.
    pub(super) fn of_minio(minio: &Minio) -> Self {
        let S3Endpoint { access_key, secret_key, .. } = minio.endpoint();
        let pids = minio.pid().into_iter().collect();
        Self { address: minio.address.clone(), access_key, secret_key, pids }
    }
}

/// What is measured beside each other.
pub(super) struct Stores {
    installation: Installation,
    minio: Option<Minio>,
}

impl Stores {
    /// Starts them.
    pub(super) async fn start(options: &BenchOptions, folder: &Path) -> Result<Self> {
        let words = ["--sites", "1", "--nodes", "3", "--devices", "2"];
        let installation =
            Installation::start_program(&options.diptych, &folder.join("diptych"), &words).await?;
        let minio = if options.alone {
            None
        } else {
            Some(Minio::start(&options.tools, &folder.join("minio")).await?)
        };
        Ok(Self { installation, minio })
    }

    /// In the order of the columns.
    pub(super) fn all(&self) -> Result<Vec<Store>> {
        let mut stores = vec![Store::of(&self.installation, "east")?];
        if let Some(minio) = &self.minio {
            stores.push(Store::of_minio(minio));
        }
        Ok(stores)
    }

    /// Ends them.
    pub(super) async fn stop(self) -> Result<()> {
        if let Some(minio) = self.minio {
            minio.stop().await?;
        }
        self.installation.stop().await
    }
}
