//! How a drill fares and what it has shown.

#![expect(clippy::struct_field_names, reason = "the unit stands in each name")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How a drill fares. Written by the operator of its own cluster; the truth is in the catalog.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverDrillStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Waiting`, then Checking, Sampling, Rehearsing, Baseline, Switching, Measuring, Settling, GoingBack, Verifying, Ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Passed, Failed, Aborted, or Refused: a guard did not hold and nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Why, or what is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Name of the run, also in the site's catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The time by the schedule that the run is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Time>,
    /// When the run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<Time>,
    /// `4.47s`: at a client, from the last good write to the first one at the other site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_time: Option<String>,
    /// `0s`: at a client, how far back what was missing at the other site reached while this one was away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<String>,
    /// At a client, the longest time without a good write while the role went back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_time: Option<String>,
    /// What a failover was thought to take, before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_recovery_time: Option<String>,
    /// What happened when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<DrillTimes>,
    /// Its phases so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub steps: Vec<DrillStep>,
    /// What was looked at before anything was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub checks: Vec<DrillCheck>,
    /// Records of the prober.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<DrillRecords>,
    /// Isolated: what was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<DrillSamples>,
    /// Isolated: what a resurrection would give, compared with a sample of the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<DrillRehearsal>,
    /// Writes under the epoch that was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_writes: Option<StaleWrites>,
    /// Passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// Milliseconds after the switch was asked for, or the active site cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillTimes {
    /// The passive site noticed that the active one is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_milliseconds: Option<i64>,
    /// What it had promised the active one was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_milliseconds: Option<i64>,
    /// The second vote was won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquired_milliseconds: Option<i64>,
    /// It served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_milliseconds: Option<i64>,
    /// The public name pointed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flipped_milliseconds: Option<i64>,
    /// A write came through the public name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_good_milliseconds: Option<i64>,
}

/// A phase, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillStep {
    /// Which.
    pub phase: String,
    /// Milliseconds after the drill's begin.
    pub began_milliseconds: i64,
    /// How long it took; none: it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_milliseconds: Option<i64>,
}

/// One look before a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillCheck {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it must be.
    pub passed: bool,
    /// What was found.
    pub finding: String,
}

/// Records that were acknowledged to the prober.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillRecords {
    /// All of them.
    pub acknowledged: i64,
    /// Those that were not there when they were last read back.
    pub missing: i64,
}

/// What was read from the passive site's own rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillSamples {
    /// Objects that were read.
    pub objects: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Objects whose bytes are still on their way to this site.
    pub exposed: i64,
    /// Those that did not read, and why; the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub failed: Vec<String>,
}

/// What a resurrection would give from the passive site's own rows, compared with a sample of its catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillRehearsal {
    /// Keys that were compared.
    pub keys: i64,
    /// Of these, those that would be as they are.
    pub same: i64,
    /// Those that were changed meanwhile, so that nothing can be said.
    pub changed: i64,
    /// Those that would be others, or missing; the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub different: Vec<String>,
    /// Stretches of the journal that are not there.
    pub gaps: i64,
    /// How long it took.
    pub took_milliseconds: i64,
}

/// Writes under an epoch that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaleWrites {
    /// Tried.
    pub tried: i64,
    /// Refused.
    pub refused: i64,
}
