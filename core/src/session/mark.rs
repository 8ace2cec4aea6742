//! What tells one configured token from another, for sessions that were begun with it.

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::cipher::{Purpose, hmac_sha256};
use crate::ids::RingKeyNumber;
use crate::keyring::{Keyring, RingKey};

/// HMAC-SHA256 of a configured token by a subkey of a ring key: nobody who reads it can try tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMark {
    ring_key: RingKeyNumber,
    mac: [u8; 32],
}

fn mac(ring_key: &RingKey, token: &str) -> [u8; 32] {
    hmac_sha256(&ring_key.subkey(Purpose::TokenMark, b""), token.as_bytes())
}

impl TokenMark {
    /// Of a token, by the current ring key.
    pub fn of(keyring: &Keyring, token: &str) -> Self {
        let ring_key = keyring.current();
        Self { ring_key: ring_key.number(), mac: mac(ring_key, token) }
    }

    /// Whether this token has it.
    pub fn is_of(&self, keyring: &Keyring, token: &str) -> bool {
        let ring_key = keyring.ring_key(self.ring_key);
        ring_key.is_ok_and(|ring_key| mac(ring_key, token).ct_eq(&self.mac).into())
    }
}
