//! From text to the types of the core, and what the schema could not refuse.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use diptych_api::common::duration;
use diptych_api::storage_cluster::{Acknowledge, StorageClusterSpec};
use diptych_core::ids::{NodeName, SiteName};
use diptych_core::planner::{SiteTopology, Survive};
use diptych_site::config::Policy;
use thiserror::Error;

use super::Observed;
use super::policy::policy;
use crate::secrets::text;

/// A spec that can't be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A field that does not read.
    #[error("spec.{field}: {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// A Secret that the spec names and that is not there, or lacks an entry.
    #[error("{0}")]
    Secret(String),
}

impl Invalid {
    fn field(field: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Field { field, reason: reason.to_string() }
    }

    /// For the condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "InvalidSpec",
            Self::Secret(_) => "SecretMissing",
        }
    }
}

/// What is declared, in the core's types.
#[derive(Debug, Clone)]
pub struct Declared {
    /// This site.
    pub site: SiteName,
    /// Active in the first term.
    pub preferred: SiteName,
    /// What must be survived.
    pub survive: Survive,
    /// When a write is answered.
    pub acknowledge: diptych_site::config::Acknowledge,
    /// When a silent node counts as dead.
    pub node_dead_after: Duration,
    /// From the end of one scrub of a device to the next.
    pub scrub_every: Duration,
    /// Times and budgets.
    pub policy: Policy,
    /// The cluster key, as its Secret has it.
    pub cluster_key: String,
    /// The other site.
    pub peer: Option<DeclaredPeer>,
    /// Addresses that the public name points to.
    pub public_addresses: Vec<IpAddr>,
}

/// The other site.
#[derive(Debug, Clone)]
pub struct DeclaredPeer {
    /// Its name.
    pub site: SiteName,
    /// Its peer door, by every name that resolves now.
    pub doors: Vec<SocketAddr>,
    /// Devices of its nodes; empty: as here.
    pub devices_by_node: Vec<u32>,
    /// Whether this site joins it, and not the other way round.
    pub joins: bool,
    /// The third vote.
    pub witness: DeclaredWitness,
    /// The public name.
    pub name: Option<DeclaredName>,
}

/// The third vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclaredWitness {
    /// A process outside; None: its name does not resolve now.
    Outside(Option<SocketAddr>),
    /// A record at Cloudflare.
    Record,
}

/// The public name.
#[derive(Debug, Clone)]
pub struct DeclaredName {
    /// The zone.
    pub zone: String,
    /// The name.
    pub hostname: String,
    /// Base URL of the API.
    pub api: Option<String>,
    /// Its token.
    pub token: String,
    /// Whether Cloudflare fronts the traffic.
    pub proxied: bool,
}

/// Reads a spec; Secrets that it names are looked up in what was observed.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(spec: &StorageClusterSpec, seen: &Observed) -> Result<Declared, Invalid> {
    let site: SiteName = spec.site.parse().map_err(|error| Invalid::field("site", error))?;
    let preferred =
        spec.failover.as_ref().and_then(|failover| failover.preferred.as_deref()).unwrap_or(&spec.site);
    let secret = |name: &str, key: &str, how: &str| {
        let found = seen
            .secrets
            .get(name)
            .ok_or_else(|| Invalid::Secret(format!("Secret {name} is not there: {how}")))?;
        text(found, key).map_err(|error| Invalid::Secret(format!("{error}: {how}")))
    };
    let key = &spec.encryption.key_secret_ref.name;
    let how = "make it with `openssl rand -base64 32` under `key`, the same in both sites";
    let node_names = seen.nodes.iter().map(|node| node.spec.node.parse::<NodeName>());
    node_names
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Invalid::field("nodeAgents.nodeSelector", error))?;
    Ok(Declared {
        preferred: preferred.parse().map_err(|error| Invalid::field("failover.preferred", error))?,
        survive: Survive {
            sites: count(spec.survive.sites),
            nodes: count(spec.survive.nodes),
            devices: count(spec.survive.devices),
        },
        acknowledge: match spec.acknowledge {
            Acknowledge::OneSite => diptych_site::config::Acknowledge::OneSite,
            Acknowledge::BothSites => diptych_site::config::Acknowledge::BothSites,
        },
        node_dead_after: duration(&spec.repair.node_dead_after)
            .map_err(|error| Invalid::field("repair.nodeDeadAfter", error))?,
        scrub_every: duration(&spec.scrub.every).map_err(|error| Invalid::field("scrub.every", error))?,
        policy: policy(spec)?,
        cluster_key: secret(key, "key", how)?.trim().to_owned(),
        peer: spec.peer.as_ref().map(|_| peer(spec, seen, &secret)).transpose()?,
        public_addresses: addresses(spec)?,
        site,
    })
}

/// Whether this site joins the other one, and not the other way round.
pub fn joins(spec: &StorageClusterSpec) -> bool {
    let preferred = spec.failover.as_ref().and_then(|failover| failover.preferred.as_ref());
    spec.peer.is_some() && preferred.is_some_and(|preferred| *preferred != spec.site)
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn addresses(spec: &StorageClusterSpec) -> Result<Vec<IpAddr>, Invalid> {
    let addresses = spec.gateway.public_addresses.iter();
    addresses
        .map(|text| {
            text.parse()
                .map_err(|_| Invalid::field("gateway.publicAddresses", format!("{text:?} is no IP address")))
        })
        .collect()
}

fn peer(
    spec: &StorageClusterSpec,
    seen: &Observed,
    secret: &dyn Fn(&str, &str, &str) -> Result<String, Invalid>,
) -> Result<DeclaredPeer, Invalid> {
    let missing = |field| Invalid::field(field, "it is needed where there are two sites");
    let peer = spec.peer.as_ref().ok_or_else(|| missing("peer"))?;
    let failover = spec.failover.as_ref().ok_or_else(|| missing("failover"))?;
    let witness = failover.witness.as_ref().ok_or_else(|| missing("failover.witness"))?;
    let joins = joins(spec);
    if joins && peer.join_secret_ref.is_none() {
        return Err(missing("peer.joinSecretRef"));
    }
    let name = failover.dns.as_ref().map(|dns| {
        let cloudflare = &dns.cloudflare;
        let how = "it holds an API token that may edit the zone's DNS, under `token`";
        Ok(DeclaredName {
            zone: cloudflare.zone.clone(),
            hostname: cloudflare.hostname.clone(),
            proxied: cloudflare.proxied,
            api: cloudflare.api_base_url.clone(),
            token: secret(&cloudflare.token_secret_ref.name, "token", how)?.trim().to_owned(),
        })
    });
    Ok(DeclaredPeer {
        site: peer.site.parse().map_err(|error| Invalid::field("peer.site", error))?,
        doors: peer.endpoints.iter().filter_map(|endpoint| seen.resolved.get(endpoint).copied()).collect(),
        devices_by_node: peer.devices_by_node.iter().copied().map(count).collect(),
        joins,
        witness: match (&witness.outside_node, &witness.cloudflare_record) {
            (Some(node), _) => DeclaredWitness::Outside(seen.resolved.get(&node.endpoint).copied()),
            (None, Some(_)) => DeclaredWitness::Record,
            (None, None) => {
                return Err(Invalid::field(
                    "failover.witness.objectStore",
                    "not built yet: use outsideNode or cloudflareRecord",
                ));
            }
        },
        name: name.transpose()?,
    })
}

impl Declared {
    /// Both sites, the preferred one first, as the planner takes them.
    pub fn topology(&self, own: Vec<u32>) -> Vec<SiteTopology> {
        let peer = self.peer.as_ref().map(|peer| SiteTopology {
            site: peer.site.clone(),
            nodes: if peer.devices_by_node.is_empty() { own.clone() } else { peer.devices_by_node.clone() },
        });
        let own = SiteTopology { site: self.site.clone(), nodes: own };
        let mut sites: Vec<SiteTopology> = std::iter::once(own).chain(peer).collect();
        sites.sort_by_key(|topology| topology.site != self.preferred);
        sites
    }
}
