//! What `diptych dev` chose at its first start and keeps: ports, names, secrets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use diptych_core::ids::{ClusterId, DeviceId, DomainName, NodeName, SiteName};
use diptych_core::placement::NodeShare;
use diptych_core::planner::{self, SiteTopology};
use diptych_node_agent::bucket::is_bucket;
use diptych_site::config::{Acknowledge, DeviceConfig, Policy, SurviveConfig, WitnessKind};
use diptych_site::notify::WebhookConfig;
use diptych_site::witness::ObjectStoreConfig;
use rand::RngCore;
use serde::{Deserialize, Serialize};

use super::options::DevOptions;
use super::place::{self, Place};
use crate::files;

const FILE_NAME: &str = "dev.json";
const FORMAT: u32 = 1;

/// Everything about an installation that must be the same at the next start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DevPlan {
    format: u32,
    /// Random.
    pub cluster: ClusterId,
    /// By name; the preferred one is `east`.
    pub sites: BTreeMap<String, SitePlan>,
    /// When a write is answered.
    pub acknowledge: Acknowledge,
    /// Where the third vote lies.
    pub witness: WitnessKind,
    /// The witness's bucket.
    #[serde(default)]
    pub witness_store: Option<ObjectStoreConfig>,
    /// What is flipped at the stand-in for Cloudflare.
    #[serde(default)]
    pub via: PublicVia,
    /// Whether the public listeners speak TLS.
    pub tls: bool,
    /// Seconds.
    pub node_dead_after: u32,
    /// MiB a second that repair may move in each site.
    #[serde(default = "repair_lan_of_before")]
    pub repair_lan: u32,
    /// Milliseconds that a vote of the lease holds.
    #[serde(default = "lease_of_before")]
    pub lease_ms: u64,
    /// Seconds of health after which the preferred site gets the lease back by itself; None: a person hands it back.
    #[serde(default)]
    pub failback_after: Option<u32>,
    /// Seconds that the edge must not reach the active site until it hands over; None: there are no health checks.
    #[serde(default)]
    pub edge_grace: Option<u32>,
    /// Bearer token of REST.
    pub token: String,
    /// Of S3.
    pub access_key: String,
    /// Of S3.
    pub secret_key: String,
    /// What stands outside both sites; None with one site.
    pub outside: Option<OutsidePlan>,
    /// The nodes in neither site.
    #[serde(default)]
    pub outside_nodes: OutsideNodesPlan,
    /// Told what turns.
    #[serde(default)]
    pub webhook: Option<WebhookConfig>,
}

/// What is flipped at the stand-in for Cloudflare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "PascalCase")]
pub enum PublicVia {
    /// The address records of the name.
    #[default]
    Record,
    /// The order of a load balancer's pools.
    LoadBalancer,
    /// An alias to the tunnel of a site; its connector is not started, its token is in the data folder.
    Tunnel,
}

/// Of a folder that was made before it could be chosen.
fn lease_of_before() -> u64 {
    Policy::default().lease_ms
}

/// The same.
fn repair_lan_of_before() -> u32 {
    (Policy::default().repair_lan >> 20) as u32
}

/// Nodes in neither site.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OutsideNodesPlan {
    /// Rows of each extent on them.
    pub rows: u8,
    /// Each with what it joins with.
    pub nodes: Vec<OutsideNodePlan>,
    /// The store of their devices, if these are in a bucket.
    #[serde(default)]
    pub store: Option<ObjectStoreConfig>,
}

/// A node in neither site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutsideNodePlan {
    /// `outside-n1`, its agent and its devices.
    #[serde(flatten)]
    pub node: NodePlan,
    /// Name of its token.
    pub token: String,
}

/// One site's addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SitePlan {
    /// The address of all of its listeners.
    pub address: IpAddr,
    /// The network namespace that its processes run in.
    #[serde(default)]
    pub namespace: Option<String>,
    /// S3.
    pub s3: SocketAddr,
    /// REST.
    pub rest: SocketAddr,
    /// The peer door.
    pub door: SocketAddr,
    /// Its nodes.
    pub nodes: Vec<NodePlan>,
}

/// One node's addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodePlan {
    /// `east-n1`.
    pub name: NodeName,
    /// Of its agent.
    pub address: SocketAddr,
    /// Of its agent.
    pub socket: PathBuf,
    /// Its devices.
    pub devices: Vec<DeviceConfig>,
    /// Its failure domain.
    #[serde(default)]
    pub domain: Option<DomainName>,
}

impl NodePlan {
    /// Its domain; all weights are sizes.
    pub fn share(&self) -> NodeShare {
        NodeShare { domain: self.domain.clone(), ..NodeShare::default() }
    }
}

/// The stand-in for Cloudflare, and the witness.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutsidePlan {
    /// API of the stand-in.
    pub api: SocketAddr,
    /// Its faults.
    pub control: SocketAddr,
    /// Its DNS.
    pub dns: SocketAddr,
    /// Its edge for S3.
    pub edge_s3: SocketAddr,
    /// Its edge for REST.
    pub edge_rest: SocketAddr,
    /// Token of the API.
    pub api_token: String,
    /// The zone.
    pub zone: String,
    /// The public name.
    pub hostname: String,
    /// The witness.
    pub witness: SocketAddr,
}

/// Loopback addresses stand for the places: outside, east, west.
const OUTSIDE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const EAST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const WEST: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);

impl DevPlan {
    /// The plan that the data folder has, or a new one by the options.
    pub fn read_or_make(options: &DevOptions) -> Result<Self> {
        let path = options.data_dir.join(FILE_NAME);
        if path.exists() {
            let plan: Self = files::read_json(&path)?;
            if plan.format != FORMAT {
                bail!("{} has format {}, this version reads {FORMAT}", path.display(), plan.format);
            }
            if plan.sites.len() != usize::from(options.sites) {
                tracing::warn!("the data folder was made for {} site(s) and goes on so", plan.sites.len());
            }
            return Ok(plan);
        }
        let plan = Self::make(options)?;
        plan.check()?;
        plan.make_folders()?;
        files::write_private(&path, &serde_json::to_vec_pretty(&plan)?)?;
        Ok(plan)
    }

    fn make(options: &DevOptions) -> Result<Self> {
        let mut ports = Ports::default();
        let data_dir = std::path::absolute(&options.data_dir)?;
        let place = |name, loopback| Place::of(name, &options.places, loopback);
        let sites = if options.sites == 1 {
            vec![place("east", OUTSIDE)]
        } else {
            vec![place("east", EAST), place("west", WEST)]
        };
        let mut probes: Vec<IpAddr> = sites.iter().map(Place::probe).collect();
        probes.dedup();
        // The edge reaches either site at the same port, as Cloudflare does.
        let s3 = ports.free_on_all(&probes)?;
        let rest = ports.free_on_all(&probes)?;
        let mut plans = BTreeMap::new();
        for site in &sites {
            let plan = SitePlan {
                address: site.address,
                namespace: site.namespace.clone(),
                s3: SocketAddr::new(site.address, s3),
                rest: SocketAddr::new(site.address, rest),
                door: ports.free_on(site)?,
                nodes: nodes_of(site, options.nodes, options, &data_dir, &mut ports)?,
            };
            plans.insert(site.site.clone(), plan);
        }
        let outside = match options.sites {
            1 => None,
            _ => Some(OutsidePlan::make(&place(place::OUTSIDE, OUTSIDE), &mut ports)?),
        };
        let outside_nodes = outside_nodes(&place(place::OUTSIDE, OUTSIDE), options, &data_dir, &mut ports)?;
        let mut cluster = [0; 16];
        rand::rng().fill_bytes(&mut cluster);
        Ok(Self {
            format: FORMAT,
            cluster: ClusterId(cluster),
            sites: plans,
            acknowledge: options.acknowledge,
            witness: options.witness,
            witness_store: options.witness_store.clone().map(|store| store.0),
            via: options.via,
            tls: options.tls,
            node_dead_after: options.node_dead_after,
            repair_lan: options.repair_lan,
            lease_ms: options.lease.as_millis() as u64,
            failback_after: options.failback_after,
            edge_grace: options.edge_grace,
            token: secret(24),
            access_key: format!("DIPTYCH{}", secret(6).to_uppercase()),
            secret_key: secret(20),
            webhook: options
                .webhook
                .clone()
                .map(|url| WebhookConfig { url, secret: options.webhook_secret.clone() }),
            outside,
            outside_nodes,
        })
    }

    /// What every installation of `diptych dev` is declared to survive: a site if there are two, a node if there are several,
    /// a device.
    pub fn survive(&self) -> SurviveConfig {
        let several = self.sites.values().all(|site| site.nodes.len() > 1);
        SurviveConfig { sites: u8::from(self.sites.len() > 1), nodes: u8::from(several), devices: 1 }
    }

    /// Refused with the sum, before anything is made, where the sites can't survive that.
    fn check(&self) -> Result<()> {
        if (self.witness == WitnessKind::ObjectStore) != self.witness_store.is_some() {
            bail!(
                "--witness objectstore and --witness-store go together: the one says what the witness is, the other where"
            );
        }
        let sites = self.sites.iter().map(|(name, site)| {
            let nodes = site.nodes.iter().map(|node| node.devices.len() as u32).collect();
            Ok(SiteTopology { site: name.parse()?, nodes })
        });
        planner::plan(self.survive().into(), &sites.collect::<Result<Vec<_>>>()?)?;
        let OutsideNodesPlan { rows, nodes, store: _ } = &self.outside_nodes;
        if self.outside.is_none() && !nodes.is_empty() {
            bail!("outside nodes join at the door between two sites: ask for --sites 2, or for no --outside");
        }
        if usize::from(*rows) > nodes.len() {
            bail!(
                "{rows} rows of each extent can't lie on {} outside nodes, a row a node: ask for --outside-rows {} at most, or more --outside",
                nodes.len(),
                nodes.len()
            );
        }
        Ok(())
    }

    /// Nodes of both sites, and those in neither.
    pub fn all_nodes(&self) -> impl Iterator<Item = &NodePlan> {
        let outside = self.outside_nodes.nodes.iter().map(|outside| &outside.node);
        self.sites.values().flat_map(|site| &site.nodes).chain(outside)
    }

    /// An agent makes an empty folder a device at its first start; it never makes the folder.
    fn make_folders(&self) -> Result<()> {
        let devices = self.all_nodes().flat_map(|node| &node.devices);
        for device in devices.filter(|device| !is_bucket(&device.path)) {
            std::fs::create_dir_all(&device.path)
                .with_context(|| format!("the device {} can't be made", device.path.display()))?;
        }
        Ok(())
    }

    /// URL of a public listener.
    pub fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// URLs of the public name: REST, S3. They go through the edge where there is one.
    pub fn public_urls(&self) -> Result<(String, String)> {
        if let Some(outside) = &self.outside {
            return Ok((self.url(outside.edge_rest), self.url(outside.edge_s3)));
        }
        let site = self.sites.values().next().context("a plan without a site")?;
        Ok((self.url(site.rest), self.url(site.s3)))
    }

    /// The site that is active in the first term.
    pub fn preferred(&self) -> Result<SiteName> {
        let first = self.sites.keys().next().context("a plan without a site")?;
        Ok(first.parse()?)
    }
}

impl OutsidePlan {
    fn make(place: &Place, ports: &mut Ports) -> Result<Self> {
        Ok(Self {
            api: ports.free_on(place)?,
            control: ports.free_on(place)?,
            dns: ports.free_on(place)?,
            edge_s3: ports.free_on(place)?,
            edge_rest: ports.free_on(place)?,
            api_token: secret(20),
            zone: "diptych.test".to_owned(),
            hostname: "files.diptych.test".to_owned(),
            witness: ports.free_on(place)?,
        })
    }
}

fn outside_nodes(
    place: &Place,
    options: &DevOptions,
    data_dir: &Path,
    ports: &mut Ports,
) -> Result<OutsideNodesPlan> {
    let store = options.outside_store.clone().map(|store| store.0);
    let nodes = nodes_of(place, options.outside, options, data_dir, ports)?.into_iter().map(|mut node| {
        if let Some(ObjectStoreConfig { bucket, key, .. }) = &store {
            node.devices.truncate(1);
            for device in &mut node.devices {
                device.path = format!("s3://{bucket}/{}/{}", key.trim_matches('/'), node.name).into();
            }
        }
        OutsideNodePlan { node, token: secret(8) }
    });
    let nodes = nodes.collect();
    Ok(OutsideNodesPlan { rows: options.outside_rows.unwrap_or(options.outside), nodes, store })
}

fn nodes_of(
    site: &Place,
    count: u8,
    options: &DevOptions,
    data_dir: &Path,
    ports: &mut Ports,
) -> Result<Vec<NodePlan>> {
    let domain = |node: u32| {
        let number = (node - 1).checked_rem(u32::from(options.domains))? + 1;
        format!("zone-{number}").parse().ok()
    };
    let mut nodes = Vec::new();
    for number in 1..=u32::from(count) {
        let name = format!("{}-n{number}", site.site);
        let folder = data_dir.join(&site.site).join(format!("n{number}"));
        let device = |index: u32| DeviceConfig {
            id: DeviceId(number * 100 + index),
            path: folder.join(format!("d{index}")),
        };
        nodes.push(NodePlan {
            name: name.parse::<NodeName>()?,
            address: ports.free_on(site)?,
            socket: folder.join("agent.sock"),
            devices: (0..u32::from(options.devices)).map(device).collect(),
            domain: domain(number),
        });
    }
    Ok(nodes)
}

/// Hands out free ports; each stays taken until all are chosen, so that none is given twice.
#[derive(Default)]
struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    fn free_on(&mut self, place: &Place) -> Result<SocketAddr> {
        let port = self.free_on_all(&[place.probe()])?;
        Ok(SocketAddr::new(place.address, port))
    }

    fn free_on_all(&mut self, addresses: &[IpAddr]) -> Result<u16> {
        for _ in 0..100 {
            let Some((first, others)) = addresses.split_first() else { break };
            let listener =
                TcpListener::bind((*first, 0)).with_context(|| format!("no port is free on {first}"))?;
            let port = listener.local_addr()?.port();
            let more: Result<Vec<_>, _> =
                others.iter().map(|address| TcpListener::bind((*address, port))).collect();
            if let Ok(more) = more {
                self.held.push(listener);
                self.held.extend(more);
                return Ok(port);
            }
        }
        bail!("no port is free on all of {addresses:?}")
    }
}

fn secret(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::rng().fill_bytes(&mut random);
    hex::encode(random)
}
