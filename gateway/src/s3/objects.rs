//! Objects: stored, read, copied, deleted.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "an operation takes and gives several of its generated types")
)]
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::auth::namespace;
use super::convert::{self, Outgoing};
use super::operations::S3Front;
use super::retention;
use super::sums::{self, set_sums};
use crate::objects::{
    Condition, CopyRequest, ObjectInfo, PutRequest, ReadConditions, Target, ToDelete, VersionName, Wanted,
};

impl S3Front {
    pub(super) async fn put_object(
        &self,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let namespace = namespace(&request)?;
        let length = convert::length(&request.headers, request.input.content_length)
            .or_else(|| convert::remaining(request.input.body.as_ref()));
        let body = request.input.body.take();
        let put = PutRequest {
            bucket: request.input.bucket.clone(),
            key: request.input.key.clone(),
            headers: convert::kept_headers(&request.headers)?,
            tags: convert::tags(request.input.tagging.as_deref())?,
            retain_until: retention::of_write(
                request.input.object_lock_mode.as_ref(),
                request.input.object_lock_retain_until_date.clone(),
                request.input.object_lock_legal_hold_status.clone(),
            )?,
            announced: convert::announced(&request.headers, request.input.content_md5.as_deref())?,
            late_sums: convert::late_sums(request.trailing_headers.take()),
            condition: Condition {
                matches: request.input.if_match.take().map(convert::tags_of),
                none_matches: request.input.if_none_match.take().map(convert::tags_of),
                ..Condition::default()
            },
        };
        let stored = self.objects.put(&namespace, put, convert::incoming(body), length).await?;
        let sums = &stored.sums.others;
        let mut output = PutObjectOutput {
            e_tag: Some(convert::etag(&stored.etag)),
            checksum_type: sums::type_of(sums),
            version_id: stored.version_id.clone(),
            ..Default::default()
        };
        set_sums!(output, |algorithm| sums::sum(sums, algorithm));
        Ok(S3Response::with_headers(output, convert::receipt_headers(&stored.receipt)))
    }

    pub(super) async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let version = named(input.version_id.as_deref())?;
        let conditions = ReadConditions {
            matches: input.if_match.map(convert::tags_of),
            none_matches: input.if_none_match.map(convert::tags_of),
            modified_since_ms: input.if_modified_since.map(convert::milliseconds),
            unmodified_since_ms: input.if_unmodified_since.map(convert::milliseconds),
        };
        let wanted = convert::wanted(input.range);
        let target = Target { bucket: &input.bucket, key: &input.key, version: version.as_ref() };
        let download = self.objects.get(&namespace, target, wanted, &conditions).await?;
        let info = &download.info;
        let size = info.object.size;
        let range = &download.range;
        let kept = sums::kept(info, input.checksum_mode.as_ref(), download.partial);
        let content_range =
            download.partial.then(|| format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1)));
        let (object_lock_mode, object_lock_retain_until_date) = retention::of_object(info);
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(range.end - range.start).ok(),
            content_range,
            checksum_type: sums::type_of(&kept),
            e_tag: Some(convert::etag(&info.object.etag)),
            last_modified: Some(convert::timestamp(info.object.modified_ms)),
            metadata: convert::metadata(info),
            content_type: Some(content_type(info)),
            cache_control: Some(cache_control(info)),
            content_disposition: stored_header(info, "content-disposition"),
            content_encoding: stored_header(info, "content-encoding"),
            content_language: stored_header(info, "content-language"),
            object_lock_mode,
            object_lock_retain_until_date,
            tag_count: tag_count(info),
            version_id: info.version.clone(),
            body: Some(StreamingBlob::new(Outgoing(download.body))),
            ..Default::default()
        };
        set_sums!(output, |algorithm| sums::sum(&kept, algorithm));
        Ok(S3Response::new(output))
    }

    pub(super) async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let version = named(input.version_id.as_deref())?;
        let target = Target { bucket: &input.bucket, key: &input.key, version: version.as_ref() };
        let info = self.objects.head(&namespace, target).await?;
        let conditions = ReadConditions {
            matches: input.if_match.map(convert::tags_of),
            none_matches: input.if_none_match.map(convert::tags_of),
            modified_since_ms: input.if_modified_since.map(convert::milliseconds),
            unmodified_since_ms: input.if_unmodified_since.map(convert::milliseconds),
        };
        conditions.check(&info.etag(), info.object.modified_ms)?;
        let size = info.object.size;
        let wanted = convert::wanted(input.range);
        let range = wanted.resolve(size)?;
        let partial = wanted != Wanted::All;
        let kept = sums::kept(&info, input.checksum_mode.as_ref(), partial);
        let (object_lock_mode, object_lock_retain_until_date) = retention::of_object(&info);
        let mut output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(range.end - range.start).ok(),
            content_range: partial
                .then(|| format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))),
            checksum_type: sums::type_of(&kept),
            e_tag: Some(convert::etag(&info.object.etag)),
            last_modified: Some(convert::timestamp(info.object.modified_ms)),
            metadata: convert::metadata(&info),
            content_type: Some(content_type(&info)),
            cache_control: Some(cache_control(&info)),
            content_disposition: stored_header(&info, "content-disposition"),
            content_encoding: stored_header(&info, "content-encoding"),
            content_language: stored_header(&info, "content-language"),
            object_lock_mode,
            object_lock_retain_until_date,
            version_id: info.version.clone(),
            ..Default::default()
        };
        set_sums!(output, |algorithm| sums::sum(&kept, algorithm));
        Ok(S3Response::new(output))
    }

    pub(super) async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let version = named(input.version_id.as_deref())?;
        let condition = Condition { matches: input.if_match.map(convert::tags_of), ..Condition::default() };
        let target = Target { bucket: &input.bucket, key: &input.key, version: version.as_ref() };
        let deleted = self.objects.delete(&namespace, target, condition).await?;
        let output = DeleteObjectOutput {
            delete_marker: deleted.is_marker.then_some(true),
            version_id: deleted.version,
            request_charged: None,
        };
        let headers = deleted.receipt.as_ref().map(convert::receipt_headers);
        Ok(S3Response::with_headers(output, headers.unwrap_or_default()))
    }

    pub(super) async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let namespace = namespace(&request)?;
        let Delete { objects, quiet } = request.input.delete;
        if objects.len() > 1000 {
            return Err(S3Error::with_message(S3ErrorCode::MalformedXML, "1,000 keys a request are allowed"));
        }
        let all: Vec<ToDelete> = objects
            .into_iter()
            .map(|object| ToDelete { key: object.key, version: object.version_id })
            .collect();
        let results = self.objects.delete_many(&namespace, &request.input.bucket, &all).await?;
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        for (ToDelete { key, version }, result) in all.into_iter().zip(results) {
            match result {
                Ok(_) if quiet.unwrap_or(false) => {}
                Ok(done) => deleted.push(DeletedObject {
                    key: Some(key),
                    delete_marker: done.is_marker.then_some(true),
                    delete_marker_version_id: done.version.filter(|_| done.is_marker),
                    version_id: version,
                }),
                Err(error) => errors.push(Error {
                    key: Some(key),
                    code: Some(error.code().to_owned()),
                    message: Some(error.to_string()),
                    version_id: version,
                }),
            }
        }
        let errors = (!errors.is_empty()).then_some(errors);
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), errors, request_charged: None }))
    }

    pub(super) async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let namespace = namespace(&request)?;
        let headers = convert::kept_headers(&request.headers)?;
        let input = request.input;
        let (source_bucket, source_key, source_version) = source(&input.copy_source)?;
        let replaced = |directive: Option<&str>| directive == Some("REPLACE");
        let copy = CopyRequest {
            source_bucket,
            source_key,
            source_version,
            source_conditions: ReadConditions {
                matches: input.copy_source_if_match.map(convert::tags_of),
                none_matches: input.copy_source_if_none_match.map(convert::tags_of),
                modified_since_ms: input.copy_source_if_modified_since.map(convert::milliseconds),
                unmodified_since_ms: input.copy_source_if_unmodified_since.map(convert::milliseconds),
            },
            target: PutRequest {
                bucket: input.bucket,
                key: input.key,
                headers,
                tags: convert::tags(input.tagging.as_deref())?,
                retain_until: retention::of_write(
                    input.object_lock_mode.as_ref(),
                    input.object_lock_retain_until_date,
                    input.object_lock_legal_hold_status,
                )?,
                ..PutRequest::default()
            },
            keep_headers: !replaced(input.metadata_directive.as_ref().map(MetadataDirective::as_str)),
            keep_tags: !replaced(input.tagging_directive.as_ref().map(TaggingDirective::as_str)),
        };
        let (stored, copy_source_version_id) = self.objects.copy(&namespace, copy).await?;
        let result = CopyObjectResult {
            e_tag: Some(convert::etag(&stored.etag)),
            last_modified: Some(convert::timestamp(stored.modified_ms)),
            ..Default::default()
        };
        let output = CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id,
            version_id: stored.version_id.clone(),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, convert::receipt_headers(&stored.receipt)))
    }
}

fn stored_header<T: std::str::FromStr>(info: &ObjectInfo, name: &str) -> Option<T> {
    info.header(name)?.parse().ok()
}

/// What is behind a signature is for who signed: without a word the edge would keep it for all, by the key's extension.
fn cache_control(info: &ObjectInfo) -> CacheControl {
    info.header("cache-control").unwrap_or("private").to_owned()
}

/// S3's word for bytes of no known type.
fn content_type(info: &ObjectInfo) -> ContentType {
    info.header("content-type").unwrap_or("binary/octet-stream").to_owned()
}

fn tag_count(info: &ObjectInfo) -> Option<i32> {
    let count = info.object.tags.len();
    (count > 0).then(|| i32::try_from(count).unwrap_or(i32::MAX))
}

/// The version that a request names.
pub(super) fn named(version: Option<&str>) -> S3Result<Option<VersionName>> {
    Ok(version.map(str::parse).transpose()?)
}

/// Bucket, key and version of a copy's source.
pub(super) fn source(source: &CopySource) -> S3Result<(String, String, Option<VersionName>)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            Ok((bucket.to_string(), key.to_string(), named(version_id.as_deref())?))
        }
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            let message = "only an object of a bucket can be copied";
            Err(S3Error::with_message(S3ErrorCode::NotImplemented, message))
        }
    }
}
