//! What a drill has done, measured and shown.

use serde::{Deserialize, Serialize};

use super::facts::{Check, Prediction};
use super::spec::DrillSpec;
use crate::ids::{Epoch, SiteName};

/// How far a drill has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The guards are looked at.
    Checking,
    /// Sampled objects are read from the passive site's own rows.
    Sampling,
    /// What a resurrection would give from the passive site's own rows is compared with a sample of its catalog.
    Rehearsing,
    /// Records are written through the public name while nothing is wrong.
    Baseline,
    /// The switch was asked for, or the active site cut off: until a write comes through again.
    Switching,
    /// What was acknowledged before is read back, and stale writes are tried.
    Measuring,
    /// Both sites are waited for: connected, caught up, nothing to repair.
    Settling,
    /// The role goes back to the site that had it.
    GoingBack,
    /// All that was acknowledged is read back.
    Verifying,
    /// Over.
    Ended,
}

impl Phase {
    /// What is waited for, as a sentence.
    pub(super) const fn waits_for(self) -> &'static str {
        match self {
            Self::Checking => "the guards are looked at",
            Self::Sampling => "sampled objects are read from this site's rows alone",
            Self::Rehearsing => "what a resurrection would give is compared with a sample of the catalog",
            Self::Baseline => "records are written through the public name before anything is done",
            Self::Switching => "the role passes to this site",
            Self::Measuring => "what was acknowledged before is read back",
            Self::Settling => "both sites have to be connected and caught up",
            Self::GoingBack => "the role goes back",
            Self::Verifying => "all that was acknowledged is read back",
            Self::Ended => "it is over",
        }
    }
}

/// What came of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// It was carried out, and something is not as it should be.
    Failed,
    /// It was ended early, and what it had changed was put back.
    Aborted,
    /// A guard did not hold: nothing was done.
    Refused,
}

/// A phase of a drill, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub phase: Phase,
    /// Milliseconds after the drill's begin.
    pub began_ms: u64,
    /// How long it took; None: it is under way.
    pub took_ms: Option<u64>,
}

/// When things had happened, in milliseconds after the switch was asked for or the active site cut off. None: not seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The passive site noticed that the active one is silent.
    pub detected_ms: Option<u64>,
    /// What it had promised the active one was over, and it stood for its own epoch.
    pub waited_ms: Option<u64>,
    /// The second vote was won.
    pub acquired_ms: Option<u64>,
    /// Its gate was open and it served.
    pub promoted_ms: Option<u64>,
    /// The public name pointed to it.
    pub flipped_ms: Option<u64>,
    /// A write came through the public name.
    pub first_good_ms: Option<u64>,
}

/// What was read of a site's own rows alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were passed over: this site was told of them and does not have all of their bytes yet.
    #[serde(default)]
    pub exposed: u64,
    /// Those that did not read, with the reason; the first few.
    pub failed: Vec<String>,
}

/// What a resurrection would give from a site's own rows, compared with a sample of its catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// Keys that were compared.
    pub keys: u64,
    /// Of these, those that would be as they are.
    pub same: u64,
    /// Those that were changed meanwhile, so that nothing can be said.
    pub changed: u64,
    /// Those that would be others, or missing; the first few.
    pub different: Vec<String>,
    /// Stretches of the journal that are not there.
    pub gaps: u64,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// What was acknowledged to the prober, and what of it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Records that are not there, or with other bytes.
    pub missing: u64,
    /// From the acknowledgement of the oldest missing record to the last one before the switch.
    pub age_ms: u64,
}

/// Writes under an epoch that is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleWrites {
    /// Tried.
    pub tried: u64,
    /// Refused.
    pub refused: u64,
}

/// All that a drill has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub id: String,
    /// As asked for.
    pub spec: DrillSpec,
    /// The site that runs it.
    pub run_by: SiteName,
    /// Milliseconds since 1970.
    pub began_ms: u64,
    /// Milliseconds since 1970; 0: it is under way.
    pub ended_ms: u64,
    /// How far it is.
    pub phase: Phase,
    /// Its phases so far.
    pub steps: Vec<Step>,
    /// What was looked at before.
    pub checks: Vec<Check>,
    /// What a failover was thought to take.
    pub prediction: Option<Prediction>,
    /// The epoch before, and the one under which the other site served.
    pub epochs: Option<(Epoch, Epoch)>,
    /// What happened when.
    pub times: Times,
    /// At the client: from the last good write before to the first one after.
    pub recovery_time_ms: Option<u64>,
    /// At the client: how far back what was lost reaches, while the other site was away. None: it was back before all was read.
    pub recovery_point_ms: Option<u64>,
    /// At the client, of the way back: the longest time without a good write.
    pub return_time_ms: Option<u64>,
    /// At the end.
    pub records: Option<ReadBack>,
    /// Isolated.
    pub samples: Option<Samples>,
    /// Isolated.
    #[serde(default)]
    pub rehearsed: Option<Rehearsed>,
    /// After the switch.
    pub stale_writes: StaleWrites,
    /// None: it is under way.
    pub verdict: Option<Verdict>,
    /// Why, as a sentence; what is waited for while it is under way.
    pub reason: String,
}

impl Report {
    /// Of a drill that begins, `wall_ms` after 1970.
    pub(super) fn begun(id: String, spec: DrillSpec, run_by: SiteName, wall_ms: u64) -> Self {
        Self {
            id,
            spec,
            run_by,
            began_ms: wall_ms,
            ended_ms: 0,
            phase: Phase::Checking,
            steps: vec![Step { phase: Phase::Checking, began_ms: 0, took_ms: None }],
            checks: Vec::new(),
            prediction: None,
            epochs: None,
            times: Times::default(),
            recovery_time_ms: None,
            recovery_point_ms: None,
            return_time_ms: None,
            records: None,
            samples: None,
            rehearsed: None,
            stale_writes: StaleWrites::default(),
            verdict: None,
            reason: Phase::Checking.waits_for().to_owned(),
        }
    }

    /// Whether it is over.
    pub const fn is_over(&self) -> bool {
        self.verdict.is_some()
    }
}
