//! Storing an object: small bodies share an extent with others of the same moment, larger ones are streamed.

use bytes::BytesMut;
use diptych_catalog::Change;
use diptych_core::ids::{BucketId, UploadId, VersionId};
use diptych_core::lease::SubLease;
use diptych_core::records::{
    Bucket, Content, Etag, Head, HeadBody, Object, Promise, Record, VersionRef, Versioning,
};
use diptych_core::retention::RetainUntil;
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::acknowledge::{Committed, WrittenVersion, acknowledge, receipt};
use super::tags::check_tags;
use super::types::{MAX_REQUEST_BYTES, Receipt, check_key};
use super::versions::version_id;
use super::{Condition, Objects, retention};
use crate::authority::may_write;
use crate::body::{Body, ByteStream};
use crate::commit::{HeadChange, commit_heads};
use crate::context::Context;
use crate::digests::{Algorithm, Announced, Sums};
use crate::error::{GatewayError, Result};
use crate::write::{Description, Prepared, SMALL_BODY, Written, prepare_small, write_body};

/// Sums that come behind the body, asked for once it was read.
pub type LateSums = Box<dyn FnOnce() -> Vec<(Algorithm, String)> + Send + Sync>;

/// An object that is to be stored.
#[derive(Default)]
pub struct PutRequest {
    /// Name of the bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Content-Type and the like, `x-amz-meta-*`, in lower case.
    pub headers: Vec<(String, String)>,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Until when nobody shall delete or replace it.
    pub retain_until: Option<RetainUntil>,
    /// What the client says of the body.
    pub announced: Announced,
    /// What it says behind the body.
    pub late_sums: Option<LateSums>,
    /// What must hold of what is replaced.
    pub condition: Condition,
}

/// What an object will be, once its bytes are durable.
#[derive(Debug, Clone)]
pub(crate) struct NewObject {
    pub(crate) bucket_name: String,
    pub(crate) bucket: BucketId,
    pub(crate) versioning: Versioning,
    pub(crate) promise: Promise,
    pub(crate) key: String,
    pub(crate) version: VersionId,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) retain_until: Option<RetainUntil>,
    pub(crate) condition: Condition,
}

/// An object was stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The version.
    pub at: VersionRef,
    /// Its id, where its bucket has versions.
    pub version_id: Option<String>,
    /// Its etag.
    pub etag: Etag,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Where it is durable.
    pub receipt: Receipt,
    /// All sums that were computed.
    pub sums: Sums,
    /// There was an object before.
    pub replaced: bool,
}

impl Objects {
    /// Stores an object. `length`: what the request says of its body.
    pub async fn put(
        &self,
        namespace: &str,
        request: PutRequest,
        stream: ByteStream,
        length: Option<u64>,
    ) -> Result<Stored> {
        check_key(&request.key)?;
        check_tags(&request.tags)?;
        retention::check_ahead(&self.context, request.retain_until)?;
        let lease = may_write(self.context.authority())?;
        let bucket = self.target(namespace, &request).await?;
        let mut body = Body::new(stream, length, MAX_REQUEST_BYTES, self.context.limits().body_idle)?;
        let object = NewObject::of(&bucket, &request);
        let small = self.small_turn(length).await?;
        let mut head =
            BytesMut::with_capacity(length.map_or(0, |length| length.min(SMALL_BODY as u64) as usize));
        let more = body.fill(&mut head, SMALL_BODY).await?;
        let (announced, late) = (request.announced, request.late_sums);
        if !more {
            return self.put_small(&lease, object, head, announced, late, small).await;
        }
        drop(small);
        // Boxed: most requests never get here, and should not carry its size.
        Box::pin(self.put_streamed(&lease, object, head, body, announced, late)).await
    }

    /// The bucket. Conditions and retention are part of the commit; looked at before, they spare a body that would be thrown away.
    async fn target(&self, namespace: &str, request: &PutRequest) -> Result<Bucket> {
        let view = self.context.view_for_client().await?;
        let bucket = super::buckets::find(view.as_ref(), namespace, &request.bucket)?;
        let raw = view.get(&diptych_core::keys::head(bucket.id, request.key.as_bytes()))?;
        let head = raw.as_deref().map(Head::decode).transpose()?;
        request.condition.check(&request.bucket, &request.key, head.as_ref())?;
        if let Some(head) = &head {
            let by = bucket.versioning.of_new();
            retention::check_replaced(&self.context, view.as_ref(), &request.key, head, by)?;
        }
        Ok(bucket)
    }

    async fn small_turn(&self, length: Option<u64>) -> Result<OwnedSemaphorePermit> {
        let bytes = length.unwrap_or(SMALL_BODY as u64).clamp(1, SMALL_BODY as u64);
        turn(&self.context, self.batches.room(), bytes as u32, "small bodies").await
    }

    async fn put_small(
        &self,
        lease: &SubLease,
        object: NewObject,
        plain: BytesMut,
        announced: Announced,
        late: Option<LateSums>,
        room: OwnedSemaphorePermit,
    ) -> Result<Stored> {
        let size = plain.len() as u64;
        self.context.metrics().bytes_in.inc_by(size);
        let Prepared { chunk, sums } = prepare_small(&self.context, plain, &announced).await?;
        check_sums(&sums, &announced, late)?;
        let object = object.with_sums(&sums);
        let etag = Etag { md5: sums.md5, parts: 0 };
        let modified_ms = self.context.clock().now_ms();
        let versioning = object.versioning;
        let done = self.batches.store(lease, object, chunk, (size, etag, modified_ms)).await?;
        drop(room);
        let receipt = receipt(&self.context, done.at.epoch, done.durable, done.acknowledged)?;
        let version_id = version_id(versioning, versioning.of_new(), done.at);
        let (at, replaced) = (done.at, done.replaced);
        Ok(Stored { at, version_id, etag, size, modified_ms, receipt, sums, replaced })
    }

    async fn put_streamed(
        &self,
        lease: &SubLease,
        object: NewObject,
        head: BytesMut,
        mut body: Body,
        announced: Announced,
        late: Option<LateSums>,
    ) -> Result<Stored> {
        let _turn = turn(&self.context, self.context.streams(), 1, "large bodies").await?;
        let owner = UploadId(*object.version.as_bytes());
        let description = Description::of(&object);
        let (written, sums) =
            write_body(&self.context, lease, owner, description, head, &mut body, &announced).await?;
        if let Err(error) = check_sums(&sums, &announced, late) {
            written.condemn(&self.context, lease).await;
            return Err(error);
        }
        let object = object.with_sums(&sums);
        let etag = Etag { md5: sums.md5, parts: 0 };
        let stored = self.commit_fresh(lease, object, written, etag).await?;
        Ok(Stored { sums, ..stored })
    }

    /// As [`Self::commit_object`], of bytes that nothing else will name: where they are surely not committed, and the client's request
    /// is to blame, they are condemned before it hears of that.
    pub(crate) async fn commit_fresh(
        &self,
        lease: &SubLease,
        object: NewObject,
        written: Written,
        etag: Etag,
    ) -> Result<Stored> {
        let committed =
            self.commit_object(lease, object, written.clone(), etag, Change::blind(Vec::new())).await;
        if committed.as_ref().is_err_and(|error| error.status().is_client_error()) {
            written.condemn(&self.context, lease).await;
        }
        committed
    }

    /// Makes written bytes the head of their key.
    pub(crate) async fn commit_object(
        &self,
        lease: &SubLease,
        object: NewObject,
        written: Written,
        etag: Etag,
        also: Change,
    ) -> Result<Stored> {
        let size = written.size();
        let modified_ms = self.context.clock().now_ms();
        let (extents, durable) = (written.extent_ids(), written.least_durable());
        let (content, mut guards, mut writes) = written.enter_live(&self.context, lease, &object).await?;
        guards.extend(also.guards);
        writes.extend(also.writes);
        let (version, versioning, promise) = (object.version, object.versioning, object.promise);
        let (bucket, key) = (object.bucket, object.key.clone());
        let change = object.into_change(size, etag, modified_ms, content, guards, writes);
        let done = commit_heads(&self.context, lease, std::slice::from_ref(&change), None).await.pop();
        let done =
            done.unwrap_or_else(|| Err(GatewayError::Internal("a commit was not answered".to_owned())));
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                if !matches!(error, GatewayError::OutcomeUnknown(_)) {
                    tracing::info!(%version, %error, "an object was written and not committed; its extents will be collected");
                }
                return Err(error);
            }
        };
        let committed = Committed { promise, position: done.position, extents: &extents };
        let written = WrittenVersion { bucket, key, at: done.at };
        let acknowledged = acknowledge(&self.context, lease, committed, &[written]).await?;
        let receipt = receipt(&self.context, done.at.epoch, durable, acknowledged)?;
        let sums = Sums { md5: etag.md5, others: Vec::new() };
        let (at, replaced) = (done.at, done.replaced.is_some());
        let version_id = version_id(versioning, versioning.of_new(), at);
        Ok(Stored { at, version_id, etag, size, modified_ms, receipt, sums, replaced })
    }
}

impl NewObject {
    pub(crate) fn of(bucket: &Bucket, request: &PutRequest) -> Self {
        Self {
            bucket_name: request.bucket.clone(),
            bucket: bucket.id,
            versioning: bucket.versioning,
            promise: bucket.promise,
            key: request.key.clone(),
            version: VersionId(rand::rng().random()),
            headers: request.headers.clone(),
            tags: request.tags.clone(),
            retain_until: request.retain_until,
            condition: request.condition.clone(),
        }
    }

    /// The sums that the client sent or asked for are kept with it.
    pub(super) fn with_sums(mut self, sums: &Sums) -> Self {
        let kept = sums.others.iter().map(|(algorithm, sum)| (algorithm.header().to_owned(), sum.clone()));
        self.headers.extend(kept);
        self
    }

    pub(crate) fn into_change(
        self,
        size: u64,
        etag: Etag,
        modified_ms: u64,
        content: Content,
        guards: Vec<diptych_catalog::Guard>,
        writes: Vec<diptych_catalog::Write>,
    ) -> HeadChange {
        let object = Object { size, etag, modified_ms, headers: self.headers, tags: self.tags, content };
        HeadChange {
            bucket_name: self.bucket_name,
            bucket: self.bucket,
            versioning: self.versioning,
            key: self.key,
            version: self.version,
            body: HeadBody::Object(Box::new(object)),
            retain_until: self.retain_until,
            condition: self.condition,
            guards,
            writes,
        }
    }
}

/// A turn, or word that too much is under way.
pub(crate) async fn turn(
    context: &Context,
    turns: &std::sync::Arc<Semaphore>,
    count: u32,
    what: &'static str,
) -> Result<OwnedSemaphorePermit> {
    let waited = tokio::time::timeout(context.limits().turn, turns.clone().acquire_many_owned(count)).await;
    match waited {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(GatewayError::Busy("the gateway stops")),
        Err(_) => Err(GatewayError::Busy(what)),
    }
}

pub(crate) fn check_sums(sums: &Sums, announced: &Announced, late: Option<LateSums>) -> Result<()> {
    sums.check(announced)?;
    if let Some(late) = late {
        sums.check(&Announced { sums: late(), ..Announced::default() })?;
    }
    Ok(())
}
