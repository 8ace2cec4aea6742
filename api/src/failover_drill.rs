//! FailoverDrill: a rehearsed failover, once or by a schedule.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::ClusterRef;
use crate::failover_drill_status::FailoverDrillStatus;

/// A failover that is rehearsed and measured at a client. The same in both Kubernetes clusters: the site that is passive when it
/// is due runs it, the other one shows what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "diptych.dev",
    version = "v1alpha1",
    kind = "FailoverDrill",
    shortname = "fd",
    category = "diptych",
    namespaced,
    status = "FailoverDrillStatus",
    derive = "PartialEq",
    doc = "A rehearsed failover with measured recovery time and recovery point.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Recovery-Time",
        type_ = "string",
        json_path = ".status.recoveryTime",
        description = "From the last good write to the first one at the other site, at a client"
    ),
    printcolumn(
        name = "Recovery-Point",
        type_ = "string",
        json_path = ".status.recoveryPoint",
        description = "How far back what was missing at the other site reached, at a client"
    ),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict"),
    printcolumn(name = "Next", type_ = "date", priority = 1, json_path = ".status.nextRunAt"),
    printcolumn(name = "Reason", type_ = "string", priority = 1, json_path = ".status.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FailoverDrillSpec {
    /// The site that takes part; the other one is its peer.
    #[x_kube(validation = ("self == oldSelf", "a drill can't move to another cluster"))]
    pub cluster_ref: ClusterRef,

    /// What is rehearsed.
    pub mode: DrillMode,

    /// When, as five fields of cron in UTC; once and at once if left out. A run that was missed by more than an hour is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128))]
    pub schedule: Option<String>,

    /// Drills begin in these times only; at any time if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<Window>,

    /// None is begun any more; one that runs goes on.
    #[serde(default)]
    pub suspend: bool,

    /// Ends the one that runs and puts back what it changed; so does annotation `diptych.dev/abort`. None is begun while it stands.
    #[serde(default)]
    pub abort: bool,

    /// Outage: how long the active site is cut off, 15 s to 10 min, and long enough for a takeover with the lease that is declared.
    /// It restores itself then, whatever becomes of anybody else.
    #[serde(default = "half_a_minute")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub outage: String,

    /// Isolated: objects that are read.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 10_000))]
    pub samples: i32,

    /// Whether the role goes back to the site that had it.
    #[serde(default = "yes")]
    pub go_back: bool,

    /// A drill whose recovery takes longer has failed.
    #[serde(default = "quarter_minute")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub target: String,

    /// What must hold before anything is done, besides: witness and peer answer, nothing waits for repair.
    #[serde(default)]
    pub guards: DrillGuards,

    /// What ends it early.
    #[serde(default)]
    pub abort_conditions: AbortConditions,
}

/// What is rehearsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrillMode {
    /// The guards are looked at and a failover is predicted; nothing else is touched.
    Readiness,
    /// The passive site reads sampled objects from its own rows alone and verifies every tag.
    Isolated,
    /// A planned switch, lossless, and back.
    Switchover,
    /// The active site is cut off for real and taken over; and back.
    Outage,
}

/// A time of the day, by days of the week, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Days on which it begins; every day if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Day>,
    /// `22:00`
    #[schemars(length(max = 5), regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// `04:00`: not after `from`, it is of the next day.
    #[schemars(length(max = 5), regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub to: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// What must hold before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillGuards {
    /// Bytes that may lie in the active site only.
    #[serde(default = "exposed_bytes")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi)?$"))]
    pub exposed_bytes: String,
    /// For so long something may lie in the active site only.
    #[serde(default = "five_seconds")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub exposed_age: String,
    /// Since the end of the last drill that moved the role.
    #[serde(default = "ten_minutes")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub cool_down: String,
}

impl Default for DrillGuards {
    fn default() -> Self {
        Self { exposed_bytes: exposed_bytes(), exposed_age: five_seconds(), cool_down: ten_minutes() }
    }
}

/// What ends a drill early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AbortConditions {
    /// No write came through the public name for so long, or the role had not passed so long after the switch, or after the end
    /// of an outage.
    #[serde(default = "a_minute")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub unavailable: String,
    /// The sites were not both well and caught up so long after the switch, or after the end of an outage.
    #[serde(default = "five_minutes")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub settle: String,
}

impl Default for AbortConditions {
    fn default() -> Self {
        Self { unavailable: a_minute(), settle: five_minutes() }
    }
}

const fn yes() -> bool {
    true
}

const fn hundred() -> i32 {
    100
}

fn exposed_bytes() -> String {
    "64Mi".to_owned()
}

fn five_seconds() -> String {
    "5s".to_owned()
}

fn quarter_minute() -> String {
    "15s".to_owned()
}

fn half_a_minute() -> String {
    "30s".to_owned()
}

fn a_minute() -> String {
    "60s".to_owned()
}

fn five_minutes() -> String {
    "5m".to_owned()
}

fn ten_minutes() -> String {
    "10m".to_owned()
}
