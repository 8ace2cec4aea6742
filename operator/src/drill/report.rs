//! What people see of a drill: status, condition Passed, Events.

use std::time::Duration;

use diptych_api::FailoverDrill;
use diptych_api::failover_drill_status::{
    DrillCheck, DrillRecords, DrillRehearsal, DrillSamples, DrillStep, DrillTimes, FailoverDrillStatus,
    StaleWrites,
};
use diptych_core::drill::{Report, Times, Verdict};
use diptych_core::lease::Millis;
use diptych_site::drill::DrillSummary;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::{EventType, Recorder};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::due::Run;
use super::{LOOK_AT_LEAST, length};
use crate::apply::Child;
use crate::conditions::{Says, conditions, turned};
use crate::error::OperatorError;
use crate::events;
use crate::options::OperatorOptions;

/// What is to be told of a drill.
pub(super) struct Told {
    /// When it is looked at again; None: once it has changed.
    pub(super) look_again: Option<Duration>,
    news: News,
}

enum News {
    /// It can't be carried out as it stands.
    Invalid(String),
    /// Something has to come first.
    Waits(&'static str, String),
    /// Nothing is due before then.
    Rests(Timestamp),
    /// Nothing is due any more.
    Over,
    /// The site did not answer: run, why, and its time by the schedule.
    Unheard(String, String, Option<Timestamp>),
    /// The site knows nothing of the run any more.
    Gone(String),
    /// The site's own word.
    Report(Box<Report>, Option<Timestamp>),
    /// The same FailoverDrill was run by the other site.
    Elsewhere(Run, Box<DrillSummary>),
}

impl Told {
    pub(super) fn invalid(reason: String) -> Self {
        Self { look_again: None, news: News::Invalid(reason) }
    }

    pub(super) fn waits(reason: &'static str, message: String, look_again: Duration) -> Self {
        Self { look_again: Some(look_again), news: News::Waits(reason, message) }
    }

    pub(super) fn rests(until: Timestamp, now: Timestamp) -> Self {
        let left = u64::try_from(until.as_second() - now.as_second()).unwrap_or(0).max(1);
        let look_again = Some(Duration::from_secs(left).min(LOOK_AT_LEAST));
        Self { look_again, news: News::Rests(until) }
    }

    pub(super) fn over() -> Self {
        Self { look_again: None, news: News::Over }
    }

    pub(super) fn unheard(run: &str, reason: String, look_again: Duration) -> Self {
        Self { look_again: Some(look_again), news: News::Unheard(run.to_owned(), reason, None) }
    }

    pub(super) fn gone(run: &str) -> Self {
        Self { look_again: Some(LOOK_AT_LEAST), news: News::Gone(run.to_owned()) }
    }

    pub(super) fn of(report: Report, look_again: Duration) -> Self {
        Self { look_again: Some(look_again), news: News::Report(Box::new(report), None) }
    }

    pub(super) fn elsewhere(run: Run, ran: DrillSummary) -> Self {
        Self { look_again: Some(LOOK_AT_LEAST), news: News::Elsewhere(run, Box::new(ran)) }
    }

    /// Whether what was begun is over.
    pub(super) fn is_over(&self) -> bool {
        match &self.news {
            News::Report(report, _) => report.is_over(),
            News::Rests(_) | News::Over | News::Gone(_) | News::Elsewhere(..) => true,
            News::Unheard(..) | News::Invalid(_) | News::Waits(..) => false,
        }
    }

    /// The time by the schedule goes with it, so that no run is begun twice.
    pub(super) fn for_run(self, run: Run) -> Self {
        let news = match self.news {
            News::Report(report, _) => News::Report(report, run.scheduled),
            News::Unheard(..) | News::Gone(_) => {
                News::Unheard(run.id, "it was begun a moment ago".to_owned(), run.scheduled)
            }
            other => other,
        };
        Self { news, ..self }
    }

    /// The status as it shall be, and what condition Passed says.
    fn status(self, before: &FailoverDrillStatus) -> (FailoverDrillStatus, Option<Says>) {
        let waits = |reason: &str, message: String| {
            if before.verdict.is_some() {
                // What an earlier run has shown stays on show.
                return (before.clone(), None);
            }
            let says = Says::unknown("Passed", reason, message.clone());
            let phase = Some("Waiting".to_owned());
            (FailoverDrillStatus { phase, reason: Some(message), ..before.clone() }, Some(says))
        };
        match self.news {
            News::Invalid(reason) => {
                let says = Says::no("Passed", "InvalidSpec", reason.clone());
                (FailoverDrillStatus { reason: Some(reason), ..before.clone() }, Some(says))
            }
            News::Waits(reason, message) => waits(reason, message),
            News::Rests(until) => {
                let (mut status, says) = waits("Scheduled", format!("the next one is due at {until}"));
                status.next_run_at = Some(Time::from(until));
                (status, says)
            }
            News::Over => (before.clone(), None),
            News::Unheard(run, reason, scheduled) => {
                let message = format!("the site does not answer just now: {reason}");
                let status = FailoverDrillStatus {
                    run: Some(run),
                    verdict: None,
                    reason: Some(message),
                    scheduled_at: scheduled.map(Time::from).or_else(|| before.scheduled_at.clone()),
                    ..before.clone()
                };
                (status, None)
            }
            News::Gone(run) => {
                let message = "the site's keeper knows nothing of it any more: another drill was begun there"
                    .to_owned();
                let says = Says::no("Passed", "Aborted", message.clone());
                let status = FailoverDrillStatus {
                    run: Some(run),
                    phase: Some("Ended".to_owned()),
                    verdict: Some("Aborted".to_owned()),
                    reason: Some(message),
                    ..before.clone()
                };
                (status, Some(says))
            }
            News::Report(report, scheduled) => {
                let scheduled = scheduled.map(Time::from).or_else(|| before.scheduled_at.clone());
                let says = passed(report.verdict, &format!("{:?}", report.phase), &report.reason);
                (FailoverDrillStatus { scheduled_at: scheduled, ..of(&report) }, Some(says))
            }
            News::Elsewhere(run, ran) => {
                let reason = format!("the other site ran it: {}", ran.reason);
                let says = passed(ran.verdict, "Ended", &reason);
                let status = FailoverDrillStatus {
                    phase: Some("Ended".to_owned()),
                    verdict: ran.verdict.map(|verdict| format!("{verdict:?}")),
                    reason: Some(reason),
                    run: Some(run.id),
                    scheduled_at: run.scheduled.map(Time::from).or_else(|| before.scheduled_at.clone()),
                    started_at: time(ran.began_ms),
                    ended_at: time(ran.ended_ms),
                    recovery_time: text(ran.recovery_time_ms),
                    recovery_point: text(ran.recovery_point_ms),
                    ..FailoverDrillStatus::default()
                };
                (status, Some(says))
            }
        }
    }
}

/// Milliseconds since 1970; 0: not yet.
fn time(milliseconds: u64) -> Option<Time> {
    let at = (milliseconds > 0).then_some(milliseconds as i64)?;
    Timestamp::from_millisecond(at).ok().map(Time::from)
}

fn text(milliseconds: Option<u64>) -> Option<String> {
    milliseconds.map(|milliseconds| length(Millis(milliseconds)))
}

fn passed(verdict: Option<Verdict>, phase: &str, reason: &str) -> Says {
    let reason = reason.to_owned();
    match verdict {
        None => Says::unknown("Passed", phase, reason),
        Some(Verdict::Passed) => Says::yes("Passed", "Passed", reason),
        Some(verdict) => Says::no("Passed", &format!("{verdict:?}"), reason),
    }
}

fn of(report: &Report) -> FailoverDrillStatus {
    let predicted = report.prediction.as_ref().and_then(|prediction| prediction.recovery_time);
    let steps = report.steps.iter().map(|step| DrillStep {
        phase: format!("{:?}", step.phase),
        began_milliseconds: step.began_ms as i64,
        took_milliseconds: step.took_ms.map(|took| took as i64),
    });
    let checks = report.checks.iter().map(|check| DrillCheck {
        name: check.name.clone(),
        passed: check.passed,
        finding: check.finding.clone(),
    });
    let stale = report.stale_writes;
    FailoverDrillStatus {
        phase: Some(format!("{:?}", report.phase)),
        verdict: report.verdict.map(|verdict| format!("{verdict:?}")),
        reason: Some(report.reason.clone()),
        run: Some(report.id.clone()),
        started_at: time(report.began_ms),
        ended_at: time(report.ended_ms),
        recovery_time: text(report.recovery_time_ms),
        recovery_point: text(report.recovery_point_ms),
        return_time: text(report.return_time_ms),
        predicted_recovery_time: predicted.map(length),
        times: (report.times != Times::default()).then(|| times(&report.times)),
        steps: steps.collect(),
        checks: checks.collect(),
        records: report.records.map(|records| DrillRecords {
            acknowledged: records.acknowledged as i64,
            missing: records.missing as i64,
        }),
        samples: report.samples.as_ref().map(|samples| DrillSamples {
            objects: samples.objects as i64,
            bytes: samples.bytes as i64,
            exposed: samples.exposed as i64,
            failed: samples.failed.clone(),
        }),
        rehearsal: report.rehearsed.as_ref().map(|rehearsed| DrillRehearsal {
            keys: rehearsed.keys as i64,
            same: rehearsed.same as i64,
            changed: rehearsed.changed as i64,
            different: rehearsed.different.clone(),
            gaps: rehearsed.gaps as i64,
            took_milliseconds: rehearsed.took_ms as i64,
        }),
        stale_writes: (stale.tried > 0)
            .then_some(StaleWrites { tried: stale.tried as i64, refused: stale.refused as i64 }),
        ..FailoverDrillStatus::default()
    }
}

fn times(times: &Times) -> DrillTimes {
    let number = |at: Option<u64>| at.map(|at| at as i64);
    DrillTimes {
        detected_milliseconds: number(times.detected_ms),
        waited_milliseconds: number(times.waited_ms),
        acquired_milliseconds: number(times.acquired_ms),
        promoted_milliseconds: number(times.promoted_ms),
        flipped_milliseconds: number(times.flipped_ms),
        first_good_milliseconds: number(times.first_good_ms),
    }
}

/// Writes what has changed.
pub(super) async fn report(
    options: &OperatorOptions,
    recorder: &Recorder,
    drill: &FailoverDrill,
    told: Told,
) -> Result<(), OperatorError> {
    let before = drill.status.clone().unwrap_or_default();
    let generation = drill.metadata.generation;
    let (mut status, says) = told.status(&before);
    status.observed_generation = generation;
    let says: Vec<Says> = says.into_iter().collect();
    status.conditions = if says.is_empty() {
        before.conditions.clone()
    } else {
        conditions(&before.conditions, &says, generation, Timestamp::now())
    };
    if status == before {
        return Ok(());
    }
    let child = Child::new(json!({
        "apiVersion": "diptych.dev/v1alpha1", "kind": "FailoverDrill",
        "metadata": {"name": drill.name_any(), "namespace": drill.namespace()}, "status": status,
    }))?;
    child.apply_status(&options.client).await?;
    for says in turned(&before.conditions, &says) {
        let type_ = if says.holds == Some(false) { EventType::Warning } else { EventType::Normal };
        events::tell(recorder, &drill.object_ref(&()), type_, &says.reason, &says.message, "Drill").await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use diptych_core::drill::{Drill, DrillMode, DrillSpec};
    use diptych_core::lease::BootTime;

    use super::*;
    use crate::drill::due::tests::drill;
    use crate::drill::due::{Due, due};

    fn a_report() -> Report {
        let site = "west".parse().expect("a name");
        let drill = Drill::new("d-1".to_owned(), DrillSpec::of(DrillMode::Outage), site, BootTime(0), 1_000);
        Report {
            recovery_time_ms: Some(4_470),
            recovery_point_ms: Some(0),
            verdict: Some(Verdict::Passed),
            ended_ms: 61_000,
            ..drill.report().clone()
        }
    }

    #[test]
    fn a_run_that_has_passed_shows_time_point_and_verdict() {
        let (status, says) = Told::of(a_report(), LOOK_AT_LEAST).status(&FailoverDrillStatus::default());
        let shown = [&status.recovery_time, &status.recovery_point, &status.verdict];
        assert_eq!(shown.map(|text| text.as_deref()), [Some("4.47s"), Some("0s"), Some("Passed")]);
        assert_eq!(says.expect("a condition").holds, Some(true));
        assert!(status.times.is_none(), "nothing was timed");
    }

    #[test]
    fn what_a_run_has_shown_stays_while_the_next_one_waits() {
        let (shown, _) = Told::of(a_report(), LOOK_AT_LEAST).status(&FailoverDrillStatus::default());
        let (status, says) =
            Told::waits("SiteActive", "it is active".to_owned(), LOOK_AT_LEAST).status(&shown);
        assert_eq!((status.recovery_time, status.verdict), (shown.recovery_time, shown.verdict));
        assert!(says.is_none(), "the condition speaks of the last run");
    }

    /// A run that was due at the beginning of 1970.
    fn a_run() -> Run {
        let weekly = drill(&json!({"mode": "Outage", "schedule": "* * * * *"}));
        match due(&weekly, "2026-01-01T00:10:00Z".parse().expect("a time")) {
            Ok(Due::Now(run)) => Run { scheduled: Some(Timestamp::UNIX_EPOCH), ..run },
            other => panic!("it is due: {other:?}"),
        }
    }

    #[test]
    fn what_the_other_site_ran_is_shown_as_this_run_and_is_not_due_again() {
        let ran = DrillSummary::from(&a_report());
        let (status, says) = Told::elsewhere(a_run(), ran).status(&FailoverDrillStatus::default());
        assert_eq!(status.run, Some(a_run().id));
        let shown = [&status.recovery_time, &status.recovery_point, &status.verdict];
        assert_eq!(shown.map(|text| text.as_deref()), [Some("4.47s"), Some("0s"), Some("Passed")]);
        assert!(status.reason.is_some_and(|reason| reason.starts_with("the other site ran it")));
        assert_eq!(says.expect("a condition").holds, Some(true));
        assert_eq!(status.scheduled_at.map(|time| time.0), Some(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn a_run_is_not_begun_twice_though_the_answer_was_lost() {
        let run = a_run();
        let (status, _) = Told::unheard(&run.id.clone(), "away".to_owned(), LOOK_AT_LEAST)
            .for_run(run)
            .status(&FailoverDrillStatus::default());
        assert_eq!((status.run, status.verdict), (Some(a_run().id), None));
        assert_eq!(
            status.scheduled_at.map(|time| time.0),
            Some(Timestamp::UNIX_EPOCH),
            "it is that of the schedule"
        );
    }
}
