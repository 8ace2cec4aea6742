//! Uploads in parts.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "an operation takes and gives several of its generated types")
)]
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::auth::namespace;
use super::buckets::{Encoding, max_keys};
use super::convert;
use super::objects::source;
use super::operations::S3Front;
use super::retention;
use super::sums::{self, named_sums, set_sums};
use crate::objects::{
    CompletePart, Completion, Condition, CopyPart, PutRequest, ReadConditions, Target, UploadsRequest, Wanted,
};

impl S3Front {
    pub(super) async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let namespace = namespace(&request)?;
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
            ..PutRequest::default()
        };
        let checksum = sums::wanted(request.input.checksum_algorithm, request.input.checksum_type)?;
        let id = self.objects.create_upload(&namespace, &put, checksum).await?;
        let (checksum_algorithm, checksum_type) = sums::words(checksum);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(put.bucket),
            key: Some(put.key),
            upload_id: Some(id.to_string()),
            checksum_algorithm,
            checksum_type,
            ..Default::default()
        }))
    }

    pub(super) async fn upload_part(
        &self,
        mut request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let namespace = namespace(&request)?;
        let length = convert::length(&request.headers, request.input.content_length)
            .or_else(|| convert::remaining(request.input.body.as_ref()));
        let body = convert::incoming(request.input.body.take());
        let announced = convert::announced(&request.headers, request.input.content_md5.as_deref())?;
        let late = convert::late_sums(request.trailing_headers.take());
        let input = request.input;
        let target = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let number = part_number(input.part_number)?;
        let stored = self.objects.put_part(&namespace, target, number, body, length, announced, late).await?;
        let sums = stored.sums;
        let e_tag = Some(ETag::Strong(hex::encode(sums.md5)));
        let mut output = UploadPartOutput { e_tag, ..Default::default() };
        set_sums!(output, |algorithm| sums::sum(&sums.others, algorithm));
        Ok(S3Response::with_headers(output, convert::receipt_headers(&stored.receipt)))
    }

    pub(super) async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let (bucket, key, version) = source(&input.copy_source)?;
        let range = match &input.copy_source_range {
            None => Wanted::All,
            Some(range) => Wanted::parse(range).ok_or_else(|| {
                S3Error::with_message(
                    S3ErrorCode::InvalidArgument,
                    "x-amz-copy-source-range must be bytes=first-last",
                )
            })?,
        };
        let copy = CopyPart {
            source: Target { bucket: &bucket, key: &key, version: version.as_ref() },
            conditions: ReadConditions {
                matches: input.copy_source_if_match.map(convert::tags_of),
                none_matches: input.copy_source_if_none_match.map(convert::tags_of),
                modified_since_ms: input.copy_source_if_modified_since.map(convert::milliseconds),
                unmodified_since_ms: input.copy_source_if_unmodified_since.map(convert::milliseconds),
            },
            range,
            target: (&input.bucket, &input.key, &input.upload_id),
            number: part_number(input.part_number)?,
        };
        let (stored, copy_source_version_id) = self.objects.copy_part(&namespace, copy).await?;
        let sums = stored.sums;
        let mut result = CopyPartResult {
            e_tag: Some(ETag::Strong(hex::encode(sums.md5))),
            last_modified: Some(convert::timestamp(stored.modified_ms)),
            ..Default::default()
        };
        set_sums!(result, |algorithm| sums::sum(&sums.others, algorithm));
        let output = UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id,
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, convert::receipt_headers(&stored.receipt)))
    }

    pub(super) async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let part = |part: CompletedPart| {
            let number = part_number(part.part_number.unwrap_or(0))?;
            let etag = part.e_tag.map(ETag::into_value);
            Ok(CompletePart { number, etag, sums: named_sums!(part) })
        };
        let size = input.mpu_object_size.map(u64::try_from).transpose();
        let size = size.map_err(|_| {
            S3Error::with_message(S3ErrorCode::InvalidArgument, "x-amz-mp-object-size is a number of bytes")
        })?;
        let completion = Completion {
            parts: named.into_iter().map(part).collect::<S3Result<Vec<_>>>()?,
            sums: named_sums!(input),
            of: sums::named_type(input.checksum_type)?,
            size,
            condition: Condition {
                matches: input.if_match.map(convert::tags_of),
                none_matches: input.if_none_match.map(convert::tags_of),
                ..Condition::default()
            },
        };
        let target = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let stored = self.objects.complete_upload(&namespace, target, completion).await?;
        let sums = &stored.sums.others;
        let mut output = CompleteMultipartUploadOutput {
            e_tag: Some(convert::etag(&stored.etag)),
            checksum_type: sums::type_of(sums),
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            version_id: stored.version_id.clone(),
            ..Default::default()
        };
        set_sums!(output, |algorithm| sums::sum(sums, algorithm));
        Ok(S3Response::with_headers(output, convert::receipt_headers(&stored.receipt)))
    }

    pub(super) async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        self.objects.abort_upload(&namespace, (&input.bucket, &input.key, &input.upload_id)).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let after = input
            .part_number_marker
            .map_or(Ok(0), |marker| u16::try_from(marker).map_err(|_| bad_number()))?;
        let max_parts = max_keys(input.max_parts)?;
        let target = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let page = self.objects.parts(&namespace, target, after, max_parts as usize).await?;
        let part = |part: &crate::objects::StoredPart| {
            let mut listed = Part {
                part_number: Some(i32::from(part.number)),
                size: i64::try_from(part.size).ok(),
                e_tag: Some(ETag::Strong(hex::encode(part.md5))),
                last_modified: Some(convert::timestamp(part.modified_ms)),
                ..Default::default()
            };
            set_sums!(listed, |algorithm| sums::sum(&part.sums, algorithm));
            listed
        };
        let (checksum_algorithm, checksum_type) = sums::words(page.checksum);
        let last = page.parts.last().map(|part| i32::from(part.number));
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: Some(max_parts),
            part_number_marker: Some(i32::from(after)),
            next_part_number_marker: last.filter(|_| page.more),
            is_truncated: Some(page.more),
            parts: Some(page.parts.iter().map(part).collect()),
            checksum_algorithm,
            checksum_type,
            ..Default::default()
        }))
    }

    pub(super) async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref());
        let max_uploads = max_keys(input.max_uploads)?;
        let list = UploadsRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            after: input
                .key_marker
                .clone()
                .filter(|key| !key.is_empty())
                .map(|key| (key, input.upload_id_marker.clone())),
            limit: max_uploads as usize,
        };
        let page = self.objects.uploads(&namespace, &input.bucket, &list).await?;
        let upload = |upload: &crate::objects::UploadSummary| {
            let (checksum_algorithm, checksum_type) = sums::words(upload.checksum);
            MultipartUpload {
                key: Some(encoding.encode(&upload.key)),
                upload_id: Some(upload.id.to_string()),
                initiated: Some(convert::timestamp(upload.started_ms)),
                checksum_algorithm,
                checksum_type,
                ..Default::default()
            }
        };
        let last = page.uploads.last().filter(|_| page.more);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            next_key_marker: last.map(|upload| encoding.encode(&upload.key)),
            next_upload_id_marker: last.map(|upload| upload.id.to_string()),
            max_uploads: Some(max_uploads),
            is_truncated: Some(page.more),
            uploads: Some(page.uploads.iter().map(upload).collect()),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }
}

fn bad_number() -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidArgument, "part numbers are 1 to 10,000")
}

fn part_number(number: i32) -> S3Result<u16> {
    u16::try_from(number).ok().filter(|number| (1..=10_000).contains(number)).ok_or_else(bad_number)
}
