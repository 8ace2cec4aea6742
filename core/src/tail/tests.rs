use super::*;
use crate::cipher::SecretKey;
use crate::ids::ClusterId;
use crate::keyring::NewRingKey;

const EXTENT: ExtentId = ExtentId([1; 16]);

fn keyring(byte: u8) -> Keyring {
    let key = SecretKey::new([byte; 32]);
    Keyring::create(ClusterId([2; 16]), NewRingKey { key, nonce: [3; 12], made_ms: 4 })
}

fn entry(number: u8, offset: u32, sealed: u32) -> TailEntry {
    TailEntry {
        blob: BlobId([number; 16]),
        ring_key: RingKeyNumber(1),
        first_chunk: u32::from(number),
        offset,
        sealed,
        plain: sealed - 16,
        last: number.is_multiple_of(2),
        bucket: BucketId([5; 8]),
        key: format!("folder/{number}").into_bytes(),
        version: VersionId([6; 16]),
        part: None,
        size: None,
        etag: None,
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
    }
}

fn chunk(index: u32, len: u32, compressed: bool) -> SealedChunk {
    SealedChunk { index, len, compressed }
}

fn tail() -> Vec<u8> {
    let mut builder = TailBuilder::new();
    assert!(builder.is_empty());
    builder.add(entry(0, 0, 1100), &[chunk(0, 600, true), chunk(1, 500, false)]);
    builder.add(entry(1, 1100, 300), &[chunk(0, 300, false)]);
    assert_eq!(builder.len(), 2);
    builder.finish(EXTENT, keyring(7).current(), &[8; 12]).unwrap()
}

#[test]
fn lengths_read_without_a_key_and_the_list_with_it() {
    let extent = [vec![0xaa; 1400], tail()].concat();
    let parsed = Tail::parse(&extent).unwrap();
    assert_eq!(parsed.len as usize, tail().len());
    let lengths = |offset| parsed.lengths_at(offset).map(<[ChunkLength]>::to_vec);
    assert_eq!(lengths(0), Some(vec![ChunkLength::new(600, true), ChunkLength::new(500, false)]));
    assert_eq!(lengths(1100), Some(vec![ChunkLength::new(300, false)]));
    assert_eq!(lengths(600), None);
    assert_eq!(parsed.open(EXTENT, &keyring(7)), Ok(vec![entry(0, 0, 1100), entry(1, 1100, 300)]));
}

#[test]
fn too_few_bytes_of_the_end_say_how_many_are_needed() {
    let tail = tail();
    let needed = tail.len() as u64;
    let end = &tail[tail.len() - TAIL_END_LEN..];
    assert_eq!(tail_len(end, 1 << 20), Ok(needed));
    assert_eq!(Tail::parse(end), Err(TailError::Cut { len: 16, needed }));
    assert_eq!(tail_len(end, 40), Err(TailError::Cut { len: 40, needed }), "longer than the extent");
    assert_eq!(Tail::parse(&[0; 64]), Err(TailError::Absent([0; 4])));
}

#[test]
fn every_flipped_byte_is_noticed_without_a_key() {
    let tail = tail();
    for at in 0..tail.len() {
        let mut altered = tail.clone();
        altered[at] ^= 2;
        assert!(Tail::parse(&altered).is_err(), "byte {at}");
    }
}

#[test]
fn a_forged_tail_with_a_right_checksum_does_not_open() {
    let tail = tail();
    let covered = tail.len() - 8;
    for at in 0..covered {
        let mut altered = tail.clone();
        altered[at] ^= 2;
        let crc = checksum(&altered[..covered]);
        altered[covered..covered + 4].copy_from_slice(&crc.to_le_bytes());
        let opened = Tail::parse(&altered).and_then(|parsed| parsed.open(EXTENT, &keyring(7)));
        assert!(opened.is_err(), "byte {at}");
    }
}

#[test]
fn a_tail_opens_for_its_extent_and_under_its_key_only() {
    let parsed = Tail::parse(&tail()).unwrap();
    let refused = Err(TailError::Sealed(CipherError::NotAuthentic));
    assert_eq!(parsed.open(ExtentId([9; 16]), &keyring(7)), refused);
    assert_eq!(parsed.open(EXTENT, &keyring(8)), refused);
    let older = Tail { ring_key: RingKeyNumber(2), ..parsed };
    assert!(matches!(older.open(EXTENT, &keyring(7)), Err(TailError::Keyring(_))));
}
