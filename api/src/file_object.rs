//! FileObject: a file, declared with `kubectl apply`, or shown as it came in through a gateway.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::NamespacedClusterRef;

/// A file. With `content`, applying it stores the file and deleting it deletes the file. Without, it shows one that is
/// there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "files.diptych.dev",
    version = "v1alpha1",
    kind = "FileObject",
    shortname = "fo",
    category = "diptych",
    namespaced,
    status = "FileObjectStatus",
    derive = "PartialEq",
    doc = "A file that is kept by Diptych.",
    selectable = ".spec.bucket",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.bucket", priority = 1),
    printcolumn(name = "Key", type_ = "string", json_path = ".spec.key"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.size"),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "protected: whole in both sites"
    ),
    printcolumn(
        name = "Rows",
        type_ = "string",
        json_path = ".status.rowsSummary",
        description = "Rows that can be read, of those wanted, by site"
    ),
    printcolumn(
        name = "Margin",
        type_ = "integer",
        json_path = ".status.margin",
        description = "Further rows that may be lost"
    ),
    printcolumn(
        name = "Retained",
        type_ = "string",
        json_path = ".status.retainedUntil",
        priority = 1,
        description = "Nobody deletes or replaces it before that"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(oldSelf.retention) || has(self.retention)", "a retention may be lengthened, never taken away"))]
pub struct FileObjectSpec {
    /// The site whose catalog it is in.
    #[x_kube(validation = ("self == oldSelf", "a file can't move to another cluster"))]
    pub cluster_ref: NamespacedClusterRef,

    /// Its bucket; made on first use, and then of this namespace.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    #[x_kube(validation = ("self == oldSelf", "a file can't move to another bucket"))]
    pub bucket: String,

    /// Its key in the bucket, up to 1,024 bytes.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = ("bytes(self).size() <= 1024", "a key has at most 1,024 bytes"),
        validation = ("self == oldSelf", "a file can't be renamed: delete it and make another")
    )]
    pub key: String,

    /// Its bytes. Left out: a file that came in another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,

    /// Its Content-Type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 255))]
    pub content_type: Option<String>,

    /// Nobody deletes or replaces the file before a time, in whatever way it is asked for. Without `content` it is for the file that is
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// How long a file stays, whatever is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Until then: `2030-01-01T00:00:00Z`. A later time lengthens it.
    #[x_kube(validation = ("self >= oldSelf", "a retention may be lengthened, never shortened"))]
    pub until: Time,
}

/// Up to 256 KiB, as text or as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.text) != has(self.base64)", "exactly one of text, base64"))]
pub struct Content {
    /// As it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    #[x_kube(validation = ("bytes(self).size() <= 262144", "a declared file has at most 256 KiB: put larger ones through a gateway"))]
    pub text: Option<String>,

    /// In base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 349_528), regex(pattern = r"^[A-Za-z0-9+/]*={0,2}$"))]
    pub base64: Option<String>,
}

/// What is so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileObjectStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `protected` (whole in both sites), `exposed` (in one only), `stored` (one site is all there is), `degraded` (rows
    /// are missing, enough are left), `unrecoverable`, `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Bytes on devices of this site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_size: Option<i64>,
    /// Entity tag of S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The version: epoch, clock, random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `4 of 6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coding: Option<String>,
    /// Rows by site: `6/6`; those outside: `2`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<String, String>,
    /// The same in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_summary: Option<String>,
    /// Further rows of its weakest extent that may be lost in this site; those outside count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<i32>,
    /// When it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<Time>,
    /// When all its rows were last read and found right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// Nobody deletes or replaces it before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained_until: Option<Time>,
    /// Stored, Retained, Deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}
