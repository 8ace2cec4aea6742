//! The guards of the protocol by name, so that tests can take one out and show that the checker finds the trace.
//! Production has them all, and no switch.

/// One guard. docs/lease.md ("Why each guard is there") says which property falls without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// A challenger whose vote names the peer waits for its own promise to end.
    OwnPromise,
    /// A challenger waits until the witness's record has stood for a witness lease.
    WitnessAge,
    /// A keeper that starts behind a vote for the peer counts the promise anew.
    StartPromise,
    /// A keeper that starts behind a vote for its own site and an open gate counts that lease anew.
    StartOwnLease,
    /// Acknowledgements count from the sending of the renewal.
    AckFromSend,
    /// Swaps count from their sending.
    SwapFromSend,
    /// A record that names the site, but was not sent by this keeper, is no lease.
    OwnNonce,
    /// The vote for oneself is durable before the swap is sent.
    VoteBeforeSwap,
    /// A vote of another counts only if one's own still stands.
    VoteStands,
    /// The own record is read after the peer's renewal came, before it is acknowledged.
    ReadBeforeAck,
    /// Gateways have stopped, or their deadlines passed, before the vote is given to the peer.
    StoppedBeforeRelease,
    /// No vote for the peer's higher epoch while the own lease runs.
    NoVoteWhileHolding,
    /// A record of a lower epoch is overwritten at once only by who has won the higher one.
    OverwriteWhenWon,
    /// A new epoch is above both the vote and the record.
    EpochAboveBoth,
    /// A handover waits until the peer lacks nothing.
    NothingMissing,
    /// What the peer lacks is looked at after the seal.
    LookAfterSeal,
}
