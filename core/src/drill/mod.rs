//! A rehearsed failover: what is looked at before, what is done in which order, what is measured, and what follows from it,
//! as a pure state machine. The keeper of the passive site drives it and carries out what it asks for.
//!
//! A drill grants nothing. A switch is asked of `core::lease` as a person asks for it; an outage only withholds the messages
//! and the service of the active site, as a cut line does, and ends by itself.
//!
//! ```text
//! Checking ─┬─ Readiness ──────────────────────────────────────────────────────────────────────────────► Ended
//!           ├─ Isolated ──► Sampling ──► Rehearsing ───────────────────────────────────────────────────►   ▲
//!           └─ Switchover, Outage ──► Baseline ──► Switching ──► Measuring ──► Settling ──► GoingBack ──► Verifying
//!                                        │             │                          ▲
//!                                        └── abort ────┴──────────────────────────┘ (what was cut off is restored first)
//! ```

/// Bucket of the prober's records. Gateways make it on first use; what lies in it is shown as no FileObject.
pub const BUCKET: &str = "diptych-drills";

mod event;
mod facts;
mod isolated;
mod machine;
mod measure;
mod report;
mod spec;
#[cfg(test)]
mod tests;

pub use event::{Effect, Event, PeerSight, Probe, Sight};
pub use facts::{Check, Exposed, Facts, Prediction, Standing, checks, predict};
pub use machine::Drill;
pub use report::{Phase, ReadBack, Rehearsed, Report, Samples, StaleWrites, Step, Times, Verdict};
pub use spec::{AbortLimits, DrillMode, DrillSpec, GuardLimits, InvalidDrill};
