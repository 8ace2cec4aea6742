//! The table of contents of a sealed segment.
//!
//! Input: an alteration 8; then entries of 48, of which count, format, checksum and magic are made right.

use diptych_core::fragment::{FOOT_END_LEN, FORMAT, Foot, RECORD_HEAD_LEN, SEGMENT_HEAD_LEN};
use diptych_core::ids::SegmentId;

use crate::alteration::Alteration;
use crate::fragment_record::SEGMENT;

/// Bytes of the segment before its foot.
const LOG: u64 = 1 << 20;

/// What parses reads back and names room that there is, and what changes a foot is noticed.
pub fn holds(input: &[u8]) {
    let mut rest = input;
    let alteration = Alteration::take(&mut rest);
    reads_back(rest);
    if let Some(foot) = reads_back(&forged(rest)) {
        let bytes = foot.encode(SEGMENT);
        let reads = |bytes: &[u8], segment| Foot::parse(bytes, segment, LOG + bytes.len() as u64).is_ok();
        assert!(!reads(&alteration.of(&bytes), SEGMENT), "an altered foot reads");
        assert!(!reads(alteration.cut(&bytes), SEGMENT), "a cut foot reads");
        assert!(!reads(&bytes, SegmentId([9; 16])), "a foot reads in another segment");
    }
}

/// The entries that `bytes` are, as a foot of this segment.
fn forged(bytes: &[u8]) -> Vec<u8> {
    let entry = Foot::len_for(1) - FOOT_END_LEN;
    let count = bytes.len() / entry;
    let mut forged = bytes[..count * entry].to_vec();
    forged.extend_from_slice(&(count as u32).to_le_bytes());
    forged.extend_from_slice(&FORMAT.to_le_bytes());
    forged.extend_from_slice(&[0; 2]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(SEGMENT.as_bytes()), &forged);
    forged.extend_from_slice(&crc.to_le_bytes());
    forged.extend_from_slice(b"DPSF");
    forged
}

/// What a foot says, if it is one; then its canonical form says the same.
fn reads_back(bytes: &[u8]) -> Option<Foot> {
    let segment_len = LOG + bytes.len() as u64;
    let foot = Foot::parse(bytes, SEGMENT, segment_len).ok()?;
    let canonical = foot.encode(SEGMENT);
    assert_eq!(canonical.len(), Foot::len_for(foot.entries.len()));
    assert_eq!(
        Foot::parse(&canonical, SEGMENT, segment_len).as_ref(),
        Ok(&foot),
        "the canonical form reads otherwise"
    );
    let mut end = SEGMENT_HEAD_LEN as u64;
    for entry in &foot.entries {
        assert!(
            entry.offset >= end && entry.length >= RECORD_HEAD_LEN as u64,
            "two records in one room: {entry:?}"
        );
        end = entry.offset + entry.length;
    }
    assert!(end <= segment_len - canonical.len() as u64, "a record behind the log's end");
    Some(foot)
}
