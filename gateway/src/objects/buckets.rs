//! Buckets. A bucket belongs to the namespace that created it; for others it does not exist.

use std::ops::RangeInclusive;

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, View, Write};
use diptych_core::ids::BucketId;
use diptych_core::keys::{self, KeyRange};
use diptych_core::records::{Bucket, Head, HeadBody, OnTimeout, Promise, Record, Versioning};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Objects, confirm};
use crate::authority::may_write;
use crate::commit::{ROUNDS, commit_plain};
use crate::error::{GatewayError, Result};

/// Milliseconds that a bucket may have its writes wait. A shorter time is less than a way to the other site and back may take, with a
/// longer one clients have given up.
const TIMEOUT_MS: RangeInclusive<u64> = 100..=60_000;

/// A bucket, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketDocument {
    /// Its name.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// `Off`, `Enabled`, `Suspended`.
    pub versioning: Versioning,
    /// Where both sites acknowledge: milliseconds that a write waits for the other one. None: as long as the cluster declares.
    pub acknowledge_timeout_ms: Option<u32>,
    /// And what becomes of it then: `Refuse`, `Downgrade`.
    pub on_timeout: OnTimeout,
}

impl BucketDocument {
    /// Of the bucket of this name.
    pub fn of(name: String, bucket: &Bucket) -> Self {
        let Bucket { id: _, namespace: _, created_ms, versioning, promise } = bucket;
        let Promise { timeout_ms, on_timeout } = *promise;
        Self {
            name,
            created_ms: *created_ms,
            versioning: *versioning,
            acknowledge_timeout_ms: timeout_ms,
            on_timeout,
        }
    }
}

/// What is to be another promise to a bucket's writers; what is left out stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromiseChange {
    /// How long a write is to wait for the other site.
    #[serde(default, skip_serializing_if = "WantedTimeout::is_left_out")]
    pub acknowledge_timeout_ms: WantedTimeout,
    /// What becomes of a write whose time is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnTimeout>,
}

/// A time-out that is to be; in JSON a number, `null` or nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<u64>", into = "Option<u64>")]
pub enum WantedTimeout {
    /// As it is.
    #[default]
    LeftOut,
    /// As the cluster declares.
    OfCluster,
    /// Milliseconds.
    Own(u64),
}

impl WantedTimeout {
    fn is_left_out(&self) -> bool {
        *self == Self::LeftOut
    }

    /// The time-out in place of `before`.
    fn over(self, before: Option<u32>) -> Result<Option<u32>> {
        match self {
            Self::LeftOut => Ok(before),
            Self::OfCluster => Ok(None),
            Self::Own(milliseconds) => checked_timeout(milliseconds).map(Some),
        }
    }
}

impl From<Option<u64>> for WantedTimeout {
    fn from(said: Option<u64>) -> Self {
        said.map_or(Self::OfCluster, Self::Own)
    }
}

impl From<WantedTimeout> for Option<u64> {
    fn from(wanted: WantedTimeout) -> Self {
        match wanted {
            WantedTimeout::LeftOut | WantedTimeout::OfCluster => None,
            WantedTimeout::Own(milliseconds) => Some(milliseconds),
        }
    }
}

fn checked_timeout(milliseconds: u64) -> Result<u32> {
    let (least, most) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
    match u32::try_from(milliseconds) {
        Ok(fine) if TIMEOUT_MS.contains(&milliseconds) => Ok(fine),
        _ => Err(GatewayError::InvalidArgument(format!(
            "acknowledge_timeout_ms is {milliseconds}: {least} to {most} are allowed, or null for what the cluster declares"
        ))),
    }
}

impl Objects {
    /// The bucket, if it is the namespace's.
    pub async fn bucket(&self, namespace: &str, name: &str) -> Result<Bucket> {
        let view = self.context.view_for_client().await?;
        find(view.as_ref(), namespace, name)
    }

    /// Creates a bucket.
    pub async fn create_bucket(&self, namespace: &str, name: &str) -> Result<Bucket> {
        check_name(name)?;
        let lease = may_write(self.context.authority())?;
        let bucket = Bucket {
            id: BucketId(rand::rng().random()),
            namespace: namespace.to_owned(),
            created_ms: self.context.clock().now_ms(),
            versioning: Versioning::Off,
            promise: Promise::default(),
        };
        let key = keys::bucket(name);
        let value = Bytes::from(bucket.encode());
        let change = Change {
            guards: vec![Guard { key: key.clone(), expect: Expect::Absent }],
            writes: vec![Write::Put(key.clone(), value.clone())],
        };
        let landed = |view: &dyn View| Ok(view.get(&key)?.as_ref() == Some(&value));
        if commit_plain(&self.context, &lease, change, landed).await? {
            return Ok(bucket);
        }
        match self.bucket(namespace, name).await {
            Ok(_) => Err(GatewayError::BucketExists(name.to_owned())),
            Err(GatewayError::NoSuchBucket(_)) => Err(GatewayError::BucketTaken(name.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// The bucket, made where it is missing.
    pub async fn bucket_or_create(&self, namespace: &str, name: &str) -> Result<Bucket> {
        match self.bucket(namespace, name).await {
            Err(GatewayError::NoSuchBucket(_)) => match self.create_bucket(namespace, name).await {
                Err(GatewayError::BucketExists(_)) => self.bucket(namespace, name).await,
                other => other,
            },
            other => other,
        }
    }

    /// Deletes an empty bucket.
    pub async fn delete_bucket(&self, namespace: &str, name: &str) -> Result<()> {
        let lease = may_write(self.context.authority())?;
        let key = keys::bucket(name);
        let view = self.context.catalog().view().await?;
        let bucket = find(view.as_ref(), namespace, name)?;
        let Some(value) = view.get(&key)? else { return Err(GatewayError::NoSuchBucket(name.to_owned())) };
        if !is_empty(view.as_ref(), &bucket)? {
            return Err(GatewayError::BucketNotEmpty(name.to_owned()));
        }
        drop(view);
        let change = Change {
            guards: vec![Guard { key: key.clone(), expect: Expect::Value(value) }],
            writes: vec![Write::Delete(key.clone())],
        };
        let landed = |view: &dyn View| Ok(view.get(&key)?.is_none());
        if commit_plain(&self.context, &lease, change, landed).await? {
            return Ok(());
        }
        Err(GatewayError::Busy("the bucket was changed meanwhile"))
    }

    /// From now on versions are kept, or no more of them.
    pub async fn set_versioning(&self, namespace: &str, name: &str, versioning: Versioning) -> Result<()> {
        let set = |bucket: &mut Bucket| {
            bucket.versioning = versioning;
            Ok(())
        };
        let bucket = self.change_bucket(namespace, name, set).await?;
        confirm(&self.context, bucket.promise, self.context.catalog().position().await?).await
    }

    /// From now on this is what writers are promised; what is under way has the promise that it began with.
    pub async fn set_promise(&self, namespace: &str, name: &str, change: &PromiseChange) -> Result<Bucket> {
        let set = |bucket: &mut Bucket| {
            let Promise { timeout_ms, on_timeout } = bucket.promise;
            bucket.promise = Promise {
                timeout_ms: change.acknowledge_timeout_ms.over(timeout_ms)?,
                on_timeout: change.on_timeout.unwrap_or(on_timeout),
            };
            Ok(())
        };
        let bucket = self.change_bucket(namespace, name, set).await?;
        // Who has writes downgraded does so since the other site is away, or may be.
        if bucket.promise.on_timeout == OnTimeout::Refuse {
            confirm(&self.context, bucket.promise, self.context.catalog().position().await?).await?;
        }
        Ok(bucket)
    }

    /// The bucket as it is now.
    async fn change_bucket(
        &self,
        namespace: &str,
        name: &str,
        set: impl Fn(&mut Bucket) -> Result<()>,
    ) -> Result<Bucket> {
        let lease = may_write(self.context.authority())?;
        let key = keys::bucket(name);
        for _ in 0..ROUNDS {
            let view = self.context.catalog().view().await?;
            let mut bucket = find(view.as_ref(), namespace, name)?;
            let Some(before) = view.get(&key)? else {
                return Err(GatewayError::NoSuchBucket(name.to_owned()));
            };
            drop(view);
            set(&mut bucket)?;
            let value = Bytes::from(bucket.encode());
            let change = Change {
                guards: vec![Guard { key: key.clone(), expect: Expect::Value(before) }],
                writes: vec![Write::Put(key.clone(), value.clone())],
            };
            let landed = |view: &dyn View| Ok(view.get(&key)?.as_ref() == Some(&value));
            if commit_plain(&self.context, &lease, change, landed).await? {
                return Ok(bucket);
            }
        }
        Err(GatewayError::Busy("others keep changing the bucket"))
    }

    /// The namespace's buckets, by name.
    pub async fn buckets(&self, namespace: &str) -> Result<Vec<(String, Bucket)>> {
        let view = self.context.view_for_client().await?;
        let mut found = Vec::new();
        let mut range = keys::buckets();
        loop {
            let page = view.scan(&range, 1000)?;
            for (key, value) in &page.entries {
                let bucket = Bucket::decode(value)?;
                if let Some(name) = keys::bucket_name(key)
                    && bucket.namespace == namespace
                {
                    found.push((name.to_owned(), bucket));
                }
            }
            match page.next {
                Some(next) => range.start = next,
                None => return Ok(found),
            }
        }
    }
}

pub(crate) fn find(view: &dyn View, namespace: &str, name: &str) -> Result<Bucket> {
    let missing = || GatewayError::NoSuchBucket(name.to_owned());
    let bucket = Bucket::decode(&view.get(&keys::bucket(name))?.ok_or_else(missing)?)?;
    if bucket.namespace == namespace { Ok(bucket) } else { Err(missing()) }
}

/// No object, no version that is kept for readers, no delete marker, no conflict version and no upload; tombstones and what waits to be
/// confirmed do not count.
fn is_empty(view: &dyn View, bucket: &Bucket) -> Result<bool> {
    for kept in [keys::uploads(bucket.id, b""), keys::conflicts_of_bucket(bucket.id)] {
        if !view.scan(&kept, 1)?.entries.is_empty() {
            return Ok(false);
        }
    }
    let heads = keys::heads(bucket.id, b"");
    Ok(none_counts(view, heads, |head| head.body != HeadBody::Tombstone)?
        && none_counts(view, keys::all_older_versions(bucket.id, b""), Head::is_kept)?)
}

/// Whether of the versions in a range none counts.
fn none_counts(view: &dyn View, mut range: KeyRange, counts: fn(&Head) -> bool) -> Result<bool> {
    loop {
        let page = view.scan(&range, 1000)?;
        for (_, value) in &page.entries {
            if counts(&Head::decode(value)?) {
                return Ok(false);
            }
        }
        match page.next {
            Some(next) => range.start = next,
            None => return Ok(true),
        }
    }
}

/// S3's rules for names of buckets.
fn check_name(name: &str) -> Result<()> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let ends =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    let fine = (3..=63).contains(&bytes.len())
        && bytes.iter().copied().all(allowed)
        && ends(bytes.first())
        && ends(bytes.last())
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err();
    if fine {
        return Ok(());
    }
    Err(GatewayError::InvalidArgument(format!(
        "{name:?} is not a name of a bucket: 3 to 63 of a-z, 0-9, '.' and '-', a letter or digit at both ends"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_s3() {
        for good in ["files", "my.bucket-2", "abc"] {
            check_name(good).expect("a name");
        }
        for bad in ["ab", "Files", "a_b", "-abc", "abc.", "a..b", "192.168.1.1", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
