//! Head and foot of a segment.

use bytes::{Buf, BufMut};

use super::{
    ALIGNMENT, FORMAT, FragmentError, RECORD_HEAD_LEN, RecordKind, check, check_cluster, salted_crc,
};
use crate::ids::{ClusterId, DeviceId, ExtentId, Generation, InstanceId, Row, SegmentId};

/// Bytes of a segment's head.
pub const SEGMENT_HEAD_LEN: usize = 4096;
const HEAD_MAGIC: &[u8; 8] = b"DIPTYSEG";
const HEAD: &str = "segment head";

/// First bytes of a segment: whose it is.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic `DIPTYSEG` |
/// | 8 | 2 | format |
/// | 12 | 4 | device |
/// | 16 | 16 | cluster |
/// | 32 | 8 | generation of the device |
/// | 40 | 16 | segment id |
/// | 4092 | 4 | CRC32C of the rest, salted with the segment id |
///
/// All else is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    /// The cluster whose rows are in it.
    pub cluster: ClusterId,
    /// The device it was written for.
    pub device: DeviceId,
    /// That device's generation.
    pub generation: Generation,
    /// Random: salts the checksums of what is in the segment.
    pub segment: SegmentId,
}

impl SegmentHead {
    /// The [`SEGMENT_HEAD_LEN`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEAD_LEN);
        bytes.put_slice(HEAD_MAGIC);
        bytes.put_u16_le(FORMAT);
        bytes.put_u16_le(0);
        bytes.put_u32_le(self.device.0);
        bytes.put_slice(self.cluster.as_bytes());
        bytes.put_u64_le(self.generation.0);
        bytes.put_slice(self.segment.as_bytes());
        bytes.resize(SEGMENT_HEAD_LEN - 4, 0);
        let crc = salted_crc(self.segment, &bytes);
        bytes.put_u32_le(crc);
        bytes
    }

    /// Reads what [`SegmentHead::encode`] made; another cluster than `expected` is refused.
    ///
    /// # Errors
    /// [`FragmentError`]: `Cut`, `Absent`, `Checksum`, `NewerFormat`, `AnotherCluster`.
    pub fn parse(bytes: &[u8], expected: Option<ClusterId>) -> Result<Self, FragmentError> {
        let needed = SEGMENT_HEAD_LEN as u64;
        let cut = FragmentError::Cut { what: HEAD, len: bytes.len() as u64, needed };
        let bytes: &[u8; SEGMENT_HEAD_LEN] = bytes.first_chunk().ok_or(cut)?;
        let (covered, mut crc) = bytes.split_at(SEGMENT_HEAD_LEN - 4);
        let mut fields = covered;
        let magic_fits = fields.copy_to_bytes(8) == HEAD_MAGIC[..];
        let format = fields.get_u16_le();
        fields.advance(2);
        let device = DeviceId(fields.get_u32_le());
        let cluster = ClusterId(fields.get_u128_le().to_le_bytes());
        let generation = Generation(fields.get_u64_le());
        let segment = SegmentId(fields.get_u128_le().to_le_bytes());
        check(HEAD, magic_fits, crc.get_u32_le(), salted_crc(segment, covered), format)?;
        check_cluster(HEAD, cluster, expected)?;
        Ok(Self { cluster, device, generation, segment })
    }
}

const FOOT_MAGIC: &[u8; 4] = b"DPSF";
const FOOT: &str = "segment foot";
const ENTRY_LEN: usize = 48;
/// The last bytes of a foot, which say how long it is.
pub const FOOT_END_LEN: usize = 16;

/// Table of contents at the end of a sealed segment: it ends with the segment's last byte.
///
/// An entry is extent 16, instance 8, offset 8, length 8, row 1, kind 1, zeros 6; after the last one come count 4,
/// format 2, zeros 2, CRC32C of all before it (salted) 4, magic `DPSF`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Foot {
    /// In order of their offsets.
    pub entries: Vec<FootEntry>,
}

/// A record in a foot. Records that never got a trailer are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FootEntry {
    /// The extent.
    pub extent: ExtentId,
    /// Number of the row.
    pub row: Row,
    /// What the record is.
    pub kind: RecordKind,
    /// Which record; of a tombstone: the record that it kills.
    pub instance: InstanceId,
    /// Where its head begins in the segment.
    pub offset: u64,
    /// Bytes of the record: its room.
    pub length: u64,
}

impl Foot {
    /// Bytes of a foot of so many entries.
    pub const fn len_for(entries: usize) -> usize {
        entries * ENTRY_LEN + FOOT_END_LEN
    }

    /// The bytes, to be written so that they end with the segment.
    pub fn encode(&self, segment: SegmentId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::len_for(self.entries.len()));
        for entry in &self.entries {
            bytes.put_slice(entry.extent.as_bytes());
            bytes.put_slice(entry.instance.as_bytes());
            bytes.put_u64_le(entry.offset);
            bytes.put_u64_le(entry.length);
            bytes.put_u8(entry.row.0);
            bytes.put_u8(entry.kind.code());
            bytes.put_bytes(0, 6);
        }
        bytes.put_u32_le(self.entries.len() as u32);
        bytes.put_u16_le(FORMAT);
        bytes.put_u16_le(0);
        let crc = salted_crc(segment, &bytes);
        bytes.put_u32_le(crc);
        bytes.put_slice(FOOT_MAGIC);
        bytes
    }

    /// Bytes of the whole foot, from the last [`FOOT_END_LEN`] bytes (or more) of a segment of `segment_len` bytes.
    ///
    /// # Errors
    /// `Absent` where the segment was not sealed; `Cut` where the foot would be longer than the segment. All else is
    /// checked by [`Foot::parse`].
    pub fn len_from_end(end: &[u8], segment_len: u64) -> Result<u64, FragmentError> {
        let cut = FragmentError::Cut { what: FOOT, len: end.len() as u64, needed: FOOT_END_LEN as u64 };
        let mut end: &[u8] = end.last_chunk::<FOOT_END_LEN>().ok_or(cut)?;
        let count = u64::from(end.get_u32_le());
        end.advance(8);
        let needed = count * ENTRY_LEN as u64 + FOOT_END_LEN as u64;
        if end != FOOT_MAGIC {
            Err(FragmentError::Absent { what: FOOT })
        } else if needed > segment_len {
            Err(FragmentError::Cut { what: FOOT, len: segment_len, needed })
        } else {
            Ok(needed)
        }
    }

    /// Reads a foot from bytes that end with the segment, which has `segment_len` of them.
    ///
    /// # Errors
    /// [`FragmentError`]: `Cut`, `Absent`, `Checksum`, `NewerFormat`, `UnknownKind`, `Place`.
    pub fn parse(bytes: &[u8], segment: SegmentId, segment_len: u64) -> Result<Self, FragmentError> {
        let needed = Self::len_from_end(bytes, bytes.len() as u64)?;
        let (covered, mut end) = bytes[bytes.len() - needed as usize..].split_at(needed as usize - 8);
        let (mut entries, mut counts) = covered.split_at(covered.len() + 8 - FOOT_END_LEN);
        counts.advance(4);
        check(FOOT, true, end.get_u32_le(), salted_crc(segment, covered), counts.get_u16_le())?;
        let mut foot = Self::default();
        while entries.has_remaining() {
            foot.entries.push(FootEntry::parse(&mut entries)?);
        }
        foot.check_places(segment_len.saturating_sub(needed)).map(|()| foot)
    }

    /// That records lie one after the other, between the segment's head and `end`, where the foot begins.
    fn check_places(&self, end: u64) -> Result<(), FragmentError> {
        let mut free = SEGMENT_HEAD_LEN as u64;
        for &FootEntry { offset, length, .. } in &self.entries {
            let misplaced = FragmentError::Place { offset, length };
            if offset < free || !offset.is_multiple_of(ALIGNMENT) || length < RECORD_HEAD_LEN as u64 {
                return Err(misplaced);
            }
            free = offset.checked_add(length).filter(|next| *next <= end).ok_or(misplaced)?;
        }
        Ok(())
    }
}

impl FootEntry {
    fn parse(fields: &mut &[u8]) -> Result<Self, FragmentError> {
        let extent = ExtentId(fields.get_u128_le().to_le_bytes());
        let instance = InstanceId(fields.get_u64_le().to_le_bytes());
        let (offset, length) = (fields.get_u64_le(), fields.get_u64_le());
        let row = Row(fields.get_u8());
        let kind = RecordKind::from_code(fields.get_u8())?;
        fields.advance(6);
        Ok(Self { extent, row, kind, instance, offset, length })
    }
}
