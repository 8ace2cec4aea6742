//! The cluster key, and the one before it while both are given.

use std::fmt;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{Keyring, KeyringError, format};
use crate::cipher::{CipherError, KEY_LEN, Nonce, SecretKey, open_with_nonce, seal_with_nonce};
use crate::ids::ClusterId;

/// What a cluster key is called in one cluster, as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyId({self})")
    }
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

    pub(super) fn wrapping_key(&self, cluster: ClusterId) -> SecretKey {
        self.0.derive(cluster.as_bytes(), b"diptych/1 keyring wrap")
    }

    pub(super) fn authentication_key(&self, cluster: ClusterId) -> SecretKey {
        self.0.derive(cluster.as_bytes(), b"diptych/1 keyring authentication")
    }

    /// What it is called in this cluster; the key can't be told from it.
    pub fn id(&self, cluster: ClusterId) -> KeyId {
        let derived = self.0.derive(cluster.as_bytes(), b"diptych/1 keyring mark");
        let mut id = [0; 8];
        id.copy_from_slice(&derived.expose()[..8]);
        KeyId(id)
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClusterKey(..)")
    }
}

/// The cluster key that shall wrap the keyring, and while it is exchanged the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterKeys {
    newest: ClusterKey,
    previous: Option<ClusterKey>,
}

impl ClusterKeys {
    /// Takes both.
    pub const fn new(newest: ClusterKey, previous: Option<ClusterKey>) -> Self {
        Self { newest, previous }
    }

    /// The key that seals.
    pub const fn newest(&self) -> &ClusterKey {
        &self.newest
    }

    /// What they are called, the newest first.
    pub fn ids(&self, cluster: ClusterId) -> Vec<KeyId> {
        std::iter::once(&self.newest).chain(&self.previous).map(|key| key.id(cluster)).collect()
    }

    /// The one of that id, if it is given.
    pub fn key(&self, cluster: ClusterId, id: KeyId) -> Option<&ClusterKey> {
        std::iter::once(&self.newest).chain(&self.previous).find(|key| key.id(cluster) == id)
    }

    /// Opens what either of them has sealed.
    ///
    /// # Errors
    /// As [`Keyring::open`]; `WrongKey` names the key that is needed.
    pub fn open(&self, sealed: &[u8]) -> Result<Keyring, KeyringError> {
        let (cluster, generation, needed) = format::names(sealed)?;
        match self.key(cluster, needed) {
            Some(key) => Keyring::open(sealed, key),
            None => Err(KeyringError::WrongKey { cluster, generation, needed, held: self.ids(cluster) }),
        }
    }
}

impl From<ClusterKey> for ClusterKeys {
    fn from(only: ClusterKey) -> Self {
        Self::new(only, None)
    }
}
