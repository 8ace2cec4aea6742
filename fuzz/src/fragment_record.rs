//! Heads of records, tombstones, rows and their trailers.
//!
//! Input: an alteration 8; a record's head 128, of which magic, format and checksum are made right; then the row, which
//! is taken for a trailer too.

use diptych_core::fragment::{
    ALIGNMENT, BlockChecks, FORMAT, FragmentError, RECORD_HEAD_LEN, Record, RecordHead, TRAILER_END_LEN,
    Trailer, record_len,
};
use diptych_core::ids::{ClusterId, SegmentId};

use crate::alteration::{Alteration, take};

/// The segment that all records are in, as in the golden vectors.
pub(crate) const SEGMENT: SegmentId = SegmentId(*b"0123456789:;<=>?");
const ANOTHER_SEGMENT: SegmentId = SegmentId([9; 16]);

type HeadBytes = [u8; RECORD_HEAD_LEN];

/// What parses reads back, what lies in a right checksum's coat is refused or possible, and what changes a whole record
/// is noticed.
pub fn holds(input: &[u8]) {
    let mut rest = input;
    let alteration = Alteration::take(&mut rest);
    reads_back(rest);
    match reads_back(&forged_head(take(&mut rest))) {
        Some(Record::Row(head)) => {
            takes_only_a_fitting_trailer(&head, rest);
            notices_changes(&head, rest, &alteration);
        }
        Some(Record::Tombstone(tombstone)) => {
            let bytes = tombstone.encode(SEGMENT);
            assert!(
                Record::parse(&alteration.of(&bytes), SEGMENT, None).is_err(),
                "an altered tombstone kills"
            );
            assert!(Record::parse(alteration.cut(&bytes), SEGMENT, None).is_err(), "a cut tombstone kills");
        }
        None => {}
    }
}

/// Magic, format and checksum as a writer of this segment would give them.
pub(crate) fn forged_head(mut bytes: HeadBytes) -> HeadBytes {
    bytes[..4].copy_from_slice(b"DPRH");
    bytes[4..6].copy_from_slice(&FORMAT.to_le_bytes());
    let covered = RECORD_HEAD_LEN - 4;
    let crc = crc32c::crc32c_append(crc32c::crc32c(SEGMENT.as_bytes()), &bytes[..covered]);
    bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What a head says, if it is one; then its canonical form says the same.
fn reads_back(bytes: &[u8]) -> Option<Record> {
    let record = Record::parse(bytes, SEGMENT, None).ok()?;
    let canonical = match &record {
        Record::Row(head) => head.encode(SEGMENT),
        Record::Tombstone(tombstone) => tombstone.encode(SEGMENT),
    };
    assert_eq!(Record::parse(&canonical, SEGMENT, None), Ok(record), "the canonical form reads otherwise");
    assert!(record.reserved().is_multiple_of(ALIGNMENT), "the next record can't begin there");
    Some(record)
}

/// Bytes with the end of a trailer: as many blocks as there is room for, checksum and magic right.
fn takes_only_a_fitting_trailer(head: &RecordHead, bytes: &[u8]) {
    let head_bytes = head.encode(SEGMENT);
    let mut forged = vec![0; TRAILER_END_LEN.saturating_sub(bytes.len())];
    forged.extend_from_slice(bytes);
    let blocks = (forged.len() - TRAILER_END_LEN) / 4;
    forged.drain(..forged.len() - TRAILER_END_LEN - 4 * blocks);
    let end = forged.len();
    forged[end - 16..end - 12].copy_from_slice(&(blocks as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head_bytes), &forged[..end - 8]);
    forged[end - 8..end - 4].copy_from_slice(&crc.to_le_bytes());
    forged[end - 4..].copy_from_slice(b"DPRE");
    if let Ok(trailer) = Trailer::parse(&forged, head, &head_bytes) {
        assert!(
            record_len(trailer.row_bytes, head.crc_block) <= head.reserved,
            "the row does not fit its record"
        );
        let canonical = trailer.encode(&head_bytes);
        assert_eq!(
            Trailer::parse(&canonical, head, &head_bytes),
            Ok(trailer),
            "the canonical form reads otherwise"
        );
    }
}

/// A whole record of `row`, with the head's fields but a room that fits.
fn notices_changes(head: &RecordHead, row: &[u8], alteration: &Alteration) {
    let unused = u64::from(head.row.0) * ALIGNMENT;
    let head = RecordHead { reserved: record_len(row.len() as u64, head.crc_block) + unused, ..*head };
    let head_bytes = head.encode(SEGMENT);
    let mut checks = BlockChecks::new(head.crc_block);
    checks.push(row);
    let trailer = Trailer {
        row_bytes: checks.row_bytes(),
        blocks: checks.finish(),
        extent_bytes: head.birth_epoch.0,
        extent_hash: [head.coding; 32],
        last_position: head.first_position,
    };
    let end = trailer.encode(&head_bytes);
    let mut record = [&head_bytes[..], row].concat();
    let unused = record.len()..head.reserved as usize - end.len();
    record.resize(unused.end, 0);
    record.extend_from_slice(&end);
    let written = Whole { head, trailer, row: row.to_vec() };
    assert_eq!(Whole::read(&record).as_ref(), Ok(&written), "a record does not read as it was written");

    let altered = alteration.of(&record);
    let harmless = (0..record.len()).all(|at| record[at] == altered[at] || unused.contains(&at));
    match Whole::read(&altered) {
        Ok(read) => assert!(harmless && read == written, "an altered record reads"),
        Err(error) => assert!(!harmless, "bytes that nobody uses spoil a record: {error}"),
    }
    assert!(Whole::read(alteration.cut(&record)).is_err(), "a cut record reads");

    let another = Record::parse(&record, ANOTHER_SEGMENT, None);
    assert!(another.is_err(), "a record reads in another segment");
    let ours = ClusterId(head.cluster.0.map(|byte| !byte));
    let refused = FragmentError::AnotherCluster { what: "record head", found: head.cluster, expected: ours };
    assert_eq!(Record::parse(&record, SEGMENT, Some(ours)), Err(refused));
    let mut another_head = head_bytes;
    another_head.copy_from_slice(&alteration.of(&head_bytes));
    assert!(Trailer::parse(&record, &head, &another_head).is_err(), "a trailer fits another record");
}

/// A record of which every byte was checked.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    head: RecordHead,
    trailer: Trailer,
    row: Vec<u8>,
}

impl Whole {
    fn read(bytes: &[u8]) -> Result<Self, FragmentError> {
        let cut = |needed| FragmentError::Cut { what: "record", len: bytes.len() as u64, needed };
        let Record::Row(head) = Record::parse(bytes, SEGMENT, None)? else {
            return Err(FragmentError::Absent { what: "row" });
        };
        let head_bytes = bytes.first_chunk().ok_or_else(|| cut(RECORD_HEAD_LEN as u64))?;
        let record = bytes.get(..head.reserved as usize).ok_or_else(|| cut(head.reserved))?;
        let trailer = Trailer::parse(record, &head, head_bytes)?;
        let row = record[RECORD_HEAD_LEN..][..trailer.row_bytes as usize].to_vec();
        for (index, block) in row.chunks(head.crc_block as usize).enumerate() {
            trailer.check_block(index as u32, block)?;
        }
        Ok(Self { head, trailer, row })
    }
}
