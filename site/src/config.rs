//! Configuration of the processes: JSON files, written by `diptych dev` and by the operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use diptych_core::ids::{ClusterId, DeviceId, NodeName, SiteName};
use serde::{Deserialize, Serialize};

use thiserror::Error;

/// Files of a process's identity, all PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityFiles {
    /// The cluster's authority.
    pub authority: PathBuf,
    /// Certificate of this process.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A node-agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentConfig {
    /// The cluster that it serves.
    pub cluster: ClusterId,
    /// Its site.
    pub site: SiteName,
    /// Its node.
    pub node: NodeName,
    /// Frames over mTLS.
    pub listen: SocketAddr,
    /// Probes over plain HTTP; none without.
    #[serde(default)]
    pub health: Option<SocketAddr>,
    /// Frames for processes of the same node.
    pub socket: PathBuf,
    /// Who it is.
    pub identity: IdentityFiles,
    /// Its devices, in the order of their numbers.
    pub devices: Vec<DeviceConfig>,
}

/// One device of a node-agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceConfig {
    /// Its number in the site.
    pub id: DeviceId,
    /// Its folder.
    pub path: PathBuf,
}

/// A node as its site knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Its name.
    pub name: NodeName,
    /// `address:port` of its agent.
    pub address: SocketAddr,
    /// Unix socket of its agent, where it is on this machine.
    pub socket: Option<PathBuf>,
    /// Its devices.
    pub devices: Vec<DeviceConfig>,
}

/// What an installation must survive at one instant.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SurviveConfig {
    /// Whole sites.
    pub sites: u8,
    /// Nodes of the site that is left.
    pub nodes: u8,
    /// Devices of the site that is left.
    pub devices: u8,
}

/// A site in one process: gateway, site loops, catalog.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This site.
    pub site: SiteName,
    /// Active in the first term.
    pub preferred: SiteName,
    /// The catalog's file.
    pub catalog: PathBuf,
    /// Who its gateway is.
    pub identity: IdentityFiles,
    /// Who its keeper is: agents take commands about placement from an operator only.
    pub keeper_identity: IdentityFiles,
    /// The cluster key, base64.
    pub cluster_key: PathBuf,
    /// S3 listener.
    pub s3: SocketAddr,
    /// REST listener.
    pub rest: SocketAddr,
    /// Certificate and key of the public listeners; plain http without.
    pub public_tls: Option<IdentityFiles>,
    /// Bearer token of REST.
    pub token: String,
    /// Access key of S3 that is made on first start.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// What must be survived.
    pub survive: SurviveConfig,
    /// When a write is answered.
    pub acknowledge: Acknowledge,
    /// The nodes of this site.
    pub nodes: Vec<NodeConfig>,
    /// Devices of each node of the other site; empty without one.
    pub peer_nodes: Vec<u8>,
    /// Seconds without a sign of life after which a node's rows are rebuilt elsewhere.
    pub node_dead_after_s: u32,
    /// The other site.
    pub peer: Option<PeerConfig>,
}

/// The other site, and what both need to fail over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerConfig {
    /// Its name.
    pub site: SiteName,
    /// Its peer door.
    pub door: SocketAddr,
    /// The own peer door.
    pub listen: SocketAddr,
    /// Where the third vote lies.
    pub witness: WitnessKind,
    /// `address:port` of the outside witness.
    pub witness_address: Option<SocketAddr>,
    /// Base URL of Cloudflare's API; its own by default.
    pub cloudflare_api: Option<String>,
    /// Token for it.
    pub cloudflare_token: String,
    /// The zone.
    pub zone: String,
    /// The public name in it.
    pub hostname: String,
    /// Addresses of this site that the name points to while it is active.
    pub public_addresses: Vec<std::net::IpAddr>,
    /// What stands in the Host header of requests that come under the public name.
    pub public_hosts: Vec<String>,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acknowledge {
    /// Durable in the active site.
    OneSite,
    /// Whole in both sites.
    BothSites,
}

/// Where the third vote lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WitnessKind {
    /// A process outside both sites.
    Outside,
    /// A record at Cloudflare.
    Record,
}

/// A word that is none of those that are known.
#[derive(Debug, Error)]
#[error("{0:?} is not one of {1}")]
pub struct UnknownWord(String, &'static str);

impl FromStr for Acknowledge {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "OneSite" => Ok(Self::OneSite),
            "BothSites" => Ok(Self::BothSites),
            _ => Err(UnknownWord(word.to_owned(), "OneSite, BothSites")),
        }
    }
}

impl FromStr for WitnessKind {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "outside" => Ok(Self::Outside),
            "record" => Ok(Self::Record),
            _ => Err(UnknownWord(word.to_owned(), "outside, record")),
        }
    }
}
