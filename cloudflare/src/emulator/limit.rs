//! The rate limit: so many calls of a user in a sliding window, and a lock-out of a whole window past that.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Cumulative over all tokens, as at Cloudflare, where it counts by user.
#[derive(Debug)]
pub(super) struct RateLimit {
    calls: usize,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    recent: VecDeque<Instant>,
    locked_until: Option<Instant>,
}

/// A call that is let through: what its answer's headers say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Calls left.
    pub(super) remaining: usize,
    /// Until the oldest call leaves the window.
    pub(super) resets_in: Duration,
}

impl RateLimit {
    pub(super) fn new(calls: usize, window: Duration) -> Self {
        Self { calls, window, state: Mutex::default() }
    }

    /// `Ratelimit-Policy` of each answer.
    pub(super) fn policy(&self) -> String {
        format!("\"default\";q={};w={}", self.calls, self.window.as_secs())
    }

    /// Counts a call.
    ///
    /// # Errors
    /// The time until calls are answered again.
    pub(super) fn take(&self, now: Instant) -> Result<Allowance, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = state.locked_until {
            if now < until {
                return Err(until - now);
            }
            *state = State::default();
        }
        while state.recent.front().is_some_and(|call| now.duration_since(*call) >= self.window) {
            state.recent.pop_front();
        }
        if state.recent.len() >= self.calls {
            state.locked_until = Some(now + self.window);
            return Err(self.window);
        }
        state.recent.push_back(now);
        let oldest = state.recent.front().copied().unwrap_or(now);
        let resets_in = self.window.saturating_sub(now.duration_since(oldest));
        Ok(Allowance { remaining: self.calls - state.recent.len(), resets_in })
    }

    /// Forgets all calls and the lock-out.
    pub(super) fn clear(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_too_many_locks_out_for_a_whole_window() {
        let limit = RateLimit::new(3, Duration::from_mins(5));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..3 {
            assert!(limit.take(at(second)).is_ok());
        }
        assert_eq!(limit.take(at(10)).expect_err("too many"), Duration::from_mins(5));
        assert_eq!(limit.take(at(309)).expect_err("still locked out"), Duration::from_secs(1));
        assert_eq!(limit.take(at(310)).expect("over").remaining, 2);
    }

    #[test]
    fn calls_leave_the_window_one_by_one() {
        let limit = RateLimit::new(2, Duration::from_mins(5));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(limit.take(at(0)).is_ok());
        assert!(limit.take(at(200)).is_ok());
        assert!(limit.take(at(300)).is_ok());
        assert!(limit.take(at(301)).is_err());
    }
}
