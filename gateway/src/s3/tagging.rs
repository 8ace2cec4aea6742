//! Tags of an object.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "an operation takes and gives several of its generated types")
)]
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::auth::namespace;
use super::objects::named;
use super::operations::S3Front;
use crate::objects::Target;

impl S3Front {
    pub(super) async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let version = named(input.version_id.as_deref())?;
        let target = Target { bucket: &input.bucket, key: &input.key, version: version.as_ref() };
        let info = self.objects.head(&namespace, target).await?;
        let tag = |(key, value): (String, String)| Tag { key: Some(key), value: Some(value) };
        let tag_set = info.object.tags.into_iter().map(tag).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: info.version }))
    }

    pub(super) async fn put_object_tagging(
        &self,
        request: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let version = named(input.version_id.as_deref())?;
        let target = Target { bucket: &input.bucket, key: &input.key, version: version.as_ref() };
        let tag = |tag: Tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default());
        let tags: Vec<_> = input.tagging.tag_set.into_iter().map(tag).collect();
        let version_id = self.objects.set_tags(&namespace, target, &tags).await?;
        Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
    }

    pub(super) async fn delete_object_tagging(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let version = named(input.version_id.as_deref())?;
        let target = Target { bucket: &input.bucket, key: &input.key, version: version.as_ref() };
        let version_id = self.objects.set_tags(&namespace, target, &[]).await?;
        Ok(S3Response::new(DeleteObjectTaggingOutput { version_id }))
    }
}
