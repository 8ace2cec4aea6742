//! Uploads in parts: completed or aborted.

use std::collections::HashSet;

use bytes::Bytes;
use diptych_catalog::{Change, View, Write, dead_marks};
use diptych_core::checksum::ChecksumType;
use diptych_core::keys;
use diptych_core::lease::SubLease;
use diptych_core::records::{
    Blob, Etag, Extent, ExtentState, Head, HeadBody, Part, Placement, Record, UploadState,
};
use rand::Rng;

use super::acknowledge::{Committed, WrittenVersion, acknowledge, receipt};
use super::multipart::{OpenUpload, check_number};
use super::put::{NewObject, Stored};
use super::types::{MAX_OBJECT_BYTES, etag_text};
use super::versions::version_id;
use super::{Condition, Objects, part_sums};
use crate::authority::may_write;
use crate::commit::{MAX_CHANGES, commit_many, commit_plain, mark_dead};
use crate::digests::{Algorithm, Sums};
use crate::error::{GatewayError, Result};
use crate::md5::Md5;
use crate::write::{Written, WrittenExtent};

const MIN_PART: u64 = 5 << 20;

/// A part as a completion names it.
#[derive(Debug, Clone)]
pub struct CompletePart {
    /// 1 to 10,000.
    pub number: u16,
    /// Its etag, without quotes; None: not said.
    pub etag: Option<String>,
    /// Its checksums, base64.
    pub sums: Vec<(Algorithm, String)>,
}

/// What a completion says.
#[derive(Debug, Clone, Default)]
pub struct Completion {
    /// In order of their numbers.
    pub parts: Vec<CompletePart>,
    /// Checksums of the object, as headers have them.
    pub sums: Vec<(Algorithm, String)>,
    /// What these are of.
    pub of: Option<ChecksumType>,
    /// Bytes that the object shall have; None: not said.
    pub size: Option<u64>,
    /// What must hold of the object that is replaced.
    pub condition: Condition,
}

impl Objects {
    /// Makes an object of parts. Sent again after an answer that was lost, it answers the same while the object stands and
    /// the upload is listed.
    pub async fn complete_upload(
        &self,
        namespace: &str,
        target: (&str, &str, &str),
        completion: Completion,
    ) -> Result<Stored> {
        let lease = may_write(self.context.authority())?;
        let (bucket_name, key, id) = target;
        let mut open = self.open_upload(namespace, bucket_name, key, id).await?;
        let parts = self.named_parts(&open, key, &completion.parts).await?;
        check_size(&parts, completion.size)?;
        let sum = part_sums::of_object(&open.upload, &parts, &completion).await?;
        let completed = open.upload.state == UploadState::Completed;
        if !completed {
            self.claim(&lease, &mut open).await?;
            // FENCING: a part that was replaced until then left a dead mark for the bytes that were looked at.
            let claimed = self.named_parts(&open, key, &completion.parts).await;
            if claimed.as_ref() != Ok(&parts) {
                self.reopen(&lease, &open).await;
                return Err(claimed.err().unwrap_or(GatewayError::Busy("a part was replaced meanwhile")));
            }
        }
        let sums = Sums { md5: joined_md5(&parts), others: sum.into_iter().collect() };
        let etag = Etag { md5: sums.md5, parts: parts.len() as u16 };
        let written = self.parts_as_written(&open, &parts).await?;
        let stored = if completed {
            self.made_object(&lease, &open, key, &written).await?
        } else {
            let object = NewObject {
                bucket_name: bucket_name.to_owned(),
                bucket: open.bucket.id,
                versioning: open.bucket.versioning,
                promise: open.bucket.promise,
                key: key.to_owned(),
                version: open.upload.version,
                headers: open.upload.headers.clone(),
                tags: open.upload.tags.clone(),
                retain_until: open.upload.retain_until,
                condition: completion.condition,
            };
            self.make_object(&lease, &open, object.with_sums(&sums), written, etag).await?
        };
        let named: HashSet<u16> = parts.iter().map(|(number, _)| *number).collect();
        if let Err(error) = self.clear(&lease, &open, key, |number| !named.contains(&number)).await {
            tracing::warn!(upload = %open.id, %error, "a completed upload's parts are still listed");
        }
        Ok(Stored { sums, ..stored })
    }

    /// Commits the object and that the upload is complete as one change, which holds only while the claim stands.
    async fn make_object(
        &self,
        lease: &SubLease,
        open: &OpenUpload,
        object: NewObject,
        written: Written,
        etag: Etag,
    ) -> Result<Stored> {
        let also = open.change(&open.in_state(UploadState::Completed));
        match self.commit_object(lease, object, written, etag, also).await {
            Ok(stored) => Ok(stored),
            Err(error) => {
                if matches!(
                    error,
                    GatewayError::PreconditionFailed(_)
                        | GatewayError::NoSuchKey { .. }
                        | GatewayError::Retained { .. }
                ) {
                    self.reopen(lease, open).await;
                }
                Err(error)
            }
        }
    }

    /// What the upload has become, for a client that did not hear it.
    async fn made_object(
        &self,
        lease: &SubLease,
        open: &OpenUpload,
        key: &str,
        written: &Written,
    ) -> Result<Stored> {
        let view = self.context.catalog().view().await?;
        let head = view.get(&keys::head(open.bucket.id, key.as_bytes()))?;
        let Some(Head { at, kept, body: HeadBody::Object(object), .. }) = head
            .as_deref()
            .map(Head::decode)
            .transpose()?
            .filter(|head| head.at.version == open.upload.version)
        else {
            return Err(GatewayError::NoSuchUpload(open.id.to_string()));
        };
        let (bucket, extents) = (&open.bucket, written.extent_ids());
        let committed = Committed { promise: bucket.promise, position: view.position(), extents: &extents };
        let made = WrittenVersion { bucket: bucket.id, key: key.to_owned(), at };
        let acknowledged = acknowledge(&self.context, lease, committed, &[made]).await?;
        Ok(Stored {
            at,
            version_id: version_id(open.bucket.versioning, kept, at),
            etag: object.etag,
            size: object.size,
            modified_ms: object.modified_ms,
            receipt: receipt(&self.context, at.epoch, written.least_durable(), acknowledged)?,
            sums: Sums { md5: object.etag.md5, others: Vec::new() },
            replaced: false,
        })
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
            part_sums::check(&open.upload, name, &part)?;
            parts.push((name.number, part));
        }
        let small = parts[..parts.len() - 1].iter().find(|(_, part)| part.size < MIN_PART);
        if let Some((number, part)) = small {
            return Err(GatewayError::PartTooSmall { part: *number, size: part.size });
        }
        let size = parts.iter().map(|(_, part)| part.size).sum();
        if size > MAX_OBJECT_BYTES { Err(GatewayError::TooLarge(size)) } else { Ok(parts) }
    }

    /// From now on no part is taken, and whoever had claimed the upload before can neither complete it nor give it up.
    async fn claim(&self, lease: &SubLease, open: &mut OpenUpload) -> Result<()> {
        let upload = open.in_state(UploadState::Claimed(rand::rng().random()));
        let value = Bytes::from(upload.encode());
        let landed = |view: &dyn View| Ok(view.get(&open.key)?.as_ref() == Some(&value));
        if !commit_plain(&self.context, lease, open.change(&upload), landed).await? {
            return Err(GatewayError::CompletionUnderWay);
        }
        (open.upload, open.raw) = (upload, value);
        Ok(())
    }

    async fn reopen(&self, lease: &SubLease, open: &OpenUpload) {
        let change = open.change(&open.in_state(UploadState::Open));
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

    /// Gives an upload up; its parts' bytes are collected. Of one that has become an object only the leftovers go.
    pub async fn abort_upload(&self, namespace: &str, target: (&str, &str, &str)) -> Result<()> {
        let lease = may_write(self.context.authority())?;
        let (bucket, key, id) = target;
        let mut open = self.open_upload(namespace, bucket, key, id).await?;
        let completed = open.upload.state == UploadState::Completed;
        if !completed {
            // FENCING: a completion under way in another gateway had claimed it; with that claim gone its object can't come
            // any more, so that nothing will name these bytes.
            self.claim(&lease, &mut open).await?;
        }
        self.clear(&lease, &open, key, |_| !completed).await
    }
}

/// Compares the parts with the size that the completion says.
fn check_size(parts: &[(u16, Part)], said: Option<u64>) -> Result<()> {
    let size: u64 = parts.iter().map(|(_, part)| part.size).sum();
    match said {
        Some(said) if said != size => Err(GatewayError::InvalidRequest(format!(
            "the parts have {size} bytes, x-amz-mp-object-size says {said}; nothing was stored"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// S3's etag of an upload: MD5 of the parts' MD5s.
fn joined_md5(parts: &[(u16, Part)]) -> [u8; 16] {
    let mut md5 = Md5::default();
    for (_, part) in parts {
        md5.update(&part.md5);
    }
    md5.finish()
}
