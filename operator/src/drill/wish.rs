//! From the strings of a spec to the types of the core.

use std::time::Duration;

use diptych_api::FailoverDrillSpec;
use diptych_api::common::duration;
use diptych_api::failover_drill::DrillMode;
use diptych_core::drill::{self, AbortLimits, DrillSpec, GuardLimits};
use diptych_core::lease::Millis;

use crate::cluster::bytes;

/// What the keeper is asked for.
///
/// # Errors
/// The first field that does not read, or what can't be carried out, as a sentence.
pub(super) fn wish(spec: &FailoverDrillSpec) -> Result<DrillSpec, String> {
    let guards = &spec.guards;
    let wish = DrillSpec {
        mode: match spec.mode {
            DrillMode::Readiness => drill::DrillMode::Readiness,
            DrillMode::Isolated => drill::DrillMode::Isolated,
            DrillMode::Switchover => drill::DrillMode::Switchover,
            DrillMode::Outage => drill::DrillMode::Outage,
        },
        outage: milliseconds("outage", &spec.outage)?,
        samples: u32::try_from(spec.samples).unwrap_or(0),
        go_back: spec.go_back,
        target: milliseconds("target", &spec.target)?,
        guards: GuardLimits {
            exposed_bytes: bytes("guards.exposedBytes", &guards.exposed_bytes)
                .map_err(|error| error.to_string())?,
            exposed_age: milliseconds("guards.exposedAge", &guards.exposed_age)?,
            cool_down: milliseconds("guards.coolDown", &guards.cool_down)?,
        },
        abort: AbortLimits {
            unavailable: milliseconds("abortConditions.unavailable", &spec.abort_conditions.unavailable)?,
            settle: milliseconds("abortConditions.settle", &spec.abort_conditions.settle)?,
        },
    };
    wish.check().map_err(|error| format!("spec: {error}"))?;
    Ok(wish)
}

fn milliseconds(field: &str, text: &str) -> Result<Millis, String> {
    let read: Duration = duration(text).map_err(|error| format!("spec.{field}: {error}"))?;
    Ok(Millis(u64::try_from(read.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::due::tests::drill;

    #[test]
    fn what_is_left_out_is_as_the_core_has_it() {
        let spec = drill(&serde_json::json!({"mode": "Outage"})).spec;
        assert_eq!(wish(&spec), Ok(DrillSpec::of(drill::DrillMode::Outage)));
    }

    #[test]
    fn a_field_that_does_not_read_is_named() {
        let spec = drill(&serde_json::json!({"mode": "Outage", "outage": "1s"})).spec;
        assert!(wish(&spec).is_err_and(|reason| reason.contains("15 s")));
        let spec = drill(&serde_json::json!({"mode": "Isolated", "guards": {"exposedBytes": "5M"}})).spec;
        assert!(wish(&spec).is_err_and(|reason| reason.starts_with("spec.guards.exposedBytes: ")));
    }
}
