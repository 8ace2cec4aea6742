//! The wall clock, and the hybrid time that orders versions.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diptych_core::clock::{self, ClockSkew};
use diptych_core::ids::Hlc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `2026-09-21T14:13:20Z`, of milliseconds since 1970.
pub(crate) fn instant(milliseconds: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Reads what [`instant`] writes, and the same with an offset from UTC. None: it is none, or one before 1970.
pub(crate) fn parse_instant(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text.trim(), &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Gives times that never repeat in this process. Order across processes comes from the compare on each head.
#[derive(Debug, Default)]
pub struct GatewayClock {
    last: Mutex<Hlc>,
}

impl GatewayClock {
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long ago something was born, by this clock.
    pub fn age(&self, born: Hlc) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(born.milliseconds()))
    }

    /// A time after `seen` and after every time given before.
    pub fn tick(&self, seen: Hlc) -> Hlc {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = clock::next(self.now_ms(), seen.max(*last));
        *last
    }

    /// Whether a time that some machine gave out shows this clock, or that one, to be far off.
    pub fn check(&self) -> Result<(), ClockSkew> {
        let last = *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        clock::check_skew(self.now_ms(), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_never_repeat_and_follow_what_was_seen() {
        let clock = GatewayClock::default();
        let first = clock.tick(Hlc(0));
        let ahead = Hlc::from_milliseconds(clock.now_ms() + 10_000_000);
        let second = clock.tick(ahead);
        assert!(second > ahead && second > first);
        assert!(clock.tick(Hlc(0)) > second);
        assert!(clock.check().is_err(), "hours ahead is worth a condition");
    }
}
