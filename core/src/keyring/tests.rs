use proptest::prelude::*;

use super::*;
use crate::cipher::KEY_LEN;

const CLUSTER: ClusterId = ClusterId([1; 16]);

fn cluster_key(byte: u8) -> ClusterKey {
    ClusterKey::new([byte; KEY_LEN])
}

fn fresh(byte: u8) -> NewRingKey {
    NewRingKey { key: SecretKey::new([byte; KEY_LEN]), nonce: [byte; 12], made_ms: u64::from(byte) }
}

/// With one more ring key in use, of that epoch.
fn with(keyring: &Keyring, epoch: u64, byte: u8) -> Keyring {
    keyring.with_ring_key(Epoch(epoch), fresh(byte), RingKeyState::InUse).expect("a number is left")
}

fn keyring() -> Keyring {
    with(&Keyring::create(CLUSTER, fresh(7)), 0, 8)
}

/// Makes the checksum fit again, as a forger would.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 4);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_new_ring_key_becomes_the_current_one_and_the_old_one_stays() {
    let keyring = keyring();
    assert_eq!((keyring.generation(), keyring.current().number()), (Generation(2), RingKeyNumber(2)));
    assert_eq!(keyring.ring_key(RingKeyNumber(1)).unwrap().made_ms(), 7);
    let missing = keyring.ring_key(RingKeyNumber(3)).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "ring key 3 is not in the keyring of generation 2: a newer keyring is needed"
    );
}

#[test]
fn a_wrong_cluster_key_is_told_from_damage() {
    let bytes = keyring().seal(&cluster_key(9));
    let (needed, held) = (cluster_key(9).id(CLUSTER), vec![cluster_key(10).id(CLUSTER)]);
    let wrong = KeyringError::WrongKey { cluster: CLUSTER, generation: Generation(2), needed, held };
    assert_eq!(Keyring::open(&bytes, &cluster_key(10)), Err(wrong));
    assert_eq!(Keyring::open(&bytes, &cluster_key(9)), Ok(keyring()));
}

#[test]
fn every_flipped_byte_is_damage_even_with_a_right_checksum() {
    let bytes = keyring().seal(&cluster_key(9));
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x20;
        let opened = Keyring::open(&altered, &cluster_key(9)).unwrap_err();
        assert!(
            matches!(opened, KeyringError::Damaged(_) | KeyringError::NotAKeyring(_)),
            "byte {at}: {opened}"
        );
        if at < bytes.len() - 4 {
            assert!(Keyring::open(&with_checksum(altered), &cluster_key(9)).is_err(), "forged byte {at}");
        }
    }
    for length in 0..bytes.len() {
        assert!(Keyring::open(&bytes[..length], &cluster_key(9)).is_err(), "cut to {length}");
    }
}

#[test]
fn a_newer_format_is_named() {
    let mut bytes = keyring().seal(&cluster_key(9));
    bytes[8] = 2;
    let error = Keyring::open(&with_checksum(bytes), &cluster_key(9));
    assert_eq!(error, Err(KeyringError::NewerFormat { found: 2 }));
}

#[test]
fn the_generation_reads_without_a_key() {
    assert_eq!(Keyring::generation_of(&keyring().seal(&cluster_key(9))), Ok(Generation(2)));
    assert_eq!(Keyring::generation_of(b"something else"), Err(KeyringError::NotAKeyring(14)));
}

#[test]
fn a_new_cluster_key_rewraps_the_same_ring_keys() {
    let rewrapped =
        Keyring::open(&keyring().seal(&cluster_key(9)), &cluster_key(9)).unwrap().next_generation();
    let bytes = rewrapped.seal(&cluster_key(10));
    let opened = Keyring::open(&bytes, &cluster_key(10)).unwrap();
    assert_eq!((opened.generation(), opened.ring_keys()), (Generation(3), keyring().ring_keys()));
    assert!(matches!(Keyring::open(&bytes, &cluster_key(9)), Err(KeyringError::WrongKey { .. })));
}

#[test]
fn while_a_key_is_exchanged_either_opens_and_a_missing_one_is_named() {
    let both = ClusterKeys::new(cluster_key(10), Some(cluster_key(9)));
    assert_eq!(both.open(&keyring().seal(&cluster_key(9))), Ok(keyring()));
    assert_eq!(both.open(&keyring().seal(&cluster_key(10))), Ok(keyring()));
    let error = both.open(&keyring().seal(&cluster_key(11))).unwrap_err().to_string();
    for key in [cluster_key(11), cluster_key(10), cluster_key(9)] {
        assert!(error.contains(&key.id(CLUSTER).to_string()), "{error}");
    }
    let text = format!("{both:?}");
    assert_eq!(text, "ClusterKeys { newest: ClusterKey(..), previous: Some(ClusterKey(..)) }");
}

#[test]
fn a_prepared_ring_key_opens_and_seals_nothing_before_it_is_in_use() {
    let prepared = keyring().with_ring_key(Epoch(4), fresh(9), RingKeyState::Prepared).unwrap();
    let number = RingKeyNumber(4 * 256);
    assert_eq!(
        (prepared.current().number(), prepared.prepared().map(RingKey::number)),
        (RingKeyNumber(2), Some(number))
    );
    let opened = Keyring::open(&prepared.seal(&cluster_key(9)), &cluster_key(9)).unwrap();
    assert!(opened == prepared && opened.ring_key(number).is_ok());
    let used = opened.all_in_use();
    assert_eq!((used.current().number(), used.prepared(), used.generation()), (number, None, Generation(4)));
}

#[test]
fn each_epoch_has_numbers_of_its_own_and_no_others() {
    let mut full = with(&keyring(), 5, 1);
    assert_eq!(full.current().number(), RingKeyNumber(5 * 256));
    // A key of a later term does not make one of an earlier term follow it.
    assert_eq!(with(&full, 3, 2).ring_key(RingKeyNumber(3 * 256)).unwrap().made_ms(), 2);
    for _ in 1..256 {
        full = with(&full, 5, 3);
    }
    assert_eq!(full.current().number(), RingKeyNumber(5 * 256 + 255));
    for epoch in [Epoch(5), Epoch(1 << 24), Epoch(u64::MAX)] {
        let refused = full.with_ring_key(epoch, fresh(1), RingKeyState::InUse);
        assert_eq!(refused, Err(KeyringError::NoNumber(epoch)));
    }
}

#[test]
fn a_cluster_key_reads_as_hexadecimal_and_as_base64() {
    let expected = ClusterKey::new([0xfb; KEY_LEN]);
    let hexadecimal = "fb".repeat(32);
    for text in [
        hexadecimal.as_str(),
        &hexadecimal.to_uppercase(),
        "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=",
        "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s\n",
    ] {
        assert_eq!(ClusterKey::parse(text), Ok(expected.clone()), "{text:?}");
    }
}

#[test]
fn a_bad_cluster_key_is_refused_without_being_printed() {
    for text in ["", "hunter2", &"fb".repeat(31), &"fb".repeat(33), &"+/v7".repeat(12)] {
        let error = ClusterKey::parse(text).unwrap_err().to_string();
        assert!(error.contains(&format!("got {} characters", text.len())), "{error}");
        assert!(text.is_empty() || !error.contains(text), "{error}");
    }
}

#[test]
fn no_key_prints() {
    let text = format!("{:?} {:?} {:?}", keyring(), cluster_key(9), fresh(7));
    assert!(text.contains("ClusterKey(..)") && text.contains("SecretKey(..)"));
    assert!(!text.contains("9, 9") && !text.contains("key: [7"), "{text}");
}

proptest! {
    #[test]
    fn a_keyring_opens_as_it_was_sealed(keys in prop::collection::vec(any::<([u8; 32], [u8; 12], u64)>(), 1..8)) {
        let mut keys = keys.into_iter().map(|(key, nonce, made_ms)| NewRingKey { key: SecretKey::new(key), nonce, made_ms });
        let first = Keyring::create(CLUSTER, keys.next().expect("one at least"));
        let keyring = keys.fold(first, |keyring, key| {
            keyring.with_ring_key(Epoch(3), key, RingKeyState::Prepared).expect("a number is left")
        });
        prop_assert_eq!(Keyring::open(&keyring.seal(&cluster_key(1)), &cluster_key(1)), Ok(keyring));
    }
}
