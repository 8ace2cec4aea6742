//! AccessKey: who may speak S3.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::NamespacedClusterRef;

/// A pair of S3 credentials for the buckets of its namespace. The operator makes them, writes them into a Secret and, sealed, into the
/// catalog of both sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "diptych.dev",
    version = "v1alpha1",
    kind = "AccessKey",
    shortname = "ak",
    category = "diptych",
    namespaced,
    status = "AccessKeyStatus",
    derive = "PartialEq",
    doc = "Credentials for S3.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Key", type_ = "string", json_path = ".status.accessKeyId"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "ReadOnly", type_ = "boolean", json_path = ".spec.readOnly"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeySpec {
    /// The site whose catalog takes it.
    #[x_kube(validation = ("self == oldSelf", "an access key can't move to another cluster"))]
    pub cluster_ref: NamespacedClusterRef,

    /// Secret that gets `accessKeyId` and `secretAccessKey`; the AccessKey's own name if left out. One that is there
    /// with both is used as it is: so the other site's Secret, copied, makes the same credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: Option<String>,

    /// Only reads are allowed.
    #[serde(default)]
    pub read_only: bool,
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeyStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The public half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The Secret with both halves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}
