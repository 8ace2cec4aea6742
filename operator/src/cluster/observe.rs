//! All that is read before anything is decided.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use diptych_api::{StorageCluster, StorageNode};
use diptych_core::keys;
use diptych_core::records::{CodingPlan, Record, Term};
use diptych_site::status::SiteStatus;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::error::{Asked, OperatorError};
use crate::issuer::{self, Requests, Unavailable};
use crate::join::{self, site::Joined};
use crate::names::Names;
use crate::node::{DomainLabels, domain_labels};
use crate::options::OperatorOptions;
use crate::secrets::{IDENTITIES, identity_of};

/// A node-agent's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPod {
    /// Its node.
    pub node: String,
    /// Its address, once it has one.
    pub address: Option<String>,
    /// Whether it answers probes.
    pub ready: bool,
}

/// Pods that are ready, of those wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// Ready ones.
    pub ready: i32,
    /// Wanted ones.
    pub wanted: i32,
}

/// What the catalog says.
#[derive(Debug, Clone)]
pub struct SiteSeen {
    /// As the keeper wrote it; None: not yet.
    pub status: Option<SiteStatus>,
    /// The coding in force.
    pub coding: Option<CodingPlan>,
    /// Who holds the newest term that this site knows.
    pub active: Option<String>,
}

/// The world as it was.
pub struct Observed {
    /// The resource.
    pub cluster: Arc<StorageCluster>,
    /// Now.
    pub now: Timestamp,
    /// Secrets of the namespace that are ours or named by the spec, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Its StorageNodes.
    pub nodes: Vec<StorageNode>,
    /// Those in neither site.
    pub outside: Vec<StorageNode>,
    /// What labels of Kubernetes nodes say of failure domains.
    pub domains: DomainLabels,
    /// Pods of its node-agents.
    pub agents: Vec<AgentPod>,
    /// Nodes that the DaemonSet wants an agent on; None: there is no DaemonSet, or its status is of an older one.
    pub scheduled: Option<i32>,
    /// Addresses of the Services of single nodes, by the Service's name.
    pub node_addresses: BTreeMap<String, String>,
    /// Members of the catalog.
    pub catalog: Option<Ready>,
    /// Gateways.
    pub gateways: Option<Ready>,
    /// Addresses of `peer.endpoints` and of the witness, as names resolve now.
    pub resolved: BTreeMap<String, SocketAddr>,
    /// What the other site answered to this one's wish to join, or why it did not; None: nothing is to be joined.
    pub joined: Option<Result<Joined, String>>,
    /// What is asked of cert-manager; None: no issuer is declared.
    pub requests: Option<Result<Requests, Unavailable>>,
    /// What the catalog says; None: it is not open here.
    pub site: Option<SiteSeen>,
}

/// Reads all of it.
pub(super) async fn observe(
    options: &OperatorOptions,
    names: &Names,
    cluster: Arc<StorageCluster>,
) -> Result<Observed, OperatorError> {
    let namespace = &options.namespace;
    let labelled = |component: &str| {
        let labels: Vec<String> =
            names.selector(component).iter().map(|(key, value)| format!("{key}={value}")).collect();
        ListParams::default().labels(&labels.join(","))
    };
    let pods: Api<Pod> = Api::namespaced(options.client.clone(), namespace);
    let services: Api<Service> = Api::namespaced(options.client.clone(), namespace);
    let nodes: Api<StorageNode> = Api::namespaced(options.client.clone(), namespace);
    let sets: Api<DaemonSet> = Api::namespaced(options.client.clone(), namespace);
    let members: Api<StatefulSet> = Api::namespaced(options.client.clone(), namespace);
    let deployments: Api<Deployment> = Api::namespaced(options.client.clone(), namespace);
    let of_cluster = ListParams::default().fields(&format!("spec.clusterRef.name={}", names.cluster));
    let (agent, catalog, gateway) = (names.child("agent"), names.child("catalog"), names.child("gateway"));
    let (labelled_agents, labelled_services) = (labelled("agent"), labelled("agent-node"));
    let label = &cluster.spec.node_agents.domain_label;
    let (pods, services, nodes, set, catalog, gateways) = tokio::try_join!(
        pods.list(&labelled_agents),
        services.list(&labelled_services),
        nodes.list(&of_cluster),
        sets.get_opt(&agent),
        members.get_opt(&catalog),
        deployments.get_opt(&gateway),
    )
    .asked(|| format!("read what belongs to StorageCluster {}", names.cluster))?;
    let domains = domain_labels(&options.client, label).await?;
    let (outside, nodes): (Vec<StorageNode>, Vec<StorageNode>) =
        nodes.items.into_iter().partition(|node| node.spec.outside.is_some());
    let secrets = secrets(options, names, &cluster, &outside).await?;
    let resolved = resolved(&cluster).await;
    let joined = if secrets.contains_key(&names.child("authority")) {
        None
    } else {
        join::site::ask(&cluster, &secrets, &resolved).await.transpose()
    };
    let requests = match &cluster.spec.certificates {
        Some(_) => Some(issuer::requests(&options.client, names).await),
        None => None,
    };
    Ok(Observed {
        now: Timestamp::now(),
        requests,
        secrets,
        joined,
        nodes,
        outside,
        domains,
        agents: pods.items.iter().filter_map(agent_pod).collect(),
        scheduled: set.and_then(|set| scheduled(&set)),
        node_addresses: services.items.iter().filter_map(address).collect(),
        catalog: catalog.map(|set| Ready {
            ready: set.status.and_then(|status| status.ready_replicas).unwrap_or(0),
            wanted: set.spec.and_then(|spec| spec.replicas).unwrap_or(0),
        }),
        gateways: gateways.map(|deployment| Ready {
            ready: deployment.status.and_then(|status| status.ready_replicas).unwrap_or(0),
            wanted: deployment.spec.and_then(|spec| spec.replicas).unwrap_or(0),
        }),
        resolved,
        site: site(options, &cluster).await?,
        cluster,
    })
}

fn agent_pod(pod: &Pod) -> Option<AgentPod> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.as_ref();
    let ready = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    let node = pod.spec.as_ref()?.node_name.clone()?;
    Some(AgentPod { node, address: status.and_then(|status| status.pod_ip.clone()), ready })
}

fn scheduled(set: &DaemonSet) -> Option<i32> {
    let status = set.status.as_ref()?;
    (status.observed_generation == set.metadata.generation).then_some(status.desired_number_scheduled)
}

fn address(service: &Service) -> Option<(String, String)> {
    let address = service.spec.as_ref()?.cluster_ip.clone()?;
    Some((service.name_any(), address))
}

/// By name, each by itself: the namespace may hold many that are nobody's business here.
async fn secrets(
    options: &OperatorOptions,
    names: &Names,
    cluster: &StorageCluster,
    outside: &[StorageNode],
) -> Result<BTreeMap<String, Secret>, OperatorError> {
    let api: Api<Secret> = Api::namespaced(options.client.clone(), &options.namespace);
    let own = ["authority", "catalog-authority", "join", "internal", "site"].map(str::to_owned);
    let own = own.into_iter().chain(IDENTITIES.map(identity_of));
    let mut wanted: Vec<String> = own.map(|part| names.child(&part)).collect();
    wanted.extend(outside.iter().map(|node| names.outside_token(&node.spec.node)));
    let spec = &cluster.spec;
    wanted.push(spec.encryption.key_secret_ref.name.clone());
    wanted.extend(
        spec.peer.iter().filter_map(|peer| peer.join_secret_ref.as_ref()).map(|secret| secret.name.clone()),
    );
    wanted.extend(spec.notifications.iter().map(|to| to.webhook.secret_ref.name.clone()));
    wanted.extend(spec.gateway.tls_secret_ref.iter().map(|tls| tls.name.clone()));
    let witness =
        spec.failover.iter().filter_map(|failover| failover.witness.as_ref()?.object_store.as_ref());
    wanted.extend(witness.map(|store| store.secret_ref.name.clone()));
    let dns = spec.failover.iter().filter_map(|failover| failover.dns.as_ref());
    for dns in dns {
        wanted.push(dns.cloudflare.token_secret_ref.name.clone());
        wanted.extend(dns.cloudflare.notification_secret_ref.iter().map(|secret| secret.name.clone()));
    }
    let reads = wanted.iter().map(|name| async { (name.clone(), api.get_opt(name).await) });
    let mut found = BTreeMap::new();
    for (name, read) in futures::future::join_all(reads).await {
        if let Some(secret) = read.asked(|| format!("read Secret {name}"))? {
            found.insert(name, secret);
        }
    }
    Ok(found)
}

async fn resolved(cluster: &StorageCluster) -> BTreeMap<String, SocketAddr> {
    let spec = &cluster.spec;
    let endpoints = spec.peer.iter().flat_map(|peer| peer.endpoints.iter());
    let witness =
        spec.failover.iter().filter_map(|failover| failover.witness.as_ref()?.outside_node.as_ref());
    let wanted: Vec<&String> = endpoints.chain(witness.map(|node| &node.endpoint)).collect();
    let mut found = BTreeMap::new();
    for name in wanted {
        if let Ok(mut addresses) = tokio::net::lookup_host(name.as_str()).await
            && let Some(address) = addresses.next()
        {
            found.insert(name.clone(), address);
        }
    }
    found
}

/// What the catalog says of this site; None: it is not open here.
pub(super) async fn site(
    options: &OperatorOptions,
    cluster: &StorageCluster,
) -> Result<Option<SiteSeen>, OperatorError> {
    let catalog = options.site.catalog.borrow().clone();
    let (Some(catalog), Ok(site)) = (catalog, cluster.spec.site.parse()) else { return Ok(None) };
    let view = catalog.view().await?;
    let status = view.get(&keys::site_status(&site))?;
    let coding = view.last(&keys::plans())?.map(|(_, raw)| CodingPlan::decode(&raw)).transpose()?;
    let status: Option<SiteStatus> = status.and_then(|raw| serde_json::from_slice(&raw).ok());
    let term = match &status {
        Some(status) => view.get(&keys::term(status.epoch))?.map(|raw| Term::decode(&raw)).transpose()?,
        None => None,
    };
    let active = term.map(|term| term.holder.to_string());
    Ok(Some(SiteSeen { status, coding, active }))
}
