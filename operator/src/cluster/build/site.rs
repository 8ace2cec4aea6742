//! What gateways and loops run with.

use std::net::SocketAddr;
use std::path::PathBuf;

use diptych_api::{StorageNode, storage_cluster as declared};
use diptych_site::config::{
    DrillEndpoints, HealthProbe, IdentityFiles, NodeConfig, PeerConfig, SiteConfig, SurviveConfig,
    TunnelService, Via, WitnessKind,
};
use diptych_site::drill::RestEndpoint;

use super::{endpoints, outside};
use crate::cluster::plan::Internal;
use crate::cluster::validate::{DeclaredName, DeclaredPeer, DeclaredWitness};
use crate::cluster::{Declared, Observed, Waiting};
use crate::config::{EtcdConfig, PodConfig, identity_in};
use crate::names::{AGENT_PORT, Names, PEER_PORT, REST_PORT, S3_PORT};
use crate::node;
use crate::secrets::{Foundation, text};

/// Of a site whose nodes are known. The paths in it are put right for each kind of pod (`PodConfig::at`).
pub(in crate::cluster) fn pod_config(
    names: &Names,
    declared: &Declared,
    foundation: &Foundation,
    internal: &Internal,
    seen: &Observed,
    nodes: &[StorageNode],
) -> Result<PodConfig, Waiting> {
    let everywhere = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
    let public = IdentityFiles {
        authority: PathBuf::from("/etc/diptych/public-tls/tls.crt"),
        certificate: PathBuf::from("/etc/diptych/public-tls/tls.crt"),
        key: PathBuf::from("/etc/diptych/public-tls/tls.key"),
    };
    let configured = nodes.iter().map(|node| node_config(names, seen, node)).collect::<Option<Vec<_>>>();
    let waits = || Waiting::Nodes { registered: seen.node_addresses.len(), scheduled: seen.scheduled };
    let own_devices: Vec<u32> = nodes.iter().map(|node| node.spec.devices.len() as u32).collect();
    let other = declared.topology(own_devices).into_iter().find(|topology| topology.site != declared.site);
    let survive = declared.survive;
    Ok(PodConfig {
        site: SiteConfig {
            cluster: foundation.cluster,
            site: declared.site.clone(),
            preferred: declared.preferred.clone(),
            catalog: PathBuf::new(),
            identity: identity_in(&PathBuf::new()),
            keeper_identity: identity_in(&PathBuf::new()),
            cluster_key: PathBuf::new(),
            authority_key: None,
            s3: everywhere(S3_PORT),
            rest: everywhere(REST_PORT),
            public_tls: seen.cluster.spec.gateway.tls_secret_ref.is_some().then_some(public),
            token: foundation.rest_token.clone(),
            access_key: internal.access_key.clone(),
            secret_key: internal.secret_key.clone(),
            survive: SurviveConfig {
                sites: survive.sites as u8,
                nodes: survive.nodes as u8,
                devices: survive.devices as u8,
            },
            acknowledge: declared.acknowledge,
            nodes: configured.ok_or_else(waits)?,
            peer_nodes: other
                .map(|other| other.nodes.iter().map(|&devices| devices as u8).collect())
                .unwrap_or_default(),
            node_dead_after_s: u32::try_from(declared.node_dead_after.as_secs()).unwrap_or(u32::MAX),
            outside: outside::config(names, seen),
            policy: declared.policy,
            peer: declared
                .peer
                .as_ref()
                .map(|peer| peer_config(names, seen, declared, peer, everywhere(PEER_PORT)))
                .transpose()?,
            webhook: declared.webhook.clone(),
            generation: seen.cluster.metadata.generation.unwrap_or_default(),
            retired: false,
        },
        etcd: EtcdConfig {
            endpoints: endpoints(names, seen.cluster.spec.catalog.replicas),
            identity: identity_in(&PathBuf::new()),
        },
        namespace: names.namespace.clone(),
    })
}

fn node_config(names: &Names, seen: &Observed, node: &StorageNode) -> Option<NodeConfig> {
    let address = seen.node_addresses.get(&names.agent_service(&node.spec.node))?;
    Some(NodeConfig {
        name: node.spec.node.parse().ok()?,
        address: SocketAddr::new(address.parse().ok()?, AGENT_PORT),
        // Gateways see no folder of their node, so no socket either.
        socket: None,
        devices: node::devices(node),
        share: node::share(node, &seen.domains),
    })
}

/// What the site runs with already: a name that does not resolve now, as with all of the other site gone, changes nothing.
fn known_peer(names: &Names, seen: &Observed) -> Option<PeerConfig> {
    let text = text(seen.secrets.get(&names.child("site"))?, "site.json").ok()?;
    serde_json::from_str::<PodConfig>(&text).ok()?.site.peer
}

fn peer_config(
    names: &Names,
    seen: &Observed,
    declared: &Declared,
    peer: &DeclaredPeer,
    listen: SocketAddr,
) -> Result<PeerConfig, Waiting> {
    let known = known_peer(names, seen);
    let known = known.as_ref();
    let (witness, witness_address, witness_store) = match &peer.witness {
        &DeclaredWitness::Outside(address) => {
            let address = address
                .or_else(|| known?.witness_address)
                .ok_or(Waiting::Name("failover.witness.outsideNode.endpoint"))?;
            (WitnessKind::Outside, Some(address), None)
        }
        DeclaredWitness::Record => (WitnessKind::Record, None, None),
        DeclaredWitness::ObjectStore(store) => (WitnessKind::ObjectStore, None, Some(store.clone())),
    };
    let name = peer.name.as_ref();
    let of_name = |of: fn(&DeclaredName) -> &String| name.map(|name| of(name).clone()).unwrap_or_default();
    Ok(PeerConfig {
        site: peer.site.clone(),
        doors: doors(peer, known)?,
        listen,
        witness,
        witness_address,
        witness_store,
        cloudflare_api: name.and_then(|name| name.api.clone()),
        cloudflare_token: of_name(|name| &name.token),
        zone: of_name(|name| &name.zone),
        hostname: of_name(|name| &name.hostname),
        proxied: name.is_some_and(|name| name.proxied),
        public_addresses: declared.public_addresses.clone(),
        public_hosts: name.into_iter().flat_map(public_hosts).collect(),
        via: name.map(|name| via(names, seen, name)).unwrap_or_default(),
        notification_secret: name.and_then(|name| name.notification_secret.clone()),
        health_check: name.filter(|name| name.health_checks).map(|name| health_check(seen, name)),
        drills: drills(names, seen, name),
    })
}

fn public_hosts(name: &DeclaredName) -> impl Iterator<Item = String> {
    std::iter::once(&name.hostname).chain(&name.s3_hostname).cloned()
}

/// REST by the public name; None where none was declared.
fn public_url(seen: &Observed, name: Option<&DeclaredName>) -> Option<String> {
    let failover = seen.cluster.spec.failover.as_ref();
    let declared = failover.and_then(|failover| failover.drills.public_url.clone());
    declared.or_else(|| name.map(|name| format!("https://{}", name.hostname)))
}

fn via(names: &Names, seen: &Observed, name: &DeclaredName) -> Via {
    match name.via {
        declared::Via::Record => Via::Record,
        declared::Via::LoadBalancer => Via::LoadBalancer { monitor: health_check(seen, name) },
        declared::Via::Tunnel => {
            let scheme = if seen.cluster.spec.gateway.tls_secret_ref.is_some() { "https" } else { "http" };
            let host = names.host(&names.child("gateway"));
            let service = |hostname: &String, port: u16| TunnelService {
                hostname: hostname.clone(),
                service: format!("{scheme}://{host}:{port}"),
            };
            let s3 = name.s3_hostname.iter().map(|hostname| service(hostname, S3_PORT));
            let routes = std::iter::once(service(&name.hostname, REST_PORT)).chain(s3).collect();
            Via::Tunnel { routes, token_file: PathBuf::new() }
        }
    }
}

/// Cloudflare connects to an origin by the port that the client used.
fn health_check(seen: &Observed, name: &DeclaredName) -> HealthProbe {
    probe(&public_url(seen, Some(name)).unwrap_or_default())
}

fn probe(url: &str) -> HealthProbe {
    let (https, rest) = match url.strip_prefix("http://") {
        Some(rest) => (false, rest),
        None => (true, url.trim_start_matches("https://")),
    };
    let port = rest.trim_end_matches('/').rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    HealthProbe { https, port: port.unwrap_or(if https { 443 } else { 80 }) }
}

/// Where drills write and read as a client does; None without a public name.
fn drills(names: &Names, seen: &Observed, name: Option<&DeclaredName>) -> Option<DrillEndpoints> {
    let spec = &seen.cluster.spec;
    let url = public_url(seen, name)?;
    let public = RestEndpoint { url, connect_to: None, authority: None };
    let service = format!("{}:{REST_PORT}", names.host(&names.child("gateway")));
    let own = match &spec.gateway.tls_secret_ref {
        None => RestEndpoint { url: format!("http://{service}"), connect_to: None, authority: None },
        Some(tls) => {
            let secret = seen.secrets.get(&tls.name);
            let authority =
                secret.and_then(|secret| text(secret, "ca.crt").or_else(|_| text(secret, "tls.crt")).ok());
            let host = name.map_or_else(|| names.host(&names.child("gateway")), |name| name.hostname.clone());
            RestEndpoint { url: format!("https://{host}:{REST_PORT}"), connect_to: Some(service), authority }
        }
    };
    Some(DrillEndpoints { public, own })
}

/// Every address that its names have now. A name that resolves no more takes no address away: the machine behind it may be
/// down, and a new configuration has the site's loops begin anew.
fn doors(peer: &DeclaredPeer, known: Option<&PeerConfig>) -> Result<Vec<SocketAddr>, Waiting> {
    let known = known.map(|known| known.doors.as_slice()).unwrap_or_default();
    let doors = if peer.doors.iter().all(|door| known.contains(door)) { known } else { &peer.doors };
    if doors.is_empty() { Err(Waiting::Name("peer.endpoints")) } else { Ok(doors.to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_probed_where_rest_is_served() {
        let of = |url: &str| {
            let HealthProbe { https, port } = probe(url);
            (https, port)
        };
        assert_eq!(of("https://files.example.com"), (true, 443));
        assert_eq!(of("https://files.example.com:8443/"), (true, 8443));
        assert_eq!(of("http://files.example.com"), (false, 80));
    }
}
