//! What keeps commands of the past out: the highest stamp, the newest placement map, and whether the epoch was heard.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use diptych_core::ids::{Generation, Stamp};
use diptych_wire::agent::AgentError;

/// One for the whole agent; each device keeps the highest stamp durably too.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    highest: Mutex<Stamp>,
    ready: AtomicBool,
    map: AtomicU64,
}

impl Fence {
    /// Highest stamp heard, by this process or before it by a device.
    pub(crate) fn highest(&self) -> Stamp {
        *self.lock()
    }

    /// The site's epoch was heard since the start.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// From now on lower stamps are refused here; not yet after a restart.
    pub(crate) fn remember(&self, stamp: Stamp) {
        let mut highest = self.lock();
        *highest = stamp.max(*highest);
    }

    /// The epoch was heard, and stands on the devices.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Whether a command may pass. The device must admit its stamp too, which makes it durable.
    pub(crate) fn pass(&self, stamp: Stamp, map: Option<Generation>) -> Result<(), AgentError> {
        if !self.is_ready() {
            return Err(AgentError::NotReady);
        }
        self.not_stale(stamp)?;
        if let Some(map) = map {
            let newest = self.map.fetch_max(map.0, Ordering::AcqRel);
            if map.0 < newest {
                return Err(AgentError::StaleMap { have: Generation(newest) });
            }
        }
        self.remember(stamp);
        Ok(())
    }

    /// Whether a stamp is not lower than the highest heard.
    pub(crate) fn not_stale(&self, stamp: Stamp) -> Result<(), AgentError> {
        let have = self.highest();
        if stamp < have { Err(AgentError::StaleStamp { have }) } else { Ok(()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stamp> {
        self.highest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::{Epoch, KeeperNumber};

    use super::*;

    fn stamp(epoch: u64, keeper: u64) -> Stamp {
        Stamp { epoch: Epoch(epoch), keeper: KeeperNumber(keeper) }
    }

    #[test]
    fn nothing_passes_before_the_epoch_was_heard() {
        let fence = Fence::default();
        assert_eq!(fence.pass(stamp(9, 9), None), Err(AgentError::NotReady));
    }

    #[test]
    fn a_lower_epoch_keeper_or_map_does_not_pass() {
        let fence = Fence::default();
        fence.set_ready();
        assert_eq!(fence.pass(stamp(2, 3), Some(Generation(5))), Ok(()));
        for lower in [stamp(1, 9), stamp(2, 2)] {
            assert_eq!(fence.pass(lower, None), Err(AgentError::StaleStamp { have: stamp(2, 3) }));
        }
        let stale = Err(AgentError::StaleMap { have: Generation(5) });
        assert_eq!(fence.pass(stamp(2, 3), Some(Generation(4))), stale);
        assert_eq!(fence.pass(stamp(2, 3), Some(Generation(5))), Ok(()));
    }

    #[test]
    fn a_higher_stamp_on_a_command_shuts_lower_ones_out() {
        let fence = Fence::default();
        fence.set_ready();
        fence.pass(stamp(1, 1), None).expect("the first passes");
        fence.pass(stamp(1, 2), None).expect("a newer keeper passes");
        assert!(fence.pass(stamp(1, 1), None).is_err());
    }
}
