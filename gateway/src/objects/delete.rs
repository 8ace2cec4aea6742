//! Deletes: a tombstone becomes head (a marker where the bucket keeps versions), and stays until both sites have it.

use diptych_core::ids::VersionId;
use diptych_core::lease::SubLease;
use diptych_core::records::{Bucket, Head, HeadBody, Record};
use rand::Rng;

use super::types::check_key;
use super::{Condition, Objects, confirm};
use crate::authority::{may_write, still_may_answer};
use crate::commit::{HeadChange, commit_heads};
use crate::error::Result;

/// What a delete found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// There was an object.
    pub existed: bool,
}

impl Objects {
    /// Deletes an object. Where there is none nothing is written.
    pub async fn delete(
        &self,
        namespace: &str,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<Deleted> {
        let lease = may_write(self.context.authority())?;
        let found = self.bucket(namespace, bucket).await?;
        let keys = [(key.to_owned(), condition)];
        let mut results = self.delete_from(&lease, bucket, &found, &keys).await;
        results.pop().unwrap_or(Ok(Deleted { existed: false }))
    }

    /// Deletes many objects of a bucket; each is answered by itself, in order.
    pub async fn delete_many(
        &self,
        namespace: &str,
        bucket: &str,
        keys: &[String],
    ) -> Result<Vec<Result<Deleted>>> {
        let lease = may_write(self.context.authority())?;
        let found = self.bucket(namespace, bucket).await?;
        let mut results = Vec::with_capacity(keys.len());
        for some in keys.chunks(crate::commit::MAX_CHANGES / 2) {
            let some: Vec<_> = some.iter().map(|key| (key.clone(), Condition::default())).collect();
            results.extend(self.delete_from(&lease, bucket, &found, &some).await);
        }
        Ok(results)
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
                Ok(false) => {
                    let answer = still_may_answer(self.context.authority(), lease.epoch);
                    results[index] = Some(answer.map(|()| Deleted { existed: false }));
                }
                Ok(true) => {
                    indices.push(index);
                    changes.push(tombstone(name, bucket, key, condition));
                }
                Err(error) => results[index] = Some(Err(error)),
            }
        }
        let committed = commit_heads(&self.context, lease, &changes, None).await;
        let outcome = match committed.iter().flatten().map(|head| head.position).max() {
            Some(position) => confirm(&self.context, position, &[]).await,
            None => Ok(()),
        };
        for (index, result) in indices.into_iter().zip(committed) {
            results[index] = Some(result.and_then(|_| outcome.clone()).map(|()| Deleted { existed: true }));
        }
        results.into_iter().map(|result| result.unwrap_or(Ok(Deleted { existed: false }))).collect()
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
    HeadChange {
        bucket_name: name.to_owned(),
        bucket: bucket.id,
        versioning: bucket.versioning,
        key: key.to_owned(),
        version: VersionId(rand::rng().random()),
        body: if bucket.versioning { HeadBody::Marker } else { HeadBody::Tombstone },
        condition: condition.clone(),
        guards: Vec::new(),
        writes: Vec::new(),
    }
}
