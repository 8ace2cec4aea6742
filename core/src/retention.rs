//! Retention: a version that nobody deletes or replaces until a time that is said with it (docs/adr/0021).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a single clock may be off without a retention ending early by it.
const SLACK: Duration = Duration::from_hours(24);

/// The time until which a version stays: milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RetainUntil(pub u64);

impl RetainUntil {
    /// Whether a version still stays, by clocks of several machines, in milliseconds since 1970. It is over when each of them says so: one
    /// that is ahead ends nothing, and one that is behind only makes it last.
    pub fn runs(self, clocks: impl IntoIterator<Item = u64>) -> bool {
        clocks.into_iter().any(|now_ms| now_ms < self.0)
    }

    /// The same where one clock is all there is: a day that it may be ahead counts as not over yet. For decisions after which a version is
    /// kept, and only waits for a person.
    pub fn runs_by_one_clock(self, now_ms: u64) -> bool {
        let slack = u64::try_from(SLACK.as_millis()).unwrap_or(u64::MAX);
        self.runs([now_ms.saturating_sub(slack)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_retention_ends_when_every_clock_has_passed_it() {
        let until = RetainUntil(100 * HOUR);
        assert!(until.runs([99 * HOUR, 99 * HOUR]));
        assert!(until.runs([300 * HOUR, 99 * HOUR]), "one clock is days ahead");
        assert!(until.runs([99 * HOUR, 300 * HOUR]));
        assert!(!until.runs([100 * HOUR, 101 * HOUR]));
    }

    #[test]
    fn a_single_clock_that_is_hours_ahead_ends_nothing() {
        let until = RetainUntil(100 * HOUR);
        assert!(until.runs_by_one_clock(123 * HOUR));
        assert!(!until.runs_by_one_clock(124 * HOUR));
        assert!(until.runs_by_one_clock(0), "a clock that was never set");
    }
}
