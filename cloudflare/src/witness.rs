//! The lease's third vote in one Cloudflare record, changed by compare-and-set (docs/lease.md, Witness).
//!
//! The record is a CNAME, because a second CNAME on a name is refused whatever it says: a name holds one or none. Its id is
//! the token, new with each writing. A swap is one batch, which deletes the record by its id and posts the next: of two
//! that start from one token one finds the id gone (81044) or the name taken (81053), and nothing of its batch is applied.
//! The record is never patched: there the last writer would win.

use std::fmt;
use std::str::FromStr;

use diptych_core::ids::{Epoch, SiteName};
use thiserror::Error;

use crate::address::{ForeignRecords, NameTarget, Owner, Pointed, name_records, plan_name};
use crate::client::{
    self, Batch, Client, DnsRecord, NewRecord, RecordFilter, RecordId, RecordType, TTL_AUTO, ZoneId,
};

/// End of each content. `.invalid` never resolves (RFC 2606), so the record leads nowhere.
const SUFFIX: &str = ".diptych.invalid";
/// First label of the record's name, before the public name.
const LABEL: &str = "_diptych-lease";

/// Random, fresh for each swap: tells the own writing from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

impl fmt::Display for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// What the witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The term that it votes for.
    pub epoch: Epoch,
    /// Whose term.
    pub site: SiteName,
    /// Of this writing.
    pub nonce: Nonce,
}

impl fmt::Display for LeaseRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "e{}.{}.{}{SUFFIX}", self.epoch, self.site, self.nonce)
    }
}

/// The content is not one that Diptych writes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not e<epoch>.<site>.<nonce>{SUFFIX}")]
pub struct NotALease(String);

impl FromStr for LeaseRecord {
    type Err = NotALease;

    fn from_str(text: &str) -> Result<Self, NotALease> {
        let parse = || {
            let mut labels = text.trim_end_matches('.').strip_suffix(SUFFIX)?.split('.');
            let epoch = labels.next()?.strip_prefix('e')?.parse().ok()?;
            let site = labels.next()?.parse().ok()?;
            let mut nonce = [0; 16];
            hex::decode_to_slice(labels.next()?, &mut nonce).ok()?;
            labels.next().is_none().then_some(Self { epoch: Epoch(epoch), site, nonce: Nonce(nonce) })
        };
        parse().ok_or_else(|| NotALease(text.to_owned()))
    }
}

/// A record as it stands, with the token that a swap from it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Compare-and-set token.
    pub token: RecordId,
    /// What it says.
    pub record: LeaseRecord,
}

/// What became of a swap that got an answer.
#[derive(Debug)]
pub enum Swap {
    /// Applied and read back: the record is the one sent.
    Won {
        /// Token of the new record.
        token: RecordId,
        /// What became of the public name.
        name: NameFlip,
    },
    /// Not applied: somebody else changed the record first. Read again.
    Lost,
}

/// What became of the public name in a won swap.
#[derive(Debug)]
pub enum NameFlip {
    /// No flip was asked for.
    NotAsked,
    /// Done in the same batch, or not needed.
    Done(Pointed),
    /// The swap stands without it; point the name by itself.
    Failed(FlipError),
}

/// Why the name was not flipped with the swap.
#[derive(Debug, Error)]
pub enum FlipError {
    /// Somebody else's records are on the name.
    #[error(transparent)]
    Foreign(#[from] ForeignRecords),
    /// It could not be listed, or Cloudflare refused its part of the batch.
    #[error(transparent)]
    Call(#[from] client::Error),
}

/// Why the witness can't be used.
#[derive(Debug, Error)]
pub enum WitnessError {
    /// A call failed. If [`client::Error::may_be_applied`], read for the own nonce.
    #[error(transparent)]
    Call(#[from] client::Error),
    /// Written, but reading back did not work: it is not known whether the record stands. Read for the own nonce.
    #[error("the lease record was written, but not read back")]
    NotReadBack(#[source] Box<WitnessError>),
    /// The record's name holds something that Diptych did not write, or more than one record.
    #[error(
        "{name} holds what this cluster did not write ({what}); delete it, or choose another zone for the witness"
    )]
    Foreign {
        /// Name of the record.
        name: String,
        /// What is there.
        what: String,
    },
}

impl WitnessError {
    /// Can a swap that ended so have been applied?
    pub fn may_be_applied(&self) -> bool {
        match self {
            Self::Call(error) => error.may_be_applied(),
            Self::NotReadBack(_) => true,
            Self::Foreign { .. } => false,
        }
    }
}

/// The witness: one record in one zone.
#[derive(Debug, Clone)]
pub struct RecordWitness {
    client: Client,
    zone: ZoneId,
    name: String,
    owner: Owner,
}

impl RecordWitness {
    /// The witness for this public name: the record `_diptych-lease.<hostname>`.
    ///
    /// The client's time limit for a call should be 2 s: the lease's timers count on it.
    pub fn new(client: Client, zone: ZoneId, hostname: &str, owner: Owner) -> Self {
        let name = format!("{LABEL}.{}", hostname.trim_end_matches('.').to_ascii_lowercase());
        Self { client, zone, name, owner }
    }

    /// Name of the record.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The record as it stands. One call.
    pub async fn read(&self) -> Result<Option<Held>, WitnessError> {
        let filter = RecordFilter { name: Some(self.name.clone()), kind: None };
        let records = self.client.records(&self.zone, &filter).await?;
        match records.as_slice() {
            [] => Ok(None),
            [record] => self.held(record).map(Some),
            several => Err(self.foreign(format!("{} records", several.len()))),
        }
    }

    fn held(&self, record: &DnsRecord) -> Result<Held, WitnessError> {
        if record.kind != RecordType::Cname || !self.owner.owns(record) {
            return Err(self.foreign(format!("{} {} without our comment", record.kind, record.content)));
        }
        let parsed = record.content.parse().map_err(|error: NotALease| self.foreign(error.to_string()))?;
        Ok(Held { token: record.id.clone(), record: parsed })
    }

    fn foreign(&self, what: String) -> WitnessError {
        WitnessError::Foreign { name: self.name.clone(), what }
    }

    /// Replaces the record with that token (none: there must be no record), and flips the public name in the same batch
    /// if `flip` is given.
    ///
    /// Calls: one that lists the name if it is flipped, the batch, one to read back. If the batch is refused although the
    /// record still stands, the name was in the way, and the swap is sent once more alone. Count a lease from before this
    /// call.
    ///
    /// # Errors
    /// After an error for which [`WitnessError::may_be_applied`] holds, read for the own nonce.
    pub async fn swap(
        &self,
        token: Option<&RecordId>,
        record: &LeaseRecord,
        flip: Option<&NameTarget>,
    ) -> Result<Swap, WitnessError> {
        let (with_name, mut name) = self.plan_flip(flip).await;
        let swap = self.swap_batch(token, record);
        let mut whole = swap.clone();
        whole.append(with_name.clone());
        match self.client.batch(&self.zone, &whole).await {
            Ok(_) => {}
            Err(refused @ client::Error::Refused { .. }) => {
                if !self.still_stands(token).await? {
                    return Ok(Swap::Lost);
                }
                if with_name.is_empty() {
                    return Err(refused.into());
                }
                name = NameFlip::Failed(refused.into());
                if self.swap_alone(&swap, token).await?.is_none() {
                    return Ok(Swap::Lost);
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.read_back(record, name).await
    }

    async fn plan_flip(&self, flip: Option<&NameTarget>) -> (Batch, NameFlip) {
        let Some(target) = flip else { return (Batch::default(), NameFlip::NotAsked) };
        let listing = match name_records(&self.client, &self.zone, &target.hostname).await {
            Ok(listing) => listing,
            Err(error) => return (Batch::default(), NameFlip::Failed(error.into())),
        };
        match plan_name(&listing, target) {
            Ok(batch) if batch.is_empty() => (batch, NameFlip::Done(Pointed::AlreadyRight)),
            Ok(batch) => (batch, NameFlip::Done(Pointed::Changed)),
            Err(foreign) => (Batch::default(), NameFlip::Failed(foreign.into())),
        }
    }

    fn swap_batch(&self, token: Option<&RecordId>, record: &LeaseRecord) -> Batch {
        // FENCING: delete by id, never by name, and a new CNAME: the id and the name are what the loser trips over.
        Batch {
            deletes: token.cloned().into_iter().collect(),
            posts: vec![NewRecord {
                name: self.name.clone(),
                kind: RecordType::Cname,
                content: record.to_string(),
                proxied: false,
                ttl: TTL_AUTO,
                comment: self.owner.comment().to_owned(),
            }],
            ..Batch::default()
        }
    }

    /// Whether the record that the swap started from is still the one there.
    async fn still_stands(&self, token: Option<&RecordId>) -> Result<bool, WitnessError> {
        Ok(self.read().await?.as_ref().map(|held| &held.token) == token)
    }

    /// The swap without the name; none if it was refused because the record has changed.
    async fn swap_alone(&self, swap: &Batch, token: Option<&RecordId>) -> Result<Option<()>, WitnessError> {
        match self.client.batch(&self.zone, swap).await {
            Ok(_) => Ok(Some(())),
            Err(refused @ client::Error::Refused { .. }) => {
                if self.still_stands(token).await? {
                    Err(refused.into())
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn read_back(&self, record: &LeaseRecord, name: NameFlip) -> Result<Swap, WitnessError> {
        // FENCING: that Cloudflare isolates batches is not documented. Only the one record with the own nonce, seen after
        // the 200, is a won swap.
        match self.read().await {
            Ok(Some(held)) if held.record == *record => Ok(Swap::Won { token: held.token, name }),
            Ok(_) => Ok(Swap::Lost),
            Err(error) => Err(WitnessError::NotReadBack(Box::new(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_back_what_it_wrote(epoch: u64, site in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?", nonce: [u8; 16]) {
            let record = LeaseRecord { epoch: Epoch(epoch), site: site.parse().expect("a label"), nonce: Nonce(nonce) };
            let text = record.to_string();
            prop_assert_eq!(text.parse::<LeaseRecord>(), Ok(record.clone()));
            prop_assert_eq!(format!("{text}.").parse::<LeaseRecord>(), Ok(record));
            prop_assert!(text.len() < 254 && text.split('.').all(|label| (1..=63).contains(&label.len())));
        }
    }

    #[test]
    fn contents_of_others_are_refused() {
        for text in [
            "example.com",
            "e1.east.diptych.invalid",
            "e1.east.zz.diptych.invalid",
            "1.east.00.diptych.invalid",
            "",
        ] {
            assert!(text.parse::<LeaseRecord>().is_err(), "{text:?}");
        }
    }
}
