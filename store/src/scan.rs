//! Reads records where they lie: hops from head to head, checks heads, trailers and blocks.

use std::io;

use diptych_core::fragment::{
    ALIGNMENT, FOOT_END_LEN, Foot, FootEntry, FragmentError, RECORD_HEAD_LEN, Record, RecordHead, RecordKind,
    TRAILER_END_LEN, Tombstone, Trailer,
};
use diptych_core::ids::{ClusterId, SegmentId};

use crate::disk::{ReadAt, read_exact_at};
use crate::segment::{FIRST_RECORD, Segment};

const HEAD: u64 = RECORD_HEAD_LEN as u64;
/// Blocks are read and checked in pieces of about this length: a multiple of both block sizes.
pub(crate) const PIECE: usize = 1 << 20;

/// The bytes of a record's head: its trailer is checked against them.
pub(crate) type HeadBytes = [u8; RECORD_HEAD_LEN];

/// Why a record could not be read.
#[derive(Debug)]
pub(crate) enum RecordFault {
    /// What is there is not what was written.
    Rotten(FragmentError),
    /// The operating system refused.
    Io(io::Error),
}

impl From<FragmentError> for RecordFault {
    fn from(error: FragmentError) -> Self {
        Self::Rotten(error)
    }
}

impl From<io::Error> for RecordFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A record that a scan came upon.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) offset: u64,
    pub(crate) head_bytes: HeadBytes,
    pub(crate) record: Record,
}

impl Scanned {
    /// What it is in a foot.
    pub(crate) fn entry(&self) -> FootEntry {
        let (offset, length) = (self.offset, self.record.reserved());
        match &self.record {
            Record::Tombstone(Tombstone { extent, row, killed, .. }) => {
                let kind = RecordKind::Tombstone;
                FootEntry { extent: *extent, row: *row, kind, instance: *killed, offset, length }
            }
            Record::Row(RecordHead { extent, row, kind, instance, .. }) => {
                let kind = (*kind).into();
                FootEntry { extent: *extent, row: *row, kind, instance: *instance, offset, length }
            }
        }
    }
}

/// Hops from head to head of a segment that is not sealed, or whose foot is not to be trusted.
///
/// Where no head is valid the log ends; but rot may have hit a head, so the scan looks for another one behind it.
#[derive(Debug)]
pub(crate) struct Scan<'f> {
    file: &'f dyn ReadAt,
    segment: SegmentId,
    cluster: Option<ClusterId>,
    offset: u64,
    len: u64,
}

impl<'f> Scan<'f> {
    pub(crate) fn new(
        file: &'f dyn ReadAt,
        segment: SegmentId,
        cluster: Option<ClusterId>,
    ) -> io::Result<Self> {
        Ok(Self { file, segment, cluster, offset: FIRST_RECORD, len: file.len()? })
    }

    /// The next record; `None` at the end.
    ///
    /// Errors: of the disk, and [`FragmentError::NewerFormat`]: what a newer version wrote is not guessed at.
    pub(crate) fn next_record(&mut self) -> Result<Option<Scanned>, RecordFault> {
        while self.offset + HEAD <= self.len {
            let mut head_bytes = [0; RECORD_HEAD_LEN];
            read_exact_at(self.file, &mut head_bytes, self.offset)?;
            match Record::parse(&head_bytes, self.segment, self.cluster) {
                Ok(record) => {
                    let offset = self.offset;
                    self.offset = offset.saturating_add(record.reserved());
                    return Ok(Some(Scanned { offset, head_bytes, record }));
                }
                Err(newer @ FragmentError::NewerFormat { .. }) => return Err(newer.into()),
                Err(_) => self.find_head()?,
            }
        }
        Ok(None)
    }

    /// Moves to the next place that could be a head.
    fn find_head(&mut self) -> io::Result<()> {
        let step = ALIGNMENT as usize;
        self.offset += ALIGNMENT;
        let mut piece = vec![0; PIECE];
        while self.offset + HEAD <= self.len {
            let read = self.file.read_at(&mut piece, self.offset)?;
            for (index, head) in piece[..read].chunks_exact(step).enumerate() {
                // The rest of a head that this step cuts is read anew by the caller.
                if head.iter().any(|byte| *byte != 0) && self.is_head(self.offset + (index * step) as u64)? {
                    self.offset += (index * step) as u64;
                    return Ok(());
                }
            }
            self.offset += (read / step * step).max(step) as u64;
        }
        Ok(())
    }

    fn is_head(&self, offset: u64) -> io::Result<bool> {
        let mut bytes = [0; RECORD_HEAD_LEN];
        let read = self.file.read_at(&mut bytes, offset)?;
        let parsed = Record::parse(&bytes[..read], self.segment, self.cluster);
        Ok(matches!(parsed, Ok(_) | Err(FragmentError::NewerFormat { .. })))
    }
}

/// Reads and checks the head of the row at `offset`.
pub(crate) fn read_head(
    file: &dyn ReadAt,
    segment: SegmentId,
    offset: u64,
) -> Result<(RecordHead, HeadBytes), RecordFault> {
    let mut bytes = [0; RECORD_HEAD_LEN];
    let read = file.read_at(&mut bytes, offset)?;
    match Record::parse(&bytes[..read], segment, None)? {
        Record::Row(head) => Ok((head, bytes)),
        Record::Tombstone(_) => Err(FragmentError::Absent { what: "row" }.into()),
    }
}

/// Reads and checks the tombstone at `offset`.
pub(crate) fn read_tombstone(
    file: &dyn ReadAt,
    segment: SegmentId,
    offset: u64,
) -> Result<Tombstone, RecordFault> {
    let mut bytes = [0; RECORD_HEAD_LEN];
    let read = file.read_at(&mut bytes, offset)?;
    match Record::parse(&bytes[..read], segment, None)? {
        Record::Tombstone(tombstone) => Ok(tombstone),
        Record::Row(_) => Err(FragmentError::Absent { what: "tombstone" }.into()),
    }
}

/// The table of contents, if the segment ends with one.
///
/// Errors: of the disk, and [`FragmentError::NewerFormat`].
pub(crate) fn read_foot(segment: &Segment) -> Result<Option<Foot>, RecordFault> {
    let file = &*segment.file;
    let len = file.len()?;
    let Some(end) = len.checked_sub(FOOT_END_LEN as u64) else { return Ok(None) };
    let mut bytes = vec![0; FOOT_END_LEN];
    read_exact_at(file, &mut bytes, end)?;
    let Ok(foot_len) = Foot::len_from_end(&bytes, len) else { return Ok(None) };
    bytes.resize(foot_len as usize, 0);
    read_exact_at(file, &mut bytes, len - foot_len)?;
    match Foot::parse(&bytes, segment.id, len) {
        Ok(foot) => Ok(Some(foot)),
        Err(newer @ FragmentError::NewerFormat { .. }) => Err(newer.into()),
        Err(_) => Ok(None),
    }
}

/// What a sealed segment holds: as its foot says, or where that does not read as its heads say, records without an end among
/// them.
pub(crate) fn contents(segment: &Segment) -> Result<Vec<FootEntry>, RecordFault> {
    if let Some(foot) = read_foot(segment)? {
        return Ok(foot.entries);
    }
    let mut scan = Scan::new(&*segment.file, segment.id, None)?;
    let mut entries = Vec::new();
    while let Some(scanned) = scan.next_record()? {
        entries.push(scanned.entry());
    }
    Ok(entries)
}

/// Reads and checks the trailer of the row at `offset`.
pub(crate) fn read_trailer(
    file: &dyn ReadAt,
    offset: u64,
    head: &RecordHead,
    head_bytes: &HeadBytes,
) -> Result<Trailer, RecordFault> {
    let end = offset + head.reserved;
    let room = head.reserved - HEAD;
    // Enough for a row of 64 KiB, and for one of 1 MiB.
    let mut bytes = read_before(file, end, room.min(TRAILER_END_LEN as u64 + 64))?;
    let needed = Trailer::len_from_end(&bytes, head)?;
    if needed > bytes.len() as u64 {
        bytes = read_before(file, end, needed)?;
    }
    Ok(Trailer::parse(&bytes, head, head_bytes)?)
}

/// The `len` bytes before `end`, or none where the file is shorter.
fn read_before(file: &dyn ReadAt, end: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    let read = file.read_at(&mut bytes, end - len)?;
    bytes.truncate(if read < bytes.len() { 0 } else { read });
    Ok(bytes)
}

/// Reads the row's blocks from `first` on, about a [`PIECE`] at a time, checks each, and hands the bytes on.
pub(crate) fn check_blocks(
    file: &dyn ReadAt,
    offset: u64,
    head: &RecordHead,
    trailer: &Trailer,
    mut take: impl FnMut(&[u8]),
) -> Result<(), RecordFault> {
    let mut at = 0;
    let mut buffer = vec![0; PIECE.min(trailer.row_bytes as usize)];
    while at < trailer.row_bytes {
        let len = (trailer.row_bytes - at).min(PIECE as u64) as usize;
        let piece = &mut buffer[..len];
        read_exact_at(file, piece, offset + HEAD + at)?;
        check_piece(piece, at, head, trailer)?;
        take(piece);
        at += len as u64;
    }
    Ok(())
}

/// Checks bytes that begin with a block, at `at` in the row, and end with one.
pub(crate) fn check_piece(
    piece: &[u8],
    at: u64,
    head: &RecordHead,
    trailer: &Trailer,
) -> Result<(), FragmentError> {
    let first = (at / u64::from(head.crc_block)) as u32;
    for (index, block) in piece.chunks(head.crc_block as usize).enumerate() {
        trailer.check_block(first + index as u32, block)?;
    }
    Ok(())
}
