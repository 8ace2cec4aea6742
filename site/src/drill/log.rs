//! What is kept of drills, in a key of the site that ran them: its keeper may change, and the other site is told.

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, View, Write};
use diptych_core::drill::{DrillMode, Report, Verdict};
use diptych_core::ids::SiteName;
use diptych_core::keys;
use serde::{Deserialize, Serialize};

use crate::error::SiteError;

/// A drill in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillSummary {
    /// Its name.
    pub id: String,
    /// What it rehearsed.
    pub mode: DrillMode,
    /// None: it is under way.
    pub verdict: Option<Verdict>,
    /// Why, or what is waited for.
    pub reason: String,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub began_ms: u64,
    /// Milliseconds since 1970; 0: it is under way.
    pub ended_ms: u64,
    /// At the client.
    pub recovery_time_ms: Option<u64>,
    /// At the client.
    pub recovery_point_ms: Option<u64>,
}

impl From<&Report> for DrillSummary {
    fn from(report: &Report) -> Self {
        Self {
            id: report.id.clone(),
            mode: report.spec.mode,
            verdict: report.verdict,
            reason: report.reason.clone(),
            began_ms: report.began_ms,
            ended_ms: report.ended_ms,
            recovery_time_ms: report.recovery_time_ms,
            recovery_point_ms: report.recovery_point_ms,
        }
    }
}

/// The drills of one site; JSON under `s/drill/<site>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillLog {
    /// The newest, under way or over.
    pub last: Option<Report>,
    /// The newest that did more than look, and passed.
    pub passed: Option<DrillSummary>,
    /// Milliseconds since 1970 when the newest ended that moved the role, or tried to; 0: none did.
    pub switched_ms: u64,
}

impl DrillLog {
    /// Takes a report in.
    pub(super) fn note(&mut self, report: &Report) {
        let mode = report.spec.mode;
        if report.is_over() && report.verdict != Some(Verdict::Refused) && mode.switches() {
            self.switched_ms = report.ended_ms;
        }
        if report.verdict == Some(Verdict::Passed) && mode != DrillMode::Readiness {
            self.passed = Some(DrillSummary::from(report));
        }
        self.last = Some(report.clone());
    }

    /// Of both sites: the newest of each.
    pub(super) fn newest_of(self, other: Self) -> Self {
        let began = |log: &Self| log.last.as_ref().map_or(0, |report| report.began_ms);
        let ended = |log: &Self| log.passed.as_ref().map_or(0, |passed| passed.ended_ms);
        let switched_ms = self.switched_ms.max(other.switched_ms);
        let (own_last, own_passed) = (began(&self) >= began(&other), ended(&self) >= ended(&other));
        let last = if own_last { self.last } else { other.last };
        let passed = if own_passed { self.passed } else { other.passed };
        Self { last, passed, switched_ms }
    }
}

/// What a site has run, as a view shows it. One that does not read is of a newer version: as none.
pub(super) fn log_of(view: &dyn View, site: &SiteName) -> Result<DrillLog, SiteError> {
    let raw = view.get(&keys::drills(site))?;
    Ok(raw.and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default())
}

/// What both sites have run.
pub fn logs(view: &dyn View, own: &SiteName, peer: Option<&SiteName>) -> Result<DrillLog, SiteError> {
    let here = log_of(view, own)?;
    Ok(match peer {
        Some(peer) => here.newest_of(log_of(view, peer)?),
        None => here,
    })
}

/// Writes what this site has run.
pub(super) async fn write(catalog: &dyn Catalog, log: &DrillLog) -> Result<(), SiteError> {
    let json = serde_json::to_vec(log).unwrap_or_default();
    let put = Write::Put(keys::drills(catalog.site()), Bytes::from(json));
    catalog.commit(Batch::one(None, Change::blind(vec![put]))).await?;
    Ok(())
}
