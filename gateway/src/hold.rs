//! Holding writes back while the lease passes to the other site: who comes waits, who is under way ends.

use std::sync::Arc;

use http::Method;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// A write's turn: others wait for it to end before the lease may pass on.
pub(crate) type WriteTurn = OwnedRwLockReadGuard<()>;

/// While it lives no write begins.
#[derive(Debug)]
pub struct HeldWrites {
    _all: OwnedRwLockWriteGuard<()>,
}

/// Who may write now. The lock is fair: once somebody asked to hold, later writes wait behind.
#[derive(Debug, Default)]
pub(crate) struct WriteTurns {
    lock: Arc<RwLock<()>>,
}

impl WriteTurns {
    /// Waits while writes are held; None: the request only reads.
    pub(crate) async fn take(&self, method: &Method) -> Option<WriteTurn> {
        if method.is_safe() {
            return None;
        }
        Some(Arc::clone(&self.lock).read_owned().await)
    }

    /// Returns when all writes that were under way have ended.
    pub(crate) async fn hold(&self) -> HeldWrites {
        HeldWrites { _all: Arc::clone(&self.lock).write_owned().await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_wait_while_held_and_reads_do_not() {
        let turns = WriteTurns::default();
        let under_way = turns.take(&Method::PUT).await.expect("a write takes a turn");
        assert!(futures::poll!(Box::pin(turns.hold())).is_pending(), "one is under way");
        drop(under_way);
        let held = turns.hold().await;
        assert!(turns.take(&Method::GET).await.is_none());
        let mut waits = Box::pin(turns.take(&Method::DELETE));
        assert!(futures::poll!(&mut waits).is_pending());
        drop(held);
        assert!(waits.await.is_some());
    }
}
