//! `kubectl diptych status`.

use anyhow::{Context, Result};
use diptych_api::StorageClusterStatus;
use kube::ResourceExt;

use super::Site;
use crate::command::say;

pub(super) fn run(site: &Site) -> Result<()> {
    let cluster = &site.cluster;
    let status = cluster.status.as_ref();
    let status = status.with_context(|| {
        format!("StorageCluster {} has no status yet: look whether its operator runs", cluster.name_any())
    })?;
    for line in lines(&cluster.spec.site, status) {
        say(line);
    }
    Ok(())
}

fn lines(site: &str, status: &StorageClusterStatus) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    let mut lines = vec![format!(
        "{site}: {}, epoch {}; active is {}",
        status.role.clone().unwrap_or_else(unknown),
        status.epoch.map_or_else(unknown, |epoch| epoch.to_string()),
        status.active.clone().unwrap_or_else(unknown)
    )];
    if let Some(replication) = &status.replication {
        lines.push(format!("  protected {}, exposed {}", replication.protected, replication.exposed));
    }
    if let Some(prediction) = &status.prediction {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(unknown);
        let (time, point) = (shown(&prediction.recovery_time), shown(&prediction.recovery_point));
        lines.push(match &prediction.obstacle {
            None => format!("  a failover now: recovery time {time}, recovery point {point}, at worst"),
            Some(obstacle) => format!("  a failover would not happen by itself: {obstacle}"),
        });
    }
    if let Some(failback) = &status.failback {
        lines.push(format!("  failback: {}, {}", failback.waiting, failback.message));
    }
    if let Some(drill) = &status.last_drill {
        let verdict = drill.verdict.as_deref().unwrap_or("under way");
        let time =
            drill.recovery_time.as_ref().map(|time| format!(", recovery time {time}")).unwrap_or_default();
        let point = drill
            .recovery_point
            .as_ref()
            .map(|point| format!(", recovery point {point}"))
            .unwrap_or_default();
        lines.push(format!("  last drill {} ({}): {verdict}{time}{point}", drill.run, drill.mode));
    }
    for condition in &status.conditions {
        let bad = if condition.type_ == "Degraded" { "True" } else { "False" };
        let quiet = condition.type_ == "Progressing";
        if condition.status == bad && !quiet {
            lines.push(format!("  {}: {}, {}", condition.type_, condition.reason, condition.message));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_says_who_is_active_what_is_exposed_and_what_a_failover_would_be_like() {
        let mut status = json!({
            "role": "passive", "epoch": 7, "active": "east",
            "replication": {"protected": "10/12", "exposed": "3 MiB", "extentsExposed": 0, "bytesExposed": 0,
                "commitsExposed": 0, "lagSeconds": 0, "wanted": 2},
            "prediction": {"recoveryTime": "5.03s", "recoveryPoint": "0.2s"},
            "lastDrill": {"run": "weekly-1", "mode": "Outage", "verdict": "Passed", "recoveryTime": "4.4s"},
            "conditions": [{"type": "FailoverReady", "status": "False", "reason": "Exposed", "message": "wait",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        let read = |status: &serde_json::Value| serde_json::from_value(status.clone()).expect("a status");
        assert_eq!(
            lines("west", &read(&status)),
            [
                "west: passive, epoch 7; active is east",
                "  protected 10/12, exposed 3 MiB",
                "  a failover now: recovery time 5.03s, recovery point 0.2s, at worst",
                "  last drill weekly-1 (Outage): Passed, recovery time 4.4s",
                "  FailoverReady: Exposed, wait",
            ]
        );
        status["prediction"] = json!({"obstacle": "the witness does not answer"});
        let text = lines("west", &read(&status)).join("\n");
        assert!(text.contains("would not happen by itself: the witness does not answer"), "{text}");
    }
}
