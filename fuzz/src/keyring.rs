//! The keyring.
//!
//! Input: an alteration 8; then a sealed keyring, which is also taken for what a holder of the cluster key seals: cluster
//! 16, generation 8, and ring keys of number 4, made at 8, nonce 12, key 32.

use diptych_core::cipher::{Algorithm, SecretKey, seal_metadata};
use diptych_core::ids::{ClusterId, Epoch, Generation};
use diptych_core::keyring::{ClusterKey, FORMAT, Keyring, KeyringError, NewRingKey, RingKeyState};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

use crate::alteration::{Alteration, take};

/// What opens reads back, only an orderly keyring opens, and what changes one is noticed, by a forger's too.
pub fn holds(input: &[u8]) {
    let mut rest = input;
    let alteration = Alteration::take(&mut rest);
    reads_back(rest);
    reads_back(&with_checksum(rest.to_vec()));
    let (bytes, numbers) = authentic(rest);
    let orderly = !numbers.is_empty() && numbers.is_sorted_by(|before, after| before < after);
    let opened = reads_back(&bytes);
    assert_eq!(opened.is_some(), orderly, "ring keys {numbers:?}");
    if let Some(keyring) = opened {
        assert_eq!(keyring.seal(&cluster_key()), bytes, "it was written otherwise than by our writer");
        notices_changes(&bytes, &keyring, &alteration);
    }
}

fn cluster_key() -> ClusterKey {
    ClusterKey::new(golden("cluster key"))
}

/// Test bytes as the golden vectors have them: SHA-256 of label and block number.
fn golden<const N: usize>(label: &str) -> [u8; N] {
    let block = Sha256::new().chain_update(label).chain_update(0_u32.to_le_bytes()).finalize();
    std::array::from_fn(|at| block[at])
}

/// The keyring of the golden vectors.
pub(crate) fn golden_keyring() -> Keyring {
    let ring_key = |key: &str, nonce: &str, made_ms| NewRingKey {
        key: SecretKey::new(golden(key)),
        nonce: golden(nonce),
        made_ms,
    };
    let first = Keyring::create(
        ClusterId(*b"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"),
        ring_key("ring key 1", "nonce 1", 1000),
    );
    let second = ring_key("ring key 2", "nonce 2", 2000);
    first.with_ring_key(Epoch(0), second, RingKeyState::InUse).expect("a number is left")
}

/// The keyring that the bytes are, if they are one; then it seals and opens again.
fn reads_back(bytes: &[u8]) -> Option<Keyring> {
    let generation = Keyring::generation_of(bytes);
    let keyring = Keyring::open(bytes, &cluster_key()).ok()?;
    assert_eq!(generation, Ok(keyring.generation()), "it reads otherwise without the key");
    let sealed = keyring.seal(&cluster_key());
    assert_eq!(
        Keyring::open(&sealed, &cluster_key()).as_ref(),
        Ok(&keyring),
        "it does not open as it was sealed"
    );
    Some(keyring)
}

/// Makes the checksum right, as a forger would.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let covered = bytes.len().saturating_sub(4);
    bytes.truncate(covered);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// A keyring of any ring keys, sealed by the cluster key; with their numbers.
fn authentic(mut fields: &[u8]) -> (Vec<u8>, Vec<u32>) {
    let (cluster, generation): ([u8; 16], [u8; 8]) = (take(&mut fields), take(&mut fields));
    let wrapping = SecretKey::new(derived(cluster, "wrap"));
    let mut numbers = Vec::new();
    let mut entries = Vec::new();
    while !fields.is_empty() {
        let (number, made_ms, nonce): ([u8; 4], [u8; 8], [u8; 12]) =
            (take(&mut fields), take(&mut fields), take(&mut fields));
        let associated = [&cluster[..], &number, &made_ms].concat();
        let key = take::<32>(&mut fields);
        let wrapped = seal_metadata(&wrapping, &nonce, &associated, &key).expect("32 bytes seal");
        entries.extend_from_slice(&number);
        entries.extend_from_slice(&[0; 4]);
        entries.extend_from_slice(&[&made_ms[..], &nonce, &wrapped].concat());
        numbers.push(u32::from_le_bytes(number));
    }
    let mut bytes = b"DPKEYRNG".to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[Algorithm::Aes256Gcm.code(), 0]);
    bytes.extend_from_slice(&(numbers.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[&cluster[..], &generation, &derived(cluster, "mark")[..8]].concat());
    bytes.extend_from_slice(&entries);
    // HMAC-SHA256 is HKDF's extract step (RFC 5869, 2.2).
    let mac = Hkdf::<Sha256>::extract(Some(&derived(cluster, "authentication")), &bytes).0;
    bytes.extend_from_slice(&mac);
    bytes.extend_from_slice(&[0; 4]);
    (with_checksum(bytes), numbers)
}

/// The key for one purpose, from the cluster key.
fn derived(cluster: [u8; 16], purpose: &str) -> [u8; 32] {
    let info = format!("diptych/1 keyring {purpose}");
    let mut key = [0; 32];
    let hkdf = Hkdf::<Sha256>::new(Some(&cluster), &golden::<32>("cluster key"));
    hkdf.expand(info.as_bytes(), &mut key).expect("HKDF-SHA256 gives up to 8,160 bytes");
    key
}

fn notices_changes(bytes: &[u8], keyring: &Keyring, alteration: &Alteration) {
    let altered = alteration.of(bytes);
    assert!(Keyring::open(&altered, &cluster_key()).is_err(), "an altered keyring opens");
    assert!(Keyring::generation_of(&altered).is_err(), "an altered keyring shows a generation");
    assert!(Keyring::open(alteration.cut(bytes), &cluster_key()).is_err(), "a cut keyring opens");
    let forged = with_checksum(altered);
    if forged != bytes {
        assert!(Keyring::open(&forged, &cluster_key()).is_err(), "a forged keyring opens");
    }
    let (cluster, generation): (ClusterId, Generation) = (keyring.cluster(), keyring.generation());
    let other = ClusterKey::new([9; 32]);
    let (needed, held) = (cluster_key().id(cluster), vec![other.id(cluster)]);
    let wrong = Keyring::open(bytes, &other);
    assert_eq!(wrong, Err(KeyringError::WrongKey { cluster, generation, needed, held }));
}
