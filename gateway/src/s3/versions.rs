//! Versioning of a bucket, and the versions in it.

use diptych_core::records::{HeadBody, Versioning};
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "an operation takes and gives several of its generated types")
)]
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::auth::namespace;
use super::buckets::{Encoding, max_keys};
use super::convert;
use super::objects::named;
use super::operations::S3Front;
use crate::objects::{ListedVersion, VersionName, VersionsRequest};

const STANDARD: &str = ObjectVersionStorageClass::STANDARD;

impl S3Front {
    pub(super) async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let bucket = self.objects.bucket(&namespace(&request)?, &request.input.bucket).await?;
        let status = match bucket.versioning {
            Versioning::Off => None,
            Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
            Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
        };
        let status = status.map(BucketVersioningStatus::from_static);
        Ok(S3Response::new(GetBucketVersioningOutput { status, mfa_delete: None }))
    }

    pub(super) async fn put_bucket_versioning(
        &self,
        request: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let namespace = namespace(&request)?;
        let VersioningConfiguration { status, mfa_delete } = request.input.versioning_configuration;
        if mfa_delete.is_some_and(|wanted| wanted.as_str() == MFADelete::ENABLED) {
            let message = "deletes that need a second factor are not supported: leave MfaDelete out";
            return Err(S3Error::with_message(S3ErrorCode::NotImplemented, message));
        }
        let versioning = match status.as_ref().map(BucketVersioningStatus::as_str) {
            Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
            Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
            Some(_) | None => {
                let message = "Status must be Enabled or Suspended";
                return Err(S3Error::with_message(
                    S3ErrorCode::IllegalVersioningConfigurationException,
                    message,
                ));
            }
        };
        self.objects.set_versioning(&namespace, &request.input.bucket, versioning).await?;
        Ok(S3Response::new(PutBucketVersioningOutput {}))
    }

    pub(super) async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref());
        let max_keys = max_keys(input.max_keys)?;
        let list = VersionsRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            after: marker(input.key_marker.as_deref(), input.version_id_marker.as_deref())?,
            limit: max_keys as usize,
        };
        let listing = self.objects.list_versions(&namespace, &input.bucket, &list).await?;
        let (mut versions, mut delete_markers, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for entry in listing.entries {
            match entry {
                ListedVersion::Group(name) => {
                    groups.push(CommonPrefix { prefix: Some(encoding.encode(&name)) });
                }
                ListedVersion::Version { key, id, is_latest, head } => {
                    let (key, head) = (Some(encoding.encode(&key)), *head);
                    let (version_id, is_latest) = (Some(id), Some(is_latest));
                    match head.body {
                        HeadBody::Object(object) => versions.push(ObjectVersion {
                            key,
                            version_id,
                            is_latest,
                            size: i64::try_from(object.size).ok(),
                            e_tag: Some(convert::etag(&object.etag)),
                            last_modified: Some(convert::timestamp(object.modified_ms)),
                            storage_class: Some(ObjectVersionStorageClass::from_static(STANDARD)),
                            ..Default::default()
                        }),
                        HeadBody::Marker | HeadBody::Tombstone => delete_markers.push(DeleteMarkerEntry {
                            key,
                            version_id,
                            is_latest,
                            last_modified: Some(convert::timestamp(head.at.hlc.milliseconds())),
                            ..Default::default()
                        }),
                    }
                }
            }
        }
        let (next_key_marker, next_version_id_marker) = listing.next.unzip();
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: input.prefix.map(|text| encoding.encode(&text)),
            delimiter: input.delimiter.map(|text| encoding.encode(&text)),
            key_marker: Some(encoding.encode(&input.key_marker.unwrap_or_default())),
            version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
            max_keys: Some(max_keys),
            is_truncated: Some(next_key_marker.is_some()),
            next_key_marker: next_key_marker.map(|key| encoding.encode(&key)),
            next_version_id_marker: next_version_id_marker.flatten(),
            versions: Some(versions),
            delete_markers: Some(delete_markers),
            common_prefixes: Some(groups),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }
}

/// Where a page begins: behind this key, or behind this version of it.
fn marker(key: Option<&str>, version: Option<&str>) -> S3Result<Option<(String, Option<VersionName>)>> {
    let key = key.filter(|key| !key.is_empty());
    let version = version.filter(|version| !version.is_empty());
    match (key, version) {
        (None, None) => Ok(None),
        (Some(key), version) => Ok(Some((key.to_owned(), named(version)?))),
        (None, Some(_)) => {
            let message = "version-id-marker needs key-marker beside it";
            Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message))
        }
    }
}
