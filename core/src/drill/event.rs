//! What goes into a drill and what comes out of it.

use super::facts::Facts;
use super::report::{Phase, ReadBack, Rehearsed, Samples, StaleWrites};
use crate::ids::Epoch;
use crate::lease::{BootTime, Millis};

/// The other site, as it answers for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSight {
    /// It takes writes.
    pub serves: bool,
    /// It is cut off by a drill.
    pub cut_off: bool,
}

/// Both sites, as the keeper that runs the drill sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// What guards and predictions go by.
    pub facts: Facts,
    /// Newest epoch known.
    pub epoch: Epoch,
    /// This site stands for its own epoch.
    pub stands: bool,
    /// It has counted the second vote.
    pub won: bool,
    /// The epoch under which it serves.
    pub serves: Option<Epoch>,
    /// The public name points here; None: there is none.
    pub name_here: Option<bool>,
    /// None: it does not answer.
    pub peer: Option<PeerSight>,
}

/// A write through the public name that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// When its answer came.
    pub answered: BootTime,
}

/// What the shell tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// How things are: told again and again.
    Seen(Box<Sight>),
    /// A write through the public name was acknowledged.
    Probed(Probe),
    /// The other site's answer to `CutOff` or `AskForRole`.
    Obeyed(Result<(), String>),
    /// Answer to `Sample`.
    Sampled(Result<Samples, String>),
    /// Answer to `Rehearse`.
    Rehearsed(Result<Rehearsed, String>),
    /// Answer to `ReadBack`.
    Read {
        /// As it was asked.
        phase: Phase,
        /// What was read.
        read: Result<ReadBack, String>,
    },
    /// Answer to `TryStaleWrites`.
    TriedStaleWrites(StaleWrites),
    /// A person, or a rule, ends it.
    Abort(String),
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write numbered records through the public name, until `StopProber`.
    StartProber,
    /// No more records.
    StopProber,
    /// Have the other site cut itself off. `Obeyed` is owed.
    CutOff {
        /// It restores itself then.
        length: Millis,
    },
    /// Have it come back now.
    Restore,
    /// Have the other site hand the lease over. `Obeyed` is owed.
    AskForRole,
    /// Have it give that up, if it still can.
    CancelRole,
    /// Hand the lease over to the other site.
    GiveBack,
    /// Read objects from this site's own rows alone. `Sampled` is owed.
    Sample {
        /// How many.
        objects: u32,
    },
    /// Compare what a resurrection from this site's own rows would give with a sample of its catalog. `Rehearsed` is owed.
    Rehearse {
        /// How many of its keys.
        keys: u32,
    },
    /// Try to write under an epoch that is over, in both sites. `TriedStaleWrites` is owed.
    TryStaleWrites {
        /// The epoch.
        epoch: Epoch,
    },
    /// Read every acknowledged record back. `Read` is owed.
    ReadBack {
        /// Where the drill is: an answer that comes later than that is for nobody.
        phase: Phase,
    },
}
