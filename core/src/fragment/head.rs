//! Head of a record.

use bytes::{Buf, BufMut};

use super::trailer::TRAILER_END_LEN;
use super::{ALIGNMENT, FORMAT, FragmentError, RECORD_MAX, check, check_cluster, salted_crc};
use crate::ids::{ClusterId, Epoch, ExtentId, Hlc, InstanceId, KeeperNumber, Row, SegmentId, Stamp};
use crate::layout::{CRC_BLOCK, CRC_BLOCK_SMALL, NEEDED_MAX, SHARD};
use crate::records::{ExtentKind, Position};

/// Bytes of a record's head.
pub const RECORD_HEAD_LEN: usize = 128;
const MAGIC: &[u8; 4] = b"DPRH";
const HEAD: &str = "record head";
const HAS_FIRST_POSITION: u8 = 1;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A row of an extent of objects' bytes.
    Data = 1,
    /// A row of a sealed journal.
    Journal = 2,
    /// A row of a sealed checkpoint.
    Checkpoint = 3,
    /// Kills one record.
    Tombstone = 4,
}

impl RecordKind {
    /// Its number in formats.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a number.
    ///
    /// # Errors
    /// `UnknownKind`.
    pub const fn from_code(code: u8) -> Result<Self, FragmentError> {
        match code {
            1 => Ok(Self::Data),
            2 => Ok(Self::Journal),
            3 => Ok(Self::Checkpoint),
            4 => Ok(Self::Tombstone),
            _ => Err(FragmentError::UnknownKind(code)),
        }
    }

    /// What the extent holds; None of a tombstone.
    pub const fn extent_kind(self) -> Option<ExtentKind> {
        match self {
            Self::Data => Some(ExtentKind::Data),
            Self::Journal => Some(ExtentKind::Journal),
            Self::Checkpoint => Some(ExtentKind::Checkpoint),
            Self::Tombstone => None,
        }
    }
}

impl From<ExtentKind> for RecordKind {
    fn from(kind: ExtentKind) -> Self {
        match kind {
            ExtentKind::Data => Self::Data,
            ExtentKind::Journal => Self::Journal,
            ExtentKind::Checkpoint => Self::Checkpoint,
        }
    }
}

/// The erasure code of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Codec {
    /// GF(2^8), polynomial 0x11d, systematic Vandermonde: [`crate::erasure`].
    #[default]
    Vandermonde = 1,
}

/// First bytes of a record that holds a row.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 4 | magic `DPRH` |
/// | 4 | 2 | format |
/// | 6 | 1 | kind |
/// | 7 | 1 | codec |
/// | 8 | 16 | cluster |
/// | 24 | 16 | extent |
/// | 40 | 8 | instance; of a tombstone: the instance killed |
/// | 48 | 1 | row |
/// | 49 | 1 | k |
/// | 50 | 1 | coding |
/// | 51 | 1 | flags: 1 = has a first position |
/// | 52 | 4 | shard size |
/// | 56 | 4 | checksum block |
/// | 64 | 8 | birth epoch |
/// | 72 | 8 | birth hlc |
/// | 80 | 8 + 8 | first position: incarnation, revision |
/// | 96 | 8 | reserved bytes: the whole record's |
/// | 104 | 8 + 8 | of a tombstone: stamp (epoch, keeper) |
/// | 124 | 4 | CRC32C of the rest, salted with the segment id |
///
/// All else is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// What the extent holds.
    pub kind: ExtentKind,
    /// How rows are made of it.
    pub codec: Codec,
    /// The cluster.
    pub cluster: ClusterId,
    /// The extent.
    pub extent: ExtentId,
    /// Which record: fresh for each attempt to write the row.
    pub instance: InstanceId,
    /// Number of the row.
    pub row: Row,
    /// k: rows that are needed to decode.
    pub needed: u8,
    /// Number of the extent's coding, 0 for its first.
    pub coding: u8,
    /// Bytes of a shard in all stripes but the last: [`SHARD`], or the row's length where that is known to be less.
    pub shard_size: u32,
    /// Bytes that each checksum of the trailer is over: [`crate::layout::crc_block`].
    pub crc_block: u32,
    /// Term in which the extent was written; it refuses nothing.
    pub birth_epoch: Epoch,
    /// When the extent was written.
    pub birth_hlc: Hlc,
    /// Of a journal: position behind which it begins; of a checkpoint: the position that it shows.
    pub first_position: Option<Position>,
    /// Bytes of the whole record, from the head's first to the trailer's last: [`super::record_len`] of the longest
    /// row that it may take.
    pub reserved: u64,
}

/// A record that kills another: a head alone, of [`RECORD_HEAD_LEN`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    /// The cluster.
    pub cluster: ClusterId,
    /// Extent of the record that is killed.
    pub extent: ExtentId,
    /// Its row.
    pub row: Row,
    /// The record that is killed.
    pub killed: InstanceId,
    /// Stamp of the command.
    pub stamp: Stamp,
}

/// What stands at a record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A row, if its trailer is valid too.
    Row(RecordHead),
    /// A tombstone, whole as it is.
    Tombstone(Tombstone),
}

impl RecordHead {
    /// The bytes, for a record in `segment`.
    pub fn encode(&self, segment: SegmentId) -> [u8; RECORD_HEAD_LEN] {
        let position = self.first_position.unwrap_or_default();
        let raw = RawHead {
            kind: self.kind.into(),
            codec: self.codec as u8,
            cluster: self.cluster,
            extent: self.extent,
            instance: self.instance,
            row: self.row,
            needed: self.needed,
            coding: self.coding,
            flags: if self.first_position.is_some() { HAS_FIRST_POSITION } else { 0 },
            shard_size: self.shard_size,
            crc_block: self.crc_block,
            birth: (self.birth_epoch, self.birth_hlc),
            position,
            reserved: self.reserved,
            stamp: Stamp::default(),
        };
        raw.encode(segment)
    }

    fn from_raw(raw: &RawHead) -> Result<Self, FragmentError> {
        let kind = raw.kind.extent_kind().ok_or(FragmentError::UnknownKind(raw.kind.code()))?;
        let head = Self {
            kind,
            codec: if raw.codec == Codec::Vandermonde as u8 {
                Codec::Vandermonde
            } else {
                return Err(FragmentError::UnknownCodec(raw.codec));
            },
            cluster: raw.cluster,
            extent: raw.extent,
            instance: raw.instance,
            row: raw.row,
            needed: raw.needed,
            coding: raw.coding,
            shard_size: raw.shard_size,
            crc_block: raw.crc_block,
            birth_epoch: raw.birth.0,
            birth_hlc: raw.birth.1,
            first_position: (raw.flags & HAS_FIRST_POSITION != 0).then_some(raw.position),
            reserved: raw.reserved,
        };
        head.validate().map(|()| head)
    }

    /// Whether the fields are possible: what a writer checks before it writes, and [`Record::parse`] after reading.
    ///
    /// # Errors
    /// `ShardSize`, `CrcBlock`, `Needed`, `Reserved`.
    pub fn validate(&self) -> Result<(), FragmentError> {
        let least = (RECORD_HEAD_LEN + TRAILER_END_LEN) as u64;
        if self.shard_size == 0 || self.shard_size as usize > SHARD {
            Err(FragmentError::ShardSize(self.shard_size))
        } else if self.crc_block != CRC_BLOCK_SMALL && self.crc_block != CRC_BLOCK {
            Err(FragmentError::CrcBlock(self.crc_block))
        } else if self.needed == 0 || self.needed > NEEDED_MAX {
            Err(FragmentError::Needed(self.needed))
        } else if !(least..=RECORD_MAX).contains(&self.reserved) || !self.reserved.is_multiple_of(ALIGNMENT) {
            Err(FragmentError::Reserved(self.reserved))
        } else {
            Ok(())
        }
    }
}

impl Tombstone {
    /// The bytes, for a record in `segment`.
    pub fn encode(&self, segment: SegmentId) -> [u8; RECORD_HEAD_LEN] {
        let raw = RawHead {
            kind: RecordKind::Tombstone,
            codec: 0,
            cluster: self.cluster,
            extent: self.extent,
            instance: self.killed,
            row: self.row,
            needed: 0,
            coding: 0,
            flags: 0,
            shard_size: 0,
            crc_block: 0,
            birth: (Epoch(0), Hlc(0)),
            position: Position::default(),
            reserved: RECORD_HEAD_LEN as u64,
            stamp: self.stamp,
        };
        raw.encode(segment)
    }
}

impl Record {
    /// Reads a head of `segment`; another cluster than `expected` is refused.
    ///
    /// # Errors
    /// `Cut`, `Absent` (the log ends here, or the bytes rotted), `Checksum`, `NewerFormat`, `AnotherCluster`, and those
    /// of [`RecordHead::validate`].
    pub fn parse(
        bytes: &[u8],
        segment: SegmentId,
        expected: Option<ClusterId>,
    ) -> Result<Self, FragmentError> {
        let needed = RECORD_HEAD_LEN as u64;
        let cut = FragmentError::Cut { what: HEAD, len: bytes.len() as u64, needed };
        let raw = RawHead::parse(bytes.first_chunk().ok_or(cut)?, segment)?;
        check_cluster(HEAD, raw.cluster, expected)?;
        if raw.kind != RecordKind::Tombstone {
            return RecordHead::from_raw(&raw).map(Self::Row);
        }
        if raw.reserved != needed {
            return Err(FragmentError::Reserved(raw.reserved));
        }
        let (cluster, extent, row, killed, stamp) =
            (raw.cluster, raw.extent, raw.row, raw.instance, raw.stamp);
        Ok(Self::Tombstone(Tombstone { cluster, extent, row, killed, stamp }))
    }

    /// Bytes from this head to the next.
    pub const fn reserved(&self) -> u64 {
        match self {
            Self::Row(head) => head.reserved,
            Self::Tombstone(_) => RECORD_HEAD_LEN as u64,
        }
    }
}

/// The fields in their order on the disk.
struct RawHead {
    kind: RecordKind,
    codec: u8,
    cluster: ClusterId,
    extent: ExtentId,
    instance: InstanceId,
    row: Row,
    needed: u8,
    coding: u8,
    flags: u8,
    shard_size: u32,
    crc_block: u32,
    birth: (Epoch, Hlc),
    position: Position,
    reserved: u64,
    stamp: Stamp,
}

impl RawHead {
    fn encode(&self, segment: SegmentId) -> [u8; RECORD_HEAD_LEN] {
        let mut bytes = [0; RECORD_HEAD_LEN];
        let mut fields = &mut bytes[..];
        fields.put_slice(MAGIC);
        fields.put_u16_le(FORMAT);
        fields.put_slice(&[self.kind.code(), self.codec]);
        fields.put_slice(self.cluster.as_bytes());
        fields.put_slice(self.extent.as_bytes());
        fields.put_slice(self.instance.as_bytes());
        fields.put_slice(&[self.row.0, self.needed, self.coding, self.flags]);
        fields.put_u32_le(self.shard_size);
        fields.put_u32_le(self.crc_block);
        fields.put_u32_le(0);
        fields.put_u64_le(self.birth.0.0);
        fields.put_u64_le(self.birth.1.0);
        fields.put_u64_le(self.position.incarnation);
        fields.put_u64_le(self.position.revision);
        fields.put_u64_le(self.reserved);
        fields.put_u64_le(self.stamp.epoch.0);
        fields.put_u64_le(self.stamp.keeper.0);
        fields.put_u32_le(0);
        let crc = salted_crc(segment, &bytes[..RECORD_HEAD_LEN - 4]);
        bytes[RECORD_HEAD_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; RECORD_HEAD_LEN], segment: SegmentId) -> Result<Self, FragmentError> {
        let (covered, mut crc) = bytes.split_at(RECORD_HEAD_LEN - 4);
        let mut fields = covered;
        let magic_fits = fields.copy_to_bytes(4) == MAGIC[..];
        let format = fields.get_u16_le();
        check(HEAD, magic_fits, crc.get_u32_le(), salted_crc(segment, covered), format)?;
        Ok(Self {
            kind: RecordKind::from_code(fields.get_u8())?,
            codec: fields.get_u8(),
            cluster: ClusterId(fields.get_u128_le().to_le_bytes()),
            extent: ExtentId(fields.get_u128_le().to_le_bytes()),
            instance: InstanceId(fields.get_u64_le().to_le_bytes()),
            row: Row(fields.get_u8()),
            needed: fields.get_u8(),
            coding: fields.get_u8(),
            flags: fields.get_u8(),
            shard_size: fields.get_u32_le(),
            crc_block: fields.get_u32_le(),
            birth: {
                fields.advance(4);
                (Epoch(fields.get_u64_le()), Hlc(fields.get_u64_le()))
            },
            position: Position { incarnation: fields.get_u64_le(), revision: fields.get_u64_le() },
            reserved: fields.get_u64_le(),
            stamp: Stamp { epoch: Epoch(fields.get_u64_le()), keeper: KeeperNumber(fields.get_u64_le()) },
        })
    }
}
