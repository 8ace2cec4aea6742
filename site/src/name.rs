//! The public name follows the lease: the site that serves points it to itself, and looks again every ten seconds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diptych_core::ids::Epoch;
use tokio::sync::{Notify, watch};

use crate::keeper::{KeeperHandle, boot_time};

/// Between two looks at the name.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two looks of a site that does not serve: what would keep it from pointing the name here is found before it must.
const LOOK_PASSIVE: Duration = Duration::from_mins(1);
/// After a failure; twice as long after the next, at most [`LOOK_EVERY`].
const AGAIN: Duration = Duration::from_millis(500);

/// Why the name can't be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTrouble {
    /// One word, CamelCase.
    pub reason: &'static str,
    /// For a person: what is wrong, and what to do.
    pub message: String,
    /// Every call is refused for so long, whatever it asks.
    pub retry_after: Option<Duration>,
}

/// What was last seen of the public name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameSeen {
    /// Why it can't be kept; None: it can, or there is none.
    pub trouble: Option<NameTrouble>,
    /// Whether this site has pointed it here; None: there is none, or it was not looked at yet.
    pub points_here: Option<bool>,
}

/// Where the public name is kept.
#[async_trait]
pub trait PublicName: Send + Sync + 'static {
    /// Points it to this site, if it does not already; true: something was changed.
    async fn point_here(&self) -> Result<bool, NameTrouble>;

    /// Whether it could be pointed here. Where it points stays as it is; what only this site has for it is made ready.
    async fn look(&self) -> Result<(), NameTrouble>;

    /// Closes the other site's way to the edge from outside, where there is a way to do so: it was silent when this site took
    /// over, and may not know yet.
    async fn fence_peer(&self) -> Result<(), NameTrouble> {
        Ok(())
    }
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
    let mut fence = Fence::default();
    loop {
        // FENCING: only the holder of a running lease changes the name; a late flip of an older one is repaired by the
        // newer at its next look.
        let serves = state.borrow_and_update().loan(boot_time());
        let (looked, pause) = if let Some(loan) = serves {
            let pointed = name.point_here().await;
            if pointed == Ok(true) {
                tracing::info!(epoch = %loan.epoch, "the public name points here now");
            }
            if pointed.is_ok() {
                let peer_connected = state.borrow().peer_connected;
                fence.put_up(name.as_ref(), loan.epoch, peer_connected).await;
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
            Err(trouble) => {
                tracing::warn!(reason = trouble.message, "the public name could not be looked at or changed");
                let locked_out = trouble.retry_after;
                seen.send_modify(|seen| seen.trouble = Some(trouble));
                if let Some(pause) = locked_out {
                    // Nothing wakes it: a call would be refused, and each one may make the lock-out longer.
                    tokio::time::sleep(pause).await;
                    again = AGAIN;
                    continue;
                }
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

/// The outer fence: once a term, if the other site is silent when this one has the name.
#[derive(Default)]
struct Fence {
    /// The term that needs none any more: it stands, or the other site answered.
    settled: Option<Epoch>,
}

impl Fence {
    /// FENCING: after the name, while this site serves already. Who may write was settled by the lease, and waits for nothing here.
    async fn put_up(&mut self, name: &dyn PublicName, epoch: Epoch, peer_connected: bool) {
        // A site that answers has handed over, or knows that it holds nothing.
        if peer_connected {
            self.settled = Some(epoch);
        }
        if self.settled == Some(epoch) {
            return;
        }
        match name.fence_peer().await {
            Ok(()) => self.settled = Some(epoch),
            Err(trouble) => {
                tracing::warn!(
                    reason = trouble.message,
                    "the other site's way to the edge could not be closed yet"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use diptych_core::lease::BootTime;
    use tokio::sync::mpsc;

    use super::*;
    use crate::keeper::KeeperState;

    /// Longer than the pause after any other failure, so that it can't be taken for one.
    const LOCK_OUT: Duration = Duration::from_millis(800);

    /// Refuses its first call for a while, and notes when it was called.
    #[derive(Default)]
    struct Limited(Mutex<Vec<Instant>>);

    #[async_trait]
    impl PublicName for Limited {
        async fn point_here(&self) -> Result<bool, NameTrouble> {
            let mut calls = self.0.lock().expect("no panic");
            calls.push(Instant::now());
            let message = "too many calls".to_owned();
            let limited = NameTrouble { reason: "RateLimited", message, retry_after: Some(LOCK_OUT) };
            if calls.len() == 1 { Err(limited) } else { Ok(false) }
        }

        async fn look(&self) -> Result<(), NameTrouble> {
            unreachable!("the site serves")
        }
    }

    /// Refuses the first fence, and counts them.
    #[derive(Default)]
    struct Fenced(Mutex<u32>);

    #[async_trait]
    impl PublicName for Fenced {
        async fn point_here(&self) -> Result<bool, NameTrouble> {
            unreachable!("it points here")
        }

        async fn look(&self) -> Result<(), NameTrouble> {
            unreachable!("the site serves")
        }

        async fn fence_peer(&self) -> Result<(), NameTrouble> {
            let mut calls = self.0.lock().expect("no panic");
            *calls += 1;
            let message = "a server failed".to_owned();
            let failed = NameTrouble { reason: "Unclear", message, retry_after: None };
            if *calls == 1 { Err(failed) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn a_silent_site_is_fenced_once_a_term_until_it_stands_and_one_that_answers_never() {
        let name = Fenced::default();
        let mut fence = Fence::default();
        let fences = || *name.0.lock().expect("no panic");
        for tries in [1, 2, 2] {
            fence.put_up(&name, Epoch(2), false).await;
            assert_eq!(fences(), tries, "the first failed, the second stands");
        }
        fence.put_up(&name, Epoch(3), true).await;
        fence.put_up(&name, Epoch(3), false).await;
        assert_eq!(fences(), 2, "the other site has handed this term over");
        fence.put_up(&name, Epoch(4), false).await;
        assert_eq!(fences(), 3, "another takeover");
    }

    #[tokio::test]
    async fn a_lock_out_is_waited_for_whoever_wakes() {
        let name = Arc::new(Limited::default());
        let serves = Some((Epoch(1), BootTime::NEVER));
        let state = watch::Sender::new(KeeperState { serves, ..KeeperState::at_start() });
        let keeper = KeeperHandle::new(mpsc::unbounded_channel().0, state.subscribe());
        let (now, seen) = (Arc::new(Notify::new()), watch::Sender::default());
        now.notify_one();
        let mut news = seen.subscribe();
        let kept = async {
            let refused =
                news.wait_for(|seen: &NameSeen| seen.trouble.is_some()).await.map(|seen| seen.clone());
            assert_eq!(refused.expect("it runs").trouble.map(|trouble| trouble.reason), Some("RateLimited"));
            news.wait_for(|seen| seen.points_here == Some(true)).await.map(drop).expect("it runs");
        };
        tokio::select! {
            () = run(Arc::clone(&name) as Arc<dyn PublicName>, keeper, now, &seen) => unreachable!("it runs for ever"),
            () = kept => {}
        }
        let calls = name.0.lock().expect("no panic").clone();
        assert!(calls[1].duration_since(calls[0]) >= LOCK_OUT, "it was called during the lock-out");
    }
}
