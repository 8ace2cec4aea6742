//! What the two keepers say to each other, and what the witness keeps.

use serde::{Deserialize, Serialize};

use super::record::Token;
use crate::ids::{Epoch, KeeperNumber, SiteName};
use crate::records::{Position, Vote};

/// Number of a message that wants an answer. Holds the keeper's number, so that an answer to an earlier keeper of the
/// site is never taken for one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq {
    /// The keeper that sent it.
    pub keeper: KeeperNumber,
    /// Counted by that keeper.
    pub number: u64,
}

/// How a site stands, as its catalog said after the question came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Standing {
    /// Its vote; None if it has no record of one.
    pub vote: Option<Vote>,
    /// Its own lease may still run, by a voter's count.
    pub holding: bool,
    /// No device of the site holds a record of this cluster.
    pub devices_empty: bool,
}

/// A record that stands at the witness, as its writer tells the peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wrote {
    /// Of the write.
    pub token: Token,
    /// What was written.
    pub record: WitnessRecord,
}

/// A message between keepers, over the authenticated peer link. Any of them may be lost, late or doubled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Are both directions there? All that a site without a running lease says first.
    Hello {
        /// To be named in the answer.
        seq: Seq,
    },
    /// Answer to `Hello`.
    Greeting {
        /// Of the hello.
        seq: Seq,
        /// How the answering site stands.
        standing: Standing,
    },
    /// Renewal of the sender's lease, and as well its request for a vote.
    Renew {
        /// The sender's vote is for itself in this epoch.
        epoch: Epoch,
        /// To be named in the answer.
        seq: Seq,
        /// What the sender wrote at the witness for this epoch, if it has.
        wrote: Option<Wrote>,
    },
    /// Promise not to vote for another site for a peer lease.
    Ack {
        /// Of the renewal.
        epoch: Epoch,
        /// Of the renewal.
        seq: Seq,
    },
    /// No.
    Refuse {
        /// Of the renewal.
        seq: Seq,
        /// How the refusing site stands.
        standing: Standing,
    },
    /// The sender has given up its epoch and votes for the receiver in this one.
    Release {
        /// The receiver's to take.
        epoch: Epoch,
        /// Where the sender sealed; the receiver had confirmed it.
        revision: Position,
    },
}

/// Makes each write of the witness's record differ, and proves after an unknown answer whose write it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nonce {
    /// Random, drawn once by each keeper.
    pub seed: u64,
    /// The keeper that wrote.
    pub keeper: KeeperNumber,
    /// Counted by that keeper.
    pub number: u64,
}

/// The witness's record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WitnessRecord {
    /// Voted for.
    pub epoch: Epoch,
    /// In favour of.
    pub site: SiteName,
    /// Of the write.
    pub nonce: Nonce,
}
