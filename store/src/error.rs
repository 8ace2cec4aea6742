//! What can go wrong with a device: what happened, what was kept, what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_core::fragment::FragmentError;
use diptych_core::ids::{ExtentId, InstanceId, Row, Stamp};
use thiserror::Error;

/// An error of a device. Cheap to clone: one failed sync answers all that waited for it.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The path is not there.
    #[error("there is no device at {path}: mount it, or format one there")]
    Missing {
        /// The device's folder.
        path: PathBuf,
    },
    /// The file system takes no writes.
    #[error("{path} is read-only: nothing was changed; remount it for writing")]
    ReadOnly {
        /// The device's folder.
        path: PathBuf,
    },
    /// The folder to be formatted holds something.
    #[error(
        "{path} is not empty ({found} is there) and is no device: nothing was changed; give an empty folder"
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The folder to be formatted is a device already.
    #[error("{path} is already device {found}: nothing was changed; open it, or empty the folder first")]
    AlreadyFormatted {
        /// The folder.
        path: PathBuf,
        /// Who it is.
        found: String,
    },
    /// Another process has it open.
    #[error("{path} is open in another process: stop that one first")]
    InUse {
        /// The device's folder.
        path: PathBuf,
    },
    /// Another process has the bucket, or had it and died without a word.
    #[error(
        "{path} is held by agent {agent}: two agents never share a bucket; it is opened here once {agent} has given it up or was silent for {silent_s} s"
    )]
    Held {
        /// The device's place.
        path: PathBuf,
        /// Who has it.
        agent: String,
        /// For how long nothing may have been heard, in seconds.
        silent_s: u64,
    },
    /// Too many rows are gathered in memory at this moment.
    #[error("{bytes} bytes of rows are on their way to the bucket, and no more are taken now: try again")]
    Busy {
        /// Of rows that were begun and not ended.
        bytes: u64,
    },
    /// Another device than the one asked for.
    #[error(
        "{path} has {what} {found}, expected {expected}: nothing was changed; was it mounted in another's place?"
    )]
    WrongIdentity {
        /// The device's folder.
        path: PathBuf,
        /// What differs: cluster, site, device.
        what: &'static str,
        /// What stands in the device record.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// Written by another version of Diptych.
    #[error(
        "{file} has format {found}, this version reads up to {known}: nothing was changed; upgrade this node"
    )]
    UnknownFormat {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// A file that the device can't do without is damaged.
    #[error("{file} is damaged: {reason}; nothing was changed")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What the check said.
        reason: String,
    },
    /// A segment of another device lies among this one's.
    #[error(
        "{file} belongs to another device ({found}): nothing was changed; move it back to where it came from"
    )]
    ForeignSegment {
        /// The file.
        file: PathBuf,
        /// Whose it is.
        found: String,
    },
    /// No room for this purpose; reads and deletes go on.
    #[error(
        "the device is {used_percent} % full ({used} of {capacity} bytes) and takes these writes below {limit_percent} % only: delete, or add a device"
    )]
    DeviceFull {
        /// Bytes in use.
        used: u64,
        /// Bytes that it may hold.
        capacity: u64,
        /// Hundredths in use.
        used_percent: u8,
        /// Where writes of this purpose stop.
        limit_percent: u8,
    },
    /// A sync failed, so what the page cache holds can't be trusted. The device answers nothing until it is opened anew.
    #[error(
        "the device has failed ({reason}): what was not acknowledged may be lost; reopening checks what is there"
    )]
    DeviceFailed {
        /// The first failure.
        reason: Arc<str>,
    },
    /// The device was closed.
    #[error("the device is closed")]
    Closed,
    /// The record does not fit.
    #[error("a row of {bytes} bytes does not fit: at most {limit} do")]
    TooLong {
        /// Asked for.
        bytes: u64,
        /// Of this segment size, or of this reservation.
        limit: u64,
    },
    /// A field of the row's head is impossible.
    #[error("the row can't be stored: {reason}")]
    BadRow {
        /// Which, and what is possible.
        reason: FragmentError,
    },
    /// The instance was written, or deleted, before.
    #[error("record {instance} of extent {extent} was written before: each attempt needs a fresh instance")]
    InstanceUsed {
        /// The extent.
        extent: ExtentId,
        /// The instance.
        instance: InstanceId,
    },
    /// No such record.
    #[error("row {row} of extent {extent} is not on this device")]
    NotFound {
        /// The extent.
        extent: ExtentId,
        /// The row.
        row: Row,
    },
    /// A range beyond the row's end.
    #[error("bytes {start}..{end} were asked for of a row of {row_bytes}")]
    OutOfRange {
        /// First byte.
        start: u64,
        /// Byte after the last.
        end: u64,
        /// Bytes of the row.
        row_bytes: u64,
    },
    /// A check failed; the record is in quarantine now, and is not served.
    #[error(
        "row {row} of extent {extent} is rotten on this device ({reason}): rebuild it from the others, then delete record {instance}"
    )]
    Rotten {
        /// The extent.
        extent: ExtentId,
        /// The row.
        row: Row,
        /// The record.
        instance: InstanceId,
        /// What the check said.
        reason: Arc<str>,
    },
    /// A command of somebody who has been replaced.
    #[error(
        "stamp {given} is lower than {highest}, which this device has seen: the sender has been replaced"
    )]
    OldStamp {
        /// On the command.
        given: Stamp,
        /// Seen before.
        highest: Stamp,
    },
    /// An older keyring than the one that is kept.
    #[error("keyring {given} is older than {kept}, which is kept")]
    OldKeyring {
        /// Offered.
        given: u64,
        /// Kept.
        kept: u64,
    },
    /// The operating system, or the store that a bucket is in, refused.
    #[error("{doing} failed")]
    Io {
        /// What was tried, with the file.
        doing: String,
        /// What it said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The index refused. It holds nothing of its own: reopening makes it anew where it must.
    #[error("the index failed ({reason}): reopen the device")]
    Index {
        /// What it said.
        reason: Arc<str>,
    },
}

impl StoreError {
    /// Wraps an error of the operating system; a read-only file system gets its own.
    pub(crate) fn io_at(doing: &str, file: &Path, device: &Path, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
            return Self::ReadOnly { path: device.to_owned() };
        }
        Self::Io { doing: format!("{doing} {}", file.display()), source: Arc::new(error) }
    }

    /// The first failure of a sync.
    pub(crate) fn failed(doing: &str, error: &impl std::fmt::Display) -> Self {
        Self::DeviceFailed { reason: format!("{doing}: {error}").into() }
    }

    /// Whether the disk had no room for it.
    pub fn is_full(&self) -> bool {
        match self {
            Self::DeviceFull { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}
