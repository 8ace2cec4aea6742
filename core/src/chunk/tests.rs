use proptest::prelude::*;

use super::*;
use crate::cipher::{RustCryptoAesGcm, blob_key};
use crate::ids::ExtentId;

const BLOB: BlobId = BlobId([5; 16]);

fn key() -> SecretKey {
    blob_key(&SecretKey::new([1; 32]), BLOB)
}

fn sealer() -> ChunkSealer {
    ChunkSealer::new(BLOB, key(), Arc::new(RustCryptoAesGcm))
}

fn opener() -> ChunkOpener {
    ChunkOpener::new(BLOB, key(), Arc::new(RustCryptoAesGcm))
}

/// Bytes that don't shrink.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}

fn text(len: usize) -> Vec<u8> {
    (0..len).flat_map(|line| format!("line {line} of a log\n").into_bytes()).take(len).collect()
}

/// A blob whose chunks alternate between noise and text.
fn mixed(len: usize) -> Vec<u8> {
    let (noise, text) = (noise(len), text(len));
    (0..len).map(|at| if (at / CHUNK).is_multiple_of(2) { noise[at] } else { text[at] }).collect()
}

fn seal_all(plain: &[u8]) -> (Vec<u8>, Vec<SealedChunk>) {
    let (mut sealer, mut sealed) = (sealer(), Vec::new());
    let count = plain.len().div_ceil(CHUNK).max(1);
    let chunk_of = |at: usize| &plain[at * CHUNK..(at * CHUNK + CHUNK).min(plain.len())];
    let chunks =
        (0..count).map(|at| sealer.seal(chunk_of(at), at + 1 == count, &mut sealed).unwrap()).collect();
    (sealed, chunks)
}

fn piece_of(plain: &[u8], sealed: &[u8], layout: Layout) -> Piece {
    Piece {
        extent: ExtentId([0; 16]),
        first_chunk: 0,
        offset: 77,
        sealed: sealed.len() as u32,
        plain: plain.len() as u32,
        last: true,
        layout,
    }
}

#[test]
fn what_shrinks_is_compressed_and_what_does_not_is_left() {
    for (plain, compressed) in [
        (text(200_000), true),
        (text(1000), true),
        (noise(200_000), false),
        (noise(100), false),
        (vec![], false),
        ([noise(CHUNK / 2), text(CHUNK / 2)].concat(), true),
        ([text(CHUNK / 32), noise(CHUNK - CHUNK / 32)].concat(), false),
    ] {
        let (sealed, chunks) = seal_all(&plain);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].compressed, compressed, "{} bytes", plain.len());
        assert_eq!(chunks[0].len as usize, sealed.len());
        assert!(if compressed {
            sealed.len() * 100 <= plain.len() * 96
        } else {
            sealed.len() == plain.len() + TAG_LEN
        });
        let opened = opener().open(0, true, compressed, sealed[..].into()).unwrap();
        assert!(opened == plain);
    }
}

#[test]
fn a_chunk_is_bound_to_its_index_its_flags_its_blob_and_its_key() {
    let mut sealed = Vec::new();
    let plain = text(5000);
    sealer().seal(&plain, true, &mut sealed).unwrap();
    for (index, last, compressed) in [(1, true, true), (0, false, true), (0, true, false)] {
        let opened = opener().open(index, last, compressed, sealed[..].into());
        assert_eq!(opened, Err(ChunkError::Cipher { blob: BLOB, index, source: CipherError::NotAuthentic }));
    }
    let other_blob = ChunkOpener::new(BlobId([6; 16]), key(), Arc::new(RustCryptoAesGcm));
    assert!(other_blob.open(0, true, true, sealed[..].into()).is_err());
    let other_key = ChunkOpener::new(BLOB, SecretKey::new([0; 32]), Arc::new(RustCryptoAesGcm));
    assert!(other_key.open(0, true, true, sealed[..].into()).is_err());
}

#[test]
fn every_flipped_byte_of_a_chunk_is_noticed() {
    for plain in [noise(300), text(900), vec![]] {
        let (sealed, chunks) = seal_all(&plain);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 0x10;
            let opened = opener().open(0, true, chunks[0].compressed, altered[..].into());
            assert!(opened.is_err(), "byte {at}");
        }
        let cut = &sealed[..sealed.len() - 1];
        assert!(opener().open(0, true, chunks[0].compressed, cut.into()).is_err());
    }
}

#[test]
fn only_the_last_chunk_is_short_and_nothing_follows_it() {
    let (mut sealer, mut out) = (sealer(), Vec::new());
    let short = ChunkError::PlainLength { blob: BLOB, index: 0, plain: 10 };
    assert_eq!(sealer.seal(&[0; 10], false, &mut out), Err(short));
    let long = sealer.seal(&vec![0; CHUNK + 1], true, &mut out);
    assert_eq!(long, Err(ChunkError::PlainLength { blob: BLOB, index: 0, plain: CHUNK + 1 }));
    sealer.seal(&[0; 10], true, &mut out).unwrap();
    assert_eq!(sealer.seal(&[], true, &mut out), Err(ChunkError::PastTheEnd(BLOB)));
    assert_eq!(sealer.next_index(), None);
}

#[test]
fn every_range_of_a_blob_is_found_in_its_chunks() {
    let plain = mixed(3 * CHUNK + 1234);
    let (sealed, chunks) = seal_all(&plain);
    let lengths: Vec<ChunkLength> = chunks.iter().map(SealedChunk::length).collect();
    let piece = piece_of(&plain, &sealed, Layout::InTail);
    let edges = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 9, 3 * CHUNK, plain.len() - 1, plain.len()];
    for (start, end) in edges.iter().flat_map(|start| edges.iter().map(move |end| (*start, *end))) {
        if start >= end {
            continue;
        }
        let places = chunks_of(&piece, Some(&lengths), start as u64..end as u64).unwrap();
        assert_eq!(places.len(), (end - 1) / CHUNK - start / CHUNK + 1, "{start}..{end}");
        let mut read = Vec::new();
        for place in &places {
            let at = place.extent_range().start as usize - 77;
            let bytes = &sealed[at..at + place.sealed as usize];
            let opened = opener().open(place.index, place.last, place.compressed, bytes.into()).unwrap();
            assert_eq!(opened.len(), place.plain as usize);
            read.extend_from_slice(&opened);
        }
        let skip = start - places[0].plain_offset as usize;
        assert!(read[skip..skip + end - start] == plain[start..end]);
    }
}

#[test]
fn chunks_are_found_without_the_tail_where_none_or_the_only_one_is_compressed() {
    let plain = noise(CHUNK + 500);
    let (sealed, _) = seal_all(&plain);
    let places = chunks_of(&piece_of(&plain, &sealed, Layout::Plain), None, 0..u64::MAX).unwrap();
    let of = |place: &ChunkPlace| {
        (place.index, place.last, place.compressed, place.offset, place.sealed, place.plain)
    };
    let whole = CHUNK as u32;
    let expected =
        [(0, false, false, 77, whole + 16, whole), (1, true, false, u64::from(whole) + 93, 516, 500)];
    assert_eq!(places.iter().map(of).collect::<Vec<_>>(), expected);

    let plain = text(4000);
    let (sealed, _) = seal_all(&plain);
    let places = chunks_of(&piece_of(&plain, &sealed, Layout::OneCompressed), None, 10..11).unwrap();
    assert_eq!(of(&places[0]), (0, true, true, 77, sealed.len() as u32, 4000));

    let (sealed, _) = seal_all(&[]);
    let places = chunks_of(&piece_of(&[], &sealed, Layout::Plain), None, 0..0).unwrap();
    assert_eq!(of(&places[0]), (0, true, false, 77, 16, 0));
}

#[test]
fn lengths_that_contradict_the_piece_are_refused() {
    let plain = mixed(2 * CHUNK);
    let (sealed, chunks) = seal_all(&plain);
    let lengths: Vec<ChunkLength> = chunks.iter().map(SealedChunk::length).collect();
    let piece = piece_of(&plain, &sealed, Layout::InTail);
    assert!(matches!(chunks_of(&piece, None, 0..1), Err(ChunkError::Piece { .. })));
    assert!(matches!(chunks_of(&piece, Some(&lengths[..1]), 0..1), Err(ChunkError::Piece { .. })));
    let longer = Piece { sealed: piece.sealed + 1, ..piece };
    assert!(matches!(chunks_of(&longer, Some(&lengths), 0..1), Err(ChunkError::Piece { .. })));
}

proptest! {
    #[test]
    fn a_chunk_opens_to_what_was_sealed(plain in prop::collection::vec(0_u8..20, 0..9000)) {
        let mut sealed = Vec::new();
        let chunk = sealer().seal(&plain, true, &mut sealed).unwrap();
        let opened = opener().open(0, true, chunk.compressed, sealed[..].into()).unwrap();
        prop_assert_eq!(&opened[..], plain);
    }
}
