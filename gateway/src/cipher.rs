//! The bulk cipher by aws-lc-rs; `aes-gcm` is its oracle.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as AeadNonce, UnboundKey};
use diptych_core::cipher::{Algorithm, BulkCipher, CipherError, Nonce, SecretKey, TAG_LEN, Tag};

/// AES-256-GCM by aws-lc-rs.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLcAesGcm;

fn prepared(key: &SecretKey) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.expose()).ok().map(LessSafeKey::new)
}

impl BulkCipher for AwsLcAesGcm {
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
        let refused = CipherError::Refused(length);
        let key = prepared(key).ok_or(refused)?;
        let nonce = AeadNonce::assume_unique_for_key(*nonce);
        let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(aad), in_out).map_err(|_| refused)?;
        sealed.as_ref().try_into().map_err(|_| refused)
    }

    fn open(
        &self,
        key: &SecretKey,
        nonce: &Nonce,
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), CipherError> {
        let wrong_length = CipherError::WrongLength { sealed: sealed.len(), plain: out.len() };
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(wrong_length)?;
        if ciphertext.len() != out.len() {
            return Err(wrong_length);
        }
        let key = prepared(key).ok_or(CipherError::NotAuthentic)?;
        let nonce = AeadNonce::assume_unique_for_key(*nonce);
        let opened = key.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, out);
        opened.map_err(|_| {
            out.fill(0);
            CipherError::NotAuthentic
        })
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::cipher::RustCryptoAesGcm;

    use super::*;

    #[test]
    fn it_seals_the_same_bytes_as_the_oracle_and_opens_them() {
        let key = SecretKey::new([5; 32]);
        for length in [0, 1, 15, 16, 17, 4096, 100_003] {
            let plain: Vec<u8> = (0..length).map(|index| (index * 31 % 251) as u8).collect();
            let (mut ours, mut theirs) = (plain.clone(), plain.clone());
            let tag = AwsLcAesGcm.seal(&key, &[9; 12], b"place", &mut ours).expect("it seals");
            assert_eq!(tag, RustCryptoAesGcm.seal(&key, &[9; 12], b"place", &mut theirs).expect("it seals"));
            assert_eq!(ours, theirs);
            ours.extend_from_slice(&tag);
            let mut opened = vec![0; length];
            AwsLcAesGcm.open(&key, &[9; 12], b"place", &ours, &mut opened).expect("it opens");
            assert_eq!(opened, plain);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_and_nothing_is_given_out() {
        let key = SecretKey::new([5; 32]);
        let mut sealed = vec![1; 100];
        let tag = AwsLcAesGcm.seal(&key, &[0; 12], b"", &mut sealed).expect("it seals");
        sealed.extend_from_slice(&tag);
        sealed[50] ^= 4;
        let mut out = vec![7; 100];
        assert_eq!(AwsLcAesGcm.open(&key, &[0; 12], b"", &sealed, &mut out), Err(CipherError::NotAuthentic));
        assert!(out.iter().all(|&byte| byte == 0));
    }
}
