//! The public name follows the lease: the site that serves points it to itself, and looks again every ten seconds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use crate::keeper::{KeeperHandle, boot_time};

/// Between two looks at the name.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two looks of a site that does not serve: what would keep it from pointing the name here is found before it must.
const LOOK_PASSIVE: Duration = Duration::from_mins(1);
/// After a failure; twice as long after the next, at most [`LOOK_EVERY`].
const AGAIN: Duration = Duration::from_millis(500);

/// What was last seen of the public name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameSeen {
    /// Why it can't be kept; None: it can, or there is none.
    pub trouble: Option<String>,
    /// Whether this site has pointed it here; None: there is none, or it was not looked at yet.
    pub points_here: Option<bool>,
}

/// Where the public name is kept.
#[async_trait]
pub trait PublicName: Send + Sync + 'static {
    /// Points it to this site, if it does not already; true: something was changed.
    async fn point_here(&self) -> Result<bool, String>;

    /// Whether it could be pointed here; changes nothing.
    async fn look(&self) -> Result<(), String>;
}

/// Keeps the name right while this site serves. `now` wakes it; `seen` is told what came of it.
pub async fn run(
    name: Arc<dyn PublicName>,
    keeper: KeeperHandle,
    now: Arc<Notify>,
    seen: &watch::Sender<NameSeen>,
) {
    let mut state = keeper.watch();
    let mut again = AGAIN;
    loop {
        // FENCING: only the holder of a running lease changes the name; a late flip of an older one is repaired by the
        // newer at its next look.
        let serves = state.borrow_and_update().loan(boot_time());
        let (looked, pause) = if let Some(loan) = serves {
            let pointed = name.point_here().await;
            if pointed == Ok(true) {
                tracing::info!(epoch = %loan.epoch, "the public name points here now");
            }
            (pointed.map(drop), LOOK_EVERY)
        } else {
            tokio::select! {
                looked = name.look() => (looked, LOOK_PASSIVE),
                () = now.notified() => continue,
            }
        };
        let pause = match looked {
            Ok(()) => {
                again = AGAIN;
                seen.send_replace(NameSeen { trouble: None, points_here: Some(serves.is_some()) });
                pause
            }
            Err(reason) => {
                tracing::warn!(reason, "the public name could not be looked at or changed");
                seen.send_modify(|seen| seen.trouble = Some(reason));
                let pause = again;
                again = (again * 2).min(LOOK_EVERY);
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = now.notified() => again = AGAIN,
        }
    }
}
