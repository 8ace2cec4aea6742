//! The right to write, as a gateway in the keeper's own process sees it: same clock, same deadline.

use std::sync::atomic::{AtomicU64, Ordering};

use diptych_core::ids::Epoch;
use diptych_core::lease::{Role as LeaseRole, SubLease};
use diptych_gateway::authority::{Authority, Role};
use diptych_site::keeper::KeeperHandle;

/// What the keeper lends, until it is stopped.
pub(super) struct KeeperAuthority {
    keeper: KeeperHandle,
    stopped: AtomicU64,
}

impl KeeperAuthority {
    /// Of a keeper in the same process.
    pub(super) fn new(keeper: KeeperHandle) -> Self {
        Self { keeper, stopped: AtomicU64::new(0) }
    }

    /// FENCING (a handover misses nothing): from now on nothing is acknowledged under `epoch`, whatever time is left.
    pub(super) fn stop(&self, epoch: Epoch) {
        self.stopped.fetch_max(epoch.0, Ordering::SeqCst);
    }
}

impl Authority for KeeperAuthority {
    fn sub_lease(&self) -> Option<SubLease> {
        let stopped = self.stopped.load(Ordering::SeqCst);
        self.keeper.state().sub_lease().filter(|lease| lease.epoch.0 > stopped)
    }

    fn epoch(&self) -> Epoch {
        self.keeper.state().epoch
    }

    fn role(&self) -> Role {
        match self.keeper.state().role {
            LeaseRole::Holder | LeaseRole::HandingOver => Role::Active,
            LeaseRole::Follower => Role::Passive,
            LeaseRole::NoRecord | LeaseRole::Candidate | LeaseRole::Lapsed | LeaseRole::Resigned => {
                Role::Fenced
            }
        }
    }
}
