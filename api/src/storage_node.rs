//! StorageNode: a node that keeps rows. Nodes of a site register themselves, a person only drains or removes one; nodes in
//! neither site a person declares.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::ClusterRef;

/// A node that keeps rows, and the numbers of its devices. Made by the operator when its agent first appears, or by a person
/// for a node in neither site; declared until a person deletes it, so that a dead node never changes the coding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "diptych.dev",
    version = "v1alpha1",
    kind = "StorageNode",
    shortname = "stn",
    category = "diptych",
    namespaced,
    status = "StorageNodeStatus",
    derive = "PartialEq",
    doc = "A node that keeps rows of files on its devices.",
    selectable = ".spec.clusterRef.name",
    selectable = ".spec.node",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(
        name = "Devices",
        type_ = "string",
        json_path = ".status.devicesReady",
        description = "Devices that work, of all"
    ),
    printcolumn(
        name = "Domain",
        type_ = "string",
        json_path = ".status.domain",
        description = "Nodes of one domain fall together"
    ),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.used"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.rows"),
    printcolumn(name = "Rotten", type_ = "integer", json_path = ".status.rotten", priority = 1),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address", priority = 1),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("oldSelf.devices.all(old, self.devices.exists(new, new.id == old.id && new.path == old.path))",
    "a device keeps its number for ever: rows on it are found by that"),
    validation = ("has(self.outside) == has(oldSelf.outside)",
    "a node can't move into a site or out of it: make another StorageNode"))]
pub struct StorageNodeSpec {
    /// The site that it belongs to.
    #[x_kube(validation = ("self == oldSelf", "a node can't change its site"))]
    pub cluster_ref: ClusterRef,

    /// Name of the Kubernetes node; of a node in neither site its own, unique among those.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = ("self == oldSelf", "a StorageNode can't move to another node"))]
    pub node: String,

    /// Its devices, by numbers that the operator gave them or, for a node in neither site, a person.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_owned()]))]
    pub devices: Vec<NumberedDevice>,

    /// The failure domain that it falls with, as a rack or a zone. A node of a site that names none has the value that its Kubernetes node
    /// has for the label `spec.nodeAgents.domainLabel` of the StorageCluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub domain: Option<String>,

    /// Its share of the rows that are not level over nodes, beside the weights of the others. By default the sum of its devices'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub weight: Option<i64>,

    /// Whether it shall be emptied: it takes no more rows, and those that it has move to other nodes, as far as these can do without it.
    /// Condition Drained says how far it is. A dead node needs no drain: its rows are made anew.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,

    /// The node is in neither site: it holds rows of margin, and joins by the token in Secret `<StorageCluster>-outside-<node>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<OutsideAgent>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Where the agent of a node in neither site is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutsideAgent {
    /// Where both sites reach it, `host:port`.
    #[schemars(length(min = 3, max = 262), regex(pattern = r"^[^:/\s]+:[0-9]{1,5}$"))]
    pub address: String,
}

/// A device and its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NumberedDevice {
    /// Its number, unique in the site, or outside, and never used again.
    #[schemars(range(min = 1))]
    pub id: i64,
    /// Its folder on the node; of a node in neither site also `s3://BUCKET/PREFIX`, a bucket that its agent reaches.
    #[schemars(length(min = 2, max = 255))]
    pub path: String,
    /// Its share of new rows beside the other devices'. By default its size in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub weight: Option<i64>,
    /// Whether it shall be emptied, and the rest of the node not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
}

/// How a node is, as the site's keeper sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageNodeStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `waiting` (its agent was not seen yet), `live`, `silent`, `draining`, `drained` (no row is left there), `dead`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The failure domain by which rows are placed now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where its agent is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `2/2`: devices that work, of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices_ready: Option<String>,
    /// `1.2Gi/50Gi`: held, of what there is room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    /// Rows on all its devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Rows that were found rotten and wait for repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotten: Option<i64>,
    /// Its devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_owned()]))]
    pub devices: Vec<DeviceStatus>,
    /// Ready; Drained where it, or a device of it, shall be emptied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Its number.
    pub id: i64,
    /// Its folder.
    pub path: String,
    /// `ok`, `slow` (it takes many times what the others take), `full`, `draining`, `drained`, `missing`, `unformatted`, or why it failed.
    pub state: String,
    /// Bytes that it can hold.
    pub capacity: i64,
    /// Bytes that it holds.
    pub used: i64,
    /// Rows on it.
    pub rows: i64,
    /// Rows that were found rotten.
    pub rotten: i64,
    /// When all of it was last read and found right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrubbed_at: Option<Time>,
}
