//! A segment without a foot, as a scan of the device finds it.
//!
//! Input: an alteration 8; then what was written, one after the other: a row, a tombstone, a head with a right checksum
//! and nothing behind it, or noise.

use std::fs;
use std::ops::Range;

use diptych_core::fragment::{
    ALIGNMENT, BlockChecks, Codec, RecordHead, SEGMENT_HEAD_LEN, SegmentHead, Tombstone, Trailer, record_len,
};
use diptych_core::ids::{ClusterId, DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, Row, Stamp};
use diptych_core::layout::{CRC_BLOCK, CRC_BLOCK_SMALL, SHARD};
use diptych_core::records::ExtentKind;
use diptych_store::StoreError;
use diptych_store::inspect::{self, InspectedRecord, RecordState};

use crate::alteration::{Alteration, take};
use crate::fragment_record::{SEGMENT, forged_head};

const CLUSTER: ClusterId = ClusterId([1; 16]);

/// The scan never fails, and what befalls one record leaves all others readable.
pub fn holds(input: &[u8]) {
    let mut rest = input;
    let alteration = Alteration::take(&mut rest);
    let mut log = Log::new();
    while !rest.is_empty() {
        log.append(&mut rest);
    }
    log.finds_what_is_whole_in(&log.bytes);
    let (head, records) = log.bytes.split_at(SEGMENT_HEAD_LEN);
    log.finds_what_is_whole_in(&[head, &alteration.of(records)].concat());
    log.finds_what_is_whole_in(&[head, alteration.cut(records)].concat());
}

/// A row that was written whole.
struct WrittenRow {
    instance: InstanceId,
    bytes: Vec<u8>,
    room: Range<usize>,
}

impl WrittenRow {
    fn is_among(&self, found: &[(InspectedRecord, Vec<u8>)]) {
        let same = found.iter().find(|(record, _)| record.description.row.instance == self.instance);
        let (record, bytes) = same.expect("a record is hidden by what befell another");
        assert!(matches!(record.state, RecordState::Whole | RecordState::Deleted), "{:?}", record.state);
        assert_eq!(*bytes, self.bytes, "a row has the bytes of another");
    }
}

/// Every record of a segment file, with the bytes of its row where they read.
fn scanned(segment: &[u8]) -> Result<Vec<(InspectedRecord, Vec<u8>)>, StoreError> {
    let device = tempfile::tempdir().expect("a folder");
    let folder = device.path().join("segments");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("0000000000000001.segment"), segment).expect("room for a segment");
    let records = inspect::records(device.path())?.into_iter().map(|record| {
        let bytes = inspect::row_bytes(&record);
        let whole = matches!(record.state, RecordState::Whole | RecordState::Deleted);
        assert_eq!(bytes.is_ok(), whole, "{:?}", record.state);
        (record, bytes.unwrap_or_default())
    });
    Ok(records.collect())
}

/// What was written to a segment.
struct Log {
    bytes: Vec<u8>,
    rows: Vec<WrittenRow>,
    /// Something in it may pass for a record.
    forged: bool,
}

impl Log {
    fn new() -> Self {
        let head = SegmentHead {
            cluster: CLUSTER,
            device: DeviceId(1),
            generation: Generation(1),
            segment: SEGMENT,
        };
        // Zeros are written ahead, so that there is always something to alter.
        let mut bytes = head.encode();
        bytes.resize(SEGMENT_HEAD_LEN + ALIGNMENT as usize, 0);
        Self { bytes, rows: Vec::new(), forged: false }
    }

    /// Scans the segment after something befell it: the rows that it left alone are there.
    fn finds_what_is_whole_in(&self, segment: &[u8]) {
        match scanned(segment) {
            Ok(found) if !self.forged => {
                let untouched =
                    |row: &&WrittenRow| segment.get(row.room.clone()) == self.bytes.get(row.room.clone());
                self.rows.iter().filter(untouched).for_each(|row| row.is_among(&found));
            }
            Ok(_) => {}
            // What has a right checksum may be of a newer format too.
            Err(error) => {
                assert!(self.forged && matches!(error, StoreError::UnknownFormat { .. }), "{error}");
            }
        }
    }

    fn append(&mut self, input: &mut &[u8]) {
        let [what, size] = take(input);
        match what % 4 {
            0 => self.row(what, up_to(input, usize::from(size) * 32)),
            1 => self.tombstone(u64::from(size)),
            2 => {
                self.forged = true;
                self.bytes.extend_from_slice(&forged_head(take(input)));
            }
            _ => self.noise(up_to(input, usize::from(size))),
        }
    }

    fn row(&mut self, seed: u8, row: &[u8]) {
        let crc_block = if seed < 128 { CRC_BLOCK_SMALL } else { CRC_BLOCK };
        let instance = InstanceId((self.rows.len() as u64).to_be_bytes());
        let head = RecordHead {
            kind: ExtentKind::Data,
            codec: Codec::Vandermonde,
            cluster: CLUSTER,
            extent: ExtentId([seed; 16]),
            instance,
            row: Row(seed),
            needed: 4,
            coding: 0,
            shard_size: SHARD as u32,
            crc_block,
            birth_epoch: Epoch(1),
            birth_hlc: Hlc(1),
            first_position: None,
            reserved: record_len(row.len() as u64, crc_block),
        };
        let head_bytes = head.encode(SEGMENT);
        let mut checks = BlockChecks::new(crc_block);
        checks.push(row);
        let trailer = Trailer {
            row_bytes: checks.row_bytes(),
            blocks: checks.finish(),
            extent_bytes: 4 * row.len() as u64,
            extent_hash: [seed; 32],
            last_position: None,
        };
        let end = trailer.encode(&head_bytes);
        let from = self.bytes.len();
        let to = from + head.reserved as usize;
        self.bytes.extend_from_slice(&head_bytes);
        self.noise(row);
        self.bytes.resize(to - end.len(), 0);
        self.bytes.extend_from_slice(&end);
        self.rows.push(WrittenRow { instance, bytes: row.to_vec(), room: from..to });
    }

    fn tombstone(&mut self, killed: u64) {
        let killed = InstanceId(killed.to_be_bytes());
        let tombstone = Tombstone {
            cluster: CLUSTER,
            extent: ExtentId([0; 16]),
            row: Row(0),
            killed,
            stamp: Stamp::default(),
        };
        self.bytes.extend_from_slice(&tombstone.encode(SEGMENT));
    }

    /// Any bytes, and zeros up to where the next record may begin.
    fn noise(&mut self, noise: &[u8]) {
        self.forged |= noise.windows(4).any(|magic| magic == b"DPRH");
        self.bytes.extend_from_slice(noise);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    }
}

/// Up to `len` bytes of the input.
fn up_to<'i>(input: &mut &'i [u8], len: usize) -> &'i [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}
