//! What a keeper knows of the other site's last words, noted for the keeper that comes next: one that begins while the other site is
//! silent has heard nothing itself, and could say no bound of what a promotion would lose.
//!
//! A note counts only in an unbroken chain, each keeper taking over from the one right before it and noting it again at once: a keeper
//! in between that knew nothing of the note may have seen, and passed over in silence, that the other site went on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Write};
use diptych_core::ids::{Epoch, KeeperNumber};
use diptych_core::keys;
use diptych_core::lease::Millis;
use diptych_core::records::{LastHeard, Record, Vote};

use super::follow::Followed;
use super::loss::went_on_unheard;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::keeper::record;

/// Between two notes.
const NOTED_EVERY: Duration = Duration::from_secs(1);
/// What may have been heard behind a note: until the next one was due, and was written.
pub(super) const BEHIND: Duration = Duration::from_secs(3);

/// Takes over what the keeper before has noted, then notes what this one hears.
pub async fn run(context: &SiteContext) {
    let mut notes = Notes { context, begun: false, term: None, noted: None };
    loop {
        if let Err(error) = notes.turn().await {
            tracing::warn!(%error, "what was heard of the other site can't be noted");
        }
        tokio::time::sleep(NOTED_EVERY).await;
    }
}

struct Notes<'a> {
    context: &'a SiteContext,
    /// The note of the keeper before was looked at.
    begun: bool,
    /// In which the other site was active when it was heard.
    term: Option<Epoch>,
    /// When it was heard, and how long it went on, as they were written down.
    noted: Option<(Instant, Millis)>,
}

impl Notes<'_> {
    async fn turn(&mut self) -> Result<(), SiteError> {
        let context = self.context;
        let view = context.catalog.view().await?;
        let old = view.get(&keys::site_heard(&context.site))?;
        let vote = record::read(view.as_ref(), &context.site)?.vote;
        drop(view);
        let note = old.as_deref().map(LastHeard::decode).transpose()?;
        if !self.begun {
            self.begun = true;
            self.term = note
                .filter(|note| self.follows_on(note, vote.as_ref()))
                .and_then(|note| self.take_over(&note));
        }
        let heard = self.heard(vote.as_ref());
        // A keeper that was replaced in its sleep changes nothing of what the newer one has written.
        if note.is_some_and(|note| note.keeper > context.stamp().keeper) {
            return Ok(());
        }
        let key = keys::site_heard(&context.site);
        let write = match heard {
            Some((_, known)) if self.noted == Some(known) => return Ok(()),
            Some((note, _)) => Write::Put(key.clone(), Bytes::from(note.encode())),
            None if old.is_none() => return Ok(()),
            None => Write::Delete(key.clone()),
        };
        let guards = vec![Guard { key, expect: old.map_or(Expect::Absent, Expect::Value) }];
        let committed =
            context.catalog.commit(Batch::one(None, Change { guards, writes: vec![write] })).await?;
        self.noted = heard.map(|(_, known)| known).filter(|_| committed.all_applied());
        Ok(())
    }

    /// FENCING (no takeover loses more than is allowed): the note is that of the keeper right before this one, or this one's own, and of the
    /// term that would be ended. That is the term of the vote for the other site; a vote for itself does not make this site hear less.
    fn follows_on(&self, note: &LastHeard, vote: Option<&Vote>) -> bool {
        let KeeperNumber(own) = self.context.stamp().keeper;
        let in_chain = note.keeper.0 == own || note.keeper.0 + 1 == own;
        in_chain && self.is_of_term(note.term, vote)
    }

    fn is_of_term(&self, term: Epoch, vote: Option<&Vote>) -> bool {
        vote.is_some_and(|vote| match &vote.backs {
            Some(backs) => *backs == self.context.site || vote.epoch == term,
            None => false,
        })
    }

    /// As if this keeper had heard it; of which term. None: by this machine's clock it was not yet.
    fn take_over(&self, note: &LastHeard) -> Option<Epoch> {
        let ago = Duration::from_millis(now_ms().checked_sub(note.at_ms)?);
        let taken = Followed {
            heard: Instant::now().checked_sub(ago)?,
            position: Some(note.position),
            term: None,
            kept: Some(Millis(note.went_on_ms)),
        };
        self.context.followed.send_if_modified(|followed| {
            let nothing_yet = followed.position.is_none();
            if nothing_yet {
                *followed = taken;
            }
            nothing_yet
        });
        Some(note.term)
    }

    /// What is to be noted, and what tells it from another note. None: this site is active, or has heard nothing of the term of its vote.
    fn heard(&mut self, vote: Option<&Vote>) -> Option<(LastHeard, (Instant, Millis))> {
        let context = self.context;
        let followed = *context.followed.borrow();
        self.term = followed.term.or(self.term);
        let (term, position) = self.term.zip(followed.position)?;
        if context.active_epoch().is_some() || !self.is_of_term(term, vote) {
            self.term = None;
            return None;
        }
        let went_on = went_on_unheard(context, &followed);
        let note = LastHeard {
            keeper: context.stamp().keeper,
            term,
            position,
            at_ms: now_ms().saturating_sub(followed.heard.elapsed().as_millis() as u64),
            went_on_ms: went_on.0,
        };
        Some((note, (followed.heard, went_on)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use diptych_core::ids::SiteName;
    use diptych_core::lease::BootTime;
    use diptych_core::records::Position;
    use tokio::sync::watch;

    use super::*;
    use crate::context::Standing;
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
        let heard = Instant::now().checked_sub(ago).expect("a time");
        context.followed.send_replace(Followed { heard, position, term: Some(TERM), kept: None });
    }

    async fn turns(context: &SiteContext) {
        let mut notes = Notes { context, begun: false, term: None, noted: None };
        notes.turn().await.expect("it is noted");
    }

    async fn note(context: &SiteContext) -> Option<LastHeard> {
        let view = context.catalog.view().await.expect("a view");
        let raw = view.get(&keys::site_heard(&context.site)).expect("it reads");
        raw.map(|raw| LastHeard::decode(&raw).expect("a note"))
    }

    /// The same site under a later keeper, which has had its first turn.
    async fn keeper(context: &SiteContext, number: u64) -> SiteContext {
        let (mut next, _folder) = site_of_two("west", "east");
        next.catalog = Arc::clone(&context.catalog);
        let standing = Standing { active: false, epoch: TERM, keeper: KeeperNumber(number) };
        next.standing = watch::Sender::new(standing).subscribe();
        turns(&next).await;
        next
    }

    #[tokio::test]
    async fn a_keeper_that_begins_in_a_silence_knows_what_a_promotion_would_lose() {
        let (context, _folder) = west();
        votes(&context, TERM, "east").await;
        assert_eq!(loss::age(&keeper(&context, 2).await, None), None, "nothing was ever heard");
        hears(&context, Duration::from_secs(7));
        turns(&context).await;
        let second = keeper(&context, 2).await;
        assert_eq!(loss::age(&second, None), Some(Millis(0)));
        // What this site was told of and lacks is as old as it was then; what may have been heard behind the note counts, too.
        let lacked = loss::age(&second, Some(now_ms() - 12_000)).expect("it is known");
        assert!((7_800..=8_400).contains(&lacked.0), "{lacked}");
        // Its own candidacy does not make it forget.
        votes(&context, Epoch(4), "west").await;
        assert_eq!(loss::age(&keeper(&context, 3).await, None), Some(Millis(0)));
    }

    #[tokio::test]
    async fn a_note_counts_for_the_next_keeper_and_its_term_alone() {
        let (context, _folder) = west();
        votes(&context, TERM, "east").await;
        hears(&context, Duration::ZERO);
        turns(&context).await;
        assert_eq!(loss::age(&keeper(&context, 3).await, None), None, "what the second one saw is not known");
        turns(&context).await;
        votes(&context, Epoch(5), "east").await;
        assert_eq!(loss::age(&keeper(&context, 2).await, None), None, "nothing was heard of that term");
        assert_eq!(note(&context).await, None);
        votes(&context, Epoch(6), "west").await;
        assert_eq!(loss::age(&keeper(&context, 2).await, None), None, "nor is it later");
    }

    #[tokio::test]
    async fn that_the_other_site_went_on_is_not_forgotten() {
        let went_on = |peer_renewed: Option<u64>, peer_promised: Option<u64>| {
            let ago = |ms: u64| BootTime(boot_time().0.saturating_sub(ms));
            let (peer_renewed, peer_promised) = (peer_renewed.map(ago), peer_promised.map(ago));
            KeeperState { peer_renewed, peer_promised, ..KeeperState::at_start() }
        };
        for state in [went_on(Some(20_000), None), went_on(None, Some(20_000))] {
            let (mut context, _folder) = west();
            votes(&context, TERM, "east").await;
            hears(&context, Duration::from_mins(1));
            context.lease = watch::Sender::new(state).subscribe();
            turns(&context).await;
            // Nor by the one after the next.
            let third = keeper(&keeper(&context, 2).await, 3).await;
            let unheard = loss::age(&third, None).expect("it is known");
            assert!((39_500..=40_500).contains(&unheard.0), "{unheard}");
        }
    }

    #[tokio::test]
    async fn what_was_heard_before_this_machine_began_is_as_long_ago_as_it_was() {
        let (mut context, _folder) = west();
        votes(&context, TERM, "east").await;
        let long_ago = LastHeard {
            keeper: KeeperNumber(1),
            term: TERM,
            position: Position::default(),
            at_ms: now_ms() - 400 * 24 * 3_600_000,
            went_on_ms: 0,
        };
        let put = Write::Put(keys::site_heard(&context.site), Bytes::from(long_ago.encode()));
        context.catalog.commit(Batch::one(None, Change::blind(vec![put]))).await.expect("it commits");
        let state = KeeperState { peer_renewed: Some(boot_time()), ..KeeperState::at_start() };
        context.lease = watch::Sender::new(state).subscribe();
        turns(&context).await;
        let unheard = loss::age(&context, None);
        assert!(unheard.is_none_or(|age| age.0 > 399 * 24 * 3_600_000), "{unheard:?}");
    }

    #[tokio::test]
    async fn what_a_newer_keeper_has_noted_stays() {
        let (context, _folder) = west();
        votes(&context, TERM, "east").await;
        hears(&context, Duration::ZERO);
        let newer = LastHeard {
            keeper: KeeperNumber(99),
            term: TERM,
            position: Position::default(),
            at_ms: 1,
            went_on_ms: 2,
        };
        let put = Write::Put(keys::site_heard(&context.site), Bytes::from(newer.encode()));
        context.catalog.commit(Batch::one(None, Change::blind(vec![put]))).await.expect("it commits");
        turns(&context).await;
        assert_eq!(note(&context).await, Some(newer));
    }
}
