//! StorageCluster: one site of an installation, and what both must survive.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::NameRef;
use crate::storage_cluster_status::StorageClusterStatus;

/// What a site is, what it must survive, and how it fails over. The same in both Kubernetes clusters but for `site`,
/// `peer` and what is local (`nodeAgents`, `gateway`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "diptych.dev",
    version = "v1alpha1",
    kind = "StorageCluster",
    shortname = "stc",
    category = "diptych",
    namespaced,
    status = "StorageClusterStatus",
    derive = "PartialEq",
    doc = "A site of Diptych: keeps files safe across two datacenters of which one is active.",
    selectable = ".spec.site",
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.site"),
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = ".status.active",
        description = "The site that takes writes"
    ),
    printcolumn(name = "Role", type_ = "string", json_path = ".status.role"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(
        name = "Coding",
        type_ = "string",
        json_path = ".status.coding.summary",
        description = "Rows needed of rows kept, by site"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.nodes.summary",
        description = "Nodes that answer, of those declared"
    ),
    printcolumn(
        name = "Protected",
        type_ = "string",
        json_path = ".status.replication.protected",
        description = "Extents whole in both sites, of all"
    ),
    printcolumn(
        name = "Exposed",
        type_ = "string",
        json_path = ".status.replication.exposed",
        description = "What would be lost with the active site"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(self.peer) || self.peer.site != self.site",
        "peer.site must be the other site, not this one"),
    validation = ("self.survive.sites == 0 || has(self.peer)",
        "survive.sites: 1 needs a second site: declare peer, or survive.sites: 0"),
    validation = ("self.acknowledge != 'BothSites' || has(self.peer)",
        "acknowledge: BothSites needs a second site: declare peer"),
    validation = ("!has(self.peer) || (has(self.failover) && has(self.failover.witness))",
        "two sites need a third vote: declare failover.witness"),
    validation = ("!has(self.failover) || !has(self.failover.preferred) || self.failover.preferred == self.site || (has(self.peer) && self.failover.preferred == self.peer.site)",
        "failover.preferred must be one of the two sites"),
    validation = ("!has(self.peer) || !has(self.failover) || !has(self.failover.preferred) || self.failover.preferred == self.site || has(self.peer.joinSecretRef)",
        "the site that is not preferred joins the other: declare peer.joinSecretRef"),
    validation = ("!has(self.failover) || !has(self.failover.dns) || self.failover.dns.cloudflare.via == 'Tunnel' || (has(self.gateway.publicAddresses) && self.gateway.publicAddresses.size() > 0)",
        "failover.dns points a name to gateway.publicAddresses: declare at least one"),
    validation = ("!has(self.failover) || !has(self.failover.witness) || !has(self.failover.witness.cloudflareRecord) || has(self.failover.dns)",
        "a witness that is a Cloudflare record needs failover.dns.cloudflare: its zone and token"),
    validation = ("has(self.peer) || !has(oldSelf.peer)",
        "a peer can't be taken away: the bytes of the other site would no longer be counted"),
    validation = ("!has(self.peer) || !has(oldSelf.peer) || self.peer.site == oldSelf.peer.site",
        "peer.site can't change: keys and rows carry it")
)]
pub struct StorageClusterSpec {
    /// This site's name. Rows and keys carry it, so it can't change.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(
        validation = ("self == oldSelf", "site can't change: keys and rows carry it"),
        validation = ("self != 'outside'", "outside is the name of the nodes in neither site")
    )]
    pub site: String,

    /// The other site. Without it this one works alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,

    /// What must be survived at the same instant. The coding follows from it, or a condition says why none can.
    #[serde(default)]
    pub survive: Survive,

    /// Namespaces whose FileObjects and AccessKeys may refer to it, each to the buckets of its own. Others need an operator that was
    /// installed with `watchAllNamespaces`.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,

    /// When a write is answered.
    #[serde(default)]
    pub acknowledge: Acknowledge,

    /// With `BothSites`: how long a write waits for the other site before it is answered 503, outcome unknown.
    #[serde(default = "ten_seconds")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub acknowledge_timeout: String,

    /// Rows in neither site.
    #[serde(default)]
    pub outside: Outside,

    /// The nodes that keep rows, and their devices.
    pub node_agents: NodeAgents,

    /// What clients talk to.
    #[serde(default)]
    pub gateway: Gateway,

    /// Where it is written what is where.
    #[serde(default)]
    pub catalog: Catalog,

    /// The key that everything hangs on.
    pub encryption: Encryption,

    /// Who signs the certificates of the operators and the gateways; without it the cluster's own authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,

    /// Who is told what turns, besides Events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Notifications>,

    /// How the right to write moves between the sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,

    /// Rebuilding of lost rows.
    #[serde(default)]
    pub repair: Repair,

    /// Reading all that lies on the devices, to find rot before it is needed.
    #[serde(default)]
    pub scrub: Scrub,

    /// Freeing of rows that nothing names any more.
    #[serde(default)]
    pub gc: Gc,

    /// What happens to the bytes when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

fn ten_seconds() -> String {
    "10s".to_owned()
}

/// The other site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub site: String,

    /// Where its peer door is reached, `host:port`.
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 3, max = 262), regex(pattern = r"^[^:/\s]+:[0-9]{1,5}$"))
    )]
    pub endpoints: Vec<String>,

    /// A copy of Secret `<StorageCluster>-join` of the other site: a token that lets this one join, once. For the site that is not preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_secret_ref: Option<NameRef>,

    /// Devices of each of its nodes, for the plan: `[2, 2, 2, 2]`. By default as many nodes and devices as here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(range(min = 1, max = 64)))]
    pub devices_by_node: Vec<i32>,
}

/// At the same instant: `sites` whole sites and, in the other, any `nodes` nodes or any `devices` devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Survive {
    /// Whole sites: 1 with a peer, 0 without.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1))]
    pub sites: i32,

    /// Nodes of the site that is left.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 16))]
    pub nodes: i32,

    /// Devices of the site that is left.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub devices: i32,
}

impl Default for Survive {
    fn default() -> Self {
        Self { sites: 1, nodes: 1, devices: 1 }
    }
}

const fn one() -> i32 {
    1
}

/// Which namespaces may refer to a StorageCluster, in the way of Gateway API's `allowedRoutes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("(self.from == 'Selector') == has(self.selector)", "from: Selector needs selector, and nothing else takes one"))]
pub struct AllowedNamespaces {
    /// Same: its own. All. Selector: its own, and those whose labels `selector` matches.
    #[serde(default)]
    pub from: FromNamespaces,
    /// Labels of namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Where from a StorageCluster may be referred to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FromNamespaces {
    /// Its own namespace.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// Namespaces by their labels.
    Selector,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Acknowledge {
    /// Durable in the active site; the other follows, and what it lacks is on show.
    #[default]
    OneSite,
    /// Whole in both sites.
    BothSites,
}

/// Rows in neither site: margin only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// Rows of each extent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 16))]
    pub rows: i32,
}

/// The nodes that keep rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAgents {
    /// Labels of the nodes that get an agent. Empty: every node that the tolerations let in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 16))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that agents stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,

    /// Label of Kubernetes nodes whose value is a node's failure domain, where its StorageNode names none.
    #[serde(default = "zone_label")]
    #[schemars(
        length(min = 1, max = 317),
        regex(pattern = r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$")
    )]
    pub domain_label: String,

    /// Folders of each node, one a disk. They are the only paths of the node that an agent sees.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".to_owned()]))]
    pub devices: Vec<Device>,

    /// An init container makes the folders' owner the agents' user (it is root, with CAP_CHOWN alone). False where they
    /// belong to user 65532 already.
    #[serde(default = "yes")]
    pub prepare_devices: bool,
}

fn zone_label() -> String {
    "topology.kubernetes.io/zone".to_owned()
}

const fn yes() -> bool {
    true
}

/// A folder that is a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Absolute path on the node.
    #[schemars(length(min = 2, max = 255), regex(pattern = r"^/[^\s]+$"))]
    #[x_kube(validation = ("!self.contains('..')", "a device's path may not contain '..'"))]
    pub path: String,
}

/// What clients talk to: S3, REST, and the peer door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Pods, spread over nodes.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 64))]
    pub replicas: i32,

    /// Addresses under which this site is reached from outside: what the public name points to while it is active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 2, max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$")))]
    pub public_addresses: Vec<String>,

    /// How the gateways are reached.
    #[serde(default)]
    pub service: GatewayService,

    /// Secret of type kubernetes.io/tls for the public listeners; plain HTTP without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_ref: Option<NameRef>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            replicas: 2,
            public_addresses: Vec::new(),
            service: GatewayService::default(),
            tls_secret_ref: None,
        }
    }
}

const fn two() -> i32 {
    2
}

/// The Service of the gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.type == 'NodePort' || !has(self.nodePorts)", "nodePorts are for type NodePort"))]
pub struct GatewayService {
    /// Its type.
    #[serde(default, rename = "type")]
    pub kind: ServiceKind,

    /// Fixed ports of type NodePort; others are taken from the range of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_ports: Option<NodePorts>,
}

/// Type of a Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceKind {
    /// Inside the cluster only.
    #[default]
    ClusterIP,
    /// A port of every node.
    NodePort,
    /// An address of the cloud's load balancer.
    LoadBalancer,
}

impl ServiceKind {
    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Ports of every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePorts {
    /// S3.
    #[schemars(range(min = 1, max = 65535))]
    pub s3: i32,
    /// REST.
    #[schemars(range(min = 1, max = 65535))]
    pub rest: i32,
    /// The peer door.
    #[schemars(range(min = 1, max = 65535))]
    pub peer: i32,
}

/// Where it is written what is where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Catalog {
    /// Its engine.
    #[serde(default)]
    #[x_kube(validation = ("self == oldSelf", "the engine can't change"))]
    pub engine: CatalogEngine,

    /// Members.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 5))]
    #[x_kube(
        validation = ("self % 2 == 1", "an odd number of members: 1, 3 or 5"),
        validation = ("self == oldSelf", "members can't be added or taken away yet")
    )]
    pub replicas: i32,

    /// Files that came in through the gateways and are shown as FileObjects. Past it only declared and unhealthy ones are:
    /// ten thousand cost a control plane about 1 GiB of memory.
    #[serde(default = "ten_thousand")]
    #[schemars(range(min = 0, max = 100_000))]
    pub projection_limit: i32,

    /// How files are shown.
    #[serde(default)]
    pub api: FilesApi,

    /// Disk of each member.
    #[serde(default)]
    pub storage: CatalogStorage,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            engine: CatalogEngine::Etcd,
            replicas: 3,
            projection_limit: 10_000,
            api: FilesApi::CustomResources,
            storage: CatalogStorage::default(),
        }
    }
}

const fn three() -> i32 {
    3
}

const fn ten_thousand() -> i32 {
    10_000
}

/// Engine of a catalog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CatalogEngine {
    /// An etcd of its own, apart from the control plane's.
    #[default]
    Etcd,
}

/// How files are shown in the Kubernetes API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilesApi {
    /// As custom resources, up to `projectionLimit`.
    #[default]
    CustomResources,
}

/// Disk of a member of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self == oldSelf", "the catalog's disks can't change"))]
pub struct CatalogStorage {
    /// Its class; the cluster's default one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,

    /// Its size.
    #[serde(default = "four_gibibytes")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Mi|Gi|Ti)$"))]
    pub size: String,
}

impl Default for CatalogStorage {
    fn default() -> Self {
        Self { class_name: None, size: four_gibibytes() }
    }
}

fn four_gibibytes() -> String {
    "4Gi".to_owned()
}

/// The key that everything hangs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// Secret with the cluster key under `key`: 32 random bytes, base64 (`openssl rand -base64 32`). The same in both
    /// sites. Without it nothing can ever be read again: keep it somewhere else too. To exchange it, put the new one there
    /// and the one before under `previous-key`, in both sites, until condition KeyRotation says `PreviousMayGo`.
    #[x_kube(validation = ("self == oldSelf", "the Secret stays, the cluster key in it is exchanged (the new one as key, the one before as previous-key)"))]
    pub key_secret_ref: NameRef,
}

/// How the right to write moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// Whether the passive site takes over by itself.
    #[serde(default)]
    pub mode: FailoverMode,

    /// Active in the first term, and maker of the cluster; this site if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub preferred: Option<String>,

    /// Whether the preferred site takes over again when it is back and has caught up.
    #[serde(default)]
    pub failback: Failback,

    /// With `failback: Automatic`: how long it must have been well.
    #[serde(default = "ten_minutes")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = ("duration(self) >= duration('1s')", "at least 1s: a site that has just returned may go again"))]
    pub stability_window: String,

    /// How long Cloudflare must not reach the active site before it hands over to the other.
    #[serde(default = "a_minute")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub edge_grace: String,

    /// The right to write, for a bounded time.
    #[serde(default)]
    pub lease: Lease,

    /// What a promotion may lose by itself.
    #[serde(default)]
    pub max_loss_on_promotion: MaxLoss,

    /// The third vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,

    /// The public name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,

    /// What drills need, and what they are needed for.
    #[serde(default)]
    pub drills: Drills,
}

/// Who is told what turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notifications {
    /// Gets a POST of JSON for each change of role, peer, witness, public name and drill.
    pub webhook: Webhook,
}

/// An address that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its URL; the body has `text`, as Slack and its likes take it.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://.+$"))]
    pub url: String,
    /// Secret with `secret`: each body is signed with it by HMAC-SHA256, in header `x-diptych-signature`.
    pub secret_ref: NameRef,
}

/// What drills need, and what they are needed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drills {
    /// FailoverReady asks for a drill that has passed within it; Readiness alone proves too little.
    #[serde(default = "thirty_days")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub passed_within: String,
    /// REST by the public name, where the prober writes; `https://` and `dns.cloudflare.hostname` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^https?://[^/]+/?$"))]
    pub public_url: Option<String>,
}

impl Default for Drills {
    fn default() -> Self {
        Self { passed_within: thirty_days(), public_url: None }
    }
}

fn thirty_days() -> String {
    "720h".to_owned()
}

/// By itself or by a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverMode {
    /// By itself.
    #[default]
    Automatic,
    /// By a person.
    Manual,
}

/// By a person or by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Failback {
    /// By a person.
    #[default]
    Manual,
    /// By itself, after catching up and `stabilityWindow`.
    Automatic,
}

fn ten_minutes() -> String {
    "10m".to_owned()
}

fn a_minute() -> String {
    "60s".to_owned()
}

/// The right to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// How long a vote holds, 1s to 1m: the shorter, the sooner a takeover, and the more a pause of the network disturbs. A site renews each sixth
    /// of it, and each renewal reads the catalog: below 1s an ordinary pause of etcd's disk is a failover. The keeper of a node that died is
    /// replaced within 2s, so below 2s a node's death may pass the lease to the other site.
    #[serde(default = "three_seconds")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('1m')",
        "a lease of 1s to 1m"))]
    pub duration: String,
}

impl Default for Lease {
    fn default() -> Self {
        Self { duration: three_seconds() }
    }
}

fn three_seconds() -> String {
    "3s".to_owned()
}

/// What a promotion may lose by itself; with more it waits for a person, and lists the objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxLoss {
    /// Age of the oldest commit that the other site has not confirmed.
    #[serde(default = "ten_seconds")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub age: String,
}

impl Default for MaxLoss {
    fn default() -> Self {
        Self { age: ten_seconds() }
    }
}

/// Certificates of the operators and the gateways. Those of the catalog, of node-agents, of nodes in neither site and of the witness
/// stay with the cluster's own authority, which vouches for the issuer's: nobody has to trust another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    /// Issuer of cert-manager. It must keep URI and DNS names of requests. The chart's value `certManager.enabled` lets the operator ask.
    pub issuer_ref: IssuerRef,
}

/// An issuer of cert-manager, in the namespace of the StorageCluster or for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,

    /// `Issuer`, `ClusterIssuer`, or a kind of an issuer from elsewhere.
    #[serde(default = "issuer")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z][A-Za-z0-9]*$"))]
    pub kind: String,

    /// Its API group.
    #[serde(default = "cert_manager")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub group: String,
}

fn issuer() -> String {
    "Issuer".to_owned()
}

fn cert_manager() -> String {
    "cert-manager.io".to_owned()
}

impl std::fmt::Display for IssuerRef {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{} {}", self.kind, self.group, self.name)
    }
}

/// The third vote: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.outsideNode), has(self.objectStore), has(self.cloudflareRecord)].exists_one(x, x)",
    "exactly one of outsideNode, objectStore, cloudflareRecord"))]
pub struct Witness {
    /// A node in neither site (`diptych witness`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_node: Option<OutsideNode>,

    /// A bucket of a store with conditional writes (R2, S3, MinIO); whether it has them is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStoreWitness>,

    /// A record in the zone of `dns.cloudflare`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudflare_record: Option<CloudflareRecordWitness>,
}

/// A witness in neither site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutsideNode {
    /// `host:port`.
    #[schemars(length(min = 3, max = 262), regex(pattern = r"^[^:/\s]+:[0-9]{1,5}$"))]
    pub endpoint: String,
}

/// A witness in a bucket: one object, changed by If-Match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStoreWitness {
    /// URL of the store, without the bucket.
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://"))]
    pub endpoint: String,
    /// The bucket; it is there already, and the same for both sites.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// Key of the record: one a cluster, the same for both sites.
    #[serde(default = "lease_key")]
    #[schemars(length(min = 1, max = 512))]
    pub key: String,
    /// Region in signatures; R2 and MinIO take this one.
    #[serde(default = "us_east_1")]
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// Secret with `accessKeyId` and `secretAccessKey`, and `ca.crt` where the store's certificate is not one that machines trust.
    pub secret_ref: NameRef,
}

fn lease_key() -> String {
    "diptych/lease".to_owned()
}

fn us_east_1() -> String {
    "us-east-1".to_owned()
}

/// A witness in a record of the zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudflareRecordWitness {
    /// Name of the record, in the zone.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Where the public name is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Cloudflare.
    pub cloudflare: Cloudflare,
}

/// The public name at Cloudflare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.hostname == self.zone || self.hostname.endsWith('.' + self.zone)", "hostname must be in zone"))]
#[x_kube(validation = ("!has(self.tunnel) || self.via == 'Tunnel'", "tunnel is for via: Tunnel"))]
#[x_kube(validation = ("!has(self.tunnel) || !has(self.tunnel.s3Hostname) || self.tunnel.s3Hostname.endsWith('.' + self.zone)",
    "tunnel.s3Hostname must be in zone"))]
pub struct Cloudflare {
    /// The zone.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9.-]+$"))]
    pub zone: String,

    /// The name in it that follows the active site.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9.-]+$"))]
    pub hostname: String,

    /// What is flipped.
    #[serde(default)]
    pub via: Via,

    /// With `via: Tunnel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,

    /// Whether Cloudflare fronts the traffic; through a tunnel it always does.
    #[serde(default)]
    pub proxied: bool,

    /// Whether Cloudflare looks at each site; its verdict is shown, and is a hint.
    #[serde(default)]
    pub health_checks: bool,

    /// Secret with an API token (`token`) that may edit the zone's DNS, or its load balancers and the account's pools.
    pub token_secret_ref: NameRef,

    /// Secret (`secret`) that Cloudflare's notifications must show at `/hooks/cloudflare`; none are heard if left out. One has the
    /// verdicts looked at, and no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_secret_ref: Option<NameRef>,

    /// Base URL of the API; Cloudflare's own if left out.
    #[serde(default, rename = "apiBaseURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://"))]
    pub api_base_url: Option<String>,
}

/// What is flipped at Cloudflare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Via {
    /// The address records of the name.
    #[default]
    Record,
    /// The order of the pools of a load balancer, one a site, each probed at `/lease`.
    LoadBalancer,
    /// The alias of the name, which leads to a tunnel, one a site; cloudflared runs with the token in Secret `<name>-tunnel`.
    Tunnel,
}

/// What a tunnel answers for besides the public name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// The name in the zone that serves S3: a tunnel tells services apart by names, not by ports. S3 has none if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9.-]+$"))]
    pub s3_hostname: Option<String>,
}

/// Rebuilding of lost rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// Bytes a second inside the site.
    #[serde(default = "lan")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi)?$"))]
    pub lan: String,

    /// Bytes a second between the sites.
    #[serde(default = "wan")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi)?$"))]
    pub wan: String,

    /// A node that was silent for so long has lost its rows: they are rebuilt elsewhere.
    #[serde(default = "a_minute")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = ("duration(self) >= duration('2s')", "at least 2s: a restart is no death"))]
    pub node_dead_after: String,
}

impl Default for Repair {
    fn default() -> Self {
        Self { lan: lan(), wan: wan(), node_dead_after: a_minute() }
    }
}

fn lan() -> String {
    "200Mi".to_owned()
}

fn wan() -> String {
    "50Mi".to_owned()
}

/// Reading all that lies on the devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scrub {
    /// From one round's end to the next one's.
    #[serde(default = "a_week")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub every: String,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { every: a_week() }
    }
}

fn a_week() -> String {
    "168h".to_owned()
}

/// Freeing of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gc {
    /// How long rows are held for a peer that is away and may still want them.
    #[serde(default = "a_day")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub hold: String,
}

impl Default for Gc {
    fn default() -> Self {
        Self { hold: a_day() }
    }
}

fn a_day() -> String {
    "24h".to_owned()
}

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay: on the devices, and the catalog on its disks.
    #[default]
    Retain,
}
