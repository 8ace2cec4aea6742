//! What a site keeps of the lease in its catalog, and how the peer's entries change it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, KeeperNumber, SiteName};
use crate::records::{Gate, Vote};

/// The witness's name for one write of its record: an etag, or a record's id. Each write makes a new one, and none ever
/// comes back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The durable part of a site's lease. Each change is one transaction that compares the keeper's number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SiteRecord {
    /// The newest epoch that this site knows, and for whom it voted in it. None: lost, or never written.
    pub vote: Option<Vote>,
    /// The process that speaks for the site.
    pub keeper: KeeperNumber,
    /// Commits of the active compare it.
    pub gate: Gate,
    /// A token of the witness that had stood for a whole witness lease when it was written here.
    pub old: Option<Token>,
}

impl SiteRecord {
    /// The record of a site that has none yet.
    pub const fn empty(keeper: KeeperNumber) -> Self {
        Self { vote: None, keeper, gate: Gate::Closed, old: None }
    }

    /// Epoch of the vote; 0 without one.
    pub fn epoch(&self) -> Epoch {
        self.vote.as_ref().map_or(Epoch(0), |vote| vote.epoch)
    }

    /// Whether the vote names `site`.
    pub fn backs(&self, site: &SiteName) -> bool {
        self.vote.as_ref().is_some_and(|vote| vote.backs.as_ref() == Some(site))
    }

    /// Epoch of a gate that is open or sealed.
    pub const fn gate_epoch(&self) -> Option<Epoch> {
        match self.gate {
            Gate::Closed => None,
            Gate::Open(epoch) | Gate::Sealed(epoch) => Some(epoch),
        }
    }

    /// This record with another vote and gate.
    #[must_use]
    pub fn with(&self, epoch: Epoch, backs: Option<SiteName>, gate: Gate) -> Self {
        Self { vote: Some(Vote { epoch, backs }), gate, ..self.clone() }
    }

    /// This record with another gate.
    #[must_use]
    pub fn with_gate(&self, gate: Gate) -> Self {
        Self { gate, ..self.clone() }
    }

    /// Whether something that `peer` wrote under `epoch`, which it won, may be taken, and what changes in the same
    /// transaction. Replication and the door for both sites' receipts ask this of the record that their transaction
    /// compares.
    pub fn admit(&self, epoch: Epoch, peer: &SiteName) -> Admission {
        // FENCING (what two sites acknowledged survives): once this site has voted for a later term, nothing of an
        // earlier one may enter, or a receipt for two sites would be given for what the later term began without.
        if epoch < self.epoch() {
            return Admission::Refuse { vote: self.epoch() };
        }
        if epoch == self.epoch() && self.backs(peer) && matches!(self.gate, Gate::Closed) {
            return Admission::Take;
        }
        // FENCING (epochs never fall): the higher epoch closes the gate in the same transaction, or a late commit of
        // this site's own old epoch could follow it.
        Admission::TakeRaising(self.with(epoch, Some(peer.clone()), Gate::Closed))
    }
}

/// Answer to `SiteRecord::admit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Take it; the record stays.
    Take,
    /// Take it, and store this record in the same transaction; then tell the keeper.
    TakeRaising(SiteRecord),
    /// Refuse and count it.
    Refuse {
        /// Epoch of this site's vote, which is higher.
        vote: Epoch,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u64, backs: &str, gate: Gate) -> SiteRecord {
        SiteRecord::empty(KeeperNumber(1)).with(Epoch(epoch), backs.parse().ok(), gate)
    }

    #[test]
    fn an_entry_below_the_vote_is_refused() {
        let west = "west".parse().unwrap();
        let own = record(5, "east", Gate::Open(Epoch(5)));
        assert_eq!(own.admit(Epoch(4), &west), Admission::Refuse { vote: Epoch(5) });
    }

    #[test]
    fn an_entry_of_a_higher_epoch_closes_the_gate_in_the_same_transaction() {
        let west = "west".parse().unwrap();
        let own = record(4, "east", Gate::Open(Epoch(4)));
        assert_eq!(own.admit(Epoch(6), &west), Admission::TakeRaising(record(6, "west", Gate::Closed)));
        assert_eq!(record(6, "west", Gate::Closed).admit(Epoch(6), &west), Admission::Take);
    }
}
