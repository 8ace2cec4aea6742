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

    fn open(&self, key: &SecretKey, nonce: &Nonce, aad: &[u8], in_out: &mut [u8]) -> Result<(), CipherError> {
        if in_out.len() < TAG_LEN {
            return Err(CipherError::TooShort(in_out.len()));
        }
        let key = prepared(key).ok_or(CipherError::NotAuthentic)?;
        let nonce = AeadNonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, Aad::from(aad), in_out);
        opened.map(drop).map_err(|_| CipherError::NotAuthentic)
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
            AwsLcAesGcm.open(&key, &[9; 12], b"place", &mut ours).expect("it opens");
            assert_eq!(ours[..length], plain);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let key = SecretKey::new([5; 32]);
        let mut sealed = vec![1; 100];
        let tag = AwsLcAesGcm.seal(&key, &[0; 12], b"", &mut sealed).expect("it seals");
        sealed.extend_from_slice(&tag);
        sealed[50] ^= 4;
        let opened = AwsLcAesGcm.open(&key, &[0; 12], b"", &mut sealed);
        assert_eq!(opened, Err(CipherError::NotAuthentic));
        assert_eq!(AwsLcAesGcm.open(&key, &[0; 12], b"", &mut [0; 15]), Err(CipherError::TooShort(15)));
    }
}
