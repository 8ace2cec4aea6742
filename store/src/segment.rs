//! A segment file: its name, its head, and what an open one still has to write down in its table of contents.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use diptych_core::fragment::{ALIGNMENT, Foot, FootEntry, SEGMENT_HEAD_LEN, SegmentHead};
use diptych_core::ids::{ClusterId, DeviceId, Generation, SegmentId};

use crate::disk::{Disk, DiskFile};
use crate::types::DeviceIdentity;

/// Where the first record of a segment begins.
pub(crate) const FIRST_RECORD: u64 = SEGMENT_HEAD_LEN as u64;

/// Whose a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) cluster: ClusterId,
    pub(crate) device: DeviceId,
    pub(crate) generation: Generation,
}

impl From<&DeviceIdentity> for Owner {
    fn from(identity: &DeviceIdentity) -> Self {
        Self { cluster: identity.cluster, device: identity.device, generation: identity.generation }
    }
}

/// Folder of the segments in the device's folder.
pub(crate) const FOLDER: &str = "segments";
const SUFFIX: &str = ".segment";
const UNFINISHED: &str = ".tmp";

/// Path of a segment.
pub(crate) fn path(device: &Path, number: u64) -> PathBuf {
    device.join(FOLDER).join(format!("{number:016x}{SUFFIX}"))
}

/// What a name in the segments' folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// A segment of this number.
    Segment(u64),
    /// A segment whose making was interrupted; it holds nothing.
    Unfinished,
    /// Not ours.
    Other,
}

/// Reads a name in the segments' folder.
pub(crate) fn named(name: &str) -> Named {
    if name.ends_with(UNFINISHED) {
        return Named::Unfinished;
    }
    let number = name.strip_suffix(SUFFIX).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    number.map_or(Named::Other, Named::Segment)
}

/// An open segment file. Readers keep it alive after it is unlinked.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) id: SegmentId,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Whole and synced records, while the segment is not sealed.
    contents: Mutex<Vec<FootEntry>>,
    /// Bytes that it takes: up to the last reservation, or the file's length once it is sealed.
    bytes: AtomicU64,
}

impl Segment {
    pub(crate) fn new(
        number: u64,
        id: SegmentId,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        bytes: u64,
    ) -> Self {
        Self { number, id, path, file, contents: Mutex::new(Vec::new()), bytes: AtomicU64::new(bytes) }
    }

    /// Makes a segment: head and the first zeros, all durable when it has its name.
    pub(crate) fn create(
        disk: &dyn Disk,
        device: &Path,
        owner: &Owner,
        number: u64,
        zeros: u64,
    ) -> io::Result<Self> {
        let id = SegmentId(rand::random());
        let path = path(device, number);
        let unfinished = path.with_extension("tmp");
        let file = disk.create(&unfinished)?;
        let Owner { cluster, device: number_of_device, generation } = *owner;
        let head = SegmentHead { cluster, device: number_of_device, generation, segment: id };
        file.write_at(&head.encode(), 0)?;
        write_zeros(&*file, FIRST_RECORD, zeros)?;
        // FENCING: head before name, name before the first record: a record that was acknowledged is never in a
        // segment that a crash takes away.
        file.sync()?;
        disk.rename(&unfinished, &path)?;
        disk.sync_dir(&device.join(FOLDER))?;
        Ok(Self::new(number, id, path, file, FIRST_RECORD))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes records that are whole and synced.
    pub(crate) fn note(&self, entries: impl IntoIterator<Item = FootEntry>) {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).extend(entries);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Ends the file with its table of contents; all its records are synced, and none is being written. The caller syncs
    /// the file and calls [`Segment::sealed`].
    pub(crate) fn write_foot(&self) -> io::Result<u64> {
        let mut entries = self.contents.lock().unwrap_or_else(PoisonError::into_inner).clone();
        entries.sort_by_key(|entry| entry.offset);
        let end = self.bytes().next_multiple_of(ALIGNMENT);
        let foot = Foot { entries }.encode(self.id);
        self.file.write_at(&foot, end)?;
        let len = end + foot.len() as u64;
        self.file.set_len(len)?;
        Ok(len)
    }

    /// The foot is durable: the file has `len` bytes for good.
    pub(crate) fn sealed(&self, len: u64) {
        self.set_bytes(len);
        *self.contents.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }
}

/// Writes zeros in pieces.
pub(crate) fn write_zeros(file: &dyn DiskFile, mut offset: u64, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
    let end = offset + bytes;
    while offset < end {
        let piece = (end - offset).min(ZEROS.len() as u64);
        file.write_at(&ZEROS[..piece as usize], offset)?;
        offset += piece;
    }
    Ok(())
}
