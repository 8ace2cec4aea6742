//! Tags, and headers replaced without the bytes: the same blobs under a new version.

use diptych_core::keys;
use diptych_core::records::{Head, HeadBody, Record};

use super::{ObjectInfo, Objects};
use crate::error::{GatewayError, Result};

impl Objects {
    /// An object as it is described now.
    pub async fn head(&self, namespace: &str, bucket: &str, key: &str) -> Result<ObjectInfo> {
        self.newest(namespace, bucket, key).await.map(|(info, _)| info)
    }
}

/// The object that is head of a key.
pub(crate) fn describe(
    view: &dyn diptych_catalog::View,
    bucket_name: &str,
    bucket: diptych_core::ids::BucketId,
    key: &str,
) -> Result<ObjectInfo> {
    let missing = || GatewayError::NoSuchKey { bucket: bucket_name.to_owned(), key: key.to_owned() };
    let raw = view.get(&keys::head(bucket, key.as_bytes()))?.ok_or_else(missing)?;
    let head = Head::decode(&raw)?;
    match head.body {
        HeadBody::Object(object) => Ok(ObjectInfo { key: key.to_owned(), at: head.at, object: *object }),
        HeadBody::Marker | HeadBody::Tombstone => Err(missing()),
    }
}
