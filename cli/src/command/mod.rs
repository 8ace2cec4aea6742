//! What a person types.

pub mod bucket;
pub mod drain;
pub mod drill;
pub mod get;
pub mod inspect;
pub mod keys;
pub mod losses;
pub mod ls;
pub mod put;
pub mod resurrect;
pub mod revive;
pub mod rm;
pub mod status;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;

use crate::client::endpoints::Endpoints;
use crate::client::rest::RestClient;
use crate::client::s3::S3Client;

/// Requests are tried again for so long: a failover takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which installation is meant.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Data folder of the running `diptych dev`
    #[arg(long, env = "DIPTYCH_DATA_DIR", default_value = ".diptych", global = true)]
    pub data_dir: PathBuf,
}

impl Target {
    /// Its endpoints.
    pub fn endpoints(&self) -> Result<Endpoints> {
        Endpoints::read(&self.data_dir)
    }

    /// A bucket, by the public name.
    pub fn bucket(&self, bucket: &str) -> Result<S3Client> {
        let http = crate::client::http_client(&self.data_dir)?;
        S3Client::new(http, &self.endpoints()?.s3, bucket, PATIENCE)
    }

    /// REST of one gateway.
    pub fn rest(&self, base: &str, token: &str) -> Result<RestClient> {
        RestClient::new(crate::client::http_client(&self.data_dir)?, base, token)
    }
}

/// A line of output.
#[expect(clippy::print_stdout, reason = "a command's answer")]
pub fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// A day since 1970, as `2026-11-22`.
pub fn date(day: u32) -> String {
    let begins = Timestamp::from_second(i64::from(day) * 86_400);
    begins.map_or_else(|_| format!("day {day}"), |begins| begins.strftime("%Y-%m-%d").to_string())
}

/// Bytes as people read them.
pub fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}
