use proptest::prelude::*;

use super::*;
use crate::ids::{DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, KeeperNumber, Row, Stamp};
use crate::records::{ExtentKind, Position};

const CLUSTER: ClusterId = ClusterId([1; 16]);
const SEGMENT: SegmentId = SegmentId([2; 16]);

fn segment_head() -> SegmentHead {
    SegmentHead { cluster: CLUSTER, device: DeviceId(3), generation: Generation(4), segment: SEGMENT }
}

fn head(row_len: u64, crc_block: u32) -> RecordHead {
    RecordHead {
        kind: ExtentKind::Data,
        codec: Codec::Vandermonde,
        cluster: CLUSTER,
        extent: ExtentId([5; 16]),
        instance: InstanceId([6; 8]),
        row: Row(7),
        needed: 4,
        coding: 0,
        shard_size: SHARD as u32,
        crc_block,
        birth_epoch: Epoch(8),
        birth_hlc: Hlc(9),
        first_position: None,
        reserved: record_len(row_len, crc_block),
    }
}

fn trailer(row: &[u8], crc_block: u32) -> Trailer {
    let mut checks = BlockChecks::new(crc_block);
    checks.push(row);
    assert_eq!(checks.row_bytes(), row.len() as u64);
    Trailer {
        blocks: checks.finish(),
        row_bytes: row.len() as u64,
        extent_bytes: 4 * row.len() as u64,
        extent_hash: [10; 32],
        last_position: None,
    }
}

fn tombstone() -> Tombstone {
    let stamp = Stamp { epoch: Epoch(11), keeper: KeeperNumber(12) };
    Tombstone { cluster: CLUSTER, extent: ExtentId([5; 16]), row: Row(7), killed: InstanceId([6; 8]), stamp }
}

fn foot() -> Foot {
    let entry = |at: u64| FootEntry {
        extent: ExtentId([at as u8; 16]),
        row: Row(at as u8),
        kind: RecordKind::Data,
        instance: InstanceId([at as u8; 8]),
        offset: 4096 + at * 640,
        length: 640,
    };
    Foot { entries: (0..3).map(entry).collect() }
}

fn parse_foot(bytes: &[u8]) -> Result<Foot, FragmentError> {
    Foot::parse(bytes, SEGMENT, 1 << 20)
}

/// That `reads` refuses `bytes` with any byte changed, and with the end cut off.
fn assert_notices_every_flip(bytes: &[u8], reads: impl Fn(&[u8]) -> bool) {
    assert!(reads(bytes), "it reads what was written");
    for at in 0..bytes.len() {
        let mut altered = bytes.to_vec();
        altered[at] ^= 1 << (at % 8);
        assert!(!reads(&altered), "byte {at}");
    }
    assert!(!reads(&bytes[..bytes.len() - 1]), "cut");
    assert!(!reads(&[]), "nothing there");
    assert!(!reads(&vec![0; bytes.len()]), "zeros");
}

#[test]
fn every_flipped_byte_of_a_segment_head_is_noticed() {
    assert_notices_every_flip(&segment_head().encode(), |bytes| SegmentHead::parse(bytes, None).is_ok());
}

#[test]
fn every_flipped_byte_of_a_record_head_is_noticed() {
    let bytes = head(10_000, 4096).encode(SEGMENT);
    assert_notices_every_flip(&bytes, |bytes| Record::parse(bytes, SEGMENT, None).is_ok());
}

#[test]
fn every_flipped_byte_of_a_tombstone_is_noticed() {
    let bytes = tombstone().encode(SEGMENT);
    assert_notices_every_flip(&bytes, |bytes| Record::parse(bytes, SEGMENT, None).is_ok());
}

#[test]
fn every_flipped_byte_of_a_trailer_is_noticed_and_of_its_head() {
    let head = head(10_000, 4096);
    let head_bytes = head.encode(SEGMENT);
    let bytes = trailer(&[1; 10_000], 4096).encode(&head_bytes);
    assert_notices_every_flip(&bytes, |bytes| Trailer::parse(bytes, &head, &head_bytes).is_ok());
    for at in 0..RECORD_HEAD_LEN {
        let mut other = head_bytes;
        other[at] ^= 4;
        assert!(Trailer::parse(&bytes, &head, &other).is_err(), "byte {at} of the head");
    }
}

#[test]
fn every_flipped_byte_of_a_foot_is_noticed() {
    for foot in [foot(), Foot::default()] {
        assert_notices_every_flip(&foot.encode(SEGMENT), |bytes| parse_foot(bytes).is_ok());
    }
}

#[test]
fn every_flipped_byte_of_a_row_is_noticed() {
    let row: Vec<u8> = (0..9000_u32).map(|at| ((at * 31) >> 3) as u8).collect();
    let trailer = trailer(&row, 4096);
    for at in (0..row.len()).step_by(7) {
        let mut altered = row.clone();
        altered[at] ^= 0x40;
        let index = at / 4096;
        let block = |bytes: &[u8], index: usize| bytes.chunks(4096).nth(index).map(<[u8]>::to_vec).unwrap();
        for other in 0..3 {
            let checked = trailer.check_block(other as u32, &block(&altered, other));
            assert_eq!(checked.is_ok(), other != index, "byte {at}, block {other}");
        }
    }
    assert!(trailer.check_block(3, &[]).is_err(), "there is no fourth block");
}

#[test]
fn a_record_of_another_segment_is_no_record() {
    let other = SegmentId([3; 16]);
    let bytes = head(100, 4096).encode(other);
    assert!(matches!(Record::parse(&bytes, SEGMENT, None), Err(FragmentError::Checksum { .. })));
    assert!(matches!(parse_foot(&foot().encode(other)), Err(FragmentError::Checksum { .. })));
}

#[test]
fn another_cluster_is_named() {
    let ours = ClusterId([0xee; 16]);
    let refused = |what| Err(FragmentError::AnotherCluster { what, found: CLUSTER, expected: ours });
    assert_eq!(SegmentHead::parse(&segment_head().encode(), Some(ours)).map(|_| ()), refused("segment head"));
    for bytes in [head(100, 4096).encode(SEGMENT), tombstone().encode(SEGMENT)] {
        assert_eq!(Record::parse(&bytes, SEGMENT, Some(ours)).map(|_| ()), refused("record head"));
    }
}

/// Changes bytes at `at` and makes the checksum fit again.
fn resealed(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    let end = bytes.len() - 4;
    let crc = salted_crc(SEGMENT, &bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_newer_format_is_named() {
    let newer = |what| Err(FragmentError::NewerFormat { what, found: 2 });
    let bytes = resealed(segment_head().encode(), 8, &[2, 0]);
    assert_eq!(SegmentHead::parse(&bytes, None).map(|_| ()), newer("segment head"));
    let bytes = resealed(head(100, 4096).encode(SEGMENT).to_vec(), 4, &[2, 0]);
    let error = Record::parse(&bytes, SEGMENT, None).map(|_| ());
    assert_eq!(error, newer("record head"));
    assert_eq!(
        error.unwrap_err().to_string(),
        "record head has format 2, this version reads 1: start the version that wrote it"
    );
}

#[test]
fn impossible_fields_are_named_even_with_a_right_checksum() {
    let good = head(100, 4096);
    let parsed = |head: RecordHead| Record::parse(&head.encode(SEGMENT), SEGMENT, None).unwrap_err();
    let too_big = SHARD as u32 + 1;
    assert_eq!(parsed(RecordHead { shard_size: 0, ..good }), FragmentError::ShardSize(0));
    assert_eq!(parsed(RecordHead { shard_size: too_big, ..good }), FragmentError::ShardSize(too_big));
    assert_eq!(parsed(RecordHead { crc_block: 512, ..good }), FragmentError::CrcBlock(512));
    assert_eq!(parsed(RecordHead { needed: 0, ..good }), FragmentError::Needed(0));
    assert_eq!(parsed(RecordHead { reserved: 330, ..good }), FragmentError::Reserved(330));
    assert_eq!(parsed(RecordHead { reserved: 128, ..good }), FragmentError::Reserved(128));
    let endless = u64::MAX - (ALIGNMENT - 1);
    assert_eq!(parsed(RecordHead { reserved: endless, ..good }), FragmentError::Reserved(endless));
    let refused = |at, new: u8| {
        let bytes = resealed(good.encode(SEGMENT).to_vec(), at, &[new]);
        Record::parse(&bytes, SEGMENT, None).unwrap_err()
    };
    assert_eq!(refused(6, 9), FragmentError::UnknownKind(9));
    assert_eq!(refused(7, 9), FragmentError::UnknownCodec(9));
}

#[test]
fn a_trailer_that_does_not_fit_its_record_is_refused() {
    let head = head(100, 4096);
    let head_bytes = head.encode(SEGMENT);
    let long = trailer(&[1; 4000], 4096);
    let error = Trailer::parse(&long.encode(&head_bytes), &head, &head_bytes);
    assert!(matches!(error, Err(FragmentError::Lengths { row_bytes: 4000, .. })), "{error:?}");
    let miscounted = Trailer { row_bytes: 0, ..trailer(&[1; 100], 4096) };
    let error = Trailer::parse(&miscounted.encode(&head_bytes), &head, &head_bytes);
    assert!(matches!(error, Err(FragmentError::Lengths { blocks: 1, .. })), "{error:?}");
}

#[test]
fn a_foot_with_a_right_checksum_names_only_records_that_can_be() {
    let altered = |change: fn(&mut Foot)| {
        let mut foot = foot();
        change(&mut foot);
        Foot::parse(&foot.encode(SEGMENT), SEGMENT, 8192)
    };
    assert_eq!(altered(|_| ()), Ok(foot()));
    let misplaced: [fn(&mut Foot); 6] = [
        |foot| foot.entries[0].offset = 64,
        |foot| foot.entries[1].offset += 1,
        |foot| foot.entries[1].length = 64,
        |foot| foot.entries[1].length += 64,
        |foot| foot.entries[2].length = 8192,
        |foot| foot.entries[2].length = u64::MAX,
    ];
    for (case, change) in misplaced.into_iter().enumerate() {
        assert!(matches!(altered(change), Err(FragmentError::Place { .. })), "case {case}");
    }
}

#[test]
fn a_rotten_length_never_asks_for_more_than_there_is() {
    let head = head(100, 4096);
    let mut end = trailer(&[1; 100], 4096).encode(&head.encode(SEGMENT));
    let at = end.len() - 16;
    end[at..at + 4].fill(0xff);
    assert!(matches!(Trailer::len_from_end(&end, &head), Err(FragmentError::Cut { .. })));
    let mut end = foot().encode(SEGMENT);
    let at = end.len() - 16;
    end[at..at + 4].fill(0xff);
    assert!(matches!(Foot::len_from_end(&end, 1 << 28), Err(FragmentError::Cut { .. })));
}

proptest! {
    #[test]
    fn a_record_reads_back(
        kind in prop::sample::select(vec![ExtentKind::Data, ExtentKind::Journal, ExtentKind::Checkpoint]),
        ids: ([u8; 16], [u8; 8], u8), needed in 1..=16_u8, coding: u8, shard_size in 1..=SHARD as u32,
        birth: (u64, u64), first: Option<(u64, u64)>, row in prop::collection::vec(any::<u8>(), 0..20_000),
        spare in 0_u64..10_000, large: bool, hash: [u8; 32], pieces in 1_usize..5000,
    ) {
        let crc_block = if large { 65_536 } else { 4096 };
        let position = first.map(|(incarnation, revision)| Position { incarnation, revision });
        let head = RecordHead {
            kind, extent: ExtentId(ids.0), instance: InstanceId(ids.1), row: Row(ids.2), needed, coding, shard_size,
            birth_epoch: Epoch(birth.0), birth_hlc: Hlc(birth.1), first_position: position,
            ..head(row.len() as u64 + spare, crc_block)
        };
        let head_bytes = head.encode(SEGMENT);
        prop_assert_eq!(Record::parse(&head_bytes, SEGMENT, Some(CLUSTER)), Ok(Record::Row(head)));

        let mut checks = BlockChecks::new(crc_block);
        row.chunks(pieces).for_each(|piece| checks.push(piece));
        let blocks = checks.finish();
        let naive: Vec<u32> = row.chunks(crc_block as usize).map(crc32c::crc32c).collect();
        prop_assert_eq!(&blocks, &naive);
        let trailer = Trailer {
            blocks, row_bytes: row.len() as u64, extent_bytes: birth.0, extent_hash: hash, last_position: position,
        };
        // As it lies on a device: head, payload, unused room, trailer.
        let end = trailer.encode(&head_bytes);
        prop_assert_eq!(end.len() as u64, trailer_len(row.len() as u64, crc_block));
        let mut record = [&head_bytes[..], &row].concat();
        record.resize(head.reserved as usize - end.len(), 0);
        record.extend_from_slice(&end);
        prop_assert_eq!(record.len() as u64 % ALIGNMENT, 0);
        let last = &record[record.len() - TRAILER_END_LEN..];
        prop_assert_eq!(Trailer::len_from_end(last, &head), Ok(end.len() as u64));
        prop_assert_eq!(Trailer::parse(&record, &head, &head_bytes), Ok(trailer));
    }
}
