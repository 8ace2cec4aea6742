//! Buckets and their lists.

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "an operation takes and gives several of its generated types")
)]
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::auth::namespace;
use super::convert;
use super::operations::S3Front;
use crate::objects::{ListRequest, Listed, Listing};

/// Most entries of a page.
const PAGE: i32 = 1000;

impl S3Front {
    pub(super) async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let namespace = namespace(&request)?;
        let prefix = request.input.prefix.clone().unwrap_or_default();
        let found = self.objects.buckets(&namespace).await?;
        let bucket = |(name, bucket): (String, diptych_core::records::Bucket)| Bucket {
            name: Some(name),
            creation_date: Some(convert::timestamp(bucket.created_ms)),
            ..Default::default()
        };
        let buckets = found.into_iter().filter(|(name, _)| name.starts_with(&prefix)).map(bucket).collect();
        let owner = Owner { display_name: Some(namespace.clone()), id: Some(namespace) };
        let prefix = request.input.prefix;
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            continuation_token: None,
            owner: Some(owner),
            prefix,
        }))
    }

    pub(super) async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let namespace = namespace(&request)?;
        self.objects.create_bucket(&namespace, &request.input.bucket).await?;
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", request.input.bucket)) }))
    }

    pub(super) async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.objects.bucket(&namespace(&request)?, &request.input.bucket).await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    pub(super) async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.objects.delete_bucket(&namespace(&request)?, &request.input.bucket).await?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    pub(super) async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.objects.bucket(&namespace(&request)?, &request.input.bucket).await?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    pub(super) async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref());
        let max_keys = max_keys(input.max_keys)?;
        let list = ListRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            after: input.marker.clone(),
            limit: max_keys as usize,
        };
        let listing = self.objects.list(&namespace, &input.bucket, &list).await?;
        let is_truncated = Some(listing.next.is_some());
        let next_marker = listing.next.as_deref().map(|next| encoding.encode(next));
        let (contents, common_prefixes) = encoding.entries(listing, None);
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix.map(|text| encoding.encode(&text)),
            marker: Some(encoding.encode(&input.marker.unwrap_or_default())),
            max_keys: Some(max_keys),
            is_truncated,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            delimiter: input.delimiter.map(|text| encoding.encode(&text)),
            next_marker,
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    pub(super) async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref());
        let max_keys = max_keys(input.max_keys)?;
        let after = match &input.continuation_token {
            Some(token) => Some(read_token(token)?),
            None => input.start_after.clone(),
        };
        let list = ListRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            after,
            limit: max_keys as usize,
        };
        let listing = self.objects.list(&namespace, &input.bucket, &list).await?;
        let key_count = i32::try_from(listing.entries.len()).ok();
        let next = listing.next.as_deref().map(hex::encode);
        let owner = input.fetch_owner.unwrap_or(false).then(|| namespace.clone());
        let (contents, common_prefixes) = encoding.entries(listing, owner.as_deref());
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix.map(|text| encoding.encode(&text)),
            max_keys: Some(max_keys),
            key_count,
            continuation_token: input.continuation_token,
            is_truncated: Some(next.is_some()),
            next_continuation_token: next,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            delimiter: input.delimiter.map(|text| encoding.encode(&text)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|text| encoding.encode(&text)),
            ..Default::default()
        }))
    }
}

pub(super) fn max_keys(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        None => Ok(PAGE),
        Some(count) if count >= 0 => Ok(count.min(PAGE)),
        Some(_) => Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "max-keys is negative")),
    }
}

/// A token is the last key, in hexadecimal: any key fits in XML and in a query then.
fn read_token(token: &str) -> S3Result<String> {
    let key = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| {
        S3Error::with_message(S3ErrorCode::InvalidArgument, "the continuation token is not one of ours")
    })
}

/// How keys are written in answers.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    url: bool,
}

/// What stays as it is in `encoding-type=url`.
const PLAIN: percent_encoding::AsciiSet =
    percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

impl Encoding {
    pub(super) fn of(asked: Option<&EncodingType>) -> Self {
        Self { url: asked.is_some_and(|kind| kind.as_str() == EncodingType::URL) }
    }

    pub(super) fn encode(self, text: &str) -> String {
        if self.url {
            percent_encoding::utf8_percent_encode(text, &PLAIN).to_string()
        } else {
            text.to_owned()
        }
    }

    fn entries(self, listing: Listing, owner: Option<&str>) -> (ObjectList, CommonPrefixList) {
        let mut objects = Vec::new();
        let mut groups = Vec::new();
        for entry in listing.entries {
            match entry {
                Listed::Group(name) => groups.push(CommonPrefix { prefix: Some(self.encode(&name)) }),
                Listed::Object(info) => objects.push(Object {
                    key: Some(self.encode(&info.key)),
                    size: i64::try_from(info.object.size).ok(),
                    e_tag: Some(convert::etag(&info.object.etag)),
                    last_modified: Some(convert::timestamp(info.object.modified_ms)),
                    storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                    owner: owner
                        .map(|name| Owner { display_name: Some(name.to_owned()), id: Some(name.to_owned()) }),
                    ..Default::default()
                }),
            }
        }
        (objects, groups)
    }
}
