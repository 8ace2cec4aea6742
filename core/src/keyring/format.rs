//! The keyring's bytes.

use bytes::{Buf, BufMut};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{ClusterKey, FORMAT, KeyId, Keyring, KeyringError, RingKey, RingKeyState};
use crate::cipher::{
    Algorithm, KEY_LEN, NONCE_LEN, SecretKey, TAG_LEN, hmac_sha256, open_metadata, seal_metadata,
};
use crate::ids::{ClusterId, Generation, RingKeyNumber};

const MAGIC: &[u8; 8] = b"DPKEYRNG";
const HEAD_LEN: usize = 48;
const WRAPPED_LEN: usize = KEY_LEN + TAG_LEN;
const ENTRY_LEN: usize = 16 + NONCE_LEN + WRAPPED_LEN;
const MAC_LEN: usize = 32;
const END_LEN: usize = MAC_LEN + 4;

/// What a wrapped key is bound to: cluster, number, time.
fn associated_data(cluster: ClusterId, number: RingKeyNumber, made_ms: u64) -> Vec<u8> {
    let mut aad = cluster.as_bytes().to_vec();
    aad.put_u32_le(number.0);
    aad.put_u64_le(made_ms);
    aad
}

/// The state, and the zeros behind it.
const fn code(state: RingKeyState) -> u32 {
    match state {
        RingKeyState::InUse => 0,
        RingKeyState::Prepared => 1,
    }
}

const fn state(code: u32) -> Result<RingKeyState, KeyringError> {
    match code {
        0 => Ok(RingKeyState::InUse),
        1 => Ok(RingKeyState::Prepared),
        _ => Err(KeyringError::Damaged("a ring key has a state that this version does not know")),
    }
}

pub(super) fn seal(keyring: &Keyring, cluster_key: &ClusterKey) -> Vec<u8> {
    let cluster = keyring.cluster;
    let mut bytes = Vec::with_capacity(HEAD_LEN + keyring.ring_keys.len() * ENTRY_LEN + END_LEN);
    bytes.put_slice(MAGIC);
    bytes.put_u16_le(FORMAT);
    bytes.put_u8(Algorithm::Aes256Gcm.code());
    bytes.put_u8(0);
    bytes.put_u32_le(keyring.ring_keys.len() as u32);
    bytes.put_slice(cluster.as_bytes());
    bytes.put_u64_le(keyring.generation.0);
    bytes.put_slice(&cluster_key.id(cluster).0);
    let wrapping = cluster_key.wrapping_key(cluster);
    for ring_key in &keyring.ring_keys {
        bytes.put_u32_le(ring_key.number.0);
        bytes.put_u32_le(code(ring_key.state));
        bytes.put_u64_le(ring_key.made_ms);
        bytes.put_slice(&ring_key.nonce);
        let aad = associated_data(cluster, ring_key.number, ring_key.made_ms);
        let wrapped = seal_metadata(&wrapping, &ring_key.nonce, &aad, ring_key.key.expose());
        bytes.put_slice(&wrapped.expect("AES-GCM seals 32 bytes"));
    }
    let mac = hmac_sha256(&cluster_key.authentication_key(cluster), &bytes);
    bytes.put_slice(&mac);
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32_le(crc);
    bytes
}

struct Head {
    algorithm: u8,
    count: usize,
    cluster: ClusterId,
    generation: Generation,
    wrapped_by: KeyId,
}

/// Checks that it is a whole keyring of this format.
fn parse_head(bytes: &[u8]) -> Result<Head, KeyringError> {
    let mut fields = bytes.strip_prefix(MAGIC).ok_or(KeyringError::NotAKeyring(bytes.len()))?;
    let (covered, mut crc) =
        bytes.split_last_chunk::<4>().map(|(covered, crc)| (covered, &crc[..])).unwrap_or_default();
    if covered.len() < HEAD_LEN + MAC_LEN {
        return Err(KeyringError::Damaged("it is cut"));
    }
    if crc.get_u32_le() != crc32c::crc32c(covered) {
        return Err(KeyringError::Damaged("its checksum does not fit"));
    }
    let format = fields.get_u16_le();
    if format != FORMAT {
        return Err(KeyringError::NewerFormat { found: format });
    }
    let algorithm = fields.get_u8();
    fields.advance(1);
    let count = fields.get_u32_le() as usize;
    let cluster = ClusterId(fields.get_u128_le().to_le_bytes());
    let generation = Generation(fields.get_u64_le());
    let wrapped_by = KeyId(fields.get_u64_le().to_le_bytes());
    if count == 0 || count.checked_mul(ENTRY_LEN) != Some(bytes.len() - HEAD_LEN - END_LEN) {
        return Err(KeyringError::Damaged("its length does not fit its number of keys"));
    }
    Ok(Head { algorithm, count, cluster, generation, wrapped_by })
}

pub(super) fn generation_of(bytes: &[u8]) -> Result<Generation, KeyringError> {
    parse_head(bytes).map(|head| head.generation)
}

/// Whose it is, which, and by which cluster key it is wrapped.
pub(super) fn names(bytes: &[u8]) -> Result<(ClusterId, Generation, KeyId), KeyringError> {
    parse_head(bytes).map(|head| (head.cluster, head.generation, head.wrapped_by))
}

pub(super) fn open(bytes: &[u8], cluster_key: &ClusterKey) -> Result<Keyring, KeyringError> {
    let head = parse_head(bytes)?;
    let (cluster, generation) = (head.cluster, head.generation);
    if head.algorithm != Algorithm::Aes256Gcm.code() {
        return Err(KeyringError::UnknownAlgorithm(head.algorithm));
    }
    let held = cluster_key.id(cluster);
    if head.wrapped_by != held {
        let (needed, held) = (head.wrapped_by, vec![held]);
        return Err(KeyringError::WrongKey { cluster, generation, needed, held });
    }
    let (covered, mac) = bytes[..bytes.len() - 4].split_at(bytes.len() - END_LEN);
    let expected = hmac_sha256(&cluster_key.authentication_key(cluster), covered);
    if !bool::from(expected.ct_eq(mac)) {
        return Err(KeyringError::Damaged("its authentication does not fit"));
    }
    let wrapping = cluster_key.wrapping_key(cluster);
    let mut entries = &covered[HEAD_LEN..];
    let mut ring_keys: Vec<RingKey> = Vec::with_capacity(head.count);
    while entries.has_remaining() {
        let ring_key = open_entry(&mut entries, cluster, &wrapping)?;
        if ring_keys.last().is_some_and(|before| before.number >= ring_key.number) {
            return Err(KeyringError::Damaged("its keys are not in order"));
        }
        ring_keys.push(ring_key);
    }
    if ring_keys.iter().all(|key| key.state != RingKeyState::InUse) {
        return Err(KeyringError::Damaged("none of its keys is in use"));
    }
    Ok(Keyring { cluster, generation, ring_keys })
}

fn open_entry(fields: &mut &[u8], cluster: ClusterId, wrapping: &SecretKey) -> Result<RingKey, KeyringError> {
    let number = RingKeyNumber(fields.get_u32_le());
    let state = state(fields.get_u32_le())?;
    let made_ms = fields.get_u64_le();
    let mut nonce = [0; NONCE_LEN];
    fields.copy_to_slice(&mut nonce);
    let mut wrapped = [0; WRAPPED_LEN];
    fields.copy_to_slice(&mut wrapped);
    let aad = associated_data(cluster, number, made_ms);
    let mut plain = open_metadata(wrapping, &nonce, &aad, &wrapped)
        .map_err(|_| KeyringError::Damaged("a ring key does not unwrap"))?;
    let mut key = [0; KEY_LEN];
    key.copy_from_slice(&plain);
    plain.zeroize();
    let ring_key = RingKey { number, state, made_ms, nonce, key: SecretKey::new(key) };
    key.zeroize();
    Ok(ring_key)
}
