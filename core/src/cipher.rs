//! Encryption: the bulk cipher as a trait (whoever has a faster one fills it), AES-256-GCM as the oracle and for
//! metadata, and the keys that are derived from a ring key.
//!
//! Every implementation of one [`Algorithm`] gives the same bytes. Numbers in nonces and associated data are
//! little-endian, as in all formats.

use std::fmt;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{BlobId, ExtentId};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// Bytes of the tag that follows each ciphertext.
pub const TAG_LEN: usize = 16;

/// A nonce: never used twice under one key.
pub type Nonce = [u8; NONCE_LEN];
/// Proof that ciphertext and associated data are as they were sealed.
pub type Tag = [u8; TAG_LEN];

/// An algorithm, as formats and the keyring number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// AES-256-GCM with a 96-bit nonce and a 128-bit tag.
    Aes256Gcm = 1,
}

impl Algorithm {
    /// The algorithm of a number in a format; None where this version knows none.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    /// Its number in formats.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Why nothing was sealed or opened. Nothing of the plaintext is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CipherError {
    /// The tag does not fit: another key, or changed bytes, place or flags.
    #[error("the authentication tag does not fit: the bytes were altered, or belong to another key or place")]
    NotAuthentic,
    /// Fewer bytes than a tag, or a nonce and a tag, have.
    #[error("{0} sealed bytes do not open: their tag alone has {TAG_LEN}")]
    TooShort(usize),
    /// The implementation refused to seal (an input beyond the algorithm's limit).
    #[error("the cipher refused to seal {0} bytes")]
    Refused(usize),
}

/// A key of 32 bytes, wiped when it goes; it never prints.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; KEY_LEN]);

impl SecretKey {
    /// Takes the bytes of a key.
    pub const fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a cipher or a derivation.
    pub const fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// HKDF-SHA256 (RFC 5869) of this key: `salt` says of what, `info` for what.
    pub(crate) fn derive(&self, salt: &[u8], info: &[u8]) -> Self {
        let mut derived = Self([0; KEY_LEN]);
        Hkdf::<Sha256>::new(Some(salt), &self.0)
            .expand(info, &mut derived.0)
            .expect("HKDF-SHA256 gives up to 8,160 bytes");
        derived
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(..)")
    }
}

/// Authenticated encryption of bulk data. Implementations differ in speed only; a test holds each against
/// [`RustCryptoAesGcm`].
pub trait BulkCipher: Send + Sync {
    /// What it computes.
    fn algorithm(&self) -> Algorithm;

    /// Encrypts `in_out` in place and gives the tag, which belongs behind it.
    ///
    /// # Errors
    /// [`CipherError::Refused`] beyond the algorithm's limits.
    fn seal(&self, key: &SecretKey, nonce: &Nonce, aad: &[u8], in_out: &mut [u8])
    -> Result<Tag, CipherError>;

    /// Decrypts ciphertext, then tag, in place: all but the last [`TAG_LEN`] bytes are the plaintext then.
    ///
    /// # Errors
    /// [`CipherError::NotAuthentic`]: what is in `in_out` then is neither ciphertext nor plaintext.
    fn open(&self, key: &SecretKey, nonce: &Nonce, aad: &[u8], in_out: &mut [u8]) -> Result<(), CipherError>;
}

/// AES-256-GCM by the `aes-gcm` crate: for keys and metadata, and the oracle for faster ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct RustCryptoAesGcm;

impl BulkCipher for RustCryptoAesGcm {
    fn algorithm(&self) -> Algorithm {
        Algorithm::Aes256Gcm
    }

    fn seal(
        &self,
        key: &SecretKey,
        nonce: &Nonce,
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<Tag, CipherError> {
        let length = in_out.len();
        Aes256Gcm::new(key.expose().into())
            .encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(in_out))
            .map(Into::into)
            .map_err(|_| CipherError::Refused(length))
    }

    fn open(&self, key: &SecretKey, nonce: &Nonce, aad: &[u8], in_out: &mut [u8]) -> Result<(), CipherError> {
        let too_short = CipherError::TooShort(in_out.len());
        let (ciphertext, tag) = in_out.split_last_chunk_mut::<TAG_LEN>().ok_or(too_short)?;
        Aes256Gcm::new(key.expose().into())
            .decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(ciphertext), (&*tag).into())
            .map_err(|_| CipherError::NotAuthentic)
    }
}

/// Seals a small secret or a list: ciphertext, then tag. `nonce` is random and fresh for each call under one key.
pub fn seal_metadata(
    key: &SecretKey,
    nonce: &Nonce,
    aad: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, CipherError> {
    let mut sealed = Vec::with_capacity(plain.len() + TAG_LEN);
    sealed.extend_from_slice(plain);
    let tag = RustCryptoAesGcm.seal(key, nonce, aad, &mut sealed)?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens what [`seal_metadata`] made.
pub fn open_metadata(
    key: &SecretKey,
    nonce: &Nonce,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, CipherError> {
    let mut plain = sealed.to_vec();
    RustCryptoAesGcm.open(key, nonce, aad, &mut plain)?;
    plain.truncate(sealed.len() - TAG_LEN);
    Ok(plain)
}

/// As [`seal_metadata`], with the nonce before the ciphertext: what lies in records.
pub fn seal_with_nonce(
    key: &SecretKey,
    nonce: &Nonce,
    aad: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, CipherError> {
    Ok([&nonce[..], &seal_metadata(key, nonce, aad, plain)?].concat())
}

/// Opens what [`seal_with_nonce`] made.
pub fn open_with_nonce(key: &SecretKey, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CipherError> {
    let too_short = CipherError::TooShort(sealed.len());
    let (nonce, sealed) = sealed.split_first_chunk().ok_or(too_short)?;
    open_metadata(key, nonce, aad, sealed)
}

/// What a key that is derived from a ring key is for: a key for one purpose opens nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The sealed list in an extent's tail; context: the extent id.
    ExtentTail,
    /// The secret of an S3 access key; context: its id.
    AccessKeySecret,
    /// Signatures of REST and web tokens; no context.
    TokenSignature,
    /// Marks of configured tokens in sessions; no context.
    TokenMark,
    /// The private key of the cluster's certificate authority; context: the cluster id.
    AuthorityKey,
    /// Page tokens and other opaque values handed to clients; no context.
    OpaqueToken,
}

impl Purpose {
    const fn info(self) -> &'static [u8] {
        match self {
            Self::ExtentTail => b"diptych/1 extent tail",
            Self::AccessKeySecret => b"diptych/1 access key secret",
            Self::TokenSignature => b"diptych/1 token signature",
            Self::TokenMark => b"diptych/1 token mark",
            Self::AuthorityKey => b"diptych/1 authority key",
            Self::OpaqueToken => b"diptych/1 opaque token",
        }
    }
}

/// The key for one purpose: HKDF-SHA256 of a ring key, salt `context`, info the purpose's text.
pub fn subkey(ring_key: &SecretKey, purpose: Purpose, context: &[u8]) -> SecretKey {
    ring_key.derive(context, purpose.info())
}

/// HMAC-SHA256 of `message`. HKDF's extract step is defined as just that (RFC 5869, 2.2).
pub(crate) fn hmac_sha256(key: &SecretKey, message: &[u8]) -> [u8; 32] {
    Hkdf::<Sha256>::extract(Some(key.expose()), message).0.into()
}

/// The key of a blob's chunks: HKDF-SHA256 of the ring key, salt the blob id. A blob id is fresh for each attempt,
/// so that nonces can be chunk counters.
pub fn blob_key(ring_key: &SecretKey, blob: BlobId) -> SecretKey {
    ring_key.derive(blob.as_bytes(), b"diptych/1 blob aes-256-gcm")
}

/// The key of an extent's tail.
pub fn tail_key(ring_key: &SecretKey, extent: ExtentId) -> SecretKey {
    subkey(ring_key, Purpose::ExtentTail, extent.as_bytes())
}

/// The nonce of chunk `index` of a blob: the index as a 96-bit little-endian counter.
pub fn chunk_nonce(index: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..4].copy_from_slice(&index.to_le_bytes());
    nonce
}

/// The associated data of a chunk: blob id, index, last, compressed. With it no chunk can be moved, cut or replayed.
pub fn chunk_aad(blob: BlobId, index: u32, last: bool, compressed: bool) -> [u8; 22] {
    let mut aad = [0; 22];
    aad[..16].copy_from_slice(blob.as_bytes());
    aad[16..20].copy_from_slice(&index.to_le_bytes());
    aad[20] = u8::from(last);
    aad[21] = u8::from(compressed);
    aad
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(format!("{:?}", SecretKey::new([7; 32])), "SecretKey(..)");
    }

    #[test]
    fn keys_of_two_purposes_contexts_or_blobs_differ() {
        let ring = SecretKey::new([7; 32]);
        let keys = [
            subkey(&ring, Purpose::AccessKeySecret, b"a"),
            subkey(&ring, Purpose::AccessKeySecret, b"b"),
            subkey(&ring, Purpose::TokenSignature, b""),
            tail_key(&ring, ExtentId([1; 16])),
            blob_key(&ring, BlobId([1; 16])),
            blob_key(&ring, BlobId([2; 16])),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "key {index} is there twice");
        }
    }

    proptest! {
        #[test]
        fn metadata_opens_as_it_was_sealed_and_any_flipped_bit_is_noticed(
            plain: Vec<u8>, aad: Vec<u8>, nonce: [u8; 12], at: prop::sample::Index, bit in 0_u8..8
        ) {
            let key = SecretKey::new([9; 32]);
            let mut sealed = seal_metadata(&key, &nonce, &aad, &plain).unwrap();
            prop_assert_eq!(open_metadata(&key, &nonce, &aad, &sealed), Ok(plain));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(open_metadata(&key, &nonce, &aad, &sealed), Err(CipherError::NotAuthentic));
        }
    }

    #[test]
    fn fewer_bytes_than_a_tag_are_refused() {
        let key = SecretKey::new([9; 32]);
        let error = open_metadata(&key, &[0; 12], b"", &[0; 15]);
        assert_eq!(error, Err(CipherError::TooShort(15)));
    }
}
