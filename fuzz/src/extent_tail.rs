//! The tail of an extent.
//!
//! Input: an alteration 8; where the list begins 2; then chunk lengths, and the list as it is before it is sealed. The
//! whole is taken for a tail as it is, for one with a right end and checksum, and for one that a holder of the ring key
//! wrote.

use std::sync::LazyLock;

use diptych_core::chunk::{ChunkLength, SealedChunk};
use diptych_core::cipher::{Algorithm, Nonce, seal_metadata};
use diptych_core::ids::ExtentId;
use diptych_core::keyring::Keyring;
use diptych_core::tail::{Tail, TailBuilder, TailEntry, TailError, tail_len};

use crate::alteration::{Alteration, take};
use crate::keyring::golden_keyring;

const EXTENT: ExtentId = ExtentId(*b" !\"#$%&'()*+,-./");
const NONCE: Nonce = [7; 12];
/// CRC32C and magic.
const END: usize = 8;

static KEYRING: LazyLock<Keyring> = LazyLock::new(golden_keyring);

/// What parses is what its bytes say, what opens reads back, and what changes a tail is noticed, by a forger's too.
pub fn holds(input: &[u8]) {
    let mut rest = input;
    let alteration = Alteration::take(&mut rest);
    parses_as_it_is(rest);
    let split = usize::from(u16::from_le_bytes(take(&mut rest)));
    let (lengths, list) = rest.split_at(split.min(rest.len()));
    parses_as_it_is(&with_end(lengths, list));
    let authentic = sealed(lengths, list);
    parses_as_it_is(&authentic);
    match Tail::parse(&authentic).and_then(|tail| Ok((tail.open(EXTENT, &KEYRING)?, tail))) {
        Ok((entries, tail)) => notices_changes(&entries, &tail, &alteration),
        Err(error) => {
            assert!(matches!(error, TailError::Malformed(_)), "an authentic tail is refused: {error}");
        }
    }
}

/// A tail says of its extent just what its bytes do.
fn parses_as_it_is(bytes: &[u8]) {
    let len = tail_len(bytes, bytes.len() as u64);
    let Ok(tail) = Tail::parse(bytes) else { return };
    assert_eq!(len, Ok(tail.len), "its end says another length");
    let start = bytes.len() - tail.len as usize;
    let lengths: Vec<u8> =
        tail.runs.iter().flat_map(|run| words(run.offset, &run.lengths)).flat_map(u32::to_le_bytes).collect();
    assert!(bytes[start..].starts_with(&lengths), "the runs are not those of the bytes");
    for run in &tail.runs {
        assert!(tail.lengths_at(run.offset).is_some(), "a run is not found by its place");
    }
    if let Ok(entries) = tail.open(EXTENT, &KEYRING) {
        assert!(tail.open(ExtentId([9; 16]), &KEYRING).is_err(), "a tail opens for another extent");
        written(&entries, &tail);
    }
}

fn words(offset: u32, lengths: &[ChunkLength]) -> impl Iterator<Item = u32> {
    [offset, lengths.len() as u32].into_iter().chain(lengths.iter().map(|length| length.0))
}

/// `lengths`, `sealed`, and what belongs behind them.
fn with_end(lengths: &[u8], sealed: &[u8]) -> Vec<u8> {
    let mut bytes = [lengths, sealed].concat();
    bytes.extend_from_slice(&(lengths.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; END]);
    with_checksum(bytes)
}

/// Makes checksum and magic right, as a forger would.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let covered = bytes.len() - END;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..covered]), b"DPT1");
    bytes[covered..covered + 4].copy_from_slice(&crc.to_le_bytes());
    bytes[covered + 4..].copy_from_slice(b"DPT1");
    bytes
}

/// A tail of any list, by a writer that has the ring key.
fn sealed(lengths: &[u8], list: &[u8]) -> Vec<u8> {
    let ring_key = KEYRING.current();
    let mut head = ring_key.number().0.to_le_bytes().to_vec();
    head.extend_from_slice(&[Algorithm::Aes256Gcm.code(), 0, 0, 0]);
    let associated = [lengths, &head].concat();
    let sealed =
        seal_metadata(&ring_key.tail_key(EXTENT), &NONCE, &associated, list).expect("a short list seals");
    with_end(lengths, &[&head[..], &NONCE, &sealed].concat())
}

/// The tail that our writer makes of `entries`; it opens to the same.
fn written(entries: &[TailEntry], tail: &Tail) -> Vec<u8> {
    let mut builder = TailBuilder::new();
    for (index, entry) in entries.iter().enumerate() {
        let lengths = tail.runs.get(index).map_or(&[][..], |run| &run.lengths);
        let chunk = |length: &ChunkLength| SealedChunk {
            index: 0,
            len: length.sealed(),
            compressed: length.compressed(),
        };
        builder.add(entry.clone(), &lengths.iter().map(chunk).collect::<Vec<_>>());
    }
    let bytes = builder.finish(EXTENT, KEYRING.current(), &NONCE).expect("what was opened seals");
    let opened = Tail::parse(&bytes).and_then(|tail| tail.open(EXTENT, &KEYRING));
    assert_eq!(opened.as_deref(), Ok(entries), "a tail does not open as it was sealed");
    bytes
}

fn notices_changes(entries: &[TailEntry], tail: &Tail, alteration: &Alteration) {
    let bytes = written(entries, tail);
    let altered = alteration.of(&bytes);
    assert!(Tail::parse(&altered).is_err(), "an altered tail parses");
    assert!(Tail::parse(alteration.cut(&bytes)).is_err(), "a cut tail parses");
    let forged = with_checksum(altered);
    if forged != bytes {
        let opened = Tail::parse(&forged).and_then(|tail| tail.open(EXTENT, &KEYRING));
        assert!(opened.is_err(), "a forged tail opens");
    }
}
