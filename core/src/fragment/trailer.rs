//! Trailer of a record: checks and lengths, written last; without a valid one there is no record.

use bytes::{Buf, BufMut};

use super::head::{RECORD_HEAD_LEN, RecordHead};
use super::{ALIGNMENT, FragmentError, check};
use crate::records::Position;

/// The last bytes of a trailer, which say how long it is.
pub const TRAILER_END_LEN: usize = 80;
const MAGIC: &[u8; 4] = b"DPRE";
const TRAILER: &str = "trailer";
const HAS_LAST_POSITION: u32 = 1;

/// Bytes of the trailer of a row of `row_len` bytes with checksum blocks of `crc_block`.
pub const fn trailer_len(row_len: u64, crc_block: u32) -> u64 {
    4 * row_len.div_ceil(crc_block as u64) + TRAILER_END_LEN as u64
}

/// Bytes of a record for a row of at most `row_len` bytes: head, payload, trailer, rounded up to [`ALIGNMENT`].
pub const fn record_len(row_len: u64, crc_block: u32) -> u64 {
    (RECORD_HEAD_LEN as u64 + row_len + trailer_len(row_len, crc_block)).next_multiple_of(ALIGNMENT)
}

/// Checks and lengths of a row. On the disk: CRC32C of each block; then [`TRAILER_END_LEN`] bytes: row bytes 8, extent
/// bytes 8, extent hash 32, last position 8 + 8, number of blocks 4, flags 4 (1 = has a last position), CRC32C 4, magic
/// `DPRE`. That CRC32C is over the record's head and all of the trailer before it, so that the trailer of another record
/// does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// CRC32C of each block of the row, the last one as short as it is.
    pub blocks: Vec<u32>,
    /// Bytes of the row.
    pub row_bytes: u64,
    /// Bytes of the extent.
    pub extent_bytes: u64,
    /// BLAKE3 of the extent.
    pub extent_hash: [u8; 32],
    /// Of a journal: the last position in it; of a checkpoint: the position that it shows.
    pub last_position: Option<Position>,
}

impl Trailer {
    /// The bytes, to be written so that they end with the record. `head` are the bytes of the record's head.
    pub fn encode(&self, head: &[u8; RECORD_HEAD_LEN]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 * self.blocks.len() + TRAILER_END_LEN);
        for crc in &self.blocks {
            bytes.put_u32_le(*crc);
        }
        let position = self.last_position.unwrap_or_default();
        bytes.put_u64_le(self.row_bytes);
        bytes.put_u64_le(self.extent_bytes);
        bytes.put_slice(&self.extent_hash);
        bytes.put_u64_le(position.incarnation);
        bytes.put_u64_le(position.revision);
        bytes.put_u32_le(self.blocks.len() as u32);
        bytes.put_u32_le(if self.last_position.is_some() { HAS_LAST_POSITION } else { 0 });
        let crc = crc32c::crc32c_append(crc32c::crc32c(head), &bytes);
        bytes.put_u32_le(crc);
        bytes.put_slice(MAGIC);
        bytes
    }

    /// Bytes of the whole trailer, from the record's last [`TRAILER_END_LEN`] bytes (or more).
    ///
    /// # Errors
    /// `Absent`: the record was never finished. `Cut`: it would be longer than the record. All else is checked by
    /// [`Trailer::parse`].
    pub fn len_from_end(end: &[u8], head: &RecordHead) -> Result<u64, FragmentError> {
        let cut = FragmentError::Cut { what: TRAILER, len: end.len() as u64, needed: TRAILER_END_LEN as u64 };
        let mut end: &[u8] = end.last_chunk::<TRAILER_END_LEN>().ok_or(cut)?;
        end.advance(64);
        let blocks = u64::from(end.get_u32_le());
        end.advance(8);
        let (needed, room) = (4 * blocks + TRAILER_END_LEN as u64, head.reserved - RECORD_HEAD_LEN as u64);
        if end != MAGIC {
            Err(FragmentError::Absent { what: TRAILER })
        } else if needed > room {
            Err(FragmentError::Cut { what: TRAILER, len: room, needed })
        } else {
            Ok(needed)
        }
    }

    /// Reads a trailer from bytes that end with the record. `head` is the record's head, `head_bytes` its bytes.
    ///
    /// # Errors
    /// `Cut`, `Absent`, `Checksum`, `Lengths`.
    pub fn parse(
        bytes: &[u8],
        head: &RecordHead,
        head_bytes: &[u8; RECORD_HEAD_LEN],
    ) -> Result<Self, FragmentError> {
        let needed = Self::len_from_end(bytes, head)?;
        let missing = FragmentError::Cut { what: TRAILER, len: bytes.len() as u64, needed };
        let start = (bytes.len() as u64).checked_sub(needed).ok_or(missing)?;
        let (covered, mut end) = bytes[start as usize..].split_at(needed as usize - 8);
        let computed = crc32c::crc32c_append(crc32c::crc32c(head_bytes), covered);
        check(TRAILER, true, end.get_u32_le(), computed, super::FORMAT)?;

        let (mut checksums, mut fields) = covered.split_at(needed as usize - TRAILER_END_LEN);
        let mut blocks = Vec::with_capacity(checksums.len() / 4);
        while checksums.has_remaining() {
            blocks.push(checksums.get_u32_le());
        }
        let (row_bytes, extent_bytes) = (fields.get_u64_le(), fields.get_u64_le());
        let mut extent_hash = [0; 32];
        fields.copy_to_slice(&mut extent_hash);
        let position = Position { incarnation: fields.get_u64_le(), revision: fields.get_u64_le() };
        fields.advance(4);
        let last_position = (fields.get_u32_le() & HAS_LAST_POSITION != 0).then_some(position);
        let trailer = Self { blocks, row_bytes, extent_bytes, extent_hash, last_position };
        trailer.check_lengths(head).map(|()| trailer)
    }

    fn check_lengths(&self, head: &RecordHead) -> Result<(), FragmentError> {
        let (blocks, crc_block) = (self.blocks.len() as u32, head.crc_block);
        let fits = self.row_bytes <= head.reserved
            && self.row_bytes.div_ceil(u64::from(crc_block)) == u64::from(blocks)
            && record_len(self.row_bytes, crc_block) <= head.reserved;
        if fits {
            Ok(())
        } else {
            let (row_bytes, reserved) = (self.row_bytes, head.reserved);
            Err(FragmentError::Lengths { row_bytes, blocks, crc_block, reserved })
        }
    }

    /// Checks block `index` of the row against its checksum.
    ///
    /// # Errors
    /// `Block`, also where there is no such block.
    pub fn check_block(&self, index: u32, bytes: &[u8]) -> Result<(), FragmentError> {
        let computed = crc32c::crc32c(bytes);
        match self.blocks.get(index as usize) {
            Some(stored) if *stored == computed => Ok(()),
            stored => {
                Err(FragmentError::Block { index, stored: stored.copied().unwrap_or_default(), computed })
            }
        }
    }
}

/// Makes the checksums of a row's blocks while its bytes come in, in pieces of any length.
#[derive(Debug, Clone)]
pub struct BlockChecks {
    block: u32,
    filled: u32,
    current: u32,
    done: Vec<u32>,
    total: u64,
}

impl BlockChecks {
    /// For blocks of `block` bytes.
    ///
    /// # Panics
    /// If `block` is 0.
    pub const fn new(block: u32) -> Self {
        assert!(block > 0, "a checksum block has bytes");
        Self { block, filled: 0, current: 0, done: Vec::new(), total: 0 }
    }

    /// The row's next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = (self.block - self.filled) as usize;
            let (taken, rest) = bytes.split_at(room.min(bytes.len()));
            self.current = crc32c::crc32c_append(self.current, taken);
            self.filled += taken.len() as u32;
            bytes = rest;
            if self.filled == self.block {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        self.done.push(self.current);
        self.current = 0;
        self.filled = 0;
    }

    /// Bytes that came in.
    pub const fn row_bytes(&self) -> u64 {
        self.total
    }

    /// The checksums, for [`Trailer::blocks`].
    pub fn finish(mut self) -> Vec<u32> {
        if self.filled > 0 {
            self.cut();
        }
        self.done
    }
}
