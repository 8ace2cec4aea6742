//! When the active site gives the lease back to the preferred one by itself: once that one has returned, has caught up and
//! has stayed well for a whole window. Only ever by the planned switch: a wrong answer here costs a switch too many, never
//! a write.

#[cfg(test)]
mod tests;

use crate::lease::{BootTime, Millis};

/// What has lain in the active site only for longer is more than what is just under way: the other site has fallen behind.
const BEHIND: Millis = Millis(5_000);
/// With something exposed for longer a switch would hold writes back to let it cross.
const UNDER_WAY: Millis = Millis(1_000);
/// Time in which nobody looked does not count: anything may have happened in it.
const LONGEST_GAP: Millis = Millis(10_000);

/// What this site sees of both at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// This site takes writes.
    pub active: bool,
    /// This site is the preferred one.
    pub preferred: bool,
    /// The other site's keeper answers.
    pub peer_connected: bool,
    /// The witness answered the last call.
    pub witness_reachable: bool,
    /// A drill of either site is under way: it moves the role itself.
    pub drill: bool,
    /// For so long something has lain in this site only; zero: nothing does. None: not known now.
    pub exposed: Option<Millis>,
    /// Extents of the other site's unseen term that have not crossed to this one.
    pub unmerged: u64,
    /// What the other site says of itself; None: it could not be asked.
    pub peer: Option<PeerHealth>,
    /// The edge says that it does not reach the other site.
    pub unreached: bool,
}

/// What a site says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHealth {
    /// It follows this site; a fenced one does not.
    pub follows: bool,
    /// Extents that lack rows in it, or wait for repair.
    pub degraded: u64,
    /// It could not point the public name to itself.
    pub name_trouble: bool,
}

/// Why the lease is not given back yet. Becomes a reason in the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// `failback: Manual`.
    Person,
    /// The preferred site does not answer.
    PeerSilent,
    /// The preferred site is fenced.
    PeerFenced,
    /// It lacks something, for too long.
    Exposed,
    /// What it brought back has not crossed yet.
    Unmerged,
    /// It is being repaired.
    Repair,
    /// It could not point the public name to itself.
    PublicName,
    /// The edge does not reach it.
    Unreached,
    /// Without the witness the next failure of either site would stop both.
    WitnessSilent,
    /// A drill is under way.
    Drill,
    /// All is well, and has to stay so until then.
    Settling {
        /// By this machine's clock.
        until: BootTime,
    },
    /// All was well for the whole window; what is just under way is let through first.
    CatchingUp,
}

impl Waiting {
    /// One word.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Person => "Manual",
            Self::PeerSilent => "PeerSilent",
            Self::PeerFenced => "PeerFenced",
            Self::Exposed => "Exposed",
            Self::Unmerged => "Unmerged",
            Self::Repair => "Repair",
            Self::PublicName => "PublicName",
            Self::Unreached => "Unreached",
            Self::WitnessSilent => "WitnessSilent",
            Self::Drill => "Drill",
            Self::Settling { .. } => "Settling",
            Self::CatchingUp => "CatchingUp",
        }
    }

    /// The same for a person.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Person => "failback is Manual: a person hands the lease back to the preferred site",
            Self::PeerSilent => "the preferred site does not answer",
            Self::PeerFenced => "the preferred site is fenced: it does not follow this one yet",
            Self::Exposed => "the preferred site lacks what this one has: it is catching up",
            Self::Unmerged => "what the preferred site brought back has not crossed to this one yet",
            Self::Repair => "extents of the preferred site lack rows: they are being repaired",
            Self::PublicName => "the preferred site could not keep the public name: its own status says why",
            Self::Unreached => "the edge does not reach the preferred site: look at the way to it",
            Self::WitnessSilent => "the witness does not answer: look that it can be reached",
            Self::Drill => "a drill is under way",
            Self::Settling { .. } => {
                "the preferred site is well: it gets the lease back once it has been so for stabilityWindow"
            }
            Self::CatchingUp => "the preferred site gets the lease back as soon as it has what is under way",
        }
    }
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// This site is the preferred one, or is not active: it has nothing to give back.
    Nothing,
    /// Not yet.
    Waits(Waiting),
    /// Hand the lease over now. If that does not come about, the window begins anew.
    HandOver,
}

/// For how long all has been well.
#[derive(Debug, Clone, Default)]
struct Well {
    since: Option<BootTime>,
    looked: BootTime,
}

/// The rule, and what it remembers from look to look. It is forgotten with the keeper: then the window begins anew.
#[derive(Debug, Clone)]
pub struct Failback {
    window: Option<Millis>,
    well: Well,
}

impl Failback {
    /// `window`: for how long the preferred site must have been well; None: `failback: Manual`.
    pub fn new(window: Option<Millis>) -> Self {
        Self { window, well: Well::default() }
    }

    /// Takes a look in, at `now` by this machine's clock.
    pub fn look(&mut self, now: BootTime, sight: &Sight) -> Outlook {
        if !sight.active || sight.preferred {
            self.well.since = None;
            return Outlook::Nothing;
        }
        let Some(window) = self.window else { return Outlook::Waits(Waiting::Person) };
        if self.well.looked.until(now) > LONGEST_GAP {
            self.well.since = None;
        }
        self.well.looked = now;
        if let Some(waiting) = unwell(sight) {
            self.well.since = None;
            return Outlook::Waits(waiting);
        }
        let until = *self.well.since.get_or_insert(now) + window;
        if now < until {
            return Outlook::Waits(Waiting::Settling { until });
        }
        if sight.exposed.is_none_or(|age| age >= UNDER_WAY) {
            return Outlook::Waits(Waiting::CatchingUp);
        }
        self.well.since = None;
        Outlook::HandOver
    }
}

/// The first thing that is not as it must be.
fn unwell(sight: &Sight) -> Option<Waiting> {
    let Some(peer) = sight.peer.as_ref().filter(|_| sight.peer_connected) else {
        return Some(Waiting::PeerSilent);
    };
    let found = [
        (!peer.follows, Waiting::PeerFenced),
        (sight.exposed.is_none_or(|age| age >= BEHIND), Waiting::Exposed),
        (sight.unmerged > 0, Waiting::Unmerged),
        (peer.degraded > 0, Waiting::Repair),
        (peer.name_trouble, Waiting::PublicName),
        (sight.unreached, Waiting::Unreached),
        (!sight.witness_reachable, Waiting::WitnessSilent),
        (sight.drill, Waiting::Drill),
    ];
    found.into_iter().find_map(|(is_so, waiting)| is_so.then_some(waiting))
}
