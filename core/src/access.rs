//! Secrets that lie in the catalog, sealed by a ring key: those of access keys, so that either site can check signatures, and
//! the key of the cluster's authority, so that with devices and cluster key all of an installation is there.

use thiserror::Error;
use zeroize::Zeroizing;

use crate::cipher::{CipherError, Nonce, Purpose, open_with_nonce, seal_with_nonce};
use crate::ids::RingKeyNumber;
use crate::keyring::{Keyring, KeyringError};
use crate::records::AccessKey;

/// A secret that can't be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccessError {
    /// Its ring key is not there.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Altered, or of another cluster.
    #[error("the sealed key of the cluster's authority does not open: {source}")]
    AuthorityKey {
        /// What the cipher said.
        source: CipherError,
    },
    /// Altered, or of another access key.
    #[error("the sealed secret of access key {id} does not open: {source}")]
    Sealed {
        /// The access key.
        id: String,
        /// What the cipher said.
        source: CipherError,
    },
}

/// Makes the record of an access key. `nonce` is random and fresh.
pub fn seal_secret(
    keyring: &Keyring,
    id: &str,
    secret: &str,
    nonce: &Nonce,
    namespace: &str,
    read_only: bool,
) -> Result<AccessKey, AccessError> {
    let ring_key = keyring.current();
    let key = ring_key.subkey(Purpose::AccessKeySecret, id.as_bytes());
    let sealed_secret = seal_with_nonce(&key, nonce, id.as_bytes(), secret.as_bytes())
        .map_err(|source| AccessError::Sealed { id: id.to_owned(), source })?;
    Ok(AccessKey { namespace: namespace.to_owned(), sealed_secret, ring_key: ring_key.number(), read_only })
}

/// The secret of an access key.
pub fn open_secret(
    keyring: &Keyring,
    id: &str,
    record: &AccessKey,
) -> Result<Zeroizing<String>, AccessError> {
    let wrong = |source| AccessError::Sealed { id: id.to_owned(), source };
    let key = keyring.ring_key(record.ring_key)?.subkey(Purpose::AccessKeySecret, id.as_bytes());
    let secret = open_with_nonce(&key, id.as_bytes(), &record.sealed_secret).map_err(wrong)?;
    String::from_utf8(secret).map(Zeroizing::new).map_err(|_| wrong(CipherError::NotAuthentic))
}

/// The key of the cluster's authority as the catalog keeps it: number of the ring key (u32, little-endian), nonce, ciphertext
/// and tag. `nonce` is random and fresh.
pub fn seal_authority_key(keyring: &Keyring, key: &str, nonce: &Nonce) -> Result<Vec<u8>, CipherError> {
    let (ring_key, cluster) = (keyring.current(), keyring.cluster());
    let subkey = ring_key.subkey(Purpose::AuthorityKey, cluster.as_bytes());
    let sealed = seal_with_nonce(&subkey, nonce, cluster.as_bytes(), key.as_bytes())?;
    Ok([&ring_key.number().0.to_le_bytes()[..], &sealed].concat())
}

/// Opens what [`seal_authority_key`] made.
///
/// # Errors
/// Of another cluster, altered, or its ring key is not in the keyring.
pub fn open_authority_key(keyring: &Keyring, sealed: &[u8]) -> Result<Zeroizing<String>, AccessError> {
    let wrong = |source| AccessError::AuthorityKey { source };
    let short = || wrong(CipherError::TooShort(sealed.len()));
    let (number, rest) = sealed.split_first_chunk().ok_or_else(short)?;
    let ring_key = keyring.ring_key(RingKeyNumber(u32::from_le_bytes(*number)))?;
    let cluster = keyring.cluster();
    let subkey = ring_key.subkey(Purpose::AuthorityKey, cluster.as_bytes());
    let key = open_with_nonce(&subkey, cluster.as_bytes(), rest).map_err(wrong)?;
    String::from_utf8(key).map(Zeroizing::new).map_err(|_| wrong(CipherError::NotAuthentic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::SecretKey;
    use crate::ids::ClusterId;
    use crate::ids::Epoch;
    use crate::keyring::{NewRingKey, RingKeyState};

    #[test]
    fn a_secret_opens_for_its_own_access_key_only() {
        let new = NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
        let keyring = Keyring::create(ClusterId([1; 16]), new);
        let record = seal_secret(&keyring, "KEY", "secret", &[9; 12], "default", true).expect("it seals");
        assert!(record.read_only);
        assert_eq!(open_secret(&keyring, "KEY", &record).expect("it opens").as_str(), "secret");
        assert!(matches!(open_secret(&keyring, "OTHER", &record), Err(AccessError::Sealed { .. })));
    }
    #[test]
    fn the_authoritys_key_opens_in_its_own_cluster_only() {
        let new = || NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
        let keyring = Keyring::create(ClusterId([1; 16]), new());
        let sealed = seal_authority_key(&keyring, "PRIVATE KEY", &[9; 12]).expect("it seals");
        let later = keyring.with_ring_key(Epoch(1), new(), RingKeyState::InUse).expect("a number is left");
        assert_eq!(open_authority_key(&later, &sealed).expect("it opens").as_str(), "PRIVATE KEY");
        let other = Keyring::create(ClusterId([2; 16]), new());
        assert!(matches!(open_authority_key(&other, &sealed), Err(AccessError::AuthorityKey { .. })));
        assert!(matches!(open_authority_key(&keyring, &sealed[..9]), Err(AccessError::AuthorityKey { .. })));
    }
}
