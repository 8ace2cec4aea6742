//! The body of an answer: chunks in order, a few read ahead, never a clean end that comes too early.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use diptych_core::ids::{BlobId, RingKeyNumber};
use diptych_core::records::{Blob, Piece};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::chunks::{Places, PlannedChunk, pieces_of, plan_chunks, read_plain};
use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::objects::turn;

/// Chunks that are read at one time for one answer.
const AHEAD: usize = 2;
/// Extents whose rows are looked at before the answer begins.
const CHECKED_FIRST: usize = 64;

/// Plaintext of a range. It ends with an error where the rest can't be read: whoever sends it must then break off.
pub struct Download {
    length: u64,
    given: u64,
    context: Arc<Context>,
    first: Option<(Bytes, OwnedSemaphorePermit)>,
    rest: Option<mpsc::Receiver<Result<(Bytes, OwnedSemaphorePermit)>>>,
}

impl Download {
    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.length - self.given
    }

    fn give(&mut self, bytes: Bytes) -> Bytes {
        self.given += bytes.len() as u64;
        self.context.metrics().bytes_out.inc_by(bytes.len() as u64);
        bytes
    }
}

impl Stream for Download {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if let Some((bytes, _permit)) = self.first.take()
            && !bytes.is_empty()
        {
            return Poll::Ready(Some(Ok(self.give(bytes))));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        match ready!(rest.poll_recv(task)) {
            Some(Ok((bytes, _permit))) => Poll::Ready(Some(Ok(self.give(bytes)))),
            Some(Err(error)) => {
                self.rest = None;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.rest = None;
                let early = self.left() > 0;
                Poll::Ready(
                    early.then(|| Err(GatewayError::Internal("the answer was broken off".to_owned()))),
                )
            }
        }
    }
}

type Wanted = (BlobId, RingKeyNumber, Piece, Range<u64>);

/// Begins to read a range of an object. What it gives was verified up to its first chunk, and enough rows of the extents
/// that follow are on devices that are there.
pub(crate) async fn open_stream(
    context: &Arc<Context>,
    blobs: &[Blob],
    range: Range<u64>,
) -> Result<Download> {
    let pieces = pieces_of(blobs, &range);
    let length = range.end - range.start;
    let mut places = Places::default();
    let agents = context.agents();
    for (_, _, piece, _) in pieces.iter().take(CHECKED_FIRST) {
        places.extent(context, piece.extent).await?.check(context, &agents).await?;
    }
    let mut chunks = Box::pin(chunks(context.clone(), pieces, places));
    let Some(first) = chunks.try_next().await? else {
        return Ok(Download { length: 0, given: 0, context: context.clone(), first: None, rest: None });
    };
    let first = read_with_room(context.clone(), first).await?;
    let got = first.0.len() as u64;
    let rest = (got < length).then(|| {
        let (give, rest) = mpsc::channel(1);
        tokio::spawn(run_ahead(context.clone(), chunks, give));
        rest
    });
    Ok(Download { length, given: 0, context: context.clone(), first: Some(first), rest })
}

/// Reads all of an object from this site's own rows, verifies every tag, and throws the bytes away; how many there were.
pub(crate) async fn read_alone(context: &Arc<Context>, blobs: &[Blob], size: u64) -> Result<u64> {
    let mut chunks = Box::pin(chunks(context.clone(), pieces_of(blobs, &(0..size)), Places::alone()));
    let mut read = 0;
    while let Some(chunk) = chunks.try_next().await? {
        read += read_with_room(context.clone(), chunk).await?.0.len() as u64;
    }
    if read == size {
        Ok(read)
    } else {
        Err(GatewayError::Corrupt(format!("{read} of {size} bytes are there")))
    }
}

/// All chunks, in order, planned as they are asked for.
fn chunks(
    context: Arc<Context>,
    pieces: Vec<Wanted>,
    places: Places,
) -> impl Stream<Item = Result<PlannedChunk>> {
    let plan = move |(mut places, mut pieces, mut ready): (
        Places,
        std::vec::IntoIter<Wanted>,
        Vec<PlannedChunk>,
    )| {
        let context = context.clone();
        async move {
            loop {
                if let Some(chunk) = ready.pop() {
                    return Ok(Some((chunk, (places, pieces, ready))));
                }
                let Some((blob, ring_key, piece, wanted)) = pieces.next() else { return Ok(None) };
                ready = plan_chunks(&context, &mut places, (blob, ring_key), &piece, wanted).await?;
                ready.reverse();
            }
        }
    };
    futures::stream::try_unfold((places, pieces.into_iter(), Vec::new()), plan)
}

async fn read_with_room(context: Arc<Context>, chunk: PlannedChunk) -> Result<(Bytes, OwnedSemaphorePermit)> {
    let room = chunk.place.sealed + chunk.place.plain;
    let permit = turn(&context, context.reads(), room.max(1), "large answers").await?;
    Ok((read_plain(&context, &chunk).await?, permit))
}

async fn run_ahead(
    context: Arc<Context>,
    chunks: impl Stream<Item = Result<PlannedChunk>> + Send,
    give: mpsc::Sender<Result<(Bytes, OwnedSemaphorePermit)>>,
) {
    let idle = context.limits().body_idle;
    let read = |chunk| read_with_room(context.clone(), chunk);
    let mut read = Box::pin(chunks.map_ok(read).try_buffered(AHEAD));
    while let Some(next) = read.next().await {
        let failed = next.is_err();
        if let Err(error) = &next {
            tracing::warn!(%error, "an answer is broken off: the rest of the object can't be read");
        }
        // A client that takes nothing for too long gets no more; its answer breaks off.
        let taken = tokio::time::timeout(idle, give.send(next)).await;
        if failed || !matches!(taken, Ok(Ok(()))) {
            return;
        }
    }
}
