//! How far the checker looks, and which guard it takes out.

use diptych_core::lease::{Guard, Millis, Timers};

/// What is taken out of the protocol, or of the parts that it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A guard of the state machine.
    Without(Guard),
    /// The witness writes without comparing the token.
    BlindWitness,
    /// A renewal of the witness's record leaves its token as it was.
    TokenStays,
    /// A holder counts one tick too long on the peer.
    NoHolderMargin,
    /// A voter keeps its promise one tick too short.
    NoVoterMargin,
    /// A challenger waits one tick too short for the witness.
    NoWitnessMargin,
    /// A restart loses the vote.
    VoteNotDurable,
    /// A commit does not compare the gate.
    GateNotCompared,
    /// The deadline is looked at before the commit only.
    NoLookAfterCommit,
    /// The peer's catalog takes entries below its vote.
    OldEpochsTaken,
    /// An entry of a higher epoch is taken without raising the vote and closing the gate.
    HigherEntryLeavesGate,
}

impl Mutation {
    /// All of them: the table of docs/lease.md.
    pub const ALL: &'static [Self] = &[
        Self::Without(Guard::OwnPromise),
        Self::Without(Guard::WitnessAge),
        Self::BlindWitness,
        Self::TokenStays,
        Self::Without(Guard::StartPromise),
        Self::Without(Guard::StartOwnLease),
        Self::Without(Guard::AckFromSend),
        Self::Without(Guard::SwapFromSend),
        Self::Without(Guard::OwnNonce),
        Self::NoHolderMargin,
        Self::NoVoterMargin,
        Self::NoWitnessMargin,
        Self::VoteNotDurable,
        Self::Without(Guard::VoteBeforeSwap),
        Self::Without(Guard::VoteStands),
        Self::Without(Guard::ReadBeforeAck),
        Self::Without(Guard::StoppedBeforeRelease),
        Self::Without(Guard::NoVoteWhileHolding),
        Self::Without(Guard::OverwriteWhenWon),
        Self::Without(Guard::EpochAboveBoth),
        Self::NoLookAfterCommit,
        Self::GateNotCompared,
        Self::OldEpochsTaken,
        Self::Without(Guard::NothingMissing),
        Self::Without(Guard::LookAfterSeal),
        Self::HigherEntryLeavesGate,
    ];
}

impl Mutation {
    /// The smallest of the named worlds in which it is known to show.
    pub const fn shows_in(self) -> &'static str {
        match self {
            Self::NoLookAfterCommit | Self::GateNotCompared | Self::OldEpochsTaken => "data-small",
            Self::HigherEntryLeavesGate => "data-two",
            Self::BlindWitness
            | Self::TokenStays
            | Self::NoHolderMargin
            | Self::NoVoterMargin
            | Self::NoWitnessMargin
            | Self::VoteNotDurable => "lease-small",
            Self::Without(guard) => match guard {
                Guard::OwnNonce => "reads",
                Guard::ReadBeforeAck => "sleepers",
                Guard::StoppedBeforeRelease => "handover-small",
                Guard::NothingMissing | Guard::LookAfterSeal => "data-handover",
                Guard::OwnPromise
                | Guard::WitnessAge
                | Guard::StartPromise
                | Guard::StartOwnLease
                | Guard::AckFromSend
                | Guard::SwapFromSend
                | Guard::VoteBeforeSwap
                | Guard::VoteStands
                | Guard::NoVoteWhileHolding
                | Guard::OverwriteWhenWon
                | Guard::EpochAboveBoth => "lease-small",
            },
        }
    }
}

/// How far the checker looks.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Ticks that a holder counts on the peer, and a voter keeps its promise.
    pub peer: u64,
    /// Ticks that a holder counts on the witness, and a challenger waits.
    pub witness: u64,
    /// No epoch above this one.
    pub epochs: u64,
    /// Renewals under way from each site; the oldest is lost.
    pub renewals: usize,
    /// Acknowledgements under way to each site.
    pub acknowledgements: usize,
    /// Swaps under way from both sites together.
    pub swaps: usize,
    /// Restarts of keepers.
    pub restarts: u8,
    /// Writes by clients.
    pub writes: usize,
    /// Planned handovers happen.
    pub handovers: bool,
    /// A replaced keeper goes on, not knowing it.
    pub sleepers: bool,
    /// The sites read the witness when they are polled, perhaps what stood there before, instead of knowing it at once.
    pub reads: bool,
    /// What is taken out.
    pub mutation: Option<Mutation>,
}

impl Bounds {
    /// The smallest world with all voters in it.
    pub const fn small() -> Self {
        Self {
            peer: 2,
            witness: 3,
            epochs: 3,
            renewals: 1,
            acknowledgements: 1,
            swaps: 2,
            restarts: 1,
            writes: 0,
            handovers: false,
            sleepers: false,
            reads: false,
            mutation: None,
        }
    }

    /// This world without a guard.
    #[must_use]
    pub const fn without(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    pub(super) fn lacks(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(super) fn guard(&self) -> Option<Guard> {
        match self.mutation {
            Some(Mutation::Without(guard)) => Some(guard),
            Some(_) | None => None,
        }
    }

    pub(super) fn timers(&self) -> Timers {
        let spared = |mutation| u64::from(self.lacks(mutation));
        Timers {
            peer_hold: Millis(self.peer + spared(Mutation::NoHolderMargin)),
            peer_wait: Millis(self.peer - spared(Mutation::NoVoterMargin)),
            peer_renew: Millis(0),
            peer_switch: Millis(0),
            peer_silence: Millis::FOREVER,
            witness_hold: Millis(self.witness),
            witness_wait: Millis(self.witness - spared(Mutation::NoWitnessMargin)),
            witness_renew: Millis(0),
            witness_call: Millis(0),
            witness_look: Millis(0),
            witness_look_silent: Millis(0),
            handover: Millis::FOREVER,
            loss: Millis::FOREVER,
            yielding: Millis(0),
        }
    }
}

/// The worlds by name: which parts of the protocol each of them exercises is in its line.
pub fn named(name: &str) -> Option<Bounds> {
    let small = Bounds::small();
    Some(match name {
        "lease" => Bounds { epochs: 4, restarts: 2, renewals: 2, acknowledgements: 2, ..small },
        "lease-small" => small,
        "sleepers" => Bounds { sleepers: true, swaps: 1, ..small },
        "reads" => Bounds { reads: true, swaps: 1, peer: 2, witness: 2, ..small },
        "short-witness" => Bounds { peer: 3, witness: 2, ..small },
        "handover" => Bounds { handovers: true, epochs: 4, swaps: 1, ..small },
        "handover-small" => Bounds { handovers: true, restarts: 0, swaps: 1, ..small },
        "data" => Bounds { writes: 1, ..small },
        "data-small" => Bounds { writes: 1, restarts: 0, epochs: 2, witness: 2, swaps: 1, ..small },
        "data-handover" => Bounds { writes: 1, handovers: true, restarts: 0, swaps: 1, ..small },
        "data-two" => Bounds { writes: 2, restarts: 0, witness: 2, swaps: 1, ..small },
        _ => return None,
    })
}
