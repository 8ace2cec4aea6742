//! When a drill is due: once, or by its schedule, and only in its windows.

use chrono::DateTime;
use croner::Cron;
use diptych_api::FailoverDrill;
use diptych_api::failover_drill::{Day, Window};
use diptych_site::drill::DrillSummary;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Weekday;
use k8s_openapi::jiff::tz::TimeZone;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

/// A run that was missed by more is left out.
const LATE: i64 = 60 * 60;
/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;
/// Days after which no window opens that has not opened before.
const WEEK: i64 = 8;

/// A run that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// Its name: the same for the same run, however often it is asked for; another one for a FailoverDrill that was deleted and
    /// applied again.
    pub(super) id: String,
    /// By the schedule.
    pub(super) scheduled: Option<Timestamp>,
    /// When its FailoverDrill was applied here.
    pub(super) applied: Option<Timestamp>,
}

impl Run {
    /// `<name>-<hash>-<number>-<hash>`: name and number tell people which run it is, the hashes tell it from others.
    ///
    /// The first hash is of what is the same in both clusters, the last one is this cluster's alone.
    fn new(drill: &FailoverDrill, number: i64, scheduled: Option<Timestamp>) -> Self {
        let name = drill.name_any();
        let shown: String =
            name.chars().take(30).map(|letter| if letter == '.' { '-' } else { letter }).collect();
        let whole = format!("{}/{name}", drill.namespace().unwrap_or_default());
        let (whole, uid) = (short_hash(&whole), short_hash(&drill.uid().unwrap_or_default()));
        let applied = drill.creation_timestamp().map(|time| time.0);
        Self { id: format!("{shown}-{whole}-{number}-{uid}"), scheduled, applied }
    }

    /// Whether a drill of the other site is this very run, begun there by the same FailoverDrill. One that was over before this
    /// one was applied is an earlier one.
    pub(super) fn is_that_of(&self, other: &DrillSummary) -> bool {
        let shared = |id: &str| id.rsplit_once('-').map(|(shared, _)| shared.to_owned());
        let ended = (other.ended_ms > 0).then_some(other.ended_ms as i64);
        let earlier =
            ended.zip(self.applied).is_some_and(|(ended, applied)| ended < applied.as_millisecond());
        shared(&self.id) == shared(&other.id) && !earlier
    }
}

fn short_hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..4])
}

/// Whether one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// This one.
    Now(Run),
    /// Not before then.
    At(Timestamp),
    /// It has run, and has no schedule.
    Never,
}

/// What is due at `now`.
///
/// # Errors
/// The schedule does not read.
pub(super) fn due(drill: &FailoverDrill, now: Timestamp) -> Result<Due, String> {
    let spec = &drill.spec;
    let status = drill.status.clone().unwrap_or_default();
    let run = match &spec.schedule {
        None => {
            // Another spec is another drill.
            let run = Run::new(drill, drill.metadata.generation.unwrap_or(1), None);
            if status.run.as_ref() == Some(&run.id) {
                return Ok(Due::Never);
            }
            run
        }
        Some(schedule) => {
            let begin = drill.creation_timestamp().map_or(now, |time| time.0);
            let last = status.scheduled_at.map_or(begin, |time| time.0);
            let missed = Timestamp::from_second(now.as_second() - LATE).unwrap_or(now);
            let next = next(schedule, last.max(missed))?;
            if next > now {
                return Ok(Due::At(next));
            }
            Run::new(drill, next.as_second() / 60, Some(next))
        }
    };
    match opens(&spec.windows, now) {
        Some(at) if at > now => Ok(Due::At(at)),
        Some(_) => Ok(Due::Now(run)),
        None => Err("spec.windows: none of them ever opens".to_owned()),
    }
}

/// The next moment of a schedule after another.
fn next(schedule: &str, after: Timestamp) -> Result<Timestamp, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("spec.schedule: {schedule:?} is no schedule of cron: {error}")
    };
    let cron = schedule.parse::<Cron>().map_err(|error| wrong(&error))?;
    let after =
        DateTime::from_timestamp(after.as_second(), 0).ok_or_else(|| wrong(&"a time out of range"))?;
    let next = cron.find_next_occurrence(&after, false).map_err(|error| wrong(&error))?;
    Timestamp::from_second(next.timestamp()).map_err(|error| wrong(&error))
}

/// The first moment from `now` on that lies in a window; without windows that is now.
fn opens(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    if windows.is_empty() {
        return Some(now);
    }
    let midnight = now.as_second() - now.as_second().rem_euclid(DAY);
    // One that began yesterday may still be open.
    let days = (-1..WEEK).map(|day| midnight + day * DAY);
    let spans = days.flat_map(|day| windows.iter().filter_map(move |window| span(window, day)));
    let starts = spans.filter(|(_, end)| *end > now.as_second()).map(|(start, _)| start.max(now.as_second()));
    starts.min().and_then(|start| {
        if start == now.as_second() { Some(now) } else { Timestamp::from_second(start).ok() }
    })
}

/// Begin and end of a window on the day that begins at `midnight`; None: not on that day.
fn span(window: &Window, midnight: i64) -> Option<(i64, i64)> {
    let weekday = Timestamp::from_second(midnight).ok()?.to_zoned(TimeZone::UTC).weekday();
    if !window.days.is_empty() && !window.days.iter().any(|day| of(*day) == weekday) {
        return None;
    }
    let (from, to) = (seconds(&window.from)?, seconds(&window.to)?);
    let end = if to > from { to } else { to + DAY };
    Some((midnight + from, midnight + end))
}

/// `22:30`, in seconds after midnight.
fn seconds(time: &str) -> Option<i64> {
    let (hours, minutes) = time.split_once(':')?;
    Some(hours.parse::<i64>().ok()? * 3_600 + minutes.parse::<i64>().ok()? * 60)
}

const fn of(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Made on Thursday 2026-01-01 at midnight.
    pub(crate) fn drill(spec: &Value) -> FailoverDrill {
        let mut whole = json!({"clusterRef": {"name": "main"}});
        if let (Some(whole), Some(more)) = (whole.as_object_mut(), spec.as_object()) {
            whole.extend(more.clone());
        }
        let object = json!({
            "apiVersion": "diptych.dev/v1alpha1", "kind": "FailoverDrill",
            "metadata": {
                "name": "weekly", "namespace": "store", "uid": "u1", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": whole,
        });
        serde_json::from_value(object).expect("a FailoverDrill")
    }

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    fn id(due: Result<Due, String>) -> Option<String> {
        match due {
            Ok(Due::Now(run)) => Some(run.id),
            Ok(Due::At(_) | Due::Never) | Err(_) => None,
        }
    }

    /// The run that is due of a drill like this one.
    fn run(change: impl FnOnce(&mut FailoverDrill)) -> Run {
        let mut once = drill(&json!({"mode": "Readiness"}));
        change(&mut once);
        match due(&once, at("2026-01-01T10:00:00Z")) {
            Ok(Due::Now(run)) => run,
            other => panic!("it is due: {other:?}"),
        }
    }

    #[test]
    fn without_a_schedule_it_runs_once_a_generation() {
        let mut once = drill(&json!({"mode": "Readiness"}));
        let first = id(due(&once, at("2026-01-01T10:00:00Z"))).expect("it is due");
        assert!(first.starts_with("weekly-") && first.contains("-3-"), "{first}");
        once.status = Some(serde_json::from_value(json!({"run": first})).expect("a status"));
        assert_eq!(due(&once, at("2026-01-01T10:00:00Z")), Ok(Due::Never));
        once.metadata.generation = Some(4);
        assert!(id(due(&once, at("2026-01-01T10:00:00Z"))).expect("it is due").contains("-4-"));
    }

    #[test]
    fn a_run_has_a_name_that_a_site_takes_and_no_other_run_has() {
        let named = |name: &str| run(|drill| drill.metadata.name = Some(name.to_owned())).id;
        let dotted = named("weekly.west");
        assert!(dotted.starts_with("weekly-west-"), "{dotted}");
        assert!(dotted.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{dotted}");
        let long = "a".repeat(40);
        let (one, other) = (named(&format!("{long}1")), named(&format!("{long}2")));
        assert!(one != other && one.len() <= 63, "{one} {other}");
        let again = run(|drill| drill.metadata.uid = Some("u2".to_owned())).id;
        assert_ne!(again, run(|_| {}).id, "deleted and applied again it runs again");
    }

    #[test]
    fn a_run_of_the_same_drill_in_the_other_cluster_is_this_one_unless_it_was_over_before() {
        let here = run(|_| {});
        let there = run(|drill| drill.metadata.uid = Some("of the other cluster".to_owned())).id;
        let applied = at("2026-01-01T00:00:00Z").as_millisecond() as u64;
        let ran = |id: &str, ended_ms| DrillSummary {
            id: id.to_owned(),
            mode: diptych_core::drill::DrillMode::Readiness,
            verdict: None,
            reason: String::new(),
            began_ms: 1,
            ended_ms,
            recovery_time_ms: None,
            recovery_point_ms: None,
        };
        assert!(here.is_that_of(&ran(&there, 0)), "it is under way");
        assert!(here.is_that_of(&ran(&there, applied + 1)));
        assert!(!here.is_that_of(&ran(&there, applied - 1)), "it was over before this one was applied");
        let next = run(|drill| drill.metadata.generation = Some(4)).id;
        assert!(!here.is_that_of(&ran(&next, 0)), "another spec is another drill");
    }

    #[test]
    fn a_schedule_runs_when_it_is_due_once_and_not_when_it_was_missed_for_long() {
        // Sundays at three.
        let mut weekly = drill(&json!({"mode": "Switchover", "schedule": "0 3 * * 0"}));
        let sunday = at("2026-01-04T03:00:00Z");
        assert_eq!(due(&weekly, at("2026-01-01T10:00:00Z")), Ok(Due::At(sunday)));
        let Ok(Due::Now(run)) = due(&weekly, at("2026-01-04T03:20:00Z")) else { panic!("it is due") };
        assert_eq!(run.scheduled, Some(sunday));
        assert_eq!(
            due(&weekly, at("2026-01-04T04:00:01Z")),
            Ok(Due::At(at("2026-01-11T03:00:00Z"))),
            "missed"
        );
        weekly.status = Some(
            serde_json::from_value(json!({"run": run.id, "scheduledAt": "2026-01-04T03:00:00Z"}))
                .expect("a status"),
        );
        assert_eq!(
            due(&weekly, at("2026-01-04T03:20:00Z")),
            Ok(Due::At(at("2026-01-11T03:00:00Z"))),
            "it has run"
        );
    }

    #[test]
    fn a_schedule_that_does_not_read_is_named() {
        let wrong = drill(&json!({"mode": "Readiness", "schedule": "every sunday"}));
        let error = due(&wrong, at("2026-01-01T10:00:00Z")).expect_err("no schedule");
        assert!(error.starts_with("spec.schedule: \"every sunday\""), "{error}");
    }

    #[test]
    fn a_drill_waits_for_its_window_which_may_go_over_midnight() {
        let nightly = drill(
            &json!({"mode": "Readiness", "windows": [{"from": "22:00", "to": "04:00", "days": ["Fri"]}]}),
        );
        assert_eq!(due(&nightly, at("2026-01-01T10:00:00Z")), Ok(Due::At(at("2026-01-02T22:00:00Z"))));
        assert!(id(due(&nightly, at("2026-01-02T22:00:00Z"))).is_some());
        assert!(id(due(&nightly, at("2026-01-03T03:59:00Z"))).is_some(), "it began on Friday");
        assert_eq!(due(&nightly, at("2026-01-03T04:00:00Z")), Ok(Due::At(at("2026-01-09T22:00:00Z"))));
    }
}
