//! When a site that is active and well hands over because it can't be reached from outside. The edge's verdict is a hint: it
//! begins a planned switch, which loses nothing, and is never the right to take over.

use serde::{Deserialize, Serialize};

use crate::lease::{BootTime, Millis};

/// Time in which nobody looked does not count.
const LONGEST_GAP: Millis = Millis(30_000);

/// What the edge says of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeVerdict {
    /// It answers as it should.
    Reached,
    /// It does not.
    Unreached,
    /// It was not looked at, or nobody could ask.
    #[default]
    Unknown,
}

/// What this site sees at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// This site takes writes.
    pub active: bool,
    /// Of this site.
    pub here: EdgeVerdict,
    /// Of the other one.
    pub there: EdgeVerdict,
    /// The other site's keeper answers, and it follows this one.
    pub peer_ready: bool,
    /// A drill of either site is under way.
    pub drill: bool,
}

/// Why an active site that can't be reached goes on. Becomes a reason in the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It may pass: until then.
    Grace {
        /// By this machine's clock.
        until: BootTime,
    },
    /// The other site is not reached either, or nobody knows.
    BothUnreached,
    /// The other site does not answer, or does not follow.
    PeerNotReady,
    /// A drill is under way.
    Drill,
}

impl Waiting {
    /// For a person.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Grace { .. } => {
                "this site can't be reached from outside: after edgeGrace it hands over to the other one"
            }
            Self::BothUnreached => {
                "this site can't be reached from outside, and the other one is not known to be: look at the way from the edge to both"
            }
            Self::PeerNotReady => {
                "this site can't be reached from outside, and the other one is not ready to be handed the lease"
            }
            Self::Drill => "this site can't be reached from outside, and a drill is under way",
        }
    }
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// This site is reached, or is not active, or nobody knows.
    Nothing,
    /// Not yet.
    Waits(Waiting),
    /// Hand the lease over now. If that does not come about, the grace begins anew.
    HandOver,
}

/// The rule, and since when the active site was not reached.
#[derive(Debug, Clone)]
pub struct EdgeRule {
    grace: Millis,
    since: Option<BootTime>,
    looked: BootTime,
}

impl EdgeRule {
    /// `grace`: for how long the active site must not have been reached.
    pub fn new(grace: Millis) -> Self {
        Self { grace, since: None, looked: BootTime::default() }
    }

    /// Takes a look in, at `now` by this machine's clock.
    pub fn look(&mut self, now: BootTime, sight: Sight) -> Outlook {
        if !sight.active || sight.here != EdgeVerdict::Unreached || self.looked.until(now) > LONGEST_GAP {
            self.since = None;
        }
        self.looked = now;
        if !sight.active || sight.here != EdgeVerdict::Unreached {
            return Outlook::Nothing;
        }
        let until = *self.since.get_or_insert(now) + self.grace;
        let waiting = if now < until {
            Waiting::Grace { until }
        } else if sight.there != EdgeVerdict::Reached {
            Waiting::BothUnreached
        } else if !sight.peer_ready {
            Waiting::PeerNotReady
        } else if sight.drill {
            Waiting::Drill
        } else {
            self.since = None;
            return Outlook::HandOver;
        };
        Outlook::Waits(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Millis = Millis(60_000);
    const LOOK: Millis = Millis(1_000);

    /// The active site is cut off from the edge, the other one is not.
    fn unreached() -> Sight {
        Sight {
            active: true,
            here: EdgeVerdict::Unreached,
            there: EdgeVerdict::Reached,
            peer_ready: true,
            drill: false,
        }
    }

    /// Looks each second; when the lease was first handed over.
    fn run(rule: &mut EdgeRule, from: BootTime, looks: u64, sight: Sight) -> Option<BootTime> {
        (0..looks)
            .map(|look| from + Millis(look * LOOK.0))
            .find(|now| rule.look(*now, sight) == Outlook::HandOver)
    }

    #[test]
    fn a_site_that_the_edge_does_not_reach_hands_over_after_the_grace_and_tries_again_after_another() {
        let mut rule = EdgeRule::new(GRACE);
        let begun = BootTime(1_000);
        assert_eq!(rule.look(begun, unreached()), Outlook::Waits(Waiting::Grace { until: begun + GRACE }));
        assert_eq!(run(&mut rule, begun, 1_000, unreached()), Some(begun + GRACE));
        let again = begun + GRACE + LOOK;
        assert_eq!(run(&mut rule, again, 1_000, unreached()), Some(again + GRACE));
    }

    #[test]
    fn nothing_is_handed_over_that_is_reached_or_not_active_or_of_which_nobody_knows() {
        let cases = [
            Sight { here: EdgeVerdict::Reached, ..unreached() },
            Sight { here: EdgeVerdict::Unknown, ..unreached() },
            Sight { active: false, ..unreached() },
        ];
        for sight in cases {
            let mut rule = EdgeRule::new(GRACE);
            assert_eq!(run(&mut rule, BootTime(1), 55, unreached()), None);
            assert_eq!(rule.look(BootTime(56_001), sight), Outlook::Nothing, "{sight:?}");
            let again = BootTime(57_001);
            assert_eq!(run(&mut rule, again, 1_000, unreached()), Some(again + GRACE), "{sight:?}");
        }
    }

    #[test]
    fn it_goes_on_where_the_other_site_would_not_be_reached_either_or_is_not_ready() {
        let cases = [
            (Sight { there: EdgeVerdict::Unreached, ..unreached() }, Waiting::BothUnreached),
            (Sight { there: EdgeVerdict::Unknown, ..unreached() }, Waiting::BothUnreached),
            (Sight { peer_ready: false, ..unreached() }, Waiting::PeerNotReady),
            (Sight { drill: true, ..unreached() }, Waiting::Drill),
        ];
        for (sight, waiting) in cases {
            let mut rule = EdgeRule::new(GRACE);
            assert_eq!(run(&mut rule, BootTime(1), 200, sight), None, "{sight:?}");
            let now = BootTime(200_001);
            assert_eq!(rule.look(now, sight), Outlook::Waits(waiting));
            assert_eq!(rule.look(now + LOOK, unreached()), Outlook::HandOver, "the grace is over");
        }
    }

    #[test]
    fn time_in_which_nobody_looked_is_no_grace() {
        let mut rule = EdgeRule::new(GRACE);
        rule.look(BootTime(1), unreached());
        let late = BootTime(100_000);
        assert_eq!(rule.look(late, unreached()), Outlook::Waits(Waiting::Grace { until: late + GRACE }));
    }
}
