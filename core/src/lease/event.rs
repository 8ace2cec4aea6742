//! What goes into the state machine and what comes out of it.

use super::machine::Mode;
use super::message::{Message, WitnessRecord};
use super::record::{SiteRecord, Token};
use super::timers::{BootTime, Millis};
use crate::ids::{Epoch, KeeperNumber};
use crate::records::Position;

/// Number of an effect that will be answered; counted by one keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What the shell tells the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time has passed: the moment of a `WakeAt` came, or nothing in particular.
    Tick,
    /// The peer's keeper said this.
    FromPeer(Message),
    /// Answer to `Effect::ReadRecord`. None: the catalog did not answer.
    RecordRead {
        /// Of the effect.
        call: CallId,
        /// The record, as read linearizably.
        record: Option<SiteRecord>,
    },
    /// Answer to `Effect::Persist`.
    Persisted {
        /// Of the effect.
        call: CallId,
        /// What became of it.
        outcome: Persisted,
    },
    /// The shell saw the record change, or changed it itself by `SiteRecord::admit`.
    RecordSeen(SiteRecord),
    /// Answer to `Effect::ReadWitness`.
    WitnessRead {
        /// Of the effect.
        call: CallId,
        /// What was read.
        result: WitnessRead,
    },
    /// Answer to `Effect::SwapWitness`; one that comes late may still be told.
    SwapAnswered {
        /// Of the effect.
        call: CallId,
        /// What became of it.
        result: SwapResult,
    },
    /// Answer to `Effect::AskLossGate`.
    LossGate(LossDecision),
    /// Whether the catalog commits (at the start: it does).
    CatalogHealthy(bool),
    /// Whether at least one gateway of the site lives (at the start: it does).
    GatewayAlive(bool),
    /// All agents of the site have reported: whether none of them holds a record of this cluster.
    DevicesEmpty(bool),
    /// `failover.mode` is this from now on.
    ModeDeclared(Mode),
    /// Writes in flight are done, and new ones are held back (answer to `Effect::Drain`).
    Drained,
    /// The peer has every entry and fragment up to here.
    PeerConfirmed {
        /// In the feed of this site.
        position: Position,
    },
    /// Each gateway of the site said that it stopped (answer to `Effect::StopGateways`).
    GatewaysStopped {
        /// The epoch that was to be stopped.
        epoch: Epoch,
    },
    /// A person, or a rule that the shell follows, wants something.
    Command(Command),
}

/// What a person may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// Hand the lease over to the peer, losing nothing.
    Handover,
    /// Give up a handover that has not moved the vote yet.
    CancelHandover,
    /// This site may become active, also in `mode: Manual`. Not heard where `Status::no_promotion` says why.
    Promote {
        /// What it lacks is given up (it goes to the ledger); if not, `maxLossOnPromotion` holds.
        accept_loss: bool,
        /// For how long that counts; at most `Timers::LONGEST_APPROVAL`.
        lasts: Millis,
    },
    /// Takes a promotion back that has not come true yet.
    CancelPromotion,
    /// The record of the vote is lost and the peer can't tell: start over above this epoch. The person vouches that the
    /// peer holds no lease and that no higher epoch was ever used.
    ForceVote {
        /// At least every epoch that either site ever used.
        above: Epoch,
    },
}

/// What became of a `Persist`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Persisted {
    /// Stored, at this position of the catalog.
    Stored {
        /// Of the transaction.
        at: Position,
    },
    /// Not stored: something else was there.
    Refused {
        /// What is there (None: nothing).
        record: Option<SiteRecord>,
        /// Of the read.
        at: Position,
    },
    /// No clear answer: it may be stored now, or later, or never.
    Unknown,
}

/// What a look at the witness showed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WitnessRead {
    /// A record.
    Found {
        /// Of its last write.
        token: Token,
        /// What it says.
        record: WitnessRecord,
    },
    /// No record.
    Absent,
    /// No answer.
    Failed,
    /// Too many calls: the witness is lost until then.
    RateLimited {
        /// As the witness said.
        retry_after: Millis,
    },
}

/// What became of a swap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SwapResult {
    /// Written, and read back where the witness needs that.
    Won {
        /// Of this write.
        token: Token,
    },
    /// Another token was there.
    Lost,
    /// It may have been written, or may yet be.
    Unknown,
    /// Too many calls; not written.
    RateLimited {
        /// As the witness said.
        retry_after: Millis,
    },
}

/// Answer of the gate on loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossDecision {
    /// What would be lost is within `maxLossOnPromotion`.
    Allowed,
    /// More would be lost than a machine may decide about.
    Denied,
}

/// What the machine wants done. Effects of one step may be done in any order and at once, but for `Stop`, which comes
/// first where it stands: whatever must wait for another is asked for in a later step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send to the peer's keeper; no answer is owed.
    SendPeer(Message),
    /// Read the site's record linearizably: the read begins after this step.
    ReadRecord {
        /// To be named in the answer, which is owed.
        call: CallId,
    },
    /// Store `new` if the stored record equals `expect`, the keeper's number included. An answer is owed.
    Persist {
        /// To be named in the answer.
        call: CallId,
        /// To be stored.
        new: SiteRecord,
        /// As last observed; `expect.keeper` is this keeper.
        expect: SiteRecord,
    },
    /// Read the witness's record. An answer is owed (`Failed` after the call limit).
    ReadWitness {
        /// To be named in the answer.
        call: CallId,
    },
    /// Swap the witness's record. Never retried by the client. An answer is owed.
    SwapWitness {
        /// To be named in the answer.
        call: CallId,
        /// Write only if this is the record's token; None: only if there is no record.
        token: Option<Token>,
        /// To be written.
        record: WitnessRecord,
        /// Flip the public name in the same call, if the witness can.
        with_name: bool,
    },
    /// Lend to gateways that ask; tell those that listen; publish the role.
    Serve {
        /// The gate is open at it.
        epoch: Epoch,
        /// Who lends.
        keeper: KeeperNumber,
        /// By this machine's clock: answer with the time that is left when asked.
        until: BootTime,
    },
    /// This site serves nothing (any more); publish the role. Gateways need no word: their deadlines have passed or soon
    /// pass by themselves.
    Stop,
    /// Fence the peer's ingress, seal outside agents at this epoch, point the name here, and see that it stays so.
    FencePeer {
        /// That was won.
        epoch: Epoch,
    },
    /// Ask the gate on loss; `Event::LossGate` is owed.
    AskLossGate,
    /// Hold back new writes and wait for those in flight; `Event::Drained` is owed.
    Drain {
        /// Of the writes.
        epoch: Epoch,
    },
    /// The handover was given up: let the held writes go on.
    Undrain {
        /// Of the writes.
        epoch: Epoch,
    },
    /// Tell `Event::PeerConfirmed` as soon as the peer has everything up to here, looked at from now on.
    AwaitPeer {
        /// Of the seal.
        position: Position,
    },
    /// Stop every gateway at once; `Event::GatewaysStopped` is wanted, and their deadlines are waited for otherwise.
    StopGateways {
        /// Of the sub-leases.
        epoch: Epoch,
    },
    /// Tell a `Tick` at this moment; replaces the earlier one.
    WakeAt(BootTime),
    /// Why nothing happens; None: nothing is waited for. Told on each change.
    Report(Option<Waiting>),
    /// Another keeper speaks for the site, or its record is gone: this machine does nothing any more.
    Resign,
}

/// Why there is no takeover that a person could approve. What was approved before ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoPromotion {
    /// This site serves.
    Active,
    /// The peer answers, and may hold the lease.
    PeerHolds,
}

impl NoPromotion {
    /// One word, for programs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Active => "SiteIsActive",
            Self::PeerHolds => "PeerHolds",
        }
    }

    /// For a person: what is so, and what can be done instead.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Active => {
                "this site is active already: there is nothing to promote, and nothing was kept for later"
            }
            Self::PeerHolds => {
                "the other site answers and holds the lease: ask it for a handover, which loses nothing; nothing was kept for later"
            }
        }
    }
}

/// Why a site that is not active does not become so, or a handover does not go on. Becomes a condition's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// No record of this site's vote: lost, or restored from a backup. It needs the peer's, or a person.
    NoVoteRecord,
    /// First start: not yet certain that there is nothing here, at the peer, at the witness and on the devices.
    FirstStart,
    /// The promise to the peer, or a start's wait, runs until then.
    LeaseExpiry {
        /// By this machine's clock.
        until: BootTime,
    },
    /// The peer says that it may hold the lease.
    PeerHolds,
    /// The peer was asked for its vote.
    PeerAck,
    /// The witness's record is not old enough.
    WitnessAge {
        /// By this machine's clock.
        until: BootTime,
    },
    /// Neither the peer nor the witness answers.
    NoVoter,
    /// The witness was asked to swap its record.
    WitnessAnswer,
    /// The catalog was asked to store the vote or the gate.
    Catalog,
    /// The catalog does not commit, or no gateway lives.
    Unhealthy,
    /// The gate on loss is being asked.
    LossGate,
    /// More would be lost than `maxLossOnPromotion`: a person decides.
    Exposure,
    /// `mode: Manual`: a person decides.
    Approval,
    /// Handover: writes in flight.
    Drain,
    /// Handover: what the peer lacks.
    PeerConfirmation,
    /// Handover: gateways, or their deadlines.
    GatewaysStop {
        /// When their deadlines have passed by a voter's count.
        until: BootTime,
    },
}

impl Waiting {
    /// The condition's reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoVoteRecord => "NoVoteRecord",
            Self::FirstStart => "FirstStart",
            Self::LeaseExpiry { .. } => "LeaseExpiry",
            Self::PeerHolds => "PeerHolds",
            Self::PeerAck => "PeerAck",
            Self::WitnessAge { .. } => "WitnessAge",
            Self::NoVoter => "NoVoter",
            Self::WitnessAnswer => "WitnessAnswer",
            Self::Catalog => "Catalog",
            Self::Unhealthy => "Unhealthy",
            Self::LossGate => "LossGate",
            Self::Exposure => "Exposure",
            Self::Approval => "Approval",
            Self::Drain => "Drain",
            Self::PeerConfirmation => "PeerConfirmation",
            Self::GatewaysStop { .. } => "GatewaysStop",
        }
    }

    /// The same for a person: what is waited for, and what can be done where somebody must do something.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NoVoteRecord => {
                "this site has lost the record of its vote: it goes on once the other site answers with its own. Where both have lost it, see that the other site serves nothing, then say so: `kubectl diptych force-vote --other-site-serves-nothing`, or POST /api/v1/force-vote?other_site_serves_nothing=true"
            }
            Self::FirstStart => {
                "the first term of all begins once the other site and the witness answer and neither has ever had one: install the other site, let it join, and look that the witness can be reached"
            }
            Self::LeaseExpiry { .. } => "a term that this site promised to respect has not run out",
            Self::PeerHolds => "the other site holds the lease",
            Self::PeerAck => "the other site was asked for its vote",
            Self::WitnessAge { .. } => "the witness's record is not old enough to be taken over",
            Self::NoVoter => {
                "neither the other site nor the witness answers: with one of them this site can serve"
            }
            Self::WitnessAnswer => "the witness was asked to swap its record",
            Self::Catalog => "the catalog was asked to store the vote",
            Self::Unhealthy => "this site's catalog does not commit, or none of its gateways lives",
            Self::LossGate => "what a promotion would lose is being counted",
            Self::Exposure => {
                "a promotion would lose more than maxLossOnPromotion: let the other site return, or promote this one and accept the loss"
            }
            Self::Approval => "the mode is Manual: a person promotes this site",
            Self::Drain => "handover: writes under way are being finished",
            Self::PeerConfirmation => "handover: the other site has not confirmed everything yet",
            Self::GatewaysStop { .. } => "handover: the gateways of this site have not all stopped",
        }
    }
}
