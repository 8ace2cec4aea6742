//! A budget of bytes a second.

use std::time::Duration;

const NANOSECONDS: u128 = 1_000_000_000;

/// Bytes that may be moved: so many a second, saved up for at most one second.
///
/// Whatever is left pays for one whole act, and the debt is worked off before the next: an act greater than the second's
/// bytes is let through, and the rate holds over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes a second.
    rate: u64,
    /// Bytes × nanoseconds a second, so that no fraction is lost; below zero: debt.
    level: i128,
    /// When the level was this.
    at: Duration,
}

impl TokenBucket {
    /// A full bucket. `rate` is in bytes a second; zero pauses.
    pub fn new(rate: u64, now: Duration) -> Self {
        Self { rate, level: Self::full(rate), at: now }
    }

    /// Changes the rate from `now` on; a debt stays.
    pub fn set_rate(&mut self, rate: u64, now: Duration) {
        self.fill(now);
        self.rate = rate;
        self.level = self.level.min(Self::full(rate));
    }

    /// When the next act may begin: now, or once the debt is worked off; none while the rate is zero.
    pub fn ready_at(&mut self, now: Duration) -> Option<Duration> {
        self.fill(now);
        if self.rate == 0 {
            return None;
        }
        if self.level > 0 {
            return Some(self.at);
        }
        let wait = (self.level.unsigned_abs() + 1).div_ceil(u128::from(self.rate));
        let wait = Duration::new(
            u64::try_from(wait / NANOSECONDS).unwrap_or(u64::MAX),
            u32::try_from(wait % NANOSECONDS).unwrap_or(0),
        );
        Some(self.at.saturating_add(wait))
    }

    /// Pays for an act that begins now.
    pub fn take(&mut self, now: Duration, bytes: u64) {
        self.fill(now);
        self.level -= i128::from(bytes) * NANOSECONDS as i128;
    }

    /// A clock that falls back adds nothing.
    fn fill(&mut self, now: Duration) {
        let passed = i128::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(i128::MAX);
        self.level = passed
            .saturating_mul(i128::from(self.rate))
            .saturating_add(self.level)
            .min(Self::full(self.rate));
        self.at = self.at.max(now);
    }

    fn full(rate: u64) -> i128 {
        i128::from(rate) * NANOSECONDS as i128
    }
}
