//! What a person asks of a keeper, and why it is refused where it would do nothing now and something else later.

use diptych_core::ids::Epoch;
use diptych_core::lease::{Command, Millis, NoPromotion, Role};

use super::KeeperHandle;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::resurrect::{AgentFragments, Fragments, newest_term};

/// Nothing was done, and nothing is kept for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct NotAsked {
    /// One word, for programs.
    pub reason: &'static str,
    /// Why, and what to do instead.
    sentence: &'static str,
}

/// Reason of a vote that is not forced because it is there.
pub const HAS_ITS_VOTE: &str = "SiteHasItsVote";

impl KeeperHandle {
    /// This site may take over, for as long as `lasts` says, and at most for `Timers::LONGEST_APPROVAL`. With `accept_loss` what
    /// it lacks is given up.
    ///
    /// # Errors
    /// On the active site, and while the other one answers and holds the lease.
    pub fn promote(&self, accept_loss: bool, lasts: Millis) -> Result<(), NotAsked> {
        if let Some(reason) = self.state().no_promotion {
            return Err(NotAsked { reason: reason.reason(), sentence: reason.sentence() });
        }
        self.command(Command::Promote { accept_loss, lasts });
        Ok(())
    }

    /// The site has lost the record of its vote: it goes on above this epoch. Who asks vouches that the other site holds no lease
    /// and that no higher epoch was ever used.
    ///
    /// # Errors
    /// Where there is a vote, and while the other site answers and holds the lease.
    pub fn force_vote(&self, above: Epoch) -> Result<(), NotAsked> {
        let state = self.state();
        if state.role != Role::NoRecord {
            return Err(NotAsked {
                reason: HAS_ITS_VOTE,
                sentence: "this site has the record of its vote: there is nothing to force. To have it take over, promote it",
            });
        }
        if let Some(reason @ NoPromotion::PeerHolds) = state.no_promotion {
            return Err(NotAsked {
                reason: reason.reason(),
                sentence: "the other site answers and holds the lease: this one goes on with its vote by itself",
            });
        }
        self.command(Command::ForceVote { above });
        Ok(())
    }
}

/// The highest epoch that is left of in this site: in the terms of its catalog, and with those of its agents that answer.
///
/// # Errors
/// The catalog does not answer.
pub async fn highest_epoch(context: &SiteContext) -> Result<Epoch, SiteError> {
    let term = newest_term(context.catalog.view().await?.as_ref())?;
    Ok(AgentFragments::new(context).highest_epoch().await.max(term))
}

#[cfg(test)]
mod tests {
    use diptych_core::lease::{Event, Timers};
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::keeper::KeeperState;

    const LASTS: Millis = Timers::LONGEST_APPROVAL;

    /// What a keeper in this state was told, and what the person was.
    fn asked(
        state: KeeperState,
        ask: impl Fn(&KeeperHandle) -> Result<(), NotAsked>,
    ) -> (Result<(), NotAsked>, Option<Event>) {
        let (events, mut told) = mpsc::unbounded_channel();
        let answer = ask(&KeeperHandle::new(events, watch::Sender::new(state).subscribe()));
        (answer, told.try_recv().ok())
    }

    #[test]
    fn a_promotion_is_refused_where_there_is_nothing_to_take_over() {
        let promote = |keeper: &KeeperHandle| keeper.promote(true, LASTS);
        for reason in [NoPromotion::Active, NoPromotion::PeerHolds] {
            let state =
                KeeperState { role: Role::Follower, no_promotion: Some(reason), ..KeeperState::at_start() };
            let (answer, told) = asked(state, promote);
            assert_eq!(answer.map_err(|refused| refused.reason), Err(reason.reason()));
            assert_eq!(told, None);
        }
        let alone = KeeperState { role: Role::Follower, ..KeeperState::at_start() };
        let command = Command::Promote { accept_loss: true, lasts: LASTS };
        assert_eq!(asked(alone, promote), (Ok(()), Some(Event::Command(command))));
    }

    #[test]
    fn a_vote_is_forced_only_where_it_is_lost_and_the_other_site_holds_nothing() {
        let force = |keeper: &KeeperHandle| keeper.force_vote(Epoch(7));
        let lost = KeeperState { role: Role::NoRecord, ..KeeperState::at_start() };
        let forced = Some(Event::Command(Command::ForceVote { above: Epoch(7) }));
        assert_eq!(asked(lost, force), (Ok(()), forced));
        for (state, reason) in [
            (KeeperState { no_promotion: Some(NoPromotion::PeerHolds), ..lost }, "PeerHolds"),
            (KeeperState { role: Role::Follower, ..lost }, HAS_ITS_VOTE),
            (KeeperState { role: Role::Lapsed, ..lost }, HAS_ITS_VOTE),
        ] {
            let (answer, told) = asked(state, force);
            assert_eq!((answer.map_err(|refused| refused.reason), told), (Err(reason), None));
        }
    }
}
