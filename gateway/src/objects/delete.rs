//! Deletes: a tombstone becomes head and stays until both sites have it. Where the bucket keeps versions it is a marker, which is a
//! version itself and stays until it is deleted by name.

use diptych_core::ids::VersionId;
use diptych_core::lease::SubLease;
use diptych_core::records::{Bucket, Head, HeadBody, Record, Versioning};
use futures::future::join_all;
use rand::Rng;

use super::acknowledge::{Acknowledged, Committed, WrittenVersion, acknowledge, receipt_of_delete};
use super::types::{Receipt, check_key};
use super::versions::{VersionName, version_id};
use super::{Condition, Objects, Target};
use crate::authority::{may_write, still_may_answer};
use crate::commit::{CommittedHead, HeadChange, commit_heads};
use crate::error::Result;

/// Versions of one request that are deleted at one time, each by a commit of its own.
const VERSIONS_AT_ONCE: usize = 16;

/// What a delete found, and what it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// There was an object.
    pub existed: bool,
    /// What was deleted by name, or else was written, is a delete marker.
    pub is_marker: bool,
    /// Id of the version that was deleted by name, or of the marker that was written; None where the bucket has no versions.
    pub version: Option<String>,
    /// In which sites it is done; None: there was nothing to do.
    pub receipt: Option<Receipt>,
}

/// One of many objects, or versions, that are to be deleted.
#[derive(Debug, Clone)]
pub struct ToDelete {
    /// The object's key.
    pub key: String,
    /// Which version, as the client names it; None: the object.
    pub version: Option<String>,
}

impl Objects {
    /// Deletes an object, or one version of it for good. Where there is none nothing is written, but for a marker in a bucket that keeps
    /// versions.
    pub async fn delete(&self, namespace: &str, target: Target<'_>, condition: Condition) -> Result<Deleted> {
        let lease = may_write(self.context.authority())?;
        let found = self.bucket(namespace, target.bucket).await?;
        if let Some(version) = target.version
            && (found.versioning != Versioning::Off || *version != VersionName::Null)
        {
            return self.discard(&lease, (target.bucket, &found), target.key, version, &condition).await;
        }
        let keys = [(target.key.to_owned(), condition)];
        let mut results = self.delete_from(&lease, target.bucket, &found, &keys).await;
        results.pop().unwrap_or_else(|| Ok(Deleted::default()))
    }

    /// Deletes many objects or versions of a bucket; each is answered by itself, in order.
    pub async fn delete_many(
        &self,
        namespace: &str,
        bucket: &str,
        all: &[ToDelete],
    ) -> Result<Vec<Result<Deleted>>> {
        let lease = may_write(self.context.authority())?;
        let found = self.bucket(namespace, bucket).await?;
        let mut results: Vec<Option<Result<Deleted>>> = all.iter().map(|_| None).collect();
        let (named, plain): (Vec<_>, Vec<_>) =
            all.iter().enumerate().partition(|(_, object)| object.version.is_some());
        for some in plain.chunks(crate::commit::MAX_CHANGES / 2) {
            let keys: Vec<_> =
                some.iter().map(|(_, object)| (object.key.clone(), Condition::default())).collect();
            let deleted = self.delete_from(&lease, bucket, &found, &keys).await;
            for ((index, _), result) in some.iter().zip(deleted) {
                results[*index] = Some(result);
            }
        }
        for some in named.chunks(VERSIONS_AT_ONCE) {
            let deleting = some.iter().map(|(_, object)| self.delete_named(namespace, bucket, object));
            for ((index, _), result) in some.iter().zip(join_all(deleting).await) {
                results[*index] = Some(result);
            }
        }
        Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Ok(Deleted::default()))).collect())
    }

    async fn delete_named(&self, namespace: &str, bucket: &str, object: &ToDelete) -> Result<Deleted> {
        let version: Option<VersionName> = object.version.as_deref().map(str::parse).transpose()?;
        let target = Target { bucket, key: &object.key, version: version.as_ref() };
        self.delete(namespace, target, Condition::default()).await
    }

    async fn delete_from(
        &self,
        lease: &SubLease,
        name: &str,
        bucket: &Bucket,
        keys: &[(String, Condition)],
    ) -> Vec<Result<Deleted>> {
        let mut results: Vec<Option<Result<Deleted>>> = keys.iter().map(|_| None).collect();
        let mut changes = Vec::new();
        let mut indices = Vec::new();
        for (index, (key, condition)) in keys.iter().enumerate() {
            match self.is_there(bucket, name, key, condition).await {
                Ok(false) if bucket.versioning == Versioning::Off => {
                    let answer = still_may_answer(self.context.authority(), lease.epoch);
                    results[index] = Some(answer.map(|()| Deleted::default()));
                }
                Ok(existed) => {
                    indices.push((index, existed));
                    changes.push(tombstone(name, bucket, key, condition));
                }
                Err(error) => results[index] = Some(Err(error)),
            }
        }
        let committed = commit_heads(&self.context, lease, &changes, None).await;
        let acknowledged = self.acknowledge_deletes(lease, bucket, &changes, &committed).await;
        for ((index, existed), result) in indices.into_iter().zip(committed) {
            let deleted = result.and_then(|done| {
                let receipt = receipt_of_delete(&self.context, done.at.epoch, acknowledged.clone()?);
                Ok(Deleted {
                    existed,
                    is_marker: bucket.versioning != Versioning::Off,
                    version: version_id(bucket.versioning, bucket.versioning.of_new(), done.at),
                    receipt: Some(receipt),
                })
            });
            results[index] = Some(deleted);
        }
        results.into_iter().map(|result| result.unwrap_or_else(|| Ok(Deleted::default()))).collect()
    }

    /// All that were committed are waited for together.
    async fn acknowledge_deletes(
        &self,
        lease: &SubLease,
        bucket: &Bucket,
        changes: &[HeadChange],
        committed: &[Result<CommittedHead>],
    ) -> Result<Acknowledged> {
        let done = changes
            .iter()
            .zip(committed)
            .filter_map(|(change, result)| Some((change, result.as_ref().ok()?)));
        let Some(position) = done.clone().map(|(_, head)| head.position).max() else {
            return Ok(Acknowledged::OneSite);
        };
        let deleted: Vec<WrittenVersion> = done
            .map(|(change, head)| WrittenVersion { bucket: bucket.id, key: change.key.clone(), at: head.at })
            .collect();
        let committed = Committed { promise: bucket.promise, position, extents: &[] };
        acknowledge(&self.context, lease, committed, &deleted).await
    }

    async fn is_there(&self, bucket: &Bucket, name: &str, key: &str, condition: &Condition) -> Result<bool> {
        check_key(key)?;
        let view = self.context.catalog().view().await?;
        let raw = view.get(&diptych_core::keys::head(bucket.id, key.as_bytes()))?;
        let head = raw.as_deref().map(Head::decode).transpose()?;
        condition.check(name, key, head.as_ref())?;
        Ok(matches!(head.map(|head| head.body), Some(HeadBody::Object(_))))
    }
}

fn tombstone(name: &str, bucket: &Bucket, key: &str, condition: &Condition) -> HeadChange {
    let body = match bucket.versioning {
        Versioning::Off => HeadBody::Tombstone,
        Versioning::Enabled | Versioning::Suspended => HeadBody::Marker,
    };
    HeadChange {
        bucket_name: name.to_owned(),
        bucket: bucket.id,
        versioning: bucket.versioning,
        key: key.to_owned(),
        version: VersionId(rand::rng().random()),
        body,
        retain_until: None,
        condition: condition.clone(),
        guards: Vec::new(),
        writes: Vec::new(),
    }
}
