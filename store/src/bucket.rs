//! A device in a bucket of an S3 store: one object a row, which holds the same record as a log does, and one for the device
//! record (docs/adr/0020).
//!
//! What lies there is the truth: the list of rows is made anew at each opening. The store applies each call whole or not at all,
//! so there is no log, no tombstone and no compaction. What a lock is to a folder the *hold* is to a bucket: a name in the device
//! record, renewed by compare-and-set.

mod contents;
mod device;
mod hold;
pub mod inspect;
mod local;
mod name;
mod read;
mod scrub;
#[cfg(test)]
pub(crate) mod simulated;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use diptych_core::lease::BootTime;
use thiserror::Error;

use crate::error::StoreError;

pub(crate) use device::BucketDevice;
use hold::Memory;
pub(crate) use writer::BucketWriter;

/// Why a call did not do, or may not have done, what was asked.
#[derive(Debug, Clone, Error)]
pub enum BucketError {
    /// There is no such object. That the bucket is not there is [`BucketError::Failed`].
    #[error("there is no such object")]
    Absent,
    /// The store refused, did not answer, or answered what can't be understood: a change may have been made.
    #[error("{0}")]
    Failed(String),
}

impl From<BucketError> for io::Error {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Absent => Self::new(io::ErrorKind::NotFound, error),
            BucketError::Failed(_) => Self::other(error),
        }
    }
}

/// An object, as a list names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key, behind the device's prefix.
    pub key: String,
    /// Its length.
    pub bytes: u64,
}

/// The calls that a device makes, on keys behind its prefix. They block, and come from many threads at once.
pub trait Bucket: Debug + Send + Sync + 'static {
    /// CLOCK_BOOTTIME of this machine: a hold is counted by it.
    fn now(&self) -> BootTime;

    /// Waits between two attempts.
    fn pause(&self, pause: Duration);

    /// Sees to it that the store honours conditions of writes; one that does not, or that can't be asked, is an error.
    fn prove(&self) -> Result<(), BucketError>;

    /// An object of at most `limit` bytes, and its ETag.
    fn get(&self, key: &str, limit: u64) -> Result<(Bytes, String), BucketError>;

    /// The bytes of an object that lie in `range`, as far as it goes.
    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError>;

    /// Writes an object; the same bytes may be sent more than once.
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), BucketError>;

    /// Writes an object where the one that is there has this ETag, or where there is none. Sent once; gives its ETag.
    fn swap(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<String, BucketError>;

    /// Deletes an object; one that is not there is deleted too.
    fn delete(&self, key: &str) -> Result<(), BucketError>;

    /// Hands over the objects whose keys begin with `prefix`, in pages. What was written before the call is among them.
    fn list(&self, prefix: &str, page: &mut dyn FnMut(Vec<ListedObject>)) -> Result<(), BucketError>;
}

/// A bucket that is a device, or shall become one. It outlives openings: to take over from an agent that died without a word one
/// has to have watched for a while.
#[derive(Debug)]
pub struct BucketPlace {
    bucket: Arc<dyn Bucket>,
    name: PathBuf,
    agent: String,
    local: Option<PathBuf>,
    memory: Mutex<Memory>,
}

impl BucketPlace {
    /// `name`: `s3://BUCKET/PREFIX`, for messages; `agent`: who asks, for those of others; `local`: a file by which a process
    /// of this machine knows that the one before it is dead, without one it waits for silence as any other.
    pub fn new(bucket: Arc<dyn Bucket>, name: PathBuf, agent: String, local: Option<PathBuf>) -> Self {
        Self { bucket, name, agent, local, memory: Mutex::default() }
    }

    /// `s3://BUCKET/PREFIX`.
    pub fn name(&self) -> &Path {
        &self.name
    }

    fn error(&self, doing: &str, key: &str, error: BucketError) -> StoreError {
        StoreError::io_at(doing, &self.name.join(key), &self.name, error.into())
    }
}
