//! The keyring: ring keys, numbered, wrapped by the cluster key, authenticated as a whole.
//!
//! It lies in the catalog, on every device and in each checkpoint; with it and the cluster key alone all data open.
//! Blobs' keys are derived from ring keys, so a new cluster key rewraps kilobytes and touches no blob.
//!
//! ```text
//! magic `DPKEYRNG` 8, format 2, wrap algorithm 1, zero 1, count 4, cluster 16, generation 8, cluster key's mark 8,
//! count × (number 4, zeros 4, made at 8, nonce 12, ring key sealed 32 + 16),
//! HMAC-SHA256 of all before it 32, CRC32C of all before it 4
//! ```
//! Keys are HKDF-SHA256 of the cluster key, salt the cluster id: one wraps, one authenticates; the mark only tells a
//! wrong key from a damaged keyring.

mod format;

use std::fmt;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::cipher::{
    CipherError, KEY_LEN, Nonce, Purpose, SecretKey, blob_key, open_with_nonce, seal_with_nonce, subkey,
    tail_key,
};
use crate::ids::{BlobId, ClusterId, ExtentId, Generation, RingKeyNumber};

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
        "the cluster key is not the one that wrapped this keyring (cluster {cluster}, generation {generation})"
    )]
    WrongKey {
        /// The keyring's cluster.
        cluster: ClusterId,
        /// The keyring's generation.
        generation: Generation,
    },
    /// No ring key of that number: this copy is older than what it shall open.
    #[error("ring key {number} is not in the keyring of generation {generation}: a newer keyring is needed")]
    UnknownRingKey {
        /// The number.
        number: RingKeyNumber,
        /// The keyring's generation.
        generation: Generation,
    },
}

/// The key in `encryption.keySecretRef`; wiped when it goes, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(SecretKey);

impl ClusterKey {
    /// Takes 32 random bytes.
    pub const fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(SecretKey::new(bytes))
    }

    /// Reads 64 hexadecimal digits or base64 (either alphabet, padded or not); white space around it is ignored.
    ///
    /// # Errors
    /// [`KeyringError::KeyText`], which tells the length, not the text.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let text = text.trim();
        let unpadded = text.trim_end_matches('=').as_bytes();
        let mut key = [0; KEY_LEN];
        let is_base64 = BASE64_NOPAD.decode_len(unpadded.len()) == Ok(KEY_LEN);
        let read = hex::decode_to_slice(text, &mut key).is_ok()
            || is_base64 && BASE64_NOPAD.decode_mut(unpadded, &mut key).is_ok()
            || is_base64 && BASE64URL_NOPAD.decode_mut(unpadded, &mut key).is_ok();
        let parsed = read.then(|| Self::new(key));
        key.zeroize();
        parsed.ok_or_else(|| KeyringError::KeyText(format!("{} characters", text.chars().count())))
    }

    /// Seals what one site tells the other that joins it. `nonce` is random and fresh.
    ///
    /// # Errors
    /// More bytes than the cipher takes.
    pub fn seal_for_join(
        &self,
        cluster: ClusterId,
        nonce: &Nonce,
        plain: &[u8],
    ) -> Result<Vec<u8>, CipherError> {
        seal_with_nonce(&self.join_key(cluster), nonce, cluster.as_bytes(), plain)
    }

    /// Opens what [`ClusterKey::seal_for_join`] made.
    ///
    /// # Errors
    /// `NotAuthentic`: another cluster key sealed it, or another cluster's site. `WrongLength`: a part of it.
    pub fn open_from_join(
        &self,
        cluster: ClusterId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CipherError> {
        open_with_nonce(&self.join_key(cluster), cluster.as_bytes(), sealed).map(Zeroizing::new)
    }

    fn join_key(&self, cluster: ClusterId) -> SecretKey {
        self.0.derive(cluster.as_bytes(), b"diptych/1 site join")
    }

    fn wrapping_key(&self, cluster: ClusterId) -> SecretKey {
        self.0.derive(cluster.as_bytes(), b"diptych/1 keyring wrap")
    }

    fn authentication_key(&self, cluster: ClusterId) -> SecretKey {
        self.0.derive(cluster.as_bytes(), b"diptych/1 keyring authentication")
    }

    fn mark(&self, cluster: ClusterId) -> [u8; 8] {
        let derived = self.0.derive(cluster.as_bytes(), b"diptych/1 keyring mark");
        let mut mark = [0; 8];
        mark.copy_from_slice(&derived.expose()[..8]);
        mark
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClusterKey(..)")
    }
}

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

/// A ring key: blobs' and other keys are derived from it, it seals nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingKey {
    number: RingKeyNumber,
    made_ms: u64,
    nonce: Nonce,
    key: SecretKey,
}

impl RingKey {
    /// Its number: blobs, access keys and tails name it.
    pub const fn number(&self) -> RingKeyNumber {
        self.number
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
    /// In order of their numbers; never empty.
    ring_keys: Vec<RingKey>,
}

impl Keyring {
    /// A keyring of one ring key, number 1, in generation 1.
    pub fn create(cluster: ClusterId, first: NewRingKey) -> Self {
        let ring_key = RingKey::from_new(RingKeyNumber(1), first);
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

    /// The key that new blobs take: the one of the highest number.
    pub fn current(&self) -> &RingKey {
        self.ring_keys.last().expect("a keyring is made with a key, and none is ever taken out")
    }

    /// A ring key by its number.
    ///
    /// # Errors
    /// `UnknownRingKey`.
    pub fn ring_key(&self, number: RingKeyNumber) -> Result<&RingKey, KeyringError> {
        let unknown = KeyringError::UnknownRingKey { number, generation: self.generation };
        self.ring_keys.iter().find(|key| key.number == number).ok_or(unknown)
    }

    /// The keyring with one more ring key, which becomes the current one; a generation higher.
    pub fn with_ring_key(&self, new: NewRingKey) -> Self {
        let number = RingKeyNumber(self.current().number.0 + 1);
        let mut next = self.next_generation();
        next.ring_keys.push(RingKey::from_new(number, new));
        next
    }

    /// The same keys a generation higher: what is sealed by a new cluster key, so that devices take it.
    pub fn next_generation(&self) -> Self {
        Self { generation: Generation(self.generation.0 + 1), ..self.clone() }
    }
}

impl RingKey {
    fn from_new(number: RingKeyNumber, new: NewRingKey) -> Self {
        Self { number, made_ms: new.made_ms, nonce: new.nonce, key: new.key }
    }
}

#[cfg(test)]
mod tests;
