//! What those who delete, who move and who unlink must know of each other.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use diptych_core::ids::InstanceId;

/// Shared by the device's callers, the compactor and the committer.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    fates: Mutex<Fates>,
    bell: Mutex<Bell>,
    rung: Condvar,
}

/// FENCING: who reserves a tombstone and who reserves a copy does so under this lock, each after a look at the index. In the log
/// no copy lies behind a tombstone of its record: an index made anew would take it for one that lives.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    /// Their tombstones are reserved, and the index may not know of them yet.
    pub(crate) dying: HashSet<InstanceId>,
    /// The segment that copies are on their way out of.
    ///
    /// FENCING: it stays until they are all in the index: it is what keeps the tombstones of records that die meanwhile.
    pub(crate) victim: Option<u64>,
}

#[derive(Debug, Default)]
struct Bell {
    rung: bool,
    stopped: bool,
}

impl Moving {
    pub(crate) fn fates(&self) -> MutexGuard<'_, Fates> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bell(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something died: there may be a segment to empty.
    pub(crate) fn ring(&self) {
        self.bell().rung = true;
        self.rung.notify_one();
    }

    /// Nothing is begun any more.
    pub(crate) fn stop(&self) {
        self.bell().stopped = true;
        self.rung.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.bell().stopped
    }

    /// Waits for a ring. False: stopped.
    pub(crate) fn wait(&self) -> bool {
        let mut bell = self.bell();
        while !bell.rung && !bell.stopped {
            bell = self.rung.wait(bell).unwrap_or_else(PoisonError::into_inner);
        }
        bell.rung = false;
        !bell.stopped
    }

    /// Keeps a segment from being unlinked while copies are on their way out of it.
    pub(crate) fn empty(&self, victim: u64) -> Emptying<'_> {
        self.fates().victim = Some(victim);
        Emptying(self)
    }
}

/// While it lives, its segment stays.
#[must_use]
pub(crate) struct Emptying<'m>(&'m Moving);

impl Drop for Emptying<'_> {
    fn drop(&mut self) {
        self.0.fates().victim = None;
    }
}
