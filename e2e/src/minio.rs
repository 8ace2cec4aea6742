//! MinIO, as `cargo xtask bench` builds it, on folders of this machine.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use diptych::client::endpoints::S3Endpoint;
use tokio::process::{Child, Command};

use crate::demo::installation::until;

/// Drives: as many as Diptych has devices in the benchmark.
const DRIVES: u32 = 6;
/// MinIO's own default; it listens on loopback only.
const KEY: &str = "minioadmin";

/// A running server with EC:2 that encrypts everything; it ends when it is dropped.
pub struct Minio {
    child: Child,
    folder: PathBuf,
    /// `host:port` of S3.
    pub address: String,
}

impl Minio {
    /// `tools`: the folder of the program.
    pub async fn start(tools: &Path, folder: &Path) -> Result<Self> {
        let drives: Vec<_> = (1..=DRIVES).map(|number| drive_in(folder, number)).collect();
        for drive in &drives {
            std::fs::create_dir_all(drive)?;
        }
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let log = std::fs::File::create(log_in(folder))?;
        let child = Command::new(tools.join("minio"))
            .args(["server", "--address", &address, "--console-address", "127.0.0.1:0"])
            .args(&drives)
            .env("MINIO_ROOT_USER", KEY)
            .env("MINIO_ROOT_PASSWORD", KEY)
            .env("MINIO_STORAGE_CLASS_STANDARD", "EC:2")
            .env("MINIO_KMS_SECRET_KEY", format!("bench:{}", STANDARD.encode([7; 32])))
            .env("MINIO_KMS_AUTO_ENCRYPTION", "on")
            // Drives that are folders of one disk are refused otherwise.
            .env("MINIO_CI_CD", "1")
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .context("minio can't be started")?;
        let http = diptych::client::http_client(folder)?;
        let ready = format!("http://{address}/minio/health/cluster");
        until("MinIO is ready", Duration::from_mins(1), || async {
            let answer = http.get(&ready).send().await?;
            Ok(if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) })
        })
        .await
        .with_context(|| format!("see {}", log_in(folder).display()))?;
        Ok(Self { child, folder: folder.to_path_buf(), address })
    }

    /// For clients.
    pub fn endpoint(&self) -> S3Endpoint {
        S3Endpoint {
            endpoint: format!("http://{}", self.address),
            access_key: KEY.to_owned(),
            secret_key: KEY.to_owned(),
        }
    }

    /// The folder of a drive, the first is 1.
    pub fn drive(&self, number: u32) -> PathBuf {
        drive_in(&self.folder, number)
    }

    /// All that it has said.
    pub fn said(&self) -> Result<String> {
        let log = log_in(&self.folder);
        std::fs::read_to_string(&log).with_context(|| format!("{} can't be read", log.display()))
    }

    /// Its process; None: it ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it.
    pub async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

fn drive_in(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("drive-{number}"))
}

fn log_in(folder: &Path) -> PathBuf {
    folder.join("log")
}
