//! How a site is, in answer to: is it safe, and who is active?

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How a site is. Written by the operator that leads; the truth is in the catalog.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageClusterStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Generation of the spec that the site's keeper and its loops run with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_in_force: Option<i64>,

    /// Id of the installation, the same in both sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,

    /// `active`, `passive` or `fenced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,

    /// The site that takes writes, as far as this one knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,

    /// Number of the active site's term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,

    /// When the right to write runs out if the active site does not renew it, as of `seenAt`; it is renewed all the time.
    /// In the active of two sites only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_expires_at: Option<Time>,

    /// The coding in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coding: Option<CodingStatus>,

    /// The nodes of this site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesStatus>,

    /// The extents of this site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,

    /// What the other site has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationStatus>,

    /// What a failover would be like now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<PredictionStatus>,

    /// What Cloudflare's health checks say of both sites; left out where it is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<EdgeVerdicts>,

    /// Why the preferred site does not have the lease back; left out while it has it, and where this site is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failback: Option<FailbackStatus>,

    /// The newest drill of either site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill: Option<LastDrill>,

    /// Where the gateways are reached inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// The files of the catalog by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesStatus>,

    /// FileObjects that were projected from the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projected_files: Option<i64>,

    /// When the site's keeper last looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Time>,

    /// Ready, Progressing, Degraded, TopologySurvives, FilesProjected; with an issuer CertificatesIssued; with two sites PeerConnected, WitnessReachable,
    /// FailoverReady; with a public name PublicNameKept; with Cloudflare's health checks EdgeHealthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// k, f, and what they cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodingStatus {
    /// `4 of 6`, by site where they differ.
    pub summary: String,
    /// k: rows that are needed to decode.
    pub needed: i32,
    /// f: rows that each site holds.
    pub rows: BTreeMap<String, i32>,
    /// Stored bytes for a byte of ciphertext.
    pub overhead: String,
}

/// Nodes by state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodesStatus {
    /// `4/4`: nodes that answer, of those declared.
    pub summary: String,
    /// Declared ones.
    pub declared: i32,
    /// Those that answer.
    pub live: i32,
    /// Those whose rows are rebuilt elsewhere.
    pub dead: i32,
    /// `2/2`: nodes in neither site that answer, of those declared; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<String>,
}

/// Extents by health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthStatus {
    /// Extents that this site has rows of.
    pub extents: i64,
    /// Their bytes of ciphertext.
    pub bytes: i64,
    /// With all rows.
    pub whole: i64,
    /// With rows missing, and enough left.
    pub degraded: i64,
    /// With fewer rows left in this site than are needed.
    pub unreadable_here: i64,
    /// Extents by the number of rows that may still be lost here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub margin: BTreeMap<String, i64>,
    /// Extents that wait for repair.
    pub repair_queue: i64,
    /// Rows in neither site that can be read.
    #[serde(default)]
    pub outside_rows: i64,
    /// Extents that lack such rows, on the active site.
    #[serde(default)]
    pub outside_lacking: i64,
}

/// Files, in all and by state: `stored`, `protected`, `exposed`, `degraded`, `unrecoverable`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesStatus {
    /// All files.
    pub total: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Files by state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_state: BTreeMap<String, i64>,
    /// Bytes by state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bytes_by_state: BTreeMap<String, i64>,
}

/// What the other site has of what this one has, or the other way round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationStatus {
    /// `310/310`: extents that are whole in both sites, of all; `-` with one site.
    pub protected: String,
    /// `0`, or how much and since when.
    pub exposed: String,
    /// Extents that the other site lacks.
    pub extents_exposed: i64,
    /// Their bytes.
    pub bytes_exposed: i64,
    /// Commits that the other site has not confirmed.
    pub commits_exposed: i64,
    /// Objects that they made, changed or deleted.
    #[serde(default)]
    pub objects_exposed: i64,
    /// Seconds since all was confirmed.
    pub lag_seconds: i64,
    /// Extents that this site was told of and lacks.
    pub wanted: i64,
}

/// What a failover would be like if the active site died now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PredictionStatus {
    /// `5.03s`: from the last good write to the first one at the other site, at worst; left out where it would not happen by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_time: Option<String>,
    /// `0s`: how far back the newest lost write would be, at worst; left out where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<String>,
    /// Why it would not happen by itself, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// What Cloudflare's health checks say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeVerdicts {
    /// By site: `Reached`, `Unreached` or `Unknown`.
    pub verdicts: BTreeMap<String, String>,
    /// Why this site goes on though it can't be reached; left out where it can, or is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// Why the lease is not given back yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailbackStatus {
    /// `Manual`, `Settling`, or what is not well: one word.
    pub waiting: String,
    /// The same as a sentence.
    pub message: String,
    /// When it is due if all stays well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Time>,
}

/// A drill in a few words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDrill {
    /// Name of the run.
    pub run: String,
    /// What it rehearsed.
    pub mode: String,
    /// Passed, Failed, Aborted, Refused; left out while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// At a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_time: Option<String>,
    /// At a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<String>,
    /// When the newest ended that did more than look, and passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_at: Option<Time>,
}

/// Addresses inside the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// S3.
    pub s3: String,
    /// REST.
    pub rest: String,
    /// The peer door.
    pub peer: String,
}
