//! What a promotion of this site would lose, by age: what it was told of and lacks; and what it can't have been told of, while
//! the other site went on by the witness. The silence of a site that has stopped is not counted: it wrote nothing then.

use std::sync::Arc;

use diptych_core::ids::ExtentId;
use diptych_core::keys;
use diptych_core::lease::{LossDecision, Millis};
use diptych_core::records::{Extent, ExtentState, Record};

use super::each_lacking;
use super::follow::Followed;
use super::heard::BEHIND;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::keeper::boot_time;

/// How old the oldest loss would be. `wanted_since_ms`: milliseconds since 1970 when this site was told of the oldest extent that
/// it lacks. None: it has followed nothing since its keeper began, so there is no bound.
pub fn age(context: &SiteContext, wanted_since_ms: Option<u64>) -> Option<Millis> {
    let followed = *context.followed.borrow();
    followed.position?;
    let heard_ms = now_ms().saturating_sub(followed.heard.elapsed().as_millis() as u64);
    // Behind what was noted more may have come.
    let behind = followed.kept.map_or(0, |_| BEHIND.as_millis() as u64);
    let lacked = wanted_since_ms.map_or(0, |since| (heard_ms + behind).saturating_sub(since));
    Some(Millis(lacked).max(went_on_unheard(context, &followed)))
}

/// From the last of the feed to when the other site was last seen to go on: by a renewal at the witness, or by this site's own promise.
pub(super) fn went_on_unheard(context: &SiteContext, followed: &Followed) -> Millis {
    let lease = *context.lease.borrow();
    let now = boot_time();
    let since_heard = followed.heard.elapsed().as_millis() as u64;
    // Not by the time of the last of the feed: that may be before this machine began.
    let seen = lease.peer_renewed.max(lease.peer_promised);
    let seen = seen.map_or(0, |at| since_heard.saturating_sub(at.until(now).0));
    Millis(seen).max(followed.kept.unwrap_or(Millis(0)))
}

/// `maxLossOnPromotion`: decides whether a promotion would lose too much.
pub struct LossGate(Arc<SiteContext>);

impl LossGate {
    /// Of a site that follows another one.
    pub fn new(context: Arc<SiteContext>) -> Self {
        Self(context)
    }

    /// What is so just now.
    pub async fn decide(&self) -> LossDecision {
        let age = match oldest_wanted_ms(&self.0).await {
            Ok(oldest) => age(&self.0, oldest),
            Err(error) => {
                tracing::warn!(%error, "what would be lost is not known");
                return LossDecision::Denied;
            }
        };
        // A term that was not followed counts as unbounded.
        if age.is_some_and(|age| age <= Millis(self.0.policy.max_loss_age_ms)) {
            return LossDecision::Allowed;
        }
        tracing::warn!(?age, "a promotion would lose more than is allowed: a person must say so");
        LossDecision::Denied
    }
}

pub(super) async fn oldest_wanted_ms(context: &SiteContext) -> Result<Option<u64>, SiteError> {
    let view = context.catalog.view().await?;
    let mut lacking: Vec<(ExtentId, u64)> = Vec::new();
    each_lacking(view.as_ref(), &context.site, |key, wanted| {
        lacking.extend(keys::extent_of(key).map(|extent| (extent, wanted.since_ms)));
    })?;
    lacking.sort_by_key(|(_, since_ms)| *since_ms);
    for (extent, since_ms) in lacking {
        let raw = view.get(&keys::extent(extent))?;
        let record = raw.as_deref().map(Extent::decode).transpose()?;
        // No version names what never was whole here.
        if !record.is_some_and(|record| matches!(record.state, ExtentState::Compacting(_))) {
            return Ok(Some(since_ms));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use diptych_catalog::{Batch, Change, Write};
    use diptych_core::compaction::Recipe;
    use diptych_core::ids::{Epoch, Hlc, Row};
    use diptych_core::lease::BootTime;
    use diptych_core::records::{ExtentKind, Holds, Position, Wanted};

    use super::*;
    use crate::keeper::KeeperState;
    use crate::testing::west;

    #[tokio::test]
    async fn an_extent_that_compaction_fills_is_no_loss_while_it_is_not_here() {
        let (context, _folder) = west();
        let lacking = |number: u8, state: ExtentState| {
            let record = Extent {
                state,
                holds: Holds::Data,
                length: 1,
                payload: 1,
                hash: [0; 32],
                needed: 4,
                rows: vec![(context.site.clone(), Row(6), 6)],
                epoch: Epoch(1),
                hlc: Hlc(1),
            };
            let since_ms = u64::from(number);
            let wanted = Wanted { kind: ExtentKind::Data, bytes: 1, since_ms, revision: 1 };
            let extent = ExtentId([number; 16]);
            let writes = vec![
                Write::Put(keys::extent(extent), Bytes::from(record.encode())),
                Write::Put(keys::wanted(&context.site, extent), Bytes::from(wanted.encode())),
            ];
            context.catalog.commit(Batch::one(None, Change::blind(writes)))
        };
        let recipe = Recipe { ranges: Vec::new(), tail: Vec::new() };
        lacking(1, ExtentState::Compacting(recipe)).await.expect("it commits");
        assert_eq!(oldest_wanted_ms(&context).await.expect("it reads"), None);
        lacking(2, ExtentState::Live).await.expect("it commits");
        assert_eq!(oldest_wanted_ms(&context).await.expect("it reads"), Some(2));
    }

    #[tokio::test]
    async fn what_was_never_followed_has_no_age_and_a_site_that_went_on_unheard_counts() {
        let (mut context, _folder) = west();
        assert_eq!(age(&context, None), None, "nothing was followed");
        assert_eq!(LossGate::new(Arc::new(west().0)).decide().await, LossDecision::Denied);
        let position = Some(Position { incarnation: 1, revision: 1 });
        context.followed.send_replace(Followed { heard: Instant::now(), position, term: None, kept: None });
        assert_eq!(age(&context, None), Some(Millis(0)));
        let lacked = age(&context, Some(now_ms() - 5_000)).expect("it is known");
        assert!((4_900..=5_100).contains(&lacked.0), "{lacked}");
        let heard = Instant::now().checked_sub(Duration::from_secs(10)).expect("the clock goes back so far");
        context.followed.send_replace(Followed { heard, position, term: None, kept: None });
        let ago = |ms| Some(BootTime(boot_time().0.saturating_sub(ms)));
        let mut seen = |peer_renewed, peer_promised| {
            let state = KeeperState { peer_renewed, peer_promised, ..KeeperState::at_start() };
            context.lease = tokio::sync::watch::Sender::new(state).subscribe();
            age(&context, None).expect("it is known").0
        };
        for (renewed, promised, unheard) in
            [(ago(3_000), None, 7_000), (ago(9_000), ago(4_000), 6_000), (ago(12_000), None, 0)]
        {
            let counted = seen(renewed, promised);
            assert!((unheard..=unheard + 200).contains(&(counted + 100)), "{counted} ms, not {unheard}");
        }
    }
}
