//! What is done next with the keyring, and whether the cluster key before may go.
//!
//! ```text
//! cluster key:  both given in both sites ──► rewrapped ──► read back everywhere ──► the previous one may go
//! ring key:     30 days old, or asked for ──► prepared ──► read back from every device here ──► in use
//! ```
//! Pure: a keeper says what it sees, carries out the step, and looks again.

use super::{KeyId, Keyring};
use crate::records::SiteKeys;

/// A ring key is followed by the next after so many milliseconds.
pub const RING_KEY_LASTS_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// So many milliseconds a new one is prepared at least: gateways look for a keyring each second.
pub const PREPARED_FOR_MS: u64 = 5_000;

/// The other site, as far as its word came.
#[derive(Debug, Clone, Copy)]
pub enum Peer<'a> {
    /// There is none.
    None,
    /// It has not said anything of its keys.
    Silent,
    /// What it said last.
    Says(&'a SiteKeys),
}

/// What a keeper sees.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The catalog's.
    pub keyring: &'a Keyring,
    /// The cluster key that wraps it.
    pub wrapped_by: KeyId,
    /// The cluster key that shall wrap it.
    pub newest: KeyId,
    /// This site; `held` has `newest` first.
    pub here: &'a SiteKeys,
    /// The other one.
    pub peer: Peer<'a>,
}

/// What the active site's keeper does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Seal the keyring by the newest cluster key, a generation higher.
    Rewrap,
    /// Let what is prepared be used.
    TakeIntoUse,
    /// Make another ring key.
    Prepare,
}

/// How far the exchange of the cluster key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// One key is given, and it wraps the keyring.
    Settled,
    /// The other site does not have the newest key, or has not said so.
    PeerLacksKey,
    /// The active site's keeper seals the keyring next.
    Rewrapping,
    /// It is sealed by the newest key, and was not read back from there.
    ReadingBack(Vec<String>),
    /// Everything opens by the newest key.
    PreviousMayGo,
}

impl Seen<'_> {
    /// The next step; None: nothing is due, or something has to be waited for.
    pub fn step(&self, now_ms: u64) -> Option<Step> {
        if self.wrapped_by != self.newest {
            // FENCING (rewrap, read back everywhere, then retire): a site that could not open it would come to a standstill with
            // the next takeover, so nothing is sealed by a key that either site lacks.
            return self.peer_holds_newest().then_some(Step::Rewrap);
        }
        if let Some(prepared) = self.keyring.prepared() {
            // FENCING: a key is on every device before anything is sealed by it. Blobs that no keyring opens would be left
            // where the catalog is lost a moment later.
            let waited = now_ms.saturating_sub(prepared.made_ms()) >= PREPARED_FOR_MS;
            return (waited && self.not_read_back(self.here).is_empty()).then_some(Step::TakeIntoUse);
        }
        let age = now_ms.saturating_sub(self.keyring.current().made_ms());
        (age >= RING_KEY_LASTS_MS).then_some(Step::Prepare)
    }

    /// How far the exchange of the cluster key is.
    pub fn progress(&self) -> Progress {
        if self.wrapped_by != self.newest {
            return if self.peer_holds_newest() { Progress::Rewrapping } else { Progress::PeerLacksKey };
        }
        if self.here.held.len() == 1 {
            return Progress::Settled;
        }
        // FENCING (rewrap, read back everywhere, then retire): whoever is still to be heard of counts as lacking it.
        let missing = self.missing();
        if missing.is_empty() { Progress::PreviousMayGo } else { Progress::ReadingBack(missing) }
    }

    fn peer_holds_newest(&self) -> bool {
        match self.peer {
            Peer::None => true,
            Peer::Silent => false,
            Peer::Says(there) => there.held.contains(&self.newest),
        }
    }

    /// Where the keyring was not read back, of all places that there are.
    fn missing(&self) -> Vec<String> {
        let mut missing = self.not_read_back(self.here);
        let mut journaled = self.here.journaled;
        match self.peer {
            Peer::None => {}
            Peer::Says(there) if self.peer_holds_newest() => {
                let there_missing = self.not_read_back(there);
                missing.extend(there_missing.into_iter().map(|place| format!("{place} of the other site")));
                journaled |= there.journaled && there.generation == self.keyring.generation();
            }
            Peer::Silent | Peer::Says(_) => missing.push("the other site".to_owned()),
        }
        if !journaled {
            missing.push("the journal".to_owned());
        }
        missing
    }

    fn not_read_back(&self, site: &SiteKeys) -> Vec<String> {
        let same = site.generation == self.keyring.generation() && site.wrapped_by == self.wrapped_by;
        if same { site.missing.clone() } else { vec!["the devices".to_owned()] }
    }
}

impl Progress {
    /// One word, for programs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Settled => "Settled",
            Self::PeerLacksKey => "PeerLacksKey",
            Self::Rewrapping => "Rewrapping",
            Self::ReadingBack(_) => "ReadingBack",
            Self::PreviousMayGo => "PreviousMayGo",
        }
    }

    /// The same for people, with what to do.
    pub fn sentence(&self, newest: KeyId) -> String {
        match self {
            Self::Settled => format!("the keyring is wrapped by cluster key {newest}"),
            Self::PeerLacksKey => format!(
                "the other site has not said that it has cluster key {newest}: give it there, too; until then the one before \
                 is in force and has to stay"
            ),
            Self::Rewrapping => format!("the keyring is being wrapped by cluster key {newest}"),
            Self::ReadingBack(missing) => format!(
                "the keyring is wrapped by cluster key {newest} and was not read back yet from {}; the key before has to stay",
                missing.join(", ")
            ),
            Self::PreviousMayGo => format!(
                "every copy of the keyring was read back and opens by cluster key {newest}: take the previous one away in \
                 both sites"
            ),
        }
    }

    /// Whether nothing needs the key before.
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Settled | Self::PreviousMayGo)
    }
}

#[cfg(test)]
mod tests;
