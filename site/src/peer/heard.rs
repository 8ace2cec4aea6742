//! What a keeper knows of the other site's last words, kept for the keeper that comes next: one that begins while the other site is
//! silent has heard nothing itself, and could say no bound of what a promotion would lose.

use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Write};
use diptych_core::ids::Epoch;
use diptych_core::keys;
use diptych_core::lease::Millis;
use diptych_core::records::{LastHeard, Record};

use super::follow::Followed;
use super::loss::went_on_unheard;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::keeper::record;

/// So old may be what the next keeper finds. It is counted as lost, too.
pub(super) const KEPT_EVERY: Duration = Duration::from_secs(1);

/// Takes over what the keeper before has kept, then keeps what this one hears.
pub async fn run(context: &SiteContext) {
    let term = take_over(context).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "what was heard of the other site before is not known");
        None
    });
    let mut keeping = Keeping { context, term, kept: None };
    loop {
        tokio::time::sleep(KEPT_EVERY).await;
        if let Err(error) = keeping.keep().await {
            tracing::warn!(%error, "what was heard of the other site can't be kept");
        }
    }
}

/// What was noted, as if this keeper had heard it; of which term.
///
/// FENCING (no takeover loses more than is allowed): what was heard is of the term that would be ended. It is that of the vote for the other
/// site; a vote for itself does not make this site hear less.
async fn take_over(context: &SiteContext) -> Result<Option<Epoch>, SiteError> {
    let view = context.catalog.view().await?;
    let Some(raw) = view.get(&keys::site_heard(&context.site))? else { return Ok(None) };
    let heard = LastHeard::decode(&raw)?;
    let Some(vote) = record::read(view.as_ref(), &context.site)?.vote else { return Ok(None) };
    if !vote.backs.as_ref().is_some_and(|backs| *backs == context.site || vote.epoch == heard.term) {
        return Ok(None);
    }
    let ago = Duration::from_millis(now_ms().saturating_sub(heard.at_ms));
    let Some(at) = Instant::now().checked_sub(ago) else { return Ok(None) };
    let kept = Followed {
        heard: at,
        position: Some(heard.position),
        term: None,
        kept: Some(Millis(heard.went_on_ms)),
    };
    context.followed.send_if_modified(|followed| {
        let nothing_yet = followed.position.is_none();
        if nothing_yet {
            *followed = kept;
        }
        nothing_yet
    });
    Ok(Some(heard.term))
}

struct Keeping<'a> {
    context: &'a SiteContext,
    /// In which the other site was active when it was heard.
    term: Option<Epoch>,
    /// When it was heard, and how long it went on, as they were written down.
    kept: Option<(Instant, Millis)>,
}

impl Keeping<'_> {
    async fn keep(&mut self) -> Result<(), SiteError> {
        let context = self.context;
        let followed = *context.followed.borrow();
        self.term = followed.term.or(self.term);
        let (Some(term), Some(position)) = (self.term, followed.position) else { return Ok(()) };
        let went_on = went_on_unheard(context, &followed);
        if self.kept == Some((followed.heard, went_on)) {
            return Ok(());
        }
        let heard = LastHeard {
            keeper: context.stamp().keeper,
            term,
            position,
            at_ms: now_ms().saturating_sub(followed.heard.elapsed().as_millis() as u64),
            went_on_ms: went_on.0,
        };
        self.write(&heard).await?;
        self.kept = Some((followed.heard, went_on));
        Ok(())
    }

    /// A keeper that was replaced in its sleep changes nothing of what the newer one has written.
    async fn write(&self, heard: &LastHeard) -> Result<(), SiteError> {
        let context = self.context;
        let key = keys::site_heard(&context.site);
        let old = context.catalog.view().await?.get(&key)?;
        let newer = old.as_deref().map(LastHeard::decode).transpose()?;
        if newer.is_some_and(|newer| newer.keeper > heard.keeper) {
            return Ok(());
        }
        let guards = vec![Guard { key: key.clone(), expect: old.map_or(Expect::Absent, Expect::Value) }];
        let writes = vec![Write::Put(key, Bytes::from(heard.encode()))];
        context.catalog.commit(Batch::one(None, Change { guards, writes })).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use diptych_core::ids::{KeeperNumber, SiteName};
    use diptych_core::lease::BootTime;
    use diptych_core::records::{Position, Vote};

    use super::*;
    use crate::keeper::{KeeperState, boot_time};
    use crate::peer::loss;
    use crate::testing::{site_of_two, west};

    const TERM: Epoch = Epoch(3);

    async fn votes(context: &SiteContext, epoch: Epoch, backs: &str) {
        let backs: SiteName = backs.parse().expect("a name");
        let vote = Vote { epoch, backs: Some(backs) };
        let put = Write::Put(keys::site_vote(&context.site), Bytes::from(vote.encode()));
        context.catalog.commit(Batch::one(None, Change::blind(vec![put]))).await.expect("it commits");
    }

    fn hears(context: &SiteContext, ago: Duration) {
        let position = Some(Position { incarnation: 1, revision: 1 });
        let heard = Instant::now().checked_sub(ago).expect("the machine runs for longer");
        context.followed.send_replace(Followed { heard, position, term: Some(TERM), kept: None });
    }

    async fn keeps(context: &SiteContext) {
        let mut keeping = Keeping { context, term: Some(TERM), kept: None };
        keeping.keep().await.expect("it is kept");
    }

    /// The same site under its next keeper.
    async fn next_keeper(context: &SiteContext) -> SiteContext {
        let (mut next, _folder) = site_of_two("west", "east");
        next.catalog = Arc::clone(&context.catalog);
        take_over(&next).await.expect("it reads");
        next
    }

    #[tokio::test]
    async fn a_keeper_that_begins_in_a_silence_knows_what_a_promotion_would_lose() {
        let (context, _folder) = west();
        votes(&context, TERM, "east").await;
        assert_eq!(loss::age(&next_keeper(&context).await, None), None, "nothing was ever heard");
        hears(&context, Duration::from_secs(7));
        keeps(&context).await;
        let next = next_keeper(&context).await;
        assert_eq!(loss::age(&next, None), Some(Millis(0)));
        // What this site was told of and lacks is as old as it was then; what may have been heard behind the last note counts, too.
        let lacked = loss::age(&next, Some(now_ms() - 12_000)).expect("it is known");
        assert!((5_800..=6_400).contains(&lacked.0), "{lacked}");
        // Its own candidacy does not make it forget, another term of the other site does.
        votes(&context, Epoch(4), "west").await;
        assert_eq!(loss::age(&next_keeper(&context).await, None), Some(Millis(0)));
        votes(&context, Epoch(5), "east").await;
        assert_eq!(loss::age(&next_keeper(&context).await, None), None, "nothing was heard of that term");
    }

    #[tokio::test]
    async fn that_the_other_site_went_on_by_the_witness_is_not_forgotten() {
        let (mut context, _folder) = west();
        votes(&context, TERM, "east").await;
        hears(&context, Duration::from_mins(1));
        let state = KeeperState {
            peer_renewed: Some(BootTime(boot_time().0.saturating_sub(20_000))),
            ..KeeperState::at_start()
        };
        context.lease = tokio::sync::watch::Sender::new(state).subscribe();
        keeps(&context).await;
        // Nor by the one after the next.
        let next = next_keeper(&context).await;
        keeps(&next).await;
        let next = next_keeper(&next).await;
        let unheard = loss::age(&next, None).expect("it is known");
        assert!((39_500..=40_500).contains(&unheard.0), "{unheard}");
    }

    #[tokio::test]
    async fn what_a_newer_keeper_has_kept_stays() {
        let (context, _folder) = west();
        let newer = LastHeard {
            keeper: KeeperNumber(99),
            term: TERM,
            position: Position::default(),
            at_ms: 1,
            went_on_ms: 2,
        };
        let put = Write::Put(keys::site_heard(&context.site), Bytes::from(newer.encode()));
        context.catalog.commit(Batch::one(None, Change::blind(vec![put]))).await.expect("it commits");
        hears(&context, Duration::ZERO);
        keeps(&context).await;
        let view = context.catalog.view().await.expect("a view");
        let raw = view.get(&keys::site_heard(&context.site)).expect("it reads").expect("it is there");
        assert_eq!(LastHeard::decode(&raw).expect("it reads"), newer);
    }
}
