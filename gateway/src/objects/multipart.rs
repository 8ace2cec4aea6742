//! Uploads in parts: begun, filled, completed or aborted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use diptych_catalog::{Change, Expect, Guard, View, Write};
use diptych_core::ids::{BucketId, UploadId, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::lease::SubLease;
use diptych_core::records::{
    Blob, Bucket, Etag, Extent, ExtentState, HeadBody, Part, Placement, Record, Upload,
};
use md5::{Digest, Md5};
use rand::Rng;

use super::put::{LateSums, NewObject, PutRequest, Stored, check_sums, turn};
use super::types::{MAX_OBJECT_BYTES, MAX_REQUEST_BYTES, check_key, etag_text};
use super::{Condition, Objects};
use crate::authority::may_write;
use crate::body::{Body, ByteStream};
use crate::commit::{MAX_CHANGES, commit_many, commit_plain, mark_dead};
use crate::digests::{Announced, Sums};
use crate::error::{GatewayError, Result};
use crate::write::{Description, Written, WrittenExtent, write_body};
use diptych_catalog::dead_marks;

const MAX_PARTS: u16 = 10_000;
const MIN_PART: u64 = 5 << 20;

/// Uploads that this gateway is completing: a second completion of one waits for the first by being sent away.
pub(crate) type Completing = Mutex<HashSet<UploadId>>;

struct Claim {
    all: Arc<Completing>,
    id: UploadId,
}

impl Claim {
    fn take(all: &Arc<Completing>, id: UploadId) -> Result<Self> {
        let fresh = all.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        if fresh { Ok(Self { all: all.clone(), id }) } else { Err(GatewayError::CompletionUnderWay) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// A part as a completion names it.
#[derive(Debug, Clone)]
pub struct CompletePart {
    /// 1 to 10,000.
    pub number: u16,
    /// Its etag, without quotes; None: not said.
    pub etag: Option<String>,
}

/// A part as it is stored.
#[derive(Debug, Clone)]
pub struct StoredPart {
    /// Its number.
    pub number: u16,
    /// Its MD5.
    pub md5: [u8; 16],
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
}

/// Parts of an upload, in order.
#[derive(Debug, Clone, Default)]
pub struct PartsPage {
    /// The parts.
    pub parts: Vec<StoredPart>,
    /// There are more after the last one.
    pub more: bool,
}

/// What uploads to list.
#[derive(Debug, Clone, Default)]
pub struct UploadsRequest {
    /// Of keys that begin with it.
    pub prefix: String,
    /// After this key, and after this upload of it.
    pub after: Option<(String, Option<String>)>,
    /// Uploads at most.
    pub limit: usize,
}

/// An upload that is open.
#[derive(Debug, Clone)]
pub struct UploadSummary {
    /// The object's key.
    pub key: String,
    /// Which.
    pub id: UploadId,
    /// Milliseconds since 1970.
    pub started_ms: u64,
}

/// Open uploads, in order of key and upload.
#[derive(Debug, Clone, Default)]
pub struct UploadsPage {
    /// The uploads.
    pub uploads: Vec<UploadSummary>,
    /// There are more after the last one.
    pub more: bool,
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

    fn guard(&self) -> Guard {
        Guard { key: self.key.clone(), expect: Expect::Value(self.raw.clone()) }
    }
}

impl Objects {
    /// Begins an upload; its id.
    pub async fn create_upload(&self, namespace: &str, request: &PutRequest) -> Result<UploadId> {
        check_key(&request.key)?;
        let lease = may_write(self.context.authority())?;
        let bucket = self.bucket(namespace, &request.bucket).await?;
        let upload = Upload {
            version: VersionId(rand::rng().random()),
            started_ms: self.context.clock().now_ms(),
            headers: request.headers.clone(),
            tags: request.tags.clone(),
            completing: false,
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

    /// Stores a part; the sums of its bytes.
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
    ) -> Result<Sums> {
        check_number(number)?;
        let lease = may_write(self.context.authority())?;
        let (bucket, key, id) = target;
        let open = self.open_upload(namespace, bucket, key, id).await?;
        refuse_completing(&open)?;
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
        self.commit_part(&lease, &open, (key, number), written, sums.md5).await?;
        Ok(sums)
    }

    /// Enters a part whose bytes are written; it replaces one of the same number.
    pub(crate) async fn commit_part(
        &self,
        lease: &SubLease,
        open: &OpenUpload,
        (key, number): (&str, u16),
        written: Written,
        md5: [u8; 16],
    ) -> Result<()> {
        let size = written.size();
        let (extent_guards, extent_writes) = written.open_changes(&self.context);
        let mut blobs = written.into_blobs();
        let (Some(blob), true) = (blobs.pop(), blobs.is_empty()) else {
            return Err(GatewayError::Unsupported("a part of more than one blob"));
        };
        let part_key = keys::upload_part(open.bucket.id, key.as_bytes(), open.id, number);
        let part = Part { size, md5, modified_ms: self.context.clock().now_ms(), blob };
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
                return Ok(());
            }
            let view = self.context.catalog().view().await?;
            match view.get(&open.key)? {
                Some(raw) if raw == open.raw => {}
                _ => return Err(GatewayError::NoSuchUpload(open.id.to_string())),
            }
        }
        Err(GatewayError::Busy("others keep replacing the same part"))
    }

    /// Makes an object of parts. Sent again after an answer that was lost, it answers the same.
    pub async fn complete_upload(
        &self,
        namespace: &str,
        target: (&str, &str, &str),
        named: &[CompletePart],
        condition: Condition,
    ) -> Result<Stored> {
        let lease = may_write(self.context.authority())?;
        let (bucket_name, key, id) = target;
        let mut open = self.open_upload(namespace, bucket_name, key, id).await?;
        let _claim = Claim::take(&self.completing, open.id)?;
        let parts = self.named_parts(&open, key, named).await?;
        if !open.upload.completing {
            self.freeze(&lease, &mut open).await?;
        }
        let etag = joined_etag(&parts);
        let written = self.parts_as_written(&open, &parts).await?;
        let object = NewObject {
            bucket_name: bucket_name.to_owned(),
            bucket: open.bucket.id,
            versioning: open.bucket.versioning,
            key: key.to_owned(),
            version: open.upload.version,
            headers: open.upload.headers.clone(),
            tags: open.upload.tags.clone(),
            condition,
        };
        let stored = match self.commit_object(&lease, object, written, etag, Vec::new()).await {
            Ok((stored, _)) => stored,
            Err(error @ (GatewayError::PreconditionFailed(_) | GatewayError::NoSuchKey { .. })) => {
                self.thaw(&lease, &open).await;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let named: HashSet<u16> = parts.iter().map(|(number, _)| *number).collect();
        if let Err(error) = self.clear(&lease, &open, key, |number| !named.contains(&number)).await {
            tracing::warn!(upload = %open.id, %error, "a completed upload's parts are still listed");
        }
        Ok(stored)
    }

    /// The parts that a completion names, if they are as it says.
    async fn named_parts(
        &self,
        open: &OpenUpload,
        key: &str,
        named: &[CompletePart],
    ) -> Result<Vec<(u16, Part)>> {
        if named.is_empty() {
            return Err(GatewayError::InvalidArgument("a completion names at least one part".to_owned()));
        }
        if !named.is_sorted_by(|a, b| a.number < b.number) {
            return Err(GatewayError::InvalidPartOrder);
        }
        let view = self.context.catalog().view().await?;
        let mut parts = Vec::with_capacity(named.len());
        for name in named {
            check_number(name.number)?;
            let key = keys::upload_part(open.bucket.id, key.as_bytes(), open.id, name.number);
            let raw = view.get(&key)?.ok_or(GatewayError::InvalidPart(name.number))?;
            let part = Part::decode(&raw)?;
            let etag = etag_text(&Etag { md5: part.md5, parts: 0 });
            if name.etag.as_ref().is_some_and(|named| *named != etag) {
                return Err(GatewayError::InvalidPart(name.number));
            }
            parts.push((name.number, part));
        }
        let small = parts[..parts.len() - 1].iter().find(|(_, part)| part.size < MIN_PART);
        if let Some((number, part)) = small {
            return Err(GatewayError::PartTooSmall { part: *number, size: part.size });
        }
        let size = parts.iter().map(|(_, part)| part.size).sum();
        if size > MAX_OBJECT_BYTES { Err(GatewayError::TooLarge(size)) } else { Ok(parts) }
    }

    /// From now on no part is taken: what was named stays as it is.
    async fn freeze(&self, lease: &SubLease, open: &mut OpenUpload) -> Result<()> {
        let upload = Upload { completing: true, ..open.upload.clone() };
        let value = Bytes::from(upload.encode());
        let change =
            Change { guards: vec![open.guard()], writes: vec![Write::Put(open.key.clone(), value.clone())] };
        let landed = |view: &dyn View| Ok(view.get(&open.key)?.as_ref() == Some(&value));
        if !commit_plain(&self.context, lease, change, landed).await? {
            return Err(GatewayError::NoSuchUpload(open.id.to_string()));
        }
        (open.upload, open.raw) = (upload, value);
        Ok(())
    }

    async fn thaw(&self, lease: &SubLease, open: &OpenUpload) {
        let value = Bytes::from(Upload { completing: false, ..open.upload.clone() }.encode());
        let change = Change { guards: vec![open.guard()], writes: vec![Write::Put(open.key.clone(), value)] };
        if let Err(error) = commit_plain(&self.context, lease, change, |_| Ok(true)).await {
            tracing::warn!(upload = %open.id, %error, "an upload could not be opened again");
        }
    }

    async fn parts_as_written(&self, open: &OpenUpload, parts: &[(u16, Part)]) -> Result<Written> {
        let view = self.context.catalog().view().await?;
        let mut seen = HashSet::new();
        let mut extents = Vec::new();
        let pieces = parts.iter().flat_map(|(_, part)| &part.blob.pieces);
        for id in pieces.map(|piece| piece.extent).filter(|extent| seen.insert(*extent)) {
            let raw = view.get(&keys::extent(id))?;
            let raw = raw.ok_or_else(|| {
                GatewayError::Corrupt(format!("extent {id} of a part is not in the catalog"))
            })?;
            let record = Extent::decode(&raw)?;
            if record.state == ExtentState::Condemned {
                return Err(GatewayError::NoSuchUpload(open.id.to_string()));
            }
            let placement = view.get(&keys::placement(self.context.site(), id))?;
            let placement = placement.as_deref().map(Placement::decode).transpose()?;
            let placement = placement.unwrap_or(Placement { rows: Vec::new(), verified_day: 0 });
            extents.push(WrittenExtent { id, record, placement, entered: Some(raw) });
        }
        let blobs: Vec<Blob> = parts.iter().map(|(_, part)| part.blob.clone()).collect();
        Ok(Written::of(open.id, blobs, extents))
    }

    /// Takes the upload and its parts out of the catalog, the upload last; `dead` says whose bytes nothing names.
    async fn clear(
        &self,
        lease: &SubLease,
        open: &OpenUpload,
        key: &str,
        dead: impl Fn(u16) -> bool,
    ) -> Result<()> {
        let range = keys::upload_and_parts(open.bucket.id, key.as_bytes(), open.id);
        loop {
            let view = self.context.catalog().view().await?;
            let page = view.scan(&range, MAX_CHANGES)?;
            drop(view);
            let mut changes = Vec::new();
            let mut marks = Vec::new();
            for (part_key, raw) in page.entries {
                if let Some((_, _, Some(number))) = keys::upload_of(&part_key) {
                    if dead(number) {
                        marks.extend(dead_marks(&[Part::decode(&raw)?.blob]));
                    }
                    changes.push(Change::blind(vec![Write::Delete(part_key)]));
                }
            }
            if changes.is_empty() {
                let last = Change::blind(vec![Write::Delete(open.key.clone())]);
                commit_plain(&self.context, lease, last, |_| Ok(true)).await?;
                return Ok(());
            }
            mark_dead(&self.context, lease, marks).await;
            commit_many(&self.context, lease, changes, |_, _| Ok(true)).await?;
        }
    }

    /// Gives an upload up; its parts' bytes are collected.
    pub async fn abort_upload(&self, namespace: &str, target: (&str, &str, &str)) -> Result<()> {
        let lease = may_write(self.context.authority())?;
        let (bucket, key, id) = target;
        let mut open = self.open_upload(namespace, bucket, key, id).await?;
        let _claim = Claim::take(&self.completing, open.id)?;
        let view = self.context.catalog().view().await?;
        let head = view.get(&keys::head(open.bucket.id, key.as_bytes()))?;
        drop(view);
        let head = head.as_deref().map(diptych_core::records::Head::decode).transpose()?;
        let completed = head.is_some_and(|head| {
            head.at.version == open.upload.version && matches!(head.body, HeadBody::Object(_))
        });
        if !open.upload.completing {
            self.freeze(&lease, &mut open).await?;
        }
        // A completion that was done up to its last step is not undone: only its leftovers go.
        self.clear(&lease, &open, key, |_| !completed).await
    }

    /// Parts of an upload after a number.
    pub async fn parts(
        &self,
        namespace: &str,
        target: (&str, &str, &str),
        after: u16,
        limit: usize,
    ) -> Result<PartsPage> {
        let (bucket, key, id) = target;
        let open = self.open_upload(namespace, bucket, key, id).await?;
        let mut range = keys::upload_and_parts(open.bucket.id, key.as_bytes(), open.id);
        range.start = keys::upload_part(open.bucket.id, key.as_bytes(), open.id, after.saturating_add(1));
        let view = self.context.view_for_client().await?;
        let page = view.scan(&range, limit)?;
        let mut parts = Vec::with_capacity(page.entries.len());
        for (part_key, raw) in &page.entries {
            if let Some((_, _, Some(number))) = keys::upload_of(part_key) {
                let part = Part::decode(raw)?;
                parts.push(StoredPart {
                    number,
                    md5: part.md5,
                    size: part.size,
                    modified_ms: part.modified_ms,
                });
            }
        }
        Ok(PartsPage { parts, more: page.next.is_some() })
    }

    /// Open uploads of a bucket.
    pub async fn uploads(
        &self,
        namespace: &str,
        bucket: &str,
        request: &UploadsRequest,
    ) -> Result<UploadsPage> {
        let view = self.context.view_for_client().await?;
        let bucket = super::buckets::find(view.as_ref(), namespace, bucket)?;
        let mut range = keys::uploads(bucket.id, request.prefix.as_bytes());
        if let Some((key, id)) = &request.after {
            let id = id.as_ref().and_then(|id| id.parse().ok());
            let past =
                keys::upload_and_parts(bucket.id, key.as_bytes(), id.unwrap_or(UploadId([0xff; 16]))).end;
            range.start = range.start.max(past);
        }
        let mut found = UploadsPage::default();
        while range.start < range.end {
            let page = view.scan(&range, 1)?;
            let Some((catalog_key, raw)) = page.entries.first() else { break };
            let Some((key, id, _)) = keys::upload_of(catalog_key) else { break };
            if found.uploads.len() == request.limit {
                found.more = true;
                break;
            }
            // Its parts, up to 10,000, are passed by in one step.
            range.start = keys::upload_and_parts(bucket.id, &key, id).end;
            let started_ms = Upload::decode(raw)?.started_ms;
            let key = String::from_utf8_lossy(&key).into_owned();
            found.uploads.push(UploadSummary { key, id, started_ms });
        }
        Ok(found)
    }
}

impl OpenUpload {
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

pub(crate) fn refuse_completing(open: &OpenUpload) -> Result<()> {
    if open.upload.completing { Err(GatewayError::CompletionUnderWay) } else { Ok(()) }
}

pub(crate) fn check_number(number: u16) -> Result<()> {
    if (1..=MAX_PARTS).contains(&number) {
        return Ok(());
    }
    Err(GatewayError::InvalidArgument(format!("part {number}: 1 to {MAX_PARTS} are allowed")))
}

/// S3's etag of an upload: MD5 of the parts' MD5s, and how many there are.
fn joined_etag(parts: &[(u16, Part)]) -> Etag {
    let mut md5 = Md5::new();
    for (_, part) in parts {
        md5.update(part.md5);
    }
    Etag { md5: md5.finalize().into(), parts: parts.len() as u16 }
}
