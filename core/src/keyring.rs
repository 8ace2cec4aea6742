//! The keyring: ring keys, numbered, wrapped by the cluster key, authenticated as a whole.
//!
//! It lies in the catalog, on every device and in each checkpoint; with it and the cluster key alone all data open.
//! Blobs' keys are derived from ring keys, so a new cluster key rewraps kilobytes and touches no blob.
//!
//! ```text
//! magic `DPKEYRNG` 8, format 2, wrap algorithm 1, zero 1, count 4, cluster 16, generation 8, cluster key's id 8,
//! count × (number 4, state 1, zeros 3, made at 8, nonce 12, ring key sealed 32 + 16),
//! HMAC-SHA256 of all before it 32, CRC32C of all before it 4
//! ```
//! Keys are HKDF-SHA256 of the cluster key, salt the cluster id: one wraps, one authenticates; the id only tells a
//! wrong key from a damaged keyring. State 0 is in use, 1 prepared.
//!
//! A ring key's number is the epoch in which it was made, and which of that epoch's it is: two terms that did not know of
//! each other never gave one number to two keys, so the union of their keyrings has both (docs/adr/0016).

mod cluster_key;
mod format;
mod merge;
pub mod rotation;

use thiserror::Error;

pub use self::cluster_key::{ClusterKey, ClusterKeys, KeyId};
use crate::cipher::{Nonce, Purpose, SecretKey, blob_key, subkey, tail_key};
use crate::ids::{BlobId, ClusterId, Epoch, ExtentId, Generation, RingKeyNumber};

/// Format that this version writes.
pub const FORMAT: u16 = 1;

/// Why a keyring does not open, or a key can't be used. Data and keyring are left as they were.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// Not 32 bytes in hexadecimal or base64.
    #[error(
        "the cluster key is not 32 bytes: 64 hexadecimal digits or 44 characters of base64 are needed, got {0}"
    )]
    KeyText(String),
    /// No keyring at all.
    #[error("these {0} bytes are no keyring")]
    NotAKeyring(usize),
    /// Written by a newer Diptych.
    #[error("the keyring has format {found}, this version reads {FORMAT}: start the version that wrote it")]
    NewerFormat {
        /// Its format.
        found: u16,
    },
    /// Wrapped by an algorithm that this version does not know.
    #[error("the keyring is wrapped by algorithm {0}, which this version does not know")]
    UnknownAlgorithm(u8),
    /// Cut, rotten or forged.
    #[error("the keyring is damaged ({0}): take the copy of another device or the catalog")]
    Damaged(&'static str),
    /// The keyring is whole, but another cluster key wrapped it.
    #[error(
        "the cluster key is not the one that wrapped this keyring (cluster {cluster}, generation {generation}): it needs \
         the cluster key of id {needed}, and those given are {}",
        list(held)
    )]
    WrongKey {
        /// The keyring's cluster.
        cluster: ClusterId,
        /// The keyring's generation.
        generation: Generation,
        /// The key that opens it.
        needed: KeyId,
        /// The keys that were tried.
        held: Vec<KeyId>,
    },
    /// No ring key of that number: this copy is older than what it shall open.
    #[error("ring key {number} is not in the keyring of generation {generation}: a newer keyring is needed")]
    UnknownRingKey {
        /// The number.
        number: RingKeyNumber,
        /// The keyring's generation.
        generation: Generation,
    },
    /// An epoch has made as many ring keys as it has numbers for.
    #[error(
        "no number is left for a ring key of epoch {0}: a term makes up to {KEYS_OF_AN_EPOCH}; the next term can make another"
    )]
    NoNumber(Epoch),
    /// Two keyrings that can't be one.
    #[error("keyrings of clusters {0} and {1} are not merged: one of them is not this cluster's")]
    OtherCluster(ClusterId, ClusterId),
    /// Two keys under one number: a site wrote under an epoch that it did not have.
    #[error(
        "two different ring keys have number {0}: neither keyring is changed, keep both and ask for help"
    )]
    SameNumber(RingKeyNumber),
}

fn list(ids: &[KeyId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Numbers that each epoch has for its ring keys.
const KEYS_OF_AN_EPOCH: u32 = 256;

/// Fresh randomness for a ring key.
#[derive(Debug, Clone)]
pub struct NewRingKey {
    /// 32 random bytes.
    pub key: SecretKey,
    /// 12 random bytes, under which it is wrapped.
    pub nonce: Nonce,
    /// Milliseconds since 1970.
    pub made_ms: u64,
}

/// What a ring key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RingKeyState {
    /// Opens, and seals nothing yet: not every device has it.
    Prepared,
    /// Opens and seals.
    InUse,
}

/// A ring key: blobs' and other keys are derived from it, it seals nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingKey {
    number: RingKeyNumber,
    state: RingKeyState,
    made_ms: u64,
    nonce: Nonce,
    key: SecretKey,
}

impl RingKey {
    /// Its number: blobs, access keys and tails name it.
    pub const fn number(&self) -> RingKeyNumber {
        self.number
    }

    /// What it may be used for.
    pub const fn state(&self) -> RingKeyState {
        self.state
    }

    /// Milliseconds since 1970 when it was made.
    pub const fn made_ms(&self) -> u64 {
        self.made_ms
    }

    /// The key of a blob's chunks.
    pub fn blob_key(&self, blob: BlobId) -> SecretKey {
        blob_key(&self.key, blob)
    }

    /// The key of an extent's tail.
    pub fn tail_key(&self, extent: ExtentId) -> SecretKey {
        tail_key(&self.key, extent)
    }

    /// The key for one purpose and context (see [`Purpose`] for which).
    pub fn subkey(&self, purpose: Purpose, context: &[u8]) -> SecretKey {
        subkey(&self.key, purpose, context)
    }
}

/// An open keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    cluster: ClusterId,
    generation: Generation,
    /// In order of their numbers; one at least is in use.
    ring_keys: Vec<RingKey>,
}

impl Keyring {
    /// A keyring of one ring key, number 1, in generation 1.
    pub fn create(cluster: ClusterId, first: NewRingKey) -> Self {
        let ring_key = RingKey::from_new(RingKeyNumber(1), first, RingKeyState::InUse);
        Self { cluster, generation: Generation(1), ring_keys: vec![ring_key] }
    }

    /// Opens what [`Keyring::seal`] made.
    ///
    /// # Errors
    /// `NotAKeyring`, `NewerFormat`, `UnknownAlgorithm`, `Damaged`, `WrongKey`.
    pub fn open(bytes: &[u8], cluster_key: &ClusterKey) -> Result<Self, KeyringError> {
        format::open(bytes, cluster_key)
    }

    /// The generation of a sealed keyring, read without a key: checked against rot, not against forgery.
    ///
    /// # Errors
    /// `NotAKeyring`, `NewerFormat`, `Damaged`.
    pub fn generation_of(bytes: &[u8]) -> Result<Generation, KeyringError> {
        format::generation_of(bytes)
    }

    /// The cluster key that wrapped a sealed keyring; otherwise as [`Keyring::generation_of`].
    ///
    /// # Errors
    /// `NotAKeyring`, `NewerFormat`, `Damaged`.
    pub fn wrapped_by(bytes: &[u8]) -> Result<KeyId, KeyringError> {
        format::names(bytes).map(|(_, _, key)| key)
    }

    /// The sealed bytes. The same keyring and key give the same bytes.
    pub fn seal(&self, cluster_key: &ClusterKey) -> Vec<u8> {
        format::seal(self, cluster_key)
    }

    /// The cluster it belongs to.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Grows with each change: an older keyring never replaces a newer.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// All ring keys, in order of their numbers.
    pub fn ring_keys(&self) -> &[RingKey] {
        &self.ring_keys
    }

    /// The key that new blobs take: of those in use the one of the highest number.
    pub fn current(&self) -> &RingKey {
        let used = self.ring_keys.iter().rev().find(|key| key.state == RingKeyState::InUse);
        used.expect("a keyring is made with a key in use, and none is ever taken out")
    }

    /// The key that is in use next.
    pub fn prepared(&self) -> Option<&RingKey> {
        self.ring_keys.iter().rev().find(|key| key.state == RingKeyState::Prepared)
    }

    /// A ring key by its number.
    ///
    /// # Errors
    /// `UnknownRingKey`.
    pub fn ring_key(&self, number: RingKeyNumber) -> Result<&RingKey, KeyringError> {
        let unknown = KeyringError::UnknownRingKey { number, generation: self.generation };
        self.ring_keys.iter().find(|key| key.number == number).ok_or(unknown)
    }

    /// The keyring with one more ring key, made under `epoch`; a generation higher.
    ///
    /// # Errors
    /// `NoNumber`.
    pub fn with_ring_key(
        &self,
        epoch: Epoch,
        new: NewRingKey,
        state: RingKeyState,
    ) -> Result<Self, KeyringError> {
        let number = self.next_number(epoch)?;
        let mut next = self.next_generation();
        next.ring_keys.push(RingKey::from_new(number, new, state));
        next.ring_keys.sort_unstable_by_key(|key| key.number);
        Ok(next)
    }

    /// FENCING: an epoch is one site's, so what is numbered by it is numbered by one catalog, under its compare-and-set.
    fn next_number(&self, epoch: Epoch) -> Result<RingKeyNumber, KeyringError> {
        let spent = || KeyringError::NoNumber(epoch);
        let first = u32::try_from(epoch.0).ok().and_then(|epoch| epoch.checked_mul(KEYS_OF_AN_EPOCH));
        let first = first.ok_or_else(spent)?;
        let of_epoch = self.ring_keys.iter().map(|key| key.number.0);
        let of_epoch = of_epoch.filter(|number| number / KEYS_OF_AN_EPOCH == first / KEYS_OF_AN_EPOCH);
        let offset = of_epoch.max().map_or(0, |last| last - first + 1);
        if offset == KEYS_OF_AN_EPOCH {
            return Err(spent());
        }
        Ok(RingKeyNumber(first + offset))
    }

    /// The keyring with every key in use, a generation higher.
    pub fn all_in_use(&self) -> Self {
        let mut next = self.next_generation();
        for key in &mut next.ring_keys {
            key.state = RingKeyState::InUse;
        }
        next
    }

    /// The same keys a generation higher: what is sealed by a new cluster key, so that devices take it.
    pub fn next_generation(&self) -> Self {
        Self { generation: Generation(self.generation.0 + 1), ..self.clone() }
    }
}

impl RingKey {
    fn from_new(number: RingKeyNumber, new: NewRingKey, state: RingKeyState) -> Self {
        Self { number, state, made_ms: new.made_ms, nonce: new.nonce, key: new.key }
    }
}

#[cfg(test)]
mod tests;
