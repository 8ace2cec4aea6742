//! The bucket of a device, by S3. The store's calls block, and may come from any thread but those of async tasks.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::lease::BootTime;
use diptych_store::bucket::{Bucket, BucketError, BucketPlace, ListedObject};
use diptych_wire::bucket::{
    BucketConfig, Calls, Delete, Got, Listing, Precondition, Proof, Put, SetupError, prove,
};
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;
use tokio::runtime::Handle;

/// What a place in a bucket begins with, among paths of devices.
const SCHEME: &str = "s3://";
/// Pauses before a call is sent again, where that can do no harm.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// A store of buckets, and who asks there.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketStore {
    /// Its URL.
    pub endpoint: String,
    /// For the signature.
    pub region: String,
    /// Who asks.
    pub access_key: String,
    /// Its secret; it never prints.
    pub secret_key: String,
    /// Certificates that the store is checked against, PEM; None: those that this machine trusts.
    pub authority: Option<String>,
}

impl std::fmt::Debug for BucketStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "BucketStore({})", self.endpoint)
    }
}

/// A place in a bucket that can't be a device.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// It names no bucket.
    #[error("{path} is no place in a bucket: s3://BUCKET or s3://BUCKET/PREFIX is needed")]
    Path {
        /// As it was given.
        path: String,
    },
    /// Nobody said which store the bucket is in.
    #[error("{path} is in a bucket: say of which store, by --bucket-endpoint, and who asks there")]
    NoStore {
        /// As it was given.
        path: String,
    },
    /// The store can't be asked at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Whether a device's path is a place in a bucket.
pub fn is_bucket(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(SCHEME))
}

/// The place that a path names; must be called inside a tokio runtime. `agent`: who asks, for messages to others; `local`: see
/// [`BucketPlace::new`].
///
/// # Errors
/// A path that names no bucket, no store, an endpoint or certificates that do not read.
pub fn place(
    path: &Path,
    store: Option<&BucketStore>,
    agent: &str,
    local: Option<PathBuf>,
) -> Result<BucketPlace, PlaceError> {
    let text = path.display().to_string();
    let (bucket, prefix) = split(&text).ok_or_else(|| PlaceError::Path { path: text.clone() })?;
    let store = store.ok_or_else(|| PlaceError::NoStore { path: text.clone() })?;
    let BucketStore { endpoint, region, access_key, secret_key, authority } = store.clone();
    let config = BucketConfig { endpoint, bucket, region, access_key, secret_key, authority };
    let bucket = S3Bucket {
        calls: Calls::new(&config)?,
        prefix,
        runtime: Handle::current(),
        proved: Mutex::default(),
    };
    Ok(BucketPlace::new(Arc::new(bucket), PathBuf::from(text), agent.to_owned(), local))
}

/// Bucket, and prefix with its last slash.
fn split(path: &str) -> Option<(String, String)> {
    let rest = path.strip_prefix(SCHEME)?.trim_end_matches('/');
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    (!bucket.is_empty()).then(|| (bucket.to_owned(), prefix))
}

/// A prefix of a bucket.
#[derive(Debug)]
struct S3Bucket {
    calls: Calls,
    prefix: String,
    runtime: Handle,
    /// It was seen to honour conditions.
    proved: Mutex<bool>,
}

/// What became of one attempt.
enum Attempt<T> {
    Done(T),
    /// Known for good.
    Never(BucketError),
    /// May be otherwise the next time.
    NotNow(String),
}

impl S3Bucket {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// For calls that may be sent more than once.
    fn persist<T>(&self, call: impl AsyncFn() -> Attempt<T>) -> Result<T, BucketError> {
        let mut pauses = AGAIN.into_iter();
        loop {
            match (self.runtime.block_on(call()), pauses.next()) {
                (Attempt::Done(done), _) => return Ok(done),
                (Attempt::Never(error), _) => return Err(error),
                (Attempt::NotNow(_), Some(pause)) => self.pause(pause),
                (Attempt::NotNow(reason), None) => return Err(BucketError::Failed(reason)),
            }
        }
    }

    fn read(
        &self,
        key: &str,
        range: Option<&Range<u64>>,
        limit: u64,
    ) -> Result<(Bytes, String), BucketError> {
        let key = self.key(key);
        self.persist(async || match self.calls.get(&key, range, limit).await {
            Got::Found { etag, body } => Attempt::Done((body, etag)),
            Got::Absent => Attempt::Never(BucketError::Absent),
            Got::Limited(_) => Attempt::NotNow(limited()),
            Got::Failed(reason) => Attempt::NotNow(reason),
        })
    }
}

impl Bucket for S3Bucket {
    fn now(&self) -> BootTime {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
        BootTime(seconds * 1000 + nanoseconds / 1_000_000)
    }

    fn pause(&self, pause: Duration) {
        thread::sleep(pause);
    }

    fn prove(&self) -> Result<(), BucketError> {
        let mut proved = self.proved.lock().unwrap_or_else(PoisonError::into_inner);
        if *proved {
            return Ok(());
        }
        let key = self.key(&format!("trial-{:016x}", rand::random::<u64>()));
        match self.runtime.block_on(prove(&self.calls, &key)) {
            Proof::Holds => {
                *proved = true;
                Ok(())
            }
            Proof::Untried => Err(BucketError::Failed("it was not tried".to_owned())),
            Proof::Unclear(reason) => Err(BucketError::Failed(reason)),
            Proof::Broken(how) => Err(BucketError::Failed(format!(
                "the store can't be trusted with a device: {how}; use one that has conditional writes"
            ))),
        }
    }

    fn get(&self, key: &str, limit: u64) -> Result<(Bytes, String), BucketError> {
        self.read(key, None, limit)
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        let limit = range.end - range.start;
        self.read(key, Some(&range), limit).map(|(bytes, _)| bytes)
    }

    fn put(&self, key: &str, bytes: Bytes) -> Result<(), BucketError> {
        let key = self.key(key);
        self.persist(async || match self.calls.put(&key, bytes.clone(), None).await {
            Put::Written { .. } => Attempt::Done(()),
            Put::NotWritten(reason) | Put::Unclear(reason) => Attempt::NotNow(reason),
            Put::Limited(_) => Attempt::NotNow(limited()),
        })
    }

    fn swap(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<String, BucketError> {
        let condition = etag.map_or(Precondition::Absent, Precondition::Is);
        match self.runtime.block_on(self.calls.put(&self.key(key), bytes, Some(condition))) {
            Put::Written { etag } => Ok(etag),
            Put::NotWritten(reason) | Put::Unclear(reason) => Err(BucketError::Failed(reason)),
            Put::Limited(_) => Err(BucketError::Failed(limited())),
        }
    }

    fn delete(&self, key: &str) -> Result<(), BucketError> {
        let key = self.key(key);
        self.persist(async || match self.calls.delete(&key).await {
            Delete::Gone => Attempt::Done(()),
            Delete::NotDeleted(reason) | Delete::Unclear(reason) => Attempt::NotNow(reason),
            Delete::Limited(_) => Attempt::NotNow(limited()),
        })
    }

    fn list(&self, prefix: &str, page: &mut dyn FnMut(Vec<ListedObject>)) -> Result<(), BucketError> {
        let prefix = self.key(prefix);
        let mut from: Option<String> = None;
        loop {
            let listed = self.persist(async || match self.calls.list(&prefix, from.as_deref()).await {
                Listing::Page(page) => Attempt::Done(page),
                Listing::Limited(_) => Attempt::NotNow(limited()),
                Listing::Failed(reason) => Attempt::NotNow(reason),
            })?;
            let objects = listed.objects.into_iter().filter_map(|object| {
                let key = object.key.strip_prefix(&self.prefix)?.to_owned();
                Some(ListedObject { key, bytes: object.bytes })
            });
            page(objects.collect());
            from = listed.next;
            if from.is_none() {
                return Ok(());
            }
        }
    }
}

fn limited() -> String {
    "the store takes no more calls for now".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_bucket_is_told_from_a_folder_and_split() {
        assert!(is_bucket(Path::new("s3://rows/o1")));
        assert!(!is_bucket(Path::new("/var/lib/diptych/d0")));
        let parts = |bucket: &str, prefix: &str| Some((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(split("s3://rows/a/o1/"), parts("rows", "a/o1/"));
        assert_eq!(split("s3://rows"), parts("rows", ""));
        assert_eq!(split("s3:///o1"), None);
    }
}
