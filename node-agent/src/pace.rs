//! Keeps bytes a second under a budget.

use std::time::Duration;

use tokio::time::Instant;

/// A budget in bytes a second. What was not spent in the last second is lost.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    paid_until: Instant,
}

impl Pace {
    /// None: no limit.
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.filter(|rate| *rate > 0), paid_until: Instant::now() }
    }

    /// Waits until `bytes` fit the budget.
    pub(crate) async fn spend(&mut self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        tokio::time::sleep_until(self.paid_until).await;
        let earliest = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(self.paid_until);
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.paid_until = self.paid_until.max(earliest) + cost;
    }
}
