//! The keeper: drives `core::lease` with what happens and carries out what it asks for. It decides nothing.
//!
//! One task owns the state machine. Calls that take time (catalog, witness, peer) run beside it and come back as events;
//! each effect of a step is begun before the next step is taken.

pub mod ask;
pub mod election;
pub mod handle;
pub mod record;
mod shell;
#[cfg(test)]
mod tests;
pub mod witness;

pub use handle::{KeeperHandle, KeeperState};
pub use shell::{Keeper, KeeperParts};

use async_trait::async_trait;
use diptych_core::ids::Epoch;
use diptych_core::lease::{BootTime, LossDecision, Message};
use diptych_core::records::Position;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME of this machine: the only clock of the lease.
pub fn boot_time() -> BootTime {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    BootTime(seconds * 1000 + nanoseconds / 1_000_000)
}

/// The way to the other site's keeper.
#[async_trait]
pub trait PeerLink: Send + Sync + 'static {
    /// Sends a message; lost ones are lost, nothing is tried again.
    async fn send(&self, message: Message);
}

/// What the keeper asks of the gateways and the other loops of its site.
#[async_trait]
pub trait SiteHands: Send + Sync + 'static {
    /// Points the public name here, and sees that it stays so while the epoch is served.
    async fn fence_peer(&self, epoch: Epoch);

    /// Whether what would be lost is within `maxLossOnPromotion`.
    async fn loss_gate(&self) -> LossDecision;

    /// Holds back new writes and returns when those in flight are done.
    async fn drain(&self, epoch: Epoch);

    /// Lets held writes go on.
    async fn undrain(&self, epoch: Epoch);

    /// Returns when the other site has all up to `position`, entries and fragments.
    async fn peer_has(&self, position: Position);

    /// Returns when every gateway said that it stopped.
    async fn stop_gateways(&self, epoch: Epoch);
}
