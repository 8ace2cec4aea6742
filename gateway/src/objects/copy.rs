//! Copies: the ciphertext goes into other extents, unopened, so that in an extent exactly one version owns a blob.

use std::ops::Range;

use bytes::BytesMut;
use diptych_core::chunk::SealedChunk;
use diptych_core::ids::UploadId;
use diptych_core::lease::SubLease;
use diptych_core::records::{Blob, Etag};
use futures::StreamExt;

use super::acknowledge::receipt;
use super::conditions::ReadConditions;
use super::multipart::{StoredUploadPart, check_number, check_open};
use super::put::{NewObject, PutRequest, Stored, turn};
use super::tags::check_tags;
use super::types::{MAX_REQUEST_BYTES, check_key};
use super::versions::{VersionName, version_id};
use super::{ObjectInfo, Objects, Target, Wanted, etag_text, part_sums, retention};
use crate::authority::may_write;
use crate::body::Body;
use crate::digests::{Algorithm, Announced, Sums};
use crate::error::{GatewayError, Result};
use crate::read::{Places, open_stream, plan_chunks, read_sealed};
use crate::write::{Chunk, Description, ExtentSequence, Written, write_body};

/// An object that is to be copied.
pub struct CopyRequest {
    /// Bucket of the source.
    pub source_bucket: String,
    /// Key of the source.
    pub source_key: String,
    /// Version of the source.
    pub source_version: Option<VersionName>,
    /// What must hold of the source.
    pub source_conditions: ReadConditions,
    /// Where it goes. Its headers and tags are those of the copy, unless the next two say otherwise.
    pub target: PutRequest,
    /// Headers are the source's.
    pub keep_headers: bool,
    /// Tags are the source's.
    pub keep_tags: bool,
}

/// A range of an object that becomes a part of an upload.
pub struct CopyPart<'a> {
    /// The source.
    pub source: Target<'a>,
    /// What must hold of it.
    pub conditions: ReadConditions,
    /// Which of its bytes.
    pub range: Wanted,
    /// Bucket, key and upload.
    pub target: (&'a str, &'a str, &'a str),
    /// The part.
    pub number: u16,
}

impl Objects {
    async fn source(
        &self,
        namespace: &str,
        source: Target<'_>,
        conditions: &ReadConditions,
    ) -> Result<(ObjectInfo, Vec<Blob>)> {
        let (info, blobs) = self.find(namespace, source).await?;
        match conditions.check(&etag_text(&info.object.etag), info.object.modified_ms) {
            Err(GatewayError::NotModified) => {
                return Err(GatewayError::PreconditionFailed("x-amz-copy-source-if"));
            }
            other => other?,
        }
        Ok((info, blobs))
    }

    /// Copies an object, within a bucket or from another one of the namespace; the copy, and the version that it is of.
    pub async fn copy(&self, namespace: &str, request: CopyRequest) -> Result<(Stored, Option<String>)> {
        check_key(&request.target.key)?;
        check_tags(&request.target.tags)?;
        retention::check_ahead(&self.context, request.target.retain_until)?;
        let lease = may_write(self.context.authority())?;
        let bucket = self.bucket(namespace, &request.target.bucket).await?;
        let source = Target {
            bucket: &request.source_bucket,
            key: &request.source_key,
            version: request.source_version.as_ref(),
        };
        // An older version onto its own key is how it is brought back.
        let itself = source == Target::newest(&request.target.bucket, &request.target.key);
        if itself && request.keep_headers && request.keep_tags {
            let reason = "a copy onto itself must replace headers or tags";
            return Err(GatewayError::InvalidArgument(reason.to_owned()));
        }
        let (info, blobs) = self.source(namespace, source, &request.source_conditions).await?;
        let mut object = NewObject::of(&bucket, &request.target);
        if request.keep_headers {
            object.headers.clone_from(&info.object.headers);
        } else {
            let sums = Algorithm::ALL.into_iter().filter_map(|algorithm| {
                Some((algorithm.header().to_owned(), info.header(algorithm.header())?.to_owned()))
            });
            object.headers.extend(sums);
        }
        if request.keep_tags {
            object.tags.clone_from(&info.object.tags);
        }
        let etag = info.object.etag;
        if info.object.size <= crate::write::SMALL_BODY as u64 && blobs.len() == 1 {
            let stored = self.copy_small(&lease, object, &blobs[0], (info.object.size, etag)).await?;
            return Ok((stored, info.version));
        }
        let _turn = turn(&self.context, self.context.streams(), 1, "large bodies").await?;
        let owner = UploadId(*object.version.as_bytes());
        let description =
            Description { size: Some(info.object.size), etag: Some(etag), ..Description::of(&object) };
        let written = self.copy_blobs(&lease, owner, description, &blobs, info.object.size).await?;
        Ok((self.commit_fresh(&lease, object, written, etag).await?, info.version))
    }

    async fn copy_small(
        &self,
        lease: &SubLease,
        object: NewObject,
        blob: &Blob,
        (size, etag): (u64, Etag),
    ) -> Result<Stored> {
        let mut chunks = self.sealed_chunks(std::slice::from_ref(blob));
        let (Some(chunk), None) = (chunks.next().await.transpose()?, chunks.next().await) else {
            return Err(GatewayError::Corrupt("a small object is not one chunk".to_owned()));
        };
        let (modified_ms, versioning) = (self.context.clock().now_ms(), object.versioning);
        let done = self.batches.store(lease, object, chunk, (size, etag, modified_ms)).await?;
        let receipt = receipt(&self.context, done.at.epoch, done.durable, done.acknowledged)?;
        let sums = Sums { md5: etag.md5, others: Vec::new() };
        let (at, replaced) = (done.at, done.replaced);
        let version_id = version_id(versioning, versioning.of_new(), at);
        Ok(Stored { at, version_id, etag, size, modified_ms, receipt, sums, replaced })
    }

    /// All chunks of blobs, as they lie there.
    fn sealed_chunks<'a>(&'a self, blobs: &'a [Blob]) -> futures::stream::BoxStream<'a, Result<Chunk>> {
        let pieces: Vec<_> =
            blobs.iter().flat_map(|blob| blob.pieces.iter().map(move |piece| (blob, *piece))).collect();
        let state = (Places::default(), pieces.into_iter(), Vec::new());
        let step = move |(mut places, mut pieces, mut ready): (
            _,
            std::vec::IntoIter<(&'a Blob, _)>,
            Vec<_>,
        )| async move {
            loop {
                if let Some(planned) = ready.pop() {
                    let planned: crate::read::PlannedChunk = planned;
                    let bytes = read_sealed(&self.context, &planned, &[]).await?;
                    let place = planned.place;
                    let sealed =
                        SealedChunk { index: place.index, len: place.sealed, compressed: place.compressed };
                    let chunk = Chunk {
                        blob: planned.blob,
                        ring_key: planned.ring_key,
                        sealed,
                        plain: place.plain,
                        last: place.last,
                        bytes,
                    };
                    return Ok(Some((chunk, (places, pieces, ready))));
                }
                let Some((blob, piece)) = pieces.next() else { return Ok(None) };
                let piece: diptych_core::records::Piece = piece;
                let all: Range<u64> = 0..u64::from(piece.plain);
                ready =
                    plan_chunks(&self.context, &mut places, (blob.id, blob.ring_key), &piece, all).await?;
                ready.reverse();
            }
        };
        futures::stream::try_unfold(state, step).boxed()
    }

    async fn copy_blobs(
        &self,
        lease: &SubLease,
        owner: UploadId,
        description: Description,
        blobs: &[Blob],
        size: u64,
    ) -> Result<Written> {
        let mut extents = ExtentSequence::new(self.context.clone(), *lease, owner, description, Some(size))?;
        let mut chunks = self.sealed_chunks(blobs);
        while let Some(chunk) = chunks.next().await {
            let pushed = match chunk {
                Ok(chunk) => extents.push(chunk).await,
                Err(error) => Err(error),
            };
            if let Err(error) = pushed {
                extents.give_up().await;
                return Err(error);
            }
        }
        extents.finish().await
    }

    /// Copies a range of an object into a part. A range begins and ends where it likes, chunks do not: it is opened and
    /// sealed again.
    ///
    /// Gives the version that it is of, too.
    pub async fn copy_part(
        &self,
        namespace: &str,
        request: CopyPart<'_>,
    ) -> Result<(StoredUploadPart, Option<String>)> {
        check_number(request.number)?;
        let lease = may_write(self.context.authority())?;
        let (bucket, key, id) = request.target;
        let open = self.open_upload(namespace, bucket, key, id).await?;
        check_open(&open)?;
        let (info, blobs) = self.source(namespace, request.source, &request.conditions).await?;
        let range = request.range.resolve(info.object.size)?;
        let length = range.end - range.start;
        let _turn = turn(&self.context, self.context.streams(), 1, "large bodies").await?;
        let stream = open_stream(&self.context, &blobs, range).await?;
        let mut body =
            Body::new(stream.boxed(), Some(length), MAX_REQUEST_BYTES, self.context.limits().body_idle)?;
        let description = open.describe(key, request.number, Some(length));
        let announced = part_sums::announced(&open.upload, Announced::default())?;
        let (written, sums) =
            write_body(&self.context, &lease, open.id, description, BytesMut::new(), &mut body, &announced)
                .await?;
        let stored = self.commit_part(&lease, &open, (key, request.number), written, sums).await?;
        Ok((stored, info.version))
    }
}
