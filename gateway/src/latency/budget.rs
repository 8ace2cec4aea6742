//! How many reads may ask others besides: where all devices are slow, that would only double the load.

use std::sync::atomic::{AtomicU32, Ordering};

/// What one costs.
const HEDGE: u32 = 100;
/// What each read brings: of a hundred, five may.
const READ: u32 = 5;
/// What each look brings, two a second: where reads are few, nearly all of them may.
const LOOK: u32 = 5 * HEDGE;
/// No more is saved up.
const MOST: u32 = 32 * HEDGE;

/// A bucket of tokens.
#[derive(Debug)]
pub(crate) struct HedgeBudget(AtomicU32);

impl Default for HedgeBudget {
    fn default() -> Self {
        Self(AtomicU32::new(MOST))
    }
}

impl HedgeBudget {
    /// A read begins.
    pub(crate) fn note_read(&self) {
        if self.0.load(Ordering::Relaxed) < MOST {
            self.0.fetch_add(READ, Ordering::Relaxed);
        }
    }

    /// Time has passed.
    pub(crate) fn look(&self) {
        let more = |tokens: u32| Some((tokens + LOOK).min(MOST));
        let _: Result<u32, u32> = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether a read may ask others besides. It does then.
    pub(crate) fn spend(&self) -> bool {
        let less = |tokens: u32| tokens.checked_sub(HEDGE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_reads_one_in_twenty_asks_others_besides() {
        let budget = HedgeBudget::default();
        let mut asked = 0;
        for _ in 0..10_000 {
            budget.note_read();
            asked += u32::from(budget.spend());
        }
        assert!((500..=540).contains(&asked), "{asked} of 10000");
    }

    #[test]
    fn with_few_reads_time_pays_for_all() {
        let budget = HedgeBudget::default();
        while budget.spend() {}
        for _ in 0..100 {
            budget.look();
            assert!((0..5).all(|_| budget.spend()));
        }
    }
}
