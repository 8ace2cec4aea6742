//! What a keeper lends its gateways, and the gateways' rules for it.

use serde::{Deserialize, Serialize};

use super::timers::{BootTime, Millis};
use crate::ids::{Epoch, KeeperNumber};

/// A keeper's answer to a gateway that asked. Carries a length of time, never a moment: the clocks are two machines'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Loan {
    /// Of the running lease.
    pub epoch: Epoch,
    /// Who lends.
    pub keeper: KeeperNumber,
    /// Time left when the keeper answered.
    pub left: Millis,
}

/// The right of one gateway to answer for an epoch, until a moment of its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubLease {
    /// Of the writes and reads it admits.
    pub epoch: Epoch,
    /// Who lent it.
    pub keeper: KeeperNumber,
    /// By the gateway's own clock.
    pub until: BootTime,
}

impl SubLease {
    /// The sub-lease of a loan that was asked for at `asked`.
    pub fn new(asked: BootTime, loan: Loan) -> Self {
        // FENCING (one valid holder): counted from the asking, so that a slow answer can't lengthen the keeper's time.
        Self { epoch: loan.epoch, keeper: loan.keeper, until: asked + loan.left }
    }

    /// The look at the deadline. A write looks again after its commit, and that look is the one that counts.
    pub fn admits(&self, now: BootTime, epoch: Epoch) -> bool {
        epoch == self.epoch && now < self.until
    }
}

/// What a gateway holds: at most one sub-lease, of the highest keeper it has heard of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Borrowed {
    current: Option<SubLease>,
    keeper: KeeperNumber,
    stopped: Option<BootTime>,
}

impl Borrowed {
    /// Takes an answer to what was asked at `asked`; false if it is refused.
    pub fn take(&mut self, asked: BootTime, loan: Loan) -> bool {
        // FENCING (one valid holder): a keeper that was replaced may still answer; its successor may have told the
        // peer that this site holds nothing.
        if loan.keeper < self.keeper {
            return false;
        }
        // FENCING (a handover misses nothing): an answer to a question from before the stop is of before the stop.
        if self.stopped.is_some_and(|stopped| asked <= stopped) {
            return false;
        }
        let new = SubLease::new(asked, loan);
        let old = self.current.filter(|old| old.keeper == loan.keeper);
        if old.is_some_and(|old| old.epoch > new.epoch || old.epoch == new.epoch && old.until >= new.until) {
            return false;
        }
        self.keeper = loan.keeper;
        self.current = Some(new);
        true
    }

    /// Stops at once, as `keeper` told at `now`; what was asked before is refused from here on. False if a higher
    /// keeper speaks for the site.
    pub fn stop(&mut self, now: BootTime, keeper: KeeperNumber) -> bool {
        if keeper < self.keeper {
            return false;
        }
        *self = Self { current: None, keeper, stopped: Some(now) };
        true
    }

    /// The sub-lease that runs at `now`.
    pub fn running(&self, now: BootTime) -> Option<SubLease> {
        self.current.filter(|current| now < current.until)
    }

    /// Whether an answer under `epoch` may be given at `now`.
    pub fn admits(&self, now: BootTime, epoch: Epoch) -> bool {
        self.current.is_some_and(|current| current.admits(now, epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loan(epoch: u64, keeper: u64, left: u64) -> Loan {
        Loan { epoch: Epoch(epoch), keeper: KeeperNumber(keeper), left: Millis(left) }
    }

    #[test]
    fn a_sub_lease_counts_from_the_asking() {
        let mut borrowed = Borrowed::default();
        assert!(borrowed.take(BootTime(1_000), loan(3, 1, 500)));
        assert!(borrowed.admits(BootTime(1_499), Epoch(3)));
        assert!(!borrowed.admits(BootTime(1_500), Epoch(3)));
        assert!(!borrowed.admits(BootTime(1_400), Epoch(2)));
    }

    #[test]
    fn a_replaced_keeper_is_not_believed() {
        let mut borrowed = Borrowed::default();
        assert!(borrowed.take(BootTime(0), loan(3, 2, 500)));
        assert!(!borrowed.take(BootTime(1), loan(4, 1, 9_000)));
        assert!(
            borrowed.take(BootTime(2), loan(3, 3, 100)),
            "the new keeper's shorter time replaces the old one's"
        );
        assert_eq!(borrowed.running(BootTime(101)).map(|lease| lease.until), Some(BootTime(102)));
    }

    #[test]
    fn an_answer_that_was_asked_for_before_the_stop_does_not_revive_it() {
        let mut borrowed = Borrowed::default();
        assert!(borrowed.take(BootTime(0), loan(3, 1, 500)));
        assert!(borrowed.stop(BootTime(10), KeeperNumber(1)));
        assert!(!borrowed.take(BootTime(9), loan(3, 1, 500)));
        assert!(!borrowed.admits(BootTime(11), Epoch(3)));
        assert!(borrowed.take(BootTime(12), loan(3, 1, 400)));
    }
}
