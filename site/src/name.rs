//! The public name follows the lease: the site that serves points it to itself, and looks again every ten seconds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::keeper::{KeeperHandle, boot_time};

/// Between two looks at the name.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// Where the public name is kept.
#[async_trait]
pub trait PublicName: Send + Sync + 'static {
    /// Points it to this site, if it does not already; true: something was changed.
    async fn point_here(&self) -> Result<bool, String>;
}

/// Keeps the name right while this site serves. `now` wakes it.
pub async fn run(name: Arc<dyn PublicName>, keeper: KeeperHandle, now: Arc<Notify>) {
    let mut state = keeper.watch();
    loop {
        // FENCING: only the holder of a running lease changes the name; a late flip of an older one is repaired by the
        // newer at its next look.
        let serves = state.borrow_and_update().loan(boot_time());
        let pause = match serves {
            Some(loan) => match name.point_here().await {
                Ok(true) => {
                    tracing::info!(epoch = %loan.epoch, "the public name points here now");
                    LOOK_EVERY
                }
                Ok(false) => LOOK_EVERY,
                Err(reason) => {
                    tracing::warn!(reason, "the public name could not be looked at or changed");
                    AGAIN
                }
            },
            None => LOOK_EVERY,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = now.notified() => {}
        }
    }
}
