//! The processes of an installation: their identities, their configuration files and their command lines.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use diptych_core::ids::SiteName;
use diptych_site::config::{
    AgentConfig, DrillEndpoints, HealthProbe, IdentityFiles, NodeConfig, OutsideConfig, OutsideNodeConfig,
    PeerConfig, Policy, SiteConfig, TunnelService, Via, WitnessKind,
};
use diptych_site::drill::RestEndpoint;
use diptych_site::outside::OutsideToken;
use diptych_wire::agent::Door;
use diptych_wire::authority::{Authority, Request};
use diptych_wire::identity::{Identity, Role};
use rand::RngCore;
use zeroize::Zeroizing;

use super::plan::{DevPlan, NodePlan, OutsideNodePlan, OutsidePlan, PublicVia, SitePlan};
use super::supervise::Job;
use crate::bucket::{ACCESS_KEY, SECRET_KEY};
use crate::files::write_private;

/// Certificates of `dev` are made anew at each start.
const VALIDITY: Duration = Duration::from_hours(30 * 24);

/// A minute of Cloudflare's health checks is a second of the stand-in's.
const HEALTH_SCALE: f64 = 1.0 / 60.0;

/// Where a process's output goes.
pub fn log_of(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join("logs").join(format!("{name}.log"))
}

/// Writes what the processes need and returns how to start them, those first that others wait for.
pub fn make(plan: &DevPlan, data_dir: &Path) -> Result<Vec<Job>> {
    std::fs::create_dir_all(data_dir.join("logs"))?;
    let authority = authority(plan, data_dir)?;
    let cluster_key = cluster_key(data_dir)?;
    let make = Maker { plan, data_dir, authority: &authority, cluster_key };
    let mut jobs = Vec::new();
    if let Some(outside) = &plan.outside {
        jobs.push(make.cloudflare(outside)?);
        if plan.witness == WitnessKind::Outside {
            jobs.push(make.witness(outside)?);
        }
    }
    for (name, site) in &plan.sites {
        for node in &site.nodes {
            jobs.push(Job { namespace: site.namespace.clone(), ..make.agent(name, node)? });
        }
    }
    for (name, site) in &plan.sites {
        jobs.push(Job { namespace: site.namespace.clone(), ..make.site(name, site)? });
    }
    for node in &plan.outside_nodes.nodes {
        jobs.push(make.outside_agent(node)?);
    }
    Ok(jobs)
}

struct Maker<'a> {
    plan: &'a DevPlan,
    data_dir: &'a Path,
    authority: &'a Authority,
    cluster_key: PathBuf,
}

impl Maker<'_> {
    fn job(&self, name: &str, words: Vec<String>) -> Job {
        Job {
            name: name.to_owned(),
            words,
            environment: Vec::new(),
            log: log_of(self.data_dir, name),
            namespace: None,
        }
    }

    fn identity(
        &self,
        site: &SiteName,
        role: Role,
        name: &str,
        addresses: Vec<std::net::IpAddr>,
    ) -> Result<IdentityFiles> {
        let identity =
            Identity { cluster: self.plan.cluster, site: site.clone(), role, name: name.to_owned() };
        let mut request = Request::new(identity, VALIDITY);
        request.addresses = addresses;
        request.dns_names = self.plan.outside.iter().map(|outside| outside.hostname.clone()).collect();
        let issued = self.authority.issue(&request)?;
        let folder = self.data_dir.join("identities");
        std::fs::create_dir_all(&folder)?;
        let files = IdentityFiles {
            authority: authority_files(self.data_dir).0,
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        write_private(&files.certificate, issued.chain_pem().as_bytes())?;
        write_private(&files.key, issued.key_pem().as_bytes())?;
        Ok(files)
    }

    fn configured(&self, name: &str, command: &str, config: &impl serde::Serialize) -> Result<Job> {
        let folder = self.data_dir.join("config");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{name}.json"));
        write_private(&path, &serde_json::to_vec_pretty(config)?)?;
        Ok(self.job(name, vec![command.to_owned(), "--config".to_owned(), path.display().to_string()]))
    }

    fn agent(&self, site: &str, node: &NodePlan) -> Result<Job> {
        let site: SiteName = site.parse()?;
        let name = node.name.to_string();
        let folder = node.socket.parent().context("a socket without a folder")?;
        std::fs::create_dir_all(folder)?;
        let config = AgentConfig {
            cluster: self.plan.cluster,
            identity: self.identity(&site, Role::Agent, &name, vec![])?,
            issuer: None,
            member: None,
            site,
            node: node.name.clone(),
            listen: node.address,
            health: None,
            socket: node.socket.clone(),
            devices: node.devices.clone(),
            scrub_every_s: AgentConfig::scrub_every_s(),
        };
        self.configured(&name, "node-agent", &config)
    }

    /// It is given a token and nothing else: its key is its own, its certificate and the numbers of its devices come from the
    /// active site.
    fn outside_agent(&self, outside: &OutsideNodePlan) -> Result<Job> {
        let name = outside.node.name.as_str();
        let folder = outside.node.socket.parent().context("a socket without a folder")?;
        std::fs::create_dir_all(folder)?;
        let token = folder.join("token.json");
        if !token.exists() {
            let door = |(site, plan): (&String, &SitePlan)| {
                Ok(Door { address: plan.door.to_string(), site: site.parse()? })
            };
            let doors = self.plan.sites.iter().map(door).collect::<Result<Vec<_>>>()?;
            let made = OutsideToken::make(self.authority, self.plan.cluster, &outside.token, doors)?;
            write_private(&token, &serde_json::to_vec_pretty(&made)?)?;
        }
        let mut words = vec![
            "node-agent".to_owned(),
            format!("--token={}", token.display()),
            format!("--folder={}", folder.display()),
            format!("--listen={}", outside.node.address),
        ];
        let mut environment = Vec::new();
        if let Some(store) = &self.plan.outside_nodes.store {
            words.push(format!("--bucket-endpoint={}", store.endpoint));
            words.push(format!("--bucket-region={}", store.region));
            environment.push((ACCESS_KEY, store.access_key.clone()));
            environment.push((SECRET_KEY, store.secret_key.clone()));
        }
        Ok(Job { environment, ..self.job(name, words) })
    }

    fn site(&self, name: &str, site: &SitePlan) -> Result<Job> {
        let site_name: SiteName = name.parse()?;
        let identity = self.identity(&site_name, Role::Gateway, name, vec![site.address])?;
        let keeper_identity = self.identity(&site_name, Role::Operator, &format!("{name}-keeper"), vec![])?;
        let other = self.plan.sites.iter().find(|(other, _)| *other != name);
        let config = SiteConfig {
            cluster: self.plan.cluster,
            preferred: self.plan.preferred()?,
            catalog: self.data_dir.join(name).join("catalog.redb"),
            public_tls: self.plan.tls.then(|| identity.clone()),
            identity,
            keeper_identity,
            cluster_key: self.cluster_key.clone(),
            authority_key: Some(authority_files(self.data_dir).1),
            s3: site.s3,
            rest: site.rest,
            token: self.plan.token.clone(),
            access_key: self.plan.access_key.clone(),
            secret_key: self.plan.secret_key.clone(),
            survive: self.plan.survive(),
            acknowledge: self.plan.acknowledge,
            nodes: site.nodes.iter().map(node_config).collect(),
            peer_nodes: other.map(|(_, other)| devices_by_node(other)).unwrap_or_default(),
            node_dead_after_s: self.plan.node_dead_after,
            outside: self.outside_config(),
            policy: self.policy(),
            peer: other.map(|(other, plan)| self.peer(other, plan, site)).transpose()?,
            generation: 0,
            retired: false,
            webhook: self.plan.webhook.clone(),
            site: site_name,
        };
        self.configured(name, "site", &config)
    }

    fn policy(&self) -> Policy {
        let milliseconds = |seconds: u32| u64::from(seconds) * 1_000;
        let default = Policy::default();
        Policy {
            lease_ms: self.plan.lease_ms,
            repair_lan: u64::from(self.plan.repair_lan) << 20,
            stability_window_ms: self.plan.failback_after.map(milliseconds),
            edge_grace_ms: self.plan.edge_grace.map_or(default.edge_grace_ms, milliseconds),
            ..default
        }
    }

    fn peer(&self, name: &str, peer: &SitePlan, own: &SitePlan) -> Result<PeerConfig> {
        let outside = self.plan.outside.as_ref().context("two sites without what stands outside")?;
        let probe = HealthProbe { https: self.plan.tls, port: own.rest.port() };
        Ok(PeerConfig {
            site: name.parse()?,
            doors: vec![peer.door],
            listen: own.door,
            witness: self.plan.witness,
            witness_address: Some(outside.witness),
            witness_store: self.plan.witness_store.clone(),
            cloudflare_api: Some(format!("http://{}/client/v4", outside.api)),
            cloudflare_token: outside.api_token.clone(),
            zone: outside.zone.clone(),
            hostname: outside.hostname.clone(),
            proxied: true,
            public_addresses: vec![own.address],
            public_hosts: vec![
                outside.hostname.clone(),
                s3_hostname(outside),
                outside.edge_s3.to_string(),
                outside.edge_rest.to_string(),
            ],
            via: match self.plan.via {
                PublicVia::Record => Via::Record,
                PublicVia::LoadBalancer => Via::LoadBalancer { monitor: probe },
                PublicVia::Tunnel => self.tunnel(outside, own),
            },
            health_check: self.plan.edge_grace.map(|_| probe),
            notification_secret: None,
            drills: Some(self.drills(own)?),
        })
    }

    /// REST under the public name, S3 under a name of its own: a tunnel tells services apart by names alone.
    fn tunnel(&self, outside: &OutsidePlan, own: &SitePlan) -> Via {
        let service =
            |hostname: String, at: SocketAddr| TunnelService { hostname, service: self.plan.url(at) };
        let routes = vec![service(outside.hostname.clone(), own.rest), service(s3_hostname(outside), own.s3)];
        let token_file = self.data_dir.join(format!("tunnel-{}.token", own.address));
        Via::Tunnel { routes, token_file }
    }

    fn drills(&self, own: &SitePlan) -> Result<DrillEndpoints> {
        let (certificate, _) = authority_files(self.data_dir);
        let authority = self.plan.tls.then(|| std::fs::read_to_string(&certificate)).transpose()?;
        let at = |url: String| RestEndpoint { url, connect_to: None, authority: authority.clone() };
        Ok(DrillEndpoints { public: at(self.plan.public_urls()?.0), own: at(self.plan.url(own.rest)) })
    }

    fn outside_config(&self) -> OutsideConfig {
        let nodes = self.plan.outside_nodes.nodes.iter().map(|outside| OutsideNodeConfig {
            name: outside.node.name.clone(),
            address: outside.node.address.to_string(),
            devices: outside.node.devices.clone(),
            token: outside.token.clone(),
            share: outside.node.share(),
        });
        OutsideConfig { rows: self.plan.outside_nodes.rows, nodes: nodes.collect() }
    }

    fn witness(&self, outside: &OutsidePlan) -> Result<Job> {
        let identity =
            self.identity(&SiteName::outside(), Role::Witness, "witness", vec![outside.witness.ip()])?;
        let words = [
            "witness".to_owned(),
            format!("--cluster={}", self.plan.cluster),
            format!("--listen={}", outside.witness),
            format!("--state={}", self.data_dir.join("witness").join("record").display()),
            format!("--authority={}", identity.authority.display()),
            format!("--certificate={}", identity.certificate.display()),
            format!("--key={}", identity.key.display()),
        ];
        std::fs::create_dir_all(self.data_dir.join("witness"))?;
        Ok(self.job("witness", words.into()))
    }

    fn cloudflare(&self, outside: &OutsidePlan) -> Result<Job> {
        let (s3, rest) = self
            .plan
            .sites
            .values()
            .next()
            .map(|site| (site.s3.port(), site.rest.port()))
            .unwrap_or_default();
        std::fs::create_dir_all(self.data_dir.join("cloudflare"))?;
        let mut words = vec![
            "cloudflare-emulator".to_owned(),
            format!("--listen={}", outside.api),
            format!("--control={}", outside.control),
            format!("--dns={}", outside.dns),
            format!("--edge={}={s3}", outside.edge_s3),
            format!("--edge={}={rest}", outside.edge_rest),
            format!("--zone={}", outside.zone),
            format!("--token={}", outside.api_token),
            format!("--default-host={}", outside.hostname),
            format!("--state={}", self.data_dir.join("cloudflare").join("state.json").display()),
        ];
        if self.plan.edge_grace.is_some() || self.plan.via == PublicVia::LoadBalancer {
            words.push(format!("--health-scale={HEALTH_SCALE}"));
        }
        if self.plan.tls {
            // A role without rights: no process takes orders from the edge.
            let edge =
                self.identity(&SiteName::outside(), Role::Client, "edge", vec![outside.edge_rest.ip()])?;
            words.push(format!("--edge-certificate={}", edge.certificate.display()));
            words.push(format!("--edge-key={}", edge.key.display()));
            words.push(format!("--origin-authority={}", edge.authority.display()));
        }
        Ok(self.job("cloudflare", words))
    }
}

/// S3's own name, where a tunnel needs one.
fn s3_hostname(outside: &OutsidePlan) -> String {
    format!("s3.{}", outside.hostname)
}

fn node_config(node: &NodePlan) -> NodeConfig {
    NodeConfig {
        name: node.name.clone(),
        address: node.address,
        socket: Some(node.socket.clone()),
        devices: node.devices.clone(),
        share: node.share(),
    }
}

fn devices_by_node(site: &SitePlan) -> Vec<u8> {
    site.nodes.iter().map(|node| node.devices.len() as u8).collect()
}

/// Certificate and key of the cluster's own authority.
fn authority_files(data_dir: &Path) -> (PathBuf, PathBuf) {
    let folder = data_dir.join("authority");
    (folder.join("ca.pem"), folder.join("ca.key"))
}

/// The cluster's own authority: made once, kept in the data folder.
fn authority(plan: &DevPlan, data_dir: &Path) -> Result<Authority> {
    std::fs::create_dir_all(data_dir.join("authority"))?;
    let (certificate, key) = authority_files(data_dir);
    if certificate.exists() && key.exists() {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
        };
        return Ok(Authority::from_pem(&read(&certificate)?, &read(&key)?)?);
    }
    let authority = Authority::create(plan.cluster)?;
    write_private(&key, authority.key_pem().as_bytes())?;
    write_private(&certificate, authority.certificate_pem().as_bytes())?;
    Ok(authority)
}

/// The cluster key: 32 random bytes, base64, made once.
fn cluster_key(data_dir: &Path) -> Result<PathBuf> {
    let path = data_dir.join("cluster.key");
    if !path.exists() {
        let mut key = Zeroizing::new([0; 32]);
        rand::rng().fill_bytes(key.as_mut());
        let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(key.as_slice()) + "\n");
        write_private(&path, text.as_bytes())?;
    }
    Ok(path)
}
