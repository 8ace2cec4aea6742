//! Small objects of the same moment share an extent: one append a device, one commit.
//!
//! While batches are in flight the next one gathers; where a turn is free, it waits a moment for those who come back together
//! (`gathering`). Where both sites must have a write, a batch is in flight until the other one has it: it crosses as one extent,
//! and is waited for once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diptych_catalog::dead_marks;
use diptych_core::ids::{BucketId, ExtentId};
use diptych_core::keys;
use diptych_core::lease::SubLease;
use diptych_core::records::{Blob, Content, Etag, ExtentState, HeadBody, Promise, VersionRef};
use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::gathering::{Gathering, fill};
use super::sealing::Chunk;
use super::sequence::write_extent;
use super::tail::Description;
use crate::authority::may_write;
use crate::commit::{CommittedHead, HeadChange, MAX_CHANGES, SharedExtent, commit_heads, mark_dead};
use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::objects::{Acknowledged, Committed, NewObject, WrittenVersion, acknowledge};

/// Batches that are written at one time.
const IN_FLIGHT: usize = 2;
/// A batch that the other site has not confirmed for so long makes room for the next one.
const HOLD: Duration = Duration::from_millis(250);
/// Sealed bytes of one batch: its rows go out whole.
const BATCH_BYTES: usize = 5 << 18;
/// Objects that wait for a batch.
const QUEUE: usize = 4096;

/// Where small objects are handed in.
#[derive(Clone)]
pub(crate) struct Batches {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    /// Objects that were handed in and have no answer yet.
    inside: Arc<AtomicUsize>,
}

/// Counts an object for as long as it lives.
struct Inside(Arc<AtomicUsize>);

impl Inside {
    fn enter(inside: &Arc<AtomicUsize>) -> Self {
        inside.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(inside))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A small object was committed, and confirmed by the other site where that must be.
#[derive(Debug, Clone)]
pub(crate) struct SmallDone {
    /// The version.
    pub at: VersionRef,
    /// Durable rows of it.
    pub durable: u8,
    /// By whom it is acknowledged.
    pub acknowledged: Acknowledged,
    /// There was an object before.
    pub replaced: bool,
}

struct Waiting {
    object: NewObject,
    chunk: Chunk,
    size: u64,
    etag: Etag,
    modified_ms: u64,
    answer: oneshot::Sender<Result<SmallDone>>,
    inside: Inside,
}

impl Batches {
    /// Starts the task that gathers; it ends when the last handle is gone.
    pub(crate) fn start(context: Arc<Context>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let room = Arc::new(Semaphore::new(context.limits().batch_bytes));
        let inside = Arc::new(AtomicUsize::new(0));
        tokio::spawn(gather(context, waiting, Arc::clone(&inside)));
        Self { queue, room, inside }
    }

    /// Room for small bodies, in bytes.
    pub(crate) fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    /// Stores a sealed object with others.
    pub(crate) async fn store(
        &self,
        lease: &SubLease,
        object: NewObject,
        chunk: Chunk,
        (size, etag, modified_ms): (u64, Etag, u64),
    ) -> Result<SmallDone> {
        tracing::trace!(epoch = %lease.epoch, size, "a small object waits for a batch");
        let (answer, answered) = oneshot::channel();
        let stopped = || GatewayError::Busy("the gateway stops");
        let inside = Inside::enter(&self.inside);
        let waiting = Waiting { object, chunk, size, etag, modified_ms, answer, inside };
        self.queue.send(waiting).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| GatewayError::OutcomeUnknown("its batch was stopped".to_owned()))?
    }
}

async fn gather(context: Arc<Context>, mut waiting: mpsc::Receiver<Waiting>, inside: Arc<AtomicUsize>) {
    let gathering = Arc::new(Mutex::new(Gathering::default()));
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(first) = waiting.recv().await {
        let Ok(turn) = in_flight.clone().acquire_owned().await else { return };
        let wanted = {
            let gathering = gathering.lock().unwrap_or_else(PoisonError::into_inner);
            (gathering.share(IN_FLIGHT), gathering.patience())
        };
        let mut batch = vec![first];
        fill(&mut batch, &mut waiting, wanted, takes_more).await;
        gathering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .saw(inside.load(Ordering::Relaxed), Instant::now().into());
        let (context, gathering) = (Arc::clone(&context), Arc::clone(&gathering));
        tokio::spawn(async move {
            let begun = Instant::now();
            run(context, batch, turn).await;
            gathering.lock().unwrap_or_else(PoisonError::into_inner).took(begun.elapsed());
        });
    }
}

fn takes_more(batch: &[Waiting]) -> bool {
    let bytes: usize = batch.iter().map(|waiting| waiting.chunk.bytes.len()).sum();
    batch.len() < MAX_CHANGES - 1 && bytes < BATCH_BYTES
}

/// Who waits for an object of a batch, and for what.
struct Asked {
    promise: Promise,
    bucket: BucketId,
    key: String,
    answer: oneshot::Sender<Result<SmallDone>>,
    inside: Inside,
}

impl Asked {
    /// Who no longer waits does not want to know.
    fn tell(self, result: Result<SmallDone>) {
        let _: Result<(), _> = self.answer.send(result);
        drop(self.inside);
    }
}

async fn run(context: Arc<Context>, batch: Vec<Waiting>, turn: OwnedSemaphorePermit) {
    context.metrics().batch_objects.observe(batch.len() as f64);
    let mut objects = Vec::with_capacity(batch.len());
    let mut asked = Vec::with_capacity(batch.len());
    for Waiting { object, chunk, size, etag, modified_ms, answer, inside } in batch {
        let key = object.key.clone();
        asked.push(Asked { promise: object.promise, bucket: object.bucket, key, answer, inside });
        objects.push((object, chunk, (size, etag, modified_ms)));
    }
    match write(&context, objects).await {
        Ok(written) => answer(&context, written, asked, turn).await,
        Err(error) => asked.into_iter().for_each(|asked| asked.tell(Err(error.clone()))),
    }
}

/// What was written together.
struct Written {
    lease: SubLease,
    extent: ExtentId,
    /// Durable rows of it.
    durable: u8,
    /// By object.
    heads: Vec<Result<CommittedHead>>,
}

/// Waits for the other site, once for each promise in the batch; the turn ends with that, or after `HOLD`.
async fn answer(context: &Context, written: Written, asked: Vec<Asked>, turn: OwnedSemaphorePermit) {
    let Written { lease, extent, durable, heads } = written;
    let mut by_promise: BTreeMap<Promise, Vec<(Asked, CommittedHead)>> = BTreeMap::new();
    for (asked, head) in asked.into_iter().zip(heads) {
        match head {
            Ok(head) => by_promise.entry(asked.promise).or_default().push((asked, head)),
            Err(error) => asked.tell(Err(error)),
        }
    }
    let alike = |(promise, objects)| answer_alike(context, &lease, (extent, durable), promise, objects);
    let answering = join_all(by_promise.into_iter().map(alike));
    tokio::pin!(answering);
    tokio::select! {
        _ = &mut answering => {}
        () = tokio::time::sleep(HOLD) => {
            drop(turn);
            answering.await;
        }
    }
}

/// Answers those of a batch to whom the same is promised.
async fn answer_alike(
    context: &Context,
    lease: &SubLease,
    (extent, durable): (ExtentId, u8),
    promise: Promise,
    objects: Vec<(Asked, CommittedHead)>,
) {
    let Some(position) = objects.iter().map(|(_, head)| head.position).max() else { return };
    let versions: Vec<WrittenVersion> = objects
        .iter()
        .map(|(asked, head)| WrittenVersion { bucket: asked.bucket, key: asked.key.clone(), at: head.at })
        .collect();
    let committed = Committed { promise, position, extents: &[extent] };
    let outcome = acknowledge(context, lease, committed, &versions).await;
    for (asked, head) in objects {
        let done = |acknowledged| SmallDone {
            at: head.at,
            durable,
            acknowledged,
            replaced: head.replaced.is_some(),
        };
        asked.tell(outcome.clone().map(done));
    }
}

async fn write(
    context: &Arc<Context>,
    objects: Vec<(NewObject, Chunk, (u64, Etag, u64))>,
) -> Result<Written> {
    let lease = may_write(context.authority())?;
    let describe = |(object, _, (size, etag, _)): &(NewObject, Chunk, (u64, Etag, u64))| Description {
        size: Some(*size),
        etag: Some(*etag),
        ..Description::of(object)
    };
    let descriptions: Vec<Description> = objects.iter().map(describe).collect();
    let chunks: Vec<Chunk> = objects.iter().map(|(_, chunk, _)| chunk.clone()).collect();
    let (extent, blobs) = write_extent(context, &lease, &chunks, &descriptions).await?;
    drop(chunks);
    let entering = extent.entering(context, ExtentState::Live)?;
    let key = keys::extent(extent.id);
    let record = extent.encoded(ExtentState::Live);
    let writes = entering.writes.into_iter().filter(|write| *write.key() != key).collect();
    let shared = SharedExtent { key, record, writes };
    let changes: Vec<HeadChange> = objects
        .into_iter()
        .zip(blobs)
        .map(|((object, _, (size, etag, modified_ms)), blob)| {
            object.into_change(size, etag, modified_ms, Content::Inline(vec![blob]), Vec::new(), Vec::new())
        })
        .collect();
    let committed = commit_heads(context, &lease, &changes, Some(&shared)).await;
    let unnamed = changes.iter().zip(&committed).filter(|(_, result)| was_refused(result));
    let marks = unnamed.filter_map(|(change, _)| blobs_in(change)).flat_map(dead_marks).collect();
    mark_dead(context, &lease, marks).await;
    Ok(Written { lease, extent: extent.id, durable: extent.placement.rows.len() as u8, heads: committed })
}

/// Surely not committed. A mark on the blob of an unknown outcome could free bytes that a head names.
fn was_refused(result: &Result<CommittedHead>) -> bool {
    matches!(result, Err(error) if error.status().is_client_error())
}

fn blobs_in(change: &HeadChange) -> Option<&[Blob]> {
    match &change.body {
        HeadBody::Object(object) => match &object.content {
            Content::Inline(blobs) => Some(blobs),
            Content::Paged { .. } => None,
        },
        HeadBody::Marker | HeadBody::Tombstone => None,
    }
}
