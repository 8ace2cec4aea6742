//! Whether this gateway may acknowledge writes: the time that its site's keeper lends it.

use diptych_core::ids::{Epoch, KeeperNumber, Stamp};
use diptych_core::lease::{BootTime, SubLease};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{GatewayError, Result};

/// CLOCK_BOOTTIME of this machine: the only clock that deadlines are compared with.
pub fn boot_time() -> BootTime {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    BootTime(seconds * 1000 + nanoseconds / 1_000_000)
}

/// What commands to agents carry under a sub-lease.
pub fn stamp_of(lease: &SubLease) -> Stamp {
    Stamp { epoch: lease.epoch, keeper: lease.keeper }
}

/// What the site is, as far as a gateway needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Active,
    /// It follows the other site.
    Passive,
    /// It may do neither until it knows more.
    Fenced,
}

impl Role {
    /// As status pages spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Active => "active",
            Role::Passive => "passive",
            Role::Fenced => "fenced",
        }
    }
}

/// Where sub-leases come from: the keeper's answers, kept by whoever asks it. Nothing here blocks.
pub trait Authority: Send + Sync + 'static {
    /// The newest sub-lease, whether or not it still runs; None: never lent, or taken back.
    fn sub_lease(&self) -> Option<SubLease>;

    /// The newest epoch that is known.
    fn epoch(&self) -> Epoch;

    /// The site's role as last heard.
    fn role(&self) -> Role;
}

/// One site without a peer: its gate is open at epoch 1, its deadline never ends.
#[derive(Debug, Clone, Copy)]
pub struct SingleSite {
    /// Number of its keeper.
    pub keeper: KeeperNumber,
}

impl SingleSite {
    /// Its only epoch.
    pub const EPOCH: Epoch = Epoch(1);
}

impl Authority for SingleSite {
    fn sub_lease(&self) -> Option<SubLease> {
        Some(SubLease { epoch: Self::EPOCH, keeper: self.keeper, until: BootTime::NEVER })
    }

    fn epoch(&self) -> Epoch {
        Self::EPOCH
    }

    fn role(&self) -> Role {
        Role::Active
    }
}

/// The right to write, looked at before anything is made.
pub fn may_write(authority: &dyn Authority) -> Result<SubLease> {
    match authority.sub_lease() {
        Some(lease) if lease.admits(boot_time(), lease.epoch) => Ok(lease),
        Some(lease) => Err(GatewayError::NotActive(format!("its time under epoch {} ran out", lease.epoch))),
        None => Err(GatewayError::NotActive(format!("it is {}", authority.role().as_str()))),
    }
}

/// FENCING: the look after the commit, before the answer; it is the one that counts. A machine that was paused between
/// the two must not acknowledge: another site may have won a newer epoch meanwhile.
pub fn still_may_answer(authority: &dyn Authority, epoch: Epoch) -> Result<()> {
    match authority.sub_lease() {
        Some(lease) if lease.admits(boot_time(), epoch) => Ok(()),
        _ => Err(GatewayError::OutcomeUnknown(format!(
            "it was committed under epoch {epoch}, but the right to acknowledge it ran out meanwhile"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use diptych_core::lease::Millis;

    use super::*;

    struct Lent(Mutex<Option<SubLease>>);

    impl Authority for Lent {
        fn sub_lease(&self) -> Option<SubLease> {
            *self.0.lock().expect("not poisoned")
        }

        fn epoch(&self) -> Epoch {
            Epoch(3)
        }

        fn role(&self) -> Role {
            Role::Passive
        }
    }

    fn lease(epoch: u64, left: u64) -> SubLease {
        SubLease { epoch: Epoch(epoch), keeper: KeeperNumber(1), until: boot_time() + Millis(left) }
    }

    #[test]
    fn a_lapsed_sub_lease_refuses_before_and_is_unknown_after() {
        let running = lease(3, 60_000);
        let lent = Lent(Mutex::new(Some(running)));
        assert_eq!(may_write(&lent).expect("it runs"), running);
        still_may_answer(&lent, Epoch(3)).expect("it still runs");

        *lent.0.lock().expect("not poisoned") = Some(lease(3, 0));
        assert!(matches!(may_write(&lent), Err(GatewayError::NotActive(_))));
        assert!(matches!(still_may_answer(&lent, Epoch(3)), Err(GatewayError::OutcomeUnknown(_))));
    }

    #[test]
    fn a_newer_term_does_not_acknowledge_an_older_ones_commit() {
        let lent = Lent(Mutex::new(Some(lease(5, 60_000))));
        assert!(matches!(still_may_answer(&lent, Epoch(3)), Err(GatewayError::OutcomeUnknown(_))));
    }
}
