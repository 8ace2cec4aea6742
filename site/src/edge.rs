//! What the edge says of both sites: each site keeps a health check of its own there, and reads the verdicts on both.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diptych_core::edge::EdgeVerdict;
use serde::{Deserialize, Serialize};

use crate::context::SiteContext;

/// Between two looks at the verdicts of a site that is active: `edgeGrace` counts from what it sees.
const LOOK_ACTIVE: Duration = Duration::from_secs(10);
/// Of one that is not.
const LOOK_PASSIVE: Duration = Duration::from_secs(30);
/// Between two looks, however often somebody hints: calls are counted.
const LOOK_SOONEST: Duration = Duration::from_secs(2);

/// What the edge says of one site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteVerdict {
    /// Whether it is reached.
    pub verdict: EdgeVerdict,
    /// In the edge's words; empty: none.
    pub reason: String,
}

/// Why there are no verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeTrouble {
    /// One word.
    pub reason: String,
    /// For a person.
    pub message: String,
}

/// What is known of the edge's view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeStatus {
    /// Of this site.
    pub here: SiteVerdict,
    /// Of the other one.
    pub there: SiteVerdict,
    /// Why nothing is known; None: it is.
    pub trouble: Option<EdgeTrouble>,
    /// Why this site goes on though it can't be reached; None: it can, or is not active.
    pub waiting: Option<String>,
}

/// A site's health check at the edge.
#[async_trait]
pub trait EdgeChecks: Send + Sync + 'static {
    /// Makes it as it shall be, and reads the verdicts: on this site, and on the other.
    async fn keep(&self) -> Result<(SiteVerdict, SiteVerdict), EdgeTrouble>;

    /// Removes it, if there is one.
    async fn remove(&self) -> Result<(), EdgeTrouble>;
}

/// Keeps the check and reads the verdicts for ever, at once where that is hinted at; where it is not `wanted` it is removed.
pub async fn run(checks: Arc<dyn EdgeChecks>, context: Arc<SiteContext>, wanted: bool) {
    if !wanted {
        remove(checks.as_ref(), &context).await;
        return std::future::pending().await;
    }
    loop {
        let kept = checks.keep().await;
        context.edge.send_if_modified(|known| take(known, kept));
        let active = context.standing.borrow().active;
        tokio::time::sleep(LOOK_SOONEST).await;
        let pause = if active { LOOK_ACTIVE } else { LOOK_PASSIVE };
        tokio::select! {
            () = tokio::time::sleep(pause.saturating_sub(LOOK_SOONEST)) => {}
            () = context.edge_hint.notified() => {}
        }
    }
}

/// A verdict that can't be read is none: nothing follows from an old one.
fn take(known: &mut Option<EdgeStatus>, kept: Result<(SiteVerdict, SiteVerdict), EdgeTrouble>) -> bool {
    let waiting = known.as_ref().and_then(|known| known.waiting.clone());
    let now = match kept {
        Ok((here, there)) => EdgeStatus { here, there, trouble: None, waiting },
        Err(trouble) => EdgeStatus { trouble: Some(trouble), waiting, ..EdgeStatus::default() },
    };
    let news = known.as_ref() != Some(&now);
    if news {
        tracing::info!(edge = ?now, "what the edge says of both sites");
        *known = Some(now);
    }
    news
}

/// Tried once at each start: where the zone's plan has no health checks there is nothing to remove either.
async fn remove(checks: &dyn EdgeChecks, context: &SiteContext) {
    if let Err(trouble) = checks.remove().await {
        tracing::debug!(site = %context.site, trouble = trouble.message, "no health check was removed");
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::testing::west;

    #[test]
    fn a_verdict_that_can_not_be_read_any_more_is_none_and_why_the_site_goes_on_stays() {
        let reached = SiteVerdict { verdict: EdgeVerdict::Reached, reason: "No failures".to_owned() };
        let mut known = None;
        assert!(take(&mut known, Ok((reached.clone(), reached.clone()))), "it is news");
        assert!(!take(&mut known, Ok((reached.clone(), reached))), "the same is none");
        let waiting = Some("it goes on".to_owned());
        known.as_mut().expect("it is known").waiting.clone_from(&waiting);
        let trouble = EdgeTrouble { reason: "Unreachable".to_owned(), message: "cut".to_owned() };
        assert!(take(&mut known, Err(trouble.clone())));
        let none = EdgeStatus { trouble: Some(trouble), waiting, ..EdgeStatus::default() };
        assert_eq!(known, Some(none));
    }

    /// Tells when it was looked at.
    #[derive(Default)]
    struct Looked(Notify);

    #[async_trait]
    impl EdgeChecks for Looked {
        async fn keep(&self) -> Result<(SiteVerdict, SiteVerdict), EdgeTrouble> {
            self.0.notify_one();
            Ok(Default::default())
        }

        async fn remove(&self) -> Result<(), EdgeTrouble> {
            unreachable!("it is wanted")
        }
    }

    #[tokio::test]
    async fn a_hint_has_the_verdicts_looked_at_before_it_is_time_and_not_again_at_once() {
        let (context, _folder) = west();
        let context = Arc::new(context);
        let checks = Arc::new(Looked::default());
        let looks = run(Arc::clone(&checks) as Arc<dyn EdgeChecks>, Arc::clone(&context), true);
        let hinted = async {
            checks.0.notified().await;
            let first = std::time::Instant::now();
            context.edge_hint.notify_one();
            checks.0.notified().await;
            let waited = first.elapsed();
            assert!((LOOK_SOONEST..LOOK_PASSIVE).contains(&waited), "{waited:?}");
        };
        tokio::select! {
            () = looks => panic!("it goes on for as long as the site does"),
            () = hinted => {}
        }
    }

    /// Keeps nothing, and tells when it was removed.
    #[derive(Default)]
    struct Removed(Notify);

    #[async_trait]
    impl EdgeChecks for Removed {
        async fn keep(&self) -> Result<(SiteVerdict, SiteVerdict), EdgeTrouble> {
            panic!("no check is wanted")
        }

        async fn remove(&self) -> Result<(), EdgeTrouble> {
            self.0.notify_one();
            Ok(())
        }
    }

    #[tokio::test]
    async fn where_no_check_is_wanted_the_one_that_is_there_goes() {
        let (context, _folder) = west();
        let checks = Arc::new(Removed::default());
        let looks = run(Arc::clone(&checks) as Arc<dyn EdgeChecks>, Arc::new(context), false);
        tokio::select! {
            () = looks => panic!("it goes on for as long as the site does"),
            () = checks.0.notified() => {}
        }
    }
}
