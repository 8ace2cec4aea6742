//! `endpoints.json`: what a running Diptych can be reached by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The file's name in the data folder.
pub const FILE_NAME: &str = "endpoints.json";

/// Addresses, credentials and process ids; written by `diptych dev`. URLs have no path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// REST by the public name: through the edge to the active site.
    pub public: String,
    /// Bearer token for REST.
    pub token: String,
    /// S3 by the public name.
    pub s3: S3Endpoint,
    /// Absent with one site.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cloudflare: Option<CloudflareEndpoint>,
    /// Absent with one site, or when the witness is a record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub witness: Option<WitnessEndpoint>,
    /// By name.
    pub sites: BTreeMap<String, SiteEndpoint>,
    /// Node-agents in neither site.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub outside: Vec<AgentEndpoint>,
    /// The store of their devices, if these are in a bucket.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outside_store: Option<S3Endpoint>,
}

/// Where S3 answers, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Endpoint {
    /// URL.
    pub endpoint: String,
    /// Access key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
}

/// The stand-in for Cloudflare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudflareEndpoint {
    /// Base URL of the v4 API.
    pub api: String,
    /// Token that may edit the zone.
    pub token: String,
    /// Name of the zone.
    pub zone: String,
    /// `address:port` that answers DNS, UDP and TCP.
    pub dns: String,
    /// Process id; 0: dead.
    pub pid: u32,
}

/// The third voter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessEndpoint {
    /// `address:port`.
    pub address: String,
    /// Process id; 0: dead.
    pub pid: u32,
}

/// One site by its own addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteEndpoint {
    /// Its gateway's S3.
    pub s3: String,
    /// Its gateway's REST.
    pub rest: String,
    /// Serves `/metrics`.
    pub metrics: String,
    /// Process id; 0: dead.
    pub pid: u32,
    /// Its node-agents.
    pub agents: Vec<AgentEndpoint>,
}

/// One node-agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEndpoint {
    /// Its node's name, unique in all of `dev`.
    pub name: String,
    /// Process id; 0: dead.
    pub pid: u32,
    /// `address:port` of its frames over mTLS.
    pub address: String,
    /// Folders of its devices.
    pub devices: Vec<PathBuf>,
}

impl Endpoints {
    /// Reads the file of a data folder.
    pub fn read(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE_NAME);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("{} can't be read: is `diptych dev` running on this data folder?", path.display())
        })?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not what `diptych dev` writes", path.display()))
    }

    /// Replaces the file, whole: a reader sees the old one or the new one.
    pub fn write(&self, data_dir: &Path) -> Result<()> {
        let path = data_dir.join(FILE_NAME);
        let fresh = data_dir.join(".endpoints.json.new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| format!("{} can't be written", path.display()))
    }
}
