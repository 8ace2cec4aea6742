//! Whether a failover would go well: conditions of two sites, what it would be like, and what the last drill showed.

use std::time::Duration;

use diptych_api::common::duration;
use diptych_api::storage_cluster::StorageClusterSpec;
use diptych_api::storage_cluster_status::{EdgeVerdicts, FailbackStatus, LastDrill, PredictionStatus};
use diptych_core::edge::EdgeVerdict;
use diptych_core::lease::Millis;
use diptych_site::drill::DrillSummary;
use diptych_site::edge::EdgeStatus;
use diptych_site::status::SiteStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::conditions::Says;
use crate::drill::length;

/// PeerConnected, WitnessReachable, FailoverReady; PublicNameKept where there is a public name, and EdgeHealthy where Cloudflare is
/// asked to look.
pub(super) fn says(spec: &StorageClusterSpec, site: Option<&SiteStatus>, now: Timestamp) -> Vec<Says> {
    let Some(site) = site else {
        let unknown = |kind| Says::unknown(kind, "Unknown", "the site's keeper has written no status yet");
        let kinds = ["PeerConnected", "WitnessReachable", "FailoverReady"];
        let more = [named(spec).then_some("PublicNameKept"), looked_at(spec).then_some("EdgeHealthy")];
        return kinds.into_iter().chain(more.into_iter().flatten()).map(unknown).collect();
    };
    let lease = &site.lease;
    let peer = if lease.peer_connected {
        Says::yes("PeerConnected", "Answers", "the other site's keeper answers")
    } else {
        Says::no("PeerConnected", "Silent", "the other site's keeper does not answer")
    };
    let witness = match &lease.witness_trouble {
        Some(trouble) => Says::no("WitnessReachable", "Unusable", trouble),
        None if lease.witness_reachable => {
            Says::yes("WitnessReachable", "Answers", "the witness answered the last call")
        }
        None => Says::no("WitnessReachable", "Silent", "the witness did not answer the last call"),
    };
    let within = spec.failover.as_ref().map(|failover| failover.drills.passed_within.as_str());
    // One that does not read is refused elsewhere.
    let within = within.and_then(|within| duration(within).ok()).unwrap_or(Duration::MAX);
    let mut all = vec![peer, witness, ready(site, within, now)];
    all.extend(named(spec).then(|| name_kept(site)));
    all.extend(looked_at(spec).then(|| edge_healthy(site.edge.as_ref())));
    all
}

/// Whether there is a public name.
fn named(spec: &StorageClusterSpec) -> bool {
    spec.failover.as_ref().is_some_and(|failover| failover.dns.is_some())
}

/// Whether the name follows the lease, or could: the passive site looks too, so that a revoked token is known before it is needed.
fn name_kept(site: &SiteStatus) -> Says {
    const KIND: &str = "PublicNameKept";
    match (&site.name_trouble, site.name_points_here) {
        (Some(trouble), _) => {
            let reason = site.name_trouble_reason.as_deref().unwrap_or("Trouble");
            Says::no(KIND, reason, format!("the public name can't be kept: {trouble}"))
        }
        (None, Some(true)) => Says::yes(KIND, "PointsHere", "the public name points to this site"),
        (None, Some(false)) => {
            Says::yes(KIND, "CouldPointHere", "the public name could be pointed to this site")
        }
        (None, None) => Says::unknown(KIND, "NotLookedAt", "the public name was not looked at yet"),
    }
}

/// Whether Cloudflare is asked to look at each site.
fn looked_at(spec: &StorageClusterSpec) -> bool {
    let dns = spec.failover.as_ref().and_then(|failover| failover.dns.as_ref());
    dns.is_some_and(|dns| dns.cloudflare.health_checks)
}

/// Cloudflare's verdict on this site: a hint, on which no right to write hangs.
fn edge_healthy(edge: Option<&EdgeStatus>) -> Says {
    const KIND: &str = "EdgeHealthy";
    let Some(edge) = edge else {
        return Says::unknown(KIND, "Unknown", "Cloudflare was not asked yet");
    };
    if let Some(trouble) = &edge.trouble {
        return Says::no(KIND, &trouble.reason, &trouble.message);
    }
    match edge.here.verdict {
        EdgeVerdict::Reached => Says::yes(KIND, "Reached", "Cloudflare's health check reaches this site"),
        EdgeVerdict::Unreached => {
            let waiting = edge.waiting.as_ref().map(|waiting| format!("; {waiting}")).unwrap_or_default();
            let reason = &edge.here.reason;
            Says::no(
                KIND,
                "Unreached",
                format!("Cloudflare's health check does not reach this site: {reason}{waiting}"),
            )
        }
        EdgeVerdict::Unknown => Says::unknown(KIND, "NotProbed", "Cloudflare has not probed this site yet"),
    }
}

/// A failover is ready where nothing stands in its way, and a drill has shown it lately.
fn ready(site: &SiteStatus, within: Duration, now: Timestamp) -> Says {
    let lease = &site.lease;
    let no = |reason: &str, message: &str| Says::no("FailoverReady", reason, message);
    if !lease.peer_connected {
        return no("PeerSilent", "the other site does not answer");
    }
    if lacking(site).is_some() {
        return no("Exposed", "something lies in one site only: see status.replication");
    }
    if !lease.witness_reachable {
        return no("WitnessSilent", "without the witness only a planned switch works");
    }
    if let Some(obstacle) = site.prediction.as_ref().and_then(|prediction| prediction.obstacle.as_ref()) {
        return no("WouldNotHappen", obstacle);
    }
    let Some(passed) = &site.passed_drill else {
        return no(
            "NotDrilled",
            "no drill has passed yet: apply a FailoverDrill of mode Isolated, Switchover or Outage",
        );
    };
    let age = Duration::from_millis(now.as_millisecond().unsigned_abs().saturating_sub(passed.ended_ms));
    if age > within {
        let message = format!(
            "the last drill that passed, {}, is {} h old, more than failover.drills.passedWithin: apply a FailoverDrill",
            passed.id,
            age.as_secs() / 3_600
        );
        return no("DrillOverdue", &message);
    }
    let message = format!("both sites have everything, the witness answers, and drill {} passed", passed.id);
    Says::yes("FailoverReady", "Drilled", message)
}

/// Bytes that one site has and the other lacks, and for how many seconds; None: nothing.
///
/// The active site knows what the other lacks, the passive one what it lacks itself.
pub(super) fn lacking(site: &SiteStatus) -> Option<(u64, u64)> {
    let health = &site.health;
    if site.role != "active" {
        return (health.wanted > 0).then_some((health.wanted_bytes, 0));
    }
    let exposure = site.exposure.as_ref()?;
    let lacks = exposure.extents > 0 || exposure.commits > 0;
    lacks.then_some((exposure.bytes, exposure.age_ms / 1000))
}

/// What a failover would be like now; None with one site.
pub(super) fn prediction(site: &SiteStatus) -> Option<PredictionStatus> {
    let prediction = site.prediction.as_ref()?;
    Some(PredictionStatus {
        recovery_time: prediction.recovery_time.map(length),
        recovery_point: prediction.recovery_point.map(length),
        obstacle: prediction.obstacle.clone(),
    })
}

/// What Cloudflare says of both sites; None: it is not asked, or was not yet.
pub(super) fn edge(spec: &StorageClusterSpec, site: &SiteStatus) -> Option<EdgeVerdicts> {
    let (edge, peer) = (site.edge.as_ref()?, spec.peer.as_ref()?);
    let of = |verdict: EdgeVerdict| format!("{verdict:?}");
    let verdicts = [(spec.site.clone(), of(edge.here.verdict)), (peer.site.clone(), of(edge.there.verdict))];
    Some(EdgeVerdicts { verdicts: verdicts.into(), waiting: edge.waiting.clone() })
}

/// Why the preferred site does not have the lease back; None: it has it, or this site is not active.
pub(super) fn failback(site: &SiteStatus) -> Option<FailbackStatus> {
    let failback = site.failback.as_ref()?;
    let due = (failback.due_ms > 0).then_some(failback.due_ms as i64);
    Some(FailbackStatus {
        waiting: failback.waiting.clone(),
        message: failback.waiting_for.clone(),
        due_at: due.and_then(|due| Timestamp::from_millisecond(due / 1_000 * 1_000).ok()).map(Time::from),
    })
}

/// The newest drill of either site.
pub(super) fn last_drill(site: &SiteStatus) -> Option<LastDrill> {
    let last = site.last_drill.as_ref()?;
    let ended = |drill: &DrillSummary| {
        let at = (drill.ended_ms > 0).then_some(drill.ended_ms as i64)?;
        Timestamp::from_millisecond(at).ok().map(Time::from)
    };
    Some(LastDrill {
        run: last.id.clone(),
        mode: last.mode.to_string(),
        verdict: last.verdict.map(|verdict| format!("{verdict:?}")),
        ended_at: ended(last),
        recovery_time: last.recovery_time_ms.map(|time| length(Millis(time))),
        recovery_point: last.recovery_point_ms.map(|point| length(Millis(point))),
        passed_at: site.passed_drill.as_ref().and_then(ended),
    })
}

#[cfg(test)]
mod tests {
    use diptych_core::drill::{DrillMode, Verdict};
    use diptych_core::ids::{Epoch, Generation};
    use diptych_site::status::{Exposure, LeaseStatus};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn well(passed_ms: Option<u64>) -> SiteStatus {
        let passed = passed_ms.map(|ended_ms| DrillSummary {
            began_ms: 1,
            id: "weekly-1".to_owned(),
            mode: DrillMode::Switchover,
            verdict: Some(Verdict::Passed),
            reason: String::new(),
            ended_ms,
            recovery_time_ms: Some(480),
            recovery_point_ms: Some(0),
        });
        SiteStatus {
            site: "east".parse().expect("a name"),
            role: "active".to_owned(),
            epoch: Epoch(1),
            generation: 1,
            map_generation: Generation(1),
            nodes: Vec::new(),
            outside: None,
            health: diptych_site::survey::Health::default(),
            repair: diptych_site::status::RepairStatus::default(),
            inventory: diptych_site::status::InventoryStatus::default(),
            keys: None,
            journal: diptych_site::status::JournalStatus::default(),
            feed: diptych_site::status::FeedStatus::default(),
            lease: LeaseStatus { peer_connected: true, witness_reachable: true, ..LeaseStatus::default() },
            exposure: Some(Exposure::default()),
            would_lose: None,
            prediction: None,
            last_drill: passed.clone(),
            passed_drill: passed,
            name_trouble: None,
            name_trouble_reason: None,
            name_points_here: None,
            edge: None,
            failback: None,
            seen_ms: 0,
        }
    }

    fn reason(site: &SiteStatus) -> (Option<bool>, String) {
        let now = Timestamp::from_millisecond(10 * 3_600_000).expect("a time");
        let says = ready(site, HOUR, now);
        (says.holds, says.reason)
    }

    #[test]
    fn a_failover_that_nobody_has_rehearsed_lately_is_not_ready() {
        assert_eq!(reason(&well(Some(9 * 3_600_000))), (Some(true), "Drilled".to_owned()));
        assert_eq!(reason(&well(Some(9 * 3_600_000 - 1))), (Some(false), "DrillOverdue".to_owned()));
        assert_eq!(reason(&well(None)), (Some(false), "NotDrilled".to_owned()));
        let mut exposed = well(Some(9 * 3_600_000));
        exposed.exposure = Some(Exposure { commits: 1, ..Exposure::default() });
        assert_eq!(reason(&exposed), (Some(false), "Exposed".to_owned()));
    }

    #[test]
    fn cloudflares_verdict_is_a_condition_and_so_is_a_plan_without_health_checks() {
        use diptych_site::edge::{EdgeTrouble, SiteVerdict};
        let says = |edge: &EdgeStatus| {
            let says = edge_healthy(Some(edge));
            (says.holds, says.reason, says.message)
        };
        let here = |verdict, reason: &str| EdgeStatus {
            here: SiteVerdict { verdict, reason: reason.to_owned() },
            ..EdgeStatus::default()
        };
        assert_eq!(says(&here(EdgeVerdict::Reached, "No failures")).0, Some(true));
        assert_eq!(says(&here(EdgeVerdict::Unknown, "")).0, None);
        let (holds, reason, message) = says(&here(EdgeVerdict::Unreached, "TCP Timeout occurred"));
        assert_eq!((holds, reason.as_str()), (Some(false), "Unreached"));
        assert!(message.contains("TCP Timeout occurred"), "{message}");
        let trouble = EdgeTrouble { reason: "NotAvailable".to_owned(), message: "none is left".to_owned() };
        let none = EdgeStatus { trouble: Some(trouble), ..EdgeStatus::default() };
        assert_eq!(says(&none), (Some(false), "NotAvailable".to_owned(), "none is left".to_owned()));
    }

    #[test]
    fn a_name_that_cannot_be_kept_is_a_condition_with_its_category() {
        let says = |trouble: Option<(&str, &str)>, here| {
            let site = SiteStatus {
                name_trouble: trouble.map(|trouble| trouble.1.to_owned()),
                name_trouble_reason: trouble.map(|trouble| trouble.0.to_owned()),
                name_points_here: here,
                ..well(None)
            };
            let says = name_kept(&site);
            (says.holds, says.reason, says.message)
        };
        let (holds, reason, message) = says(Some(("Unauthorized", "make a new one")), Some(true));
        assert_eq!((holds, reason.as_str()), (Some(false), "Unauthorized"), "what was seen before is old");
        assert!(message.contains("make a new one"), "{message}");
        let seen = |here| {
            let (holds, reason, _) = says(None, here);
            (holds, reason)
        };
        assert_eq!(seen(Some(true)), (Some(true), "PointsHere".to_owned()));
        assert_eq!(seen(Some(false)), (Some(true), "CouldPointHere".to_owned()));
        assert_eq!(seen(None), (None, "NotLookedAt".to_owned()));
    }

    #[test]
    fn the_last_drill_is_told_in_a_few_words() {
        let last = last_drill(&well(Some(9 * 3_600_000))).expect("there was one");
        assert_eq!((last.mode.as_str(), last.recovery_time.as_deref()), ("Switchover", Some("0.48s")));
        assert_eq!(last.verdict.as_deref(), Some("Passed"));
    }
}
