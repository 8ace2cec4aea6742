//! The bytes of a device's segments: heads, records, trailers, tombstones and feet (docs/design.md, Tables).
//!
//! ```text
//! segment  [head 4 KiB][record][record]…                         [foot]
//! record   [head 128 B][the row's shards, in stripe order]…0…[trailer]     a multiple of 64 B
//! ```
//! A record's room is reserved when its head is written, so a scan hops from head to head; the trailer ends where the
//! room ends, and is found without knowing how long the row became. Numbers are little-endian. Checksums are CRC32C;
//! those of heads and feet are salted with the segment's random id, and a trailer's begins with its head's, so that no
//! payload and no reused block passes for a record. Checksums find rot, not malice: that is for the extent hash and
//! the chunks' tags.

mod head;
mod segment;
mod trailer;

use thiserror::Error;

use crate::ids::{ClusterId, SegmentId};
use crate::layout::{CRC_BLOCK_SMALL, SHARD};

pub use head::{Codec, RECORD_HEAD_LEN, Record, RecordHead, RecordKind, Tombstone};
pub use segment::{FOOT_END_LEN, Foot, FootEntry, SEGMENT_HEAD_LEN, SegmentHead};
pub use trailer::{BlockChecks, TRAILER_END_LEN, Trailer, record_len, trailer_len};

/// Format that this version writes.
pub const FORMAT: u16 = 1;
/// Records begin at multiples of it, in bytes.
pub const ALIGNMENT: u64 = 64;
/// Bytes of the longest record: a row is not longer than an extent, whose length has 32 bits.
pub const RECORD_MAX: u64 = record_len(u32::MAX as u64, CRC_BLOCK_SMALL);

/// Why bytes of a device are not what they should be. `what` is "segment head", "record head", "trailer" or
/// "segment foot".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// No magic: nothing was written here, or something else was.
    #[error("there is no {what}: its magic is missing")]
    Absent {
        /// Which part.
        what: &'static str,
    },
    /// Fewer bytes than the part has.
    #[error("{what} is cut: {len} bytes of {needed}")]
    Cut {
        /// Which part.
        what: &'static str,
        /// Bytes that are there.
        len: u64,
        /// Bytes that it has.
        needed: u64,
    },
    /// Rot, a torn write, or a part of another segment or record.
    #[error(
        "{what} has checksum {stored:08x}, its bytes give {computed:08x}: they were altered or half written"
    )]
    Checksum {
        /// Which part.
        what: &'static str,
        /// Checksum that was written.
        stored: u32,
        /// Checksum of what is there.
        computed: u32,
    },
    /// Written by a newer Diptych: nothing is changed.
    #[error("{what} has format {found}, this version reads {FORMAT}: start the version that wrote it")]
    NewerFormat {
        /// Which part.
        what: &'static str,
        /// Its format.
        found: u16,
    },
    /// The device of another cluster.
    #[error("{what} belongs to cluster {found}, not to {expected}: nothing was changed")]
    AnotherCluster {
        /// Which part.
        what: &'static str,
        /// Its cluster.
        found: ClusterId,
        /// This cluster.
        expected: ClusterId,
    },
    /// A kind of record that this version does not know.
    #[error("record kind {0} is unknown")]
    UnknownKind(u8),
    /// An erasure code that this version does not know.
    #[error("erasure code {0} is unknown")]
    UnknownCodec(u8),
    /// 0, or beyond the greatest.
    #[error("shard size {0} is wrong: 1 to {SHARD} bytes are possible")]
    ShardSize(u32),
    /// Neither of the two.
    #[error("checksum block of {0} bytes is wrong: 4096 or 65536 are possible")]
    CrcBlock(u32),
    /// k is 0 or beyond the greatest.
    #[error("k = {0} is wrong")]
    Needed(u8),
    /// Not a multiple of [`ALIGNMENT`], too small for head and trailer, or beyond [`RECORD_MAX`].
    #[error("a record of {0} reserved bytes is impossible")]
    Reserved(u64),
    /// The trailer's lengths contradict each other or the record's room.
    #[error(
        "trailer says {row_bytes} bytes in {blocks} checksum blocks of {crc_block} in a record of {reserved}"
    )]
    Lengths {
        /// Bytes of the row.
        row_bytes: u64,
        /// Checksums.
        blocks: u32,
        /// Bytes of a block.
        crc_block: u32,
        /// Bytes of the record.
        reserved: u64,
    },
    /// A foot with a right checksum that names a record outside of its segment's log, or in the room of another.
    #[error("the foot names a record of {length} bytes at byte {offset}: none can be there")]
    Place {
        /// Where it would begin.
        offset: u64,
        /// Bytes that it would have.
        length: u64,
    },
    /// Rot in the payload.
    #[error("block {index} of the row has checksum {stored:08x}, its bytes give {computed:08x}")]
    Block {
        /// Which block.
        index: u32,
        /// Checksum that was written.
        stored: u32,
        /// Checksum of what is there.
        computed: u32,
    },
}

/// CRC32C of `bytes`, salted with the segment's id.
fn salted_crc(segment: SegmentId, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(segment.as_bytes()), bytes)
}

/// Checks in the order that gives the most useful answer: is it there, is it whole, can this version read it.
fn check(
    what: &'static str,
    magic_fits: bool,
    stored: u32,
    computed: u32,
    format: u16,
) -> Result<(), FragmentError> {
    if !magic_fits {
        Err(FragmentError::Absent { what })
    } else if stored != computed {
        Err(FragmentError::Checksum { what, stored, computed })
    } else if format != FORMAT {
        Err(FragmentError::NewerFormat { what, found: format })
    } else {
        Ok(())
    }
}

fn check_cluster(
    what: &'static str,
    found: ClusterId,
    expected: Option<ClusterId>,
) -> Result<(), FragmentError> {
    match expected {
        Some(expected) if expected != found => Err(FragmentError::AnotherCluster { what, found, expected }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
