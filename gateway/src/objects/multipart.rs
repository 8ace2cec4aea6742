//! Uploads in parts: begun and filled.

use bytes::{Bytes, BytesMut};
use diptych_catalog::{Change, Expect, Guard, View, Write, dead_marks};
use diptych_core::checksum::UploadChecksum;
use diptych_core::ids::{BucketId, UploadId, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::lease::SubLease;
use diptych_core::records::{Bucket, Part, Record, Upload, UploadState};
use rand::Rng;

use super::acknowledge::{Acknowledged, receipt};
use super::part_sums;
use super::put::{LateSums, PutRequest, check_sums, turn};
use super::tags::check_tags;
use super::types::{MAX_REQUEST_BYTES, Receipt, check_key};
use super::{Objects, retention};
use crate::authority::may_write;
use crate::body::{Body, ByteStream};
use crate::commit::{MAX_CHANGES, commit_plain};
use crate::digests::{Announced, Sums};
use crate::error::{GatewayError, Result};
use crate::write::{Description, Written, write_body};

const MAX_PARTS: u16 = 10_000;

/// A part was stored.
#[derive(Debug, Clone)]
pub struct StoredUploadPart {
    /// Its sums.
    pub sums: Sums,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Where it is durable. The other site is waited for with the whole.
    pub receipt: Receipt,
}

pub(crate) struct OpenUpload {
    pub bucket: Bucket,
    pub id: UploadId,
    pub key: Key,
    pub raw: Bytes,
    pub upload: Upload,
}

impl OpenUpload {
    pub(crate) fn find(view: &dyn View, bucket: Bucket, key: &str, id: &str) -> Result<Self> {
        let missing = || GatewayError::NoSuchUpload(id.to_owned());
        let upload_id: UploadId = id.parse().map_err(|_| missing())?;
        let catalog_key = keys::upload(bucket.id, key.as_bytes(), upload_id);
        let raw = view.get(&catalog_key)?.ok_or_else(missing)?;
        Ok(Self { bucket, id: upload_id, key: catalog_key, upload: Upload::decode(&raw)?, raw })
    }

    pub(super) fn guard(&self) -> Guard {
        Guard { key: self.key.clone(), expect: Expect::Value(self.raw.clone()) }
    }
}

impl Objects {
    /// Begins an upload, its parts and object summed as `checksum` says; its id.
    pub async fn create_upload(
        &self,
        namespace: &str,
        request: &PutRequest,
        checksum: Option<UploadChecksum>,
    ) -> Result<UploadId> {
        check_key(&request.key)?;
        check_tags(&request.tags)?;
        retention::check_ahead(&self.context, request.retain_until)?;
        let lease = may_write(self.context.authority())?;
        let bucket = self.bucket(namespace, &request.bucket).await?;
        let upload = Upload {
            version: VersionId(rand::rng().random()),
            started_ms: self.context.clock().now_ms(),
            headers: request.headers.clone(),
            tags: request.tags.clone(),
            checksum,
            state: UploadState::Open,
            retain_until: request.retain_until,
        };
        let id = UploadId(rand::rng().random());
        let key = keys::upload(bucket.id, request.key.as_bytes(), id);
        let value = Bytes::from(upload.encode());
        let change = Change {
            guards: vec![Guard { key: key.clone(), expect: Expect::Absent }],
            writes: vec![Write::Put(key.clone(), value.clone())],
        };
        let landed = |view: &dyn View| Ok(view.get(&key)?.as_ref() == Some(&value));
        if commit_plain(&self.context, &lease, change, landed).await? {
            return Ok(id);
        }
        Err(GatewayError::Internal("an upload's id was taken".to_owned()))
    }

    pub(crate) async fn open_upload(
        &self,
        namespace: &str,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<OpenUpload> {
        check_key(key)?;
        let view = self.context.catalog().view().await?;
        let bucket = super::buckets::find(view.as_ref(), namespace, bucket)?;
        OpenUpload::find(view.as_ref(), bucket, key, id)
    }

    /// Stores a part.
    #[expect(clippy::too_many_arguments, reason = "the request of S3 has so many")]
    pub async fn put_part(
        &self,
        namespace: &str,
        target: (&str, &str, &str),
        number: u16,
        stream: ByteStream,
        length: Option<u64>,
        announced: Announced,
        late: Option<LateSums>,
    ) -> Result<StoredUploadPart> {
        check_number(number)?;
        let lease = may_write(self.context.authority())?;
        let (bucket, key, id) = target;
        let open = self.open_upload(namespace, bucket, key, id).await?;
        check_open(&open)?;
        let announced = part_sums::announced(&open.upload, announced)?;
        let _turn = turn(&self.context, self.context.streams(), 1, "large bodies").await?;
        let mut body = Body::new(stream, length, MAX_REQUEST_BYTES, self.context.limits().body_idle)?;
        let description = open.describe(key, number, length);
        let head = BytesMut::new();
        let written =
            write_body(&self.context, &lease, open.id, description, head, &mut body, &announced).await;
        let (written, sums) = written?;
        if let Err(error) = check_sums(&sums, &announced, late) {
            written.condemn(&self.context, &lease).await;
            return Err(error);
        }
        self.commit_part(&lease, &open, (key, number), written, sums).await
    }

    /// Enters a part whose bytes are written; it replaces one of the same number.
    pub(crate) async fn commit_part(
        &self,
        lease: &SubLease,
        open: &OpenUpload,
        (key, number): (&str, u16),
        written: Written,
        sums: Sums,
    ) -> Result<StoredUploadPart> {
        let (size, durable) = (written.size(), written.least_durable());
        let (extent_guards, extent_writes) = written.open_changes(&self.context)?;
        let mut blobs = written.into_blobs();
        let (Some(blob), true) = (blobs.pop(), blobs.is_empty()) else {
            return Err(GatewayError::Unsupported("a part of more than one blob"));
        };
        let part_key = keys::upload_part(open.bucket.id, key.as_bytes(), open.id, number);
        let modified_ms = self.context.clock().now_ms();
        let part = Part { size, md5: sums.md5, sums: sums.raw(), modified_ms, blob };
        let value = Bytes::from(part.encode());
        for _ in 0..MAX_CHANGES {
            let before = self.context.catalog().view().await?.get(&part_key)?;
            let mut guards = vec![open.guard()];
            guards.push(Guard {
                key: part_key.clone(),
                expect: before.clone().map_or(Expect::Absent, Expect::Value),
            });
            guards.extend(extent_guards.iter().cloned());
            let mut writes = vec![Write::Put(part_key.clone(), value.clone())];
            writes.extend(extent_writes.iter().cloned());
            if let Some(before) = &before {
                writes.extend(dead_marks(&[Part::decode(before)?.blob]));
            }
            let landed = |view: &dyn View| Ok(view.get(&part_key)?.as_ref() == Some(&value));
            if commit_plain(&self.context, lease, Change { guards, writes }, landed).await? {
                let receipt = receipt(&self.context, lease.epoch, durable, Acknowledged::OneSite)?;
                return Ok(StoredUploadPart { sums, modified_ms, receipt });
            }
            let view = self.context.catalog().view().await?;
            match view.get(&open.key)? {
                Some(raw) if raw == open.raw => {}
                _ => return Err(GatewayError::NoSuchUpload(open.id.to_string())),
            }
        }
        Err(GatewayError::Busy("others keep replacing the same part"))
    }
}

impl OpenUpload {
    pub(super) fn in_state(&self, state: UploadState) -> Upload {
        Upload { state, ..self.upload.clone() }
    }

    /// From the record that was found to this one.
    pub(super) fn change(&self, upload: &Upload) -> Change {
        let value = Bytes::from(upload.encode());
        Change { guards: vec![self.guard()], writes: vec![Write::Put(self.key.clone(), value)] }
    }

    pub(crate) fn describe(&self, key: &str, number: u16, size: Option<u64>) -> Description {
        Description {
            bucket: BucketId(*self.bucket.id.as_bytes()),
            key: key.as_bytes().to_vec(),
            version: self.upload.version,
            part: Some((self.id, number)),
            size,
            etag: None,
            headers: self.upload.headers.clone(),
        }
    }
}

pub(crate) fn check_open(open: &OpenUpload) -> Result<()> {
    if open.upload.state == UploadState::Open { Ok(()) } else { Err(GatewayError::CompletionUnderWay) }
}

pub(crate) fn check_number(number: u16) -> Result<()> {
    if (1..=MAX_PARTS).contains(&number) {
        return Ok(());
    }
    Err(GatewayError::InvalidArgument(format!("part {number}: 1 to {MAX_PARTS} are allowed")))
}
