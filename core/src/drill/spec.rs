//! What a drill is asked to do, and what keeps it from being done or ends it early.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lease::Millis;

/// What is rehearsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrillMode {
    /// The guards are looked at and a failover is predicted; nothing else is touched.
    Readiness,
    /// The passive site reads sampled objects from its own rows alone and verifies every tag.
    Isolated,
    /// A planned switch, lossless, and back.
    Switchover,
    /// The active site is cut off for real, and taken over.
    Outage,
}

impl DrillMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Readiness, Self::Isolated, Self::Switchover, Self::Outage];

    /// Whether the role moves.
    pub const fn switches(self) -> bool {
        matches!(self, Self::Switchover | Self::Outage)
    }
}

impl fmt::Display for DrillMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl FromStr for DrillMode {
    type Err = InvalidDrill;

    fn from_str(word: &str) -> Result<Self, InvalidDrill> {
        let found = Self::ALL.into_iter().find(|mode| mode.to_string() == word);
        found.ok_or_else(|| InvalidDrill::Mode(word.to_owned()))
    }
}

/// A drill that can't be carried out as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidDrill {
    /// No such mode.
    #[error("{0:?} is none of Readiness, Isolated, Switchover, Outage")]
    Mode(String),
    /// The active site would not be away for long enough to be taken over, or for too long.
    #[error(
        "an outage of {0} is outside of 15 s to 10 min: shorter ones end before the other site has taken over"
    )]
    Outage(Millis),
    /// Nothing would be read.
    #[error("0 samples prove nothing: ask for at least one")]
    Samples,
}

/// Must hold before a drill that moves the role begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardLimits {
    /// Bytes that may lie in the active site only.
    pub exposed_bytes: u64,
    /// For so long something may lie in the active site only.
    pub exposed_age: Millis,
    /// Since the end of the last drill that moved the role.
    pub cool_down: Millis,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { exposed_bytes: 64 << 20, exposed_age: Millis(5_000), cool_down: Millis(10 * 60_000) }
    }
}

/// Ends a drill early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AbortLimits {
    /// For so long no write came through the public name, counted from the last good one; or the role did not pass, counted from
    /// the switch, or from the end of an outage.
    pub unavailable: Millis,
    /// The sites were not both well and caught up again so long after the switch, or after the end of an outage.
    pub settle: Millis,
}

impl Default for AbortLimits {
    fn default() -> Self {
        Self { unavailable: Millis(60_000), settle: Millis(5 * 60_000) }
    }
}

/// What a drill is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillSpec {
    /// What is rehearsed.
    pub mode: DrillMode,
    /// Outage: the active site is cut off for so long, and restores itself then whatever happens to anybody else.
    #[serde(default = "DrillSpec::outage")]
    pub outage: Millis,
    /// Isolated: objects that are read.
    #[serde(default = "DrillSpec::samples")]
    pub samples: u32,
    /// Whether the role goes back to the site that had it.
    #[serde(default = "DrillSpec::go_back")]
    pub go_back: bool,
    /// A drill whose recovery takes longer has failed.
    #[serde(default = "DrillSpec::target")]
    pub target: Millis,
    /// Guards.
    #[serde(default)]
    pub guards: GuardLimits,
    /// Ends it early.
    #[serde(default)]
    pub abort: AbortLimits,
}

impl DrillSpec {
    const fn outage() -> Millis {
        Millis(30_000)
    }

    const fn samples() -> u32 {
        100
    }

    const fn go_back() -> bool {
        true
    }

    const fn target() -> Millis {
        Millis(15_000)
    }

    /// A drill with all defaults.
    pub fn of(mode: DrillMode) -> Self {
        Self {
            mode,
            outage: Self::outage(),
            samples: Self::samples(),
            go_back: Self::go_back(),
            target: Self::target(),
            guards: GuardLimits::default(),
            abort: AbortLimits::default(),
        }
    }

    /// Refuses what can't be carried out.
    pub const fn check(&self) -> Result<(), InvalidDrill> {
        let outage = self.outage;
        if matches!(self.mode, DrillMode::Outage) && (outage.0 < 15_000 || outage.0 > 600_000) {
            return Err(InvalidDrill::Outage(outage));
        }
        if matches!(self.mode, DrillMode::Isolated) && self.samples == 0 {
            return Err(InvalidDrill::Samples);
        }
        Ok(())
    }
}
