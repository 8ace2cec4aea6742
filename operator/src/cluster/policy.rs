//! Times and budgets of a spec, as the processes are configured with them.

use diptych_api::common::{duration, lease};
use diptych_api::storage_cluster::{Failback, Failover, FailoverMode, StorageClusterSpec};
use diptych_site::config::Policy;

use super::validate::Invalid;

/// The first field that does not read is named.
pub(super) fn policy(spec: &StorageClusterSpec) -> Result<Policy, Invalid> {
    let max_loss = spec.failover.as_ref().map(|failover| failover.max_loss_on_promotion.age.as_str());
    if let Some(failover) = &spec.failover {
        milliseconds("failover.drills.passedWithin", &failover.drills.passed_within)?;
    }
    Ok(Policy {
        lease_ms: match &spec.failover {
            Some(failover) => lease_ms(&failover.lease.duration)?,
            None => Policy::default().lease_ms,
        },
        automatic: spec.failover.as_ref().is_none_or(|failover| failover.mode == FailoverMode::Automatic),
        stability_window_ms: spec.failover.as_ref().map(stability_window).transpose()?.flatten(),
        edge_grace_ms: match &spec.failover {
            Some(failover) => milliseconds("failover.edgeGrace", &failover.edge_grace)?,
            None => Policy::default().edge_grace_ms,
        },
        acknowledge_timeout_ms: milliseconds("acknowledgeTimeout", &spec.acknowledge_timeout)?,
        max_loss_age_ms: match max_loss {
            Some(age) => milliseconds("failover.maxLossOnPromotion.age", age)?,
            None => Policy::default().max_loss_age_ms,
        },
        repair_lan: bytes("repair.lan", &spec.repair.lan)?,
        repair_wan: bytes("repair.wan", &spec.repair.wan)?,
        gc_hold_s: milliseconds("gc.hold", &spec.gc.hold)? / 1000,
    })
}

/// It must read even where it is not used.
fn stability_window(failover: &Failover) -> Result<Option<u64>, Invalid> {
    let window = milliseconds("failover.stabilityWindow", &failover.stability_window)?;
    Ok((failover.failback == Failback::Automatic).then_some(window))
}

fn lease_ms(text: &str) -> Result<u64, Invalid> {
    let read = lease(text).map_err(|reason| Invalid::Field { field: "failover.lease.duration", reason })?;
    Ok(u64::try_from(read.as_millis()).unwrap_or(u64::MAX))
}

fn milliseconds(field: &'static str, text: &str) -> Result<u64, Invalid> {
    let read = duration(text).map_err(|error| Invalid::Field { field, reason: error.to_string() })?;
    Ok(u64::try_from(read.as_millis()).unwrap_or(u64::MAX))
}

/// `50Mi`: a number, and Ki, Mi or Gi.
pub(crate) fn bytes(field: &'static str, text: &str) -> Result<u64, Invalid> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" => Some(1),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1_u64 << 30),
        _ => None,
    };
    let read = unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit));
    read.ok_or_else(|| Invalid::Field {
        field,
        reason: format!("{text:?} is no number of bytes, as 50Mi is"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lease_is_given_back_by_itself_only_where_that_is_declared() {
        let window = |failover: serde_json::Value| {
            let spec = json!({"site": "east", "nodeAgents": {"devices": [{"path": "/d0"}]},
                "encryption": {"keySecretRef": {"name": "k"}}, "failover": failover});
            policy(&serde_json::from_value(spec).expect("a spec")).map(|policy| policy.stability_window_ms)
        };
        assert_eq!(window(json!({})), Ok(None), "Manual is the default");
        assert_eq!(window(json!({"failback": "Automatic"})), Ok(Some(600_000)));
        assert_eq!(window(json!({"failback": "Automatic", "stabilityWindow": "90s"})), Ok(Some(90_000)));
        let refused = window(json!({"stabilityWindow": "soon"})).expect_err("it does not read").to_string();
        assert!(refused.starts_with("spec.failover.stabilityWindow: "), "{refused}");
    }

    #[test]
    fn a_lease_may_be_short_but_not_so_short_that_a_pause_ends_it() {
        assert_eq!(lease_ms("1500ms"), Ok(1_500));
        let refused = lease_ms("900ms").expect_err("it is too short").to_string();
        assert!(refused.starts_with("spec.failover.lease.duration: 900ms"), "{refused}");
    }

    #[test]
    fn bytes_are_read_with_their_unit_and_refused_without_a_number() {
        assert_eq!(bytes("repair.lan", "200Mi").expect("it reads"), 200 << 20);
        assert_eq!(bytes("repair.lan", "7").expect("it reads"), 7);
        for text in ["", "Mi", "5M", "5 Mi", "99999999999999Gi"] {
            let error = bytes("repair.lan", text).expect_err("it is no number").to_string();
            assert!(error.starts_with("spec.repair.lan: "), "{error}");
        }
    }
}
