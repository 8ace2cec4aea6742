//! Configuration of the processes: JSON files, written by `diptych dev` and by the operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use diptych_core::ids::{ClusterId, DeviceId, NodeName, SiteName};
use diptych_core::placement::NodeShare;
use diptych_core::planner::Survive;
pub use diptych_wire::files::IdentityFiles;
use serde::{Deserialize, Serialize};

use thiserror::Error;

use crate::context::LoopOptions;
use crate::drill::RestEndpoint;
use crate::notify::WebhookConfig;
use crate::outside::Membership;
use crate::witness::ObjectStoreConfig;

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
    /// Who renews its certificate; nobody where there is none.
    #[serde(default)]
    pub issuer: Option<AgentIssuer>,
    /// Likewise for an agent in neither site.
    #[serde(default)]
    pub member: Option<Membership>,
    /// Its devices, in the order of their numbers.
    pub devices: Vec<DeviceConfig>,
    /// Seconds from the end of one scrub of a device to the next.
    #[serde(default = "AgentConfig::scrub_every_s")]
    pub scrub_every_s: u64,
}

/// Who gives an agent's pod its certificates, and what it shows for them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentIssuer {
    /// `https://host:port` of the site's operators.
    pub operator: String,
    /// The cluster's authority, PEM.
    pub authority: PathBuf,
    /// Token of the pod's service account.
    pub token: PathBuf,
}

impl AgentConfig {
    /// `scrub.every` of a cluster that does not say: 168 h.
    pub const fn scrub_every_s() -> u64 {
        168 * 60 * 60
    }
}

/// One device of a node-agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Its domain and weights.
    #[serde(default, skip_serializing_if = "NodeShare::is_empty")]
    pub share: NodeShare,
}

/// The nodes in neither site, as an operator declares them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutsideConfig {
    /// Rows of margin that each extent has on them.
    pub rows: u8,
    /// The nodes; the other site may declare more.
    pub nodes: Vec<OutsideNodeConfig>,
}

/// A node in neither site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideNodeConfig {
    /// Its name.
    pub name: NodeName,
    /// `host:port` of its agent.
    pub address: String,
    /// Its devices.
    pub devices: Vec<DeviceConfig>,
    /// Name of the token that it joins with.
    pub token: String,
    /// Its domain and weights.
    #[serde(default, skip_serializing_if = "NodeShare::is_empty")]
    pub share: NodeShare,
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

impl From<SurviveConfig> for Survive {
    fn from(config: SurviveConfig) -> Self {
        Self {
            sites: u32::from(config.sites),
            nodes: u32::from(config.nodes),
            devices: u32::from(config.devices),
        }
    }
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
    /// Key of the cluster's authority, for the process that begins a cluster: it seals it into the catalog.
    #[serde(default)]
    pub authority_key: Option<PathBuf>,
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
    /// The nodes in neither site.
    #[serde(default)]
    pub outside: OutsideConfig,
    /// Times and budgets.
    #[serde(default)]
    pub policy: Policy,
    /// The other site.
    pub peer: Option<PeerConfig>,
    /// Told what turns.
    #[serde(default)]
    pub webhook: Option<WebhookConfig>,
    /// Generation of the declaration that this was made from; 0: nothing was declared.
    #[serde(default)]
    pub generation: i64,
    /// The declaration is being deleted: what this site alone has outside is not made any more.
    #[serde(default)]
    pub retired: bool,
}

impl SiteConfig {
    /// Whether a keeper that began with the other one goes on with this one, lease and all: it votes for the same site, with
    /// the same times, and reaches the same peer and witness as the same identity.
    pub fn keeps_keeper_of(&self, other: &Self) -> bool {
        let keeper = |config: &Self| {
            let names = (config.cluster, config.site.clone(), config.preferred.clone());
            let files = (config.keeper_identity.clone(), config.cluster_key.clone(), config.catalog.clone());
            (names, files, config.policy.lease_ms, config.peer.clone())
        };
        keeper(self) == keeper(other)
    }
}

/// Times and budgets of a `StorageCluster`; one that does not say gets the design's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Milliseconds of `failover.lease.duration`.
    pub lease_ms: u64,
    /// Whether the passive site takes over by itself.
    pub automatic: bool,
    /// Milliseconds that the preferred site must have been well until it gets the lease back by itself; None: a person
    /// hands it back.
    pub stability_window_ms: Option<u64>,
    /// Milliseconds that the edge must not have reached the active site until it hands over to the other one.
    pub edge_grace_ms: u64,
    /// Milliseconds that a write waits for the other site with `BothSites`.
    pub acknowledge_timeout_ms: u64,
    /// Milliseconds: a promotion that would lose what has been exposed for longer waits for a person.
    pub max_loss_age_ms: u64,
    /// Bytes a second that repair may move in the site.
    pub repair_lan: u64,
    /// Bytes a second that repair may bring over from the other site.
    pub repair_wan: u64,
    /// Seconds that rows which no catalog names are held.
    pub gc_hold_s: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease_ms: 3_000,
            automatic: true,
            stability_window_ms: None,
            edge_grace_ms: 60_000,
            acknowledge_timeout_ms: 10_000,
            max_loss_age_ms: 10_000,
            repair_lan: 200 << 20,
            repair_wan: 50 << 20,
            gc_hold_s: 24 * 60 * 60,
        }
    }
}

impl Policy {
    /// What the loops keep to; a node counts as dead after `node_dead_after_s`.
    pub fn loop_options(&self, node_dead_after_s: u32) -> LoopOptions {
        LoopOptions {
            node_dead_after: Duration::from_secs(u64::from(node_dead_after_s)),
            orphan_hold: Duration::from_secs(self.gc_hold_s),
            repair_lan: self.repair_lan,
            repair_wan: self.repair_wan,
            ..LoopOptions::default()
        }
    }
}

/// The other site, and what both need to fail over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerConfig {
    /// Its name.
    pub site: SiteName,
    /// Its peer door: every address leads to it.
    pub doors: Vec<SocketAddr>,
    /// The own peer door.
    pub listen: SocketAddr,
    /// Where the third vote lies.
    pub witness: WitnessKind,
    /// `address:port` of the outside witness.
    pub witness_address: Option<SocketAddr>,
    /// The witness's bucket.
    #[serde(default)]
    pub witness_store: Option<ObjectStoreConfig>,
    /// Base URL of Cloudflare's API; its own by default.
    pub cloudflare_api: Option<String>,
    /// Token for it.
    pub cloudflare_token: String,
    /// The zone.
    pub zone: String,
    /// The public name in it.
    pub hostname: String,
    /// Whether Cloudflare fronts the traffic.
    pub proxied: bool,
    /// Addresses of this site that the name points to while it is active.
    pub public_addresses: Vec<std::net::IpAddr>,
    /// What is flipped.
    #[serde(default)]
    pub via: Via,
    /// What stands in the Host header of requests that come under the public name.
    pub public_hosts: Vec<String>,
    /// How Cloudflare shall look at this site's first public address; None: not at all.
    #[serde(default)]
    pub health_check: Option<HealthProbe>,
    /// What Cloudflare shows with its notifications; None: they are not heard.
    #[serde(default)]
    pub notification_secret: Option<String>,
    /// What drills ask as any client does; none without a public name.
    #[serde(default)]
    pub drills: Option<DrillEndpoints>,
}

/// What is flipped at Cloudflare.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Via {
    /// The address records of the name.
    #[default]
    Record,
    /// The order of a load balancer's pools.
    LoadBalancer {
        /// How `/lease` of each public address is asked.
        monitor: HealthProbe,
    },
    /// The alias of the name, which leads to the tunnel of a site.
    Tunnel {
        /// Names and the services that answer for them, as this site's connectors reach them; the public name first.
        routes: Vec<TunnelService>,
        /// Where the token for the connectors is put.
        token_file: PathBuf,
    },
}

/// A name, and the service of the site that answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelService {
    /// Whole name, with the zone.
    pub hostname: String,
    /// `http://host:port` or `https://host:port`.
    pub service: String,
}

/// How REST is probed from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthProbe {
    /// By https, with a certificate that Cloudflare trusts; else plain.
    pub https: bool,
    /// TCP port.
    pub port: u16,
}

/// Where the prober writes, and where samples are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillEndpoints {
    /// REST by the public name.
    pub public: RestEndpoint,
    /// REST of this site's own gateways.
    pub own: RestEndpoint,
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
    /// An object in a bucket.
    ObjectStore,
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
            "objectstore" => Ok(Self::ObjectStore),
            _ => Err(UnknownWord(word.to_owned(), "outside, record, objectstore")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_says_nothing_gets_the_designs_times_and_budgets() {
        let policy: Policy = serde_json::from_str("{}").expect("nothing needs to be said");
        assert_eq!(policy, Policy::default());
        let options = policy.loop_options(10);
        assert_eq!((options.repair_lan, options.repair_wan), (200 << 20, 50 << 20));
        assert_eq!(options.orphan_hold, Duration::from_hours(24));
        let said: Policy = serde_json::from_str(r#"{"repair_wan": 7, "gc_hold_s": 60}"#).expect("it reads");
        let options = said.loop_options(10);
        assert_eq!((options.repair_wan, options.orphan_hold), (7, Duration::from_mins(1)));
    }
}
