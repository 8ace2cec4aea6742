//! From text to the types of the core, and what the schema could not refuse.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use diptych_api::common::duration;
use diptych_api::storage_cluster::{Acknowledge, ObjectStoreWitness, StorageClusterSpec, Via};
use diptych_api::{NameRef, StorageNode};
use diptych_core::ids::{NodeName, SiteName};
use diptych_core::planner::{SiteTopology, Survive};
use diptych_site::config::Policy;
use diptych_site::notify::WebhookConfig;
use diptych_site::witness::ObjectStoreConfig;
use thiserror::Error;

use super::Observed;
use super::policy::policy;
use crate::secrets::{cluster_keys, text};

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
    /// The other site.
    pub peer: Option<DeclaredPeer>,
    /// Addresses that the public name points to.
    pub public_addresses: Vec<IpAddr>,
    /// Told what turns.
    pub webhook: Option<WebhookConfig>,
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
    /// An object in a bucket.
    ObjectStore(ObjectStoreConfig),
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
    /// What is flipped.
    pub via: Via,
    /// With a tunnel: the name that serves S3.
    pub s3_hostname: Option<String>,
    /// Whether Cloudflare fronts the traffic.
    pub proxied: bool,
    /// Whether Cloudflare looks at each site.
    pub health_checks: bool,
    /// What its notifications show; None: they are not heard.
    pub notification_secret: Option<String>,
}

/// Nodes in neither site: rows on them are found by the device's number alone, and they join at the door between two sites.
fn check_outside(spec: &StorageClusterSpec, nodes: &[StorageNode]) -> Result<(), Invalid> {
    if let Some(node) = nodes.first().filter(|_| spec.peer.is_none()) {
        let reason = format!(
            "StorageNode {} is in neither site, and such nodes join at the door between two sites: declare peer",
            node.spec.node
        );
        return Err(Invalid::field("peer", reason));
    }
    let mut known: BTreeMap<i64, &str> = BTreeMap::new();
    for node in nodes {
        for device in &node.spec.devices {
            if let Some(other) = known.insert(device.id, &node.spec.node) {
                let reason = format!(
                    "StorageNodes {other} and {} both have a device {}: give each device outside a number of its own",
                    node.spec.node, device.id
                );
                return Err(Invalid::field("outside", reason));
            }
        }
    }
    Ok(())
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
    secret(key, "key", how)?;
    cluster_keys(&seen.secrets[key])
        .map_err(|error| Invalid::Secret(format!("Secret {key}, {error}: {how}")))?;
    check_outside(spec, &seen.outside)?;
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
        peer: spec.peer.as_ref().map(|_| peer(spec, seen, &secret)).transpose()?,
        public_addresses: addresses(spec)?,
        webhook: spec.notifications.as_ref().map(|to| webhook(&to.webhook, &secret)).transpose()?,
        site,
    })
}

fn webhook(
    to: &diptych_api::storage_cluster::Webhook,
    secret: &dyn Fn(&str, &str, &str) -> Result<String, Invalid>,
) -> Result<WebhookConfig, Invalid> {
    let how = "it signs what the webhook is told: share it with the receiver";
    let key = secret(&to.secret_ref.name, "secret", how)?.trim().to_owned();
    Ok(WebhookConfig { url: to.url.clone(), secret: key })
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
    if joins(spec) && peer.join_secret_ref.is_none() {
        return Err(missing("peer.joinSecretRef"));
    }
    let notified = |named: &NameRef| -> Result<String, Invalid> {
        let how = "Cloudflare shows it with its notifications: give the webhook there the same";
        Ok(secret(&named.name, "secret", how)?.trim().to_owned())
    };
    let name = failover.dns.as_ref().map(|dns| {
        let cloudflare = &dns.cloudflare;
        let how = "it holds an API token that may edit the zone's DNS, under `token`";
        Ok(DeclaredName {
            zone: cloudflare.zone.clone(),
            hostname: cloudflare.hostname.clone(),
            via: cloudflare.via,
            s3_hostname: cloudflare.tunnel.as_ref().and_then(|tunnel| tunnel.s3_hostname.clone()),
            proxied: cloudflare.proxied,
            health_checks: cloudflare.health_checks,
            api: cloudflare.api_base_url.clone(),
            token: secret(&cloudflare.token_secret_ref.name, "token", how)?.trim().to_owned(),
            notification_secret: cloudflare.notification_secret_ref.as_ref().map(notified).transpose()?,
        })
    });
    let name = name.transpose()?;
    if name.as_ref().is_some_and(|name| name.health_checks) && spec.gateway.public_addresses.is_empty() {
        let reason = "the first of gateway.publicAddresses is probed: declare them";
        return Err(Invalid::field("failover.dns.cloudflare.healthChecks", reason));
    }
    Ok(DeclaredPeer {
        site: peer.site.parse().map_err(|error| Invalid::field("peer.site", error))?,
        doors: peer.endpoints.iter().filter_map(|endpoint| seen.resolved.get(endpoint).copied()).collect(),
        devices_by_node: peer.devices_by_node.iter().copied().map(count).collect(),
        witness: match (&witness.outside_node, &witness.object_store) {
            (Some(node), _) => DeclaredWitness::Outside(seen.resolved.get(&node.endpoint).copied()),
            (None, Some(store)) => {
                let given = seen.secrets.get(&store.secret_ref.name);
                let authority = given.and_then(|secret| text(secret, "ca.crt").ok());
                DeclaredWitness::ObjectStore(object_store(store, secret, authority)?)
            }
            (None, None) => DeclaredWitness::Record,
        },
        name,
    })
}

fn object_store(
    store: &ObjectStoreWitness,
    secret: &dyn Fn(&str, &str, &str) -> Result<String, Invalid>,
    authority: Option<String>,
) -> Result<ObjectStoreConfig, Invalid> {
    let name = &store.secret_ref.name;
    let how = "it holds credentials that may read and write the witness's object";
    let entry = |key: &str| Ok(secret(name, key, how)?.trim().to_owned());
    Ok(ObjectStoreConfig {
        endpoint: store.endpoint.clone(),
        bucket: store.bucket.clone(),
        key: store.key.clone(),
        region: store.region.clone(),
        access_key: entry("accessKeyId")?,
        secret_key: entry("secretAccessKey")?,
        authority,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(peer: bool) -> StorageClusterSpec {
        let peer = peer.then(|| json!({"site": "west", "endpoints": ["west.example:8443"]}));
        let spec = json!({"site": "east", "peer": peer, "nodeAgents": {"devices": [{"path": "/d"}]},
            "encryption": {"keySecretRef": {"name": "k"}}});
        serde_json::from_value(spec).expect("a spec")
    }

    fn outside(node: &str, device: i64) -> StorageNode {
        let spec = json!({"clusterRef": {"name": "main"}, "node": node,
            "devices": [{"id": device, "path": "/d0"}], "outside": {"address": "192.0.2.1:8446"}});
        StorageNode::new(node, serde_json::from_value(spec).expect("a spec"))
    }

    #[test]
    fn outside_nodes_need_a_door_and_devices_with_numbers_of_their_own() {
        let apart = [outside("o1", 1), outside("o2", 2)];
        assert_eq!(check_outside(&spec(true), &apart), Ok(()));
        let alone = check_outside(&spec(false), &apart).expect_err("there is no door").to_string();
        assert!(alone.ends_with("declare peer"), "{alone}");
        let same = check_outside(&spec(true), &[outside("o1", 1), outside("o2", 1)]).expect_err("one number");
        assert_eq!(
            same.to_string(),
            "spec.outside: StorageNodes o1 and o2 both have a device 1: give each device outside a number of its own"
        );
    }

    #[test]
    fn a_witness_in_a_bucket_needs_its_secret_and_has_a_key_of_its_own() {
        let declared = json!({"endpoint": "https://s3.example.com", "bucket": "leases", "secretRef": {"name": "witness"}});
        let store: ObjectStoreWitness = serde_json::from_value(declared).expect("it reads");
        let given = |name: &str, key: &str, _: &str| Ok(format!("{name}.{key}\n"));
        let config = object_store(&store, &given, None).expect("all is there");
        assert_eq!((config.key.as_str(), config.region.as_str()), ("diptych/lease", "us-east-1"));
        assert_eq!(
            (config.access_key.as_str(), config.secret_key.as_str()),
            ("witness.accessKeyId", "witness.secretAccessKey")
        );
        let missing = |name: &str, key: &str, how: &str| {
            Err(Invalid::Secret(format!("Secret {name} has no entry {key}: {how}")))
        };
        let error = object_store(&store, &missing, None).expect_err("there is no Secret").to_string();
        assert!(
            error.contains("witness") && error.contains("read and write the witness's object"),
            "{error}"
        );
    }
}
