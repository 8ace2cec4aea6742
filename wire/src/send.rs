//! The sending half of a connection: what waits in the queue goes out in as few writes as it can.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::descriptors::{Outlet, send_with};
use crate::frame::Outgoing;

/// Frames that are taken from the queue at once.
const BATCH: usize = 64;
/// Pieces below this are gathered into one write, greater ones are written as they are.
const GATHER: usize = 16 << 10;

/// A batch that is not taken in this time never will be: the other end has gone or stands still.
const STALL: Duration = Duration::from_secs(30);

/// A frame to send, and what is let go once it was written.
pub(crate) struct Queued<P> {
    pub(crate) frame: Outgoing,
    /// Goes with it.
    pub(crate) descriptor: Option<OwnedFd>,
    #[expect(dead_code, reason = "dropped after the write: it holds room in a budget until then")]
    pub(crate) hold: P,
}

impl<P> Queued<P> {
    pub(crate) const fn new(frame: Outgoing, hold: P) -> Self {
        Self { frame, descriptor: None, hold }
    }
}

/// Sends until the queue is closed and empty, or the connection breaks.
pub(crate) async fn send_all<P, W: Outlet>(
    mut queue: mpsc::Receiver<Queued<P>>,
    mut stream: W,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut gathered = BytesMut::with_capacity(2 * GATHER);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let sent = tokio::time::timeout(STALL, send_batch(&mut stream, &mut gathered, &batch)).await;
        sent.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing any more"))??;
        batch.clear();
    }
    stream.shutdown().await
}

async fn send_batch<P, W: Outlet>(
    stream: &mut W,
    gathered: &mut BytesMut,
    batch: &[Queued<P>],
) -> io::Result<()> {
    for queued in batch {
        match &queued.descriptor {
            None => put(stream, gathered, &queued.frame.head).await?,
            Some(descriptor) => put_with(stream, gathered, &queued.frame.head, descriptor).await?,
        }
        for piece in &queued.frame.payload {
            put(stream, gathered, piece).await?;
        }
    }
    stream.write_all(gathered).await?;
    gathered.clear();
    stream.flush().await
}

/// A head that a descriptor goes with: nothing that was gathered may be in the same write.
async fn put_with<W: Outlet>(
    stream: &mut W,
    gathered: &mut BytesMut,
    head: &Bytes,
    descriptor: &OwnedFd,
) -> io::Result<()> {
    stream.write_all(gathered).await?;
    gathered.clear();
    let unix = stream.unix().ok_or(io::ErrorKind::Unsupported)?;
    let written = send_with(unix, head, descriptor.as_fd()).await?;
    stream.write_all(&head[written..]).await
}

async fn put<W: Outlet>(stream: &mut W, gathered: &mut BytesMut, piece: &Bytes) -> io::Result<()> {
    if gathered.len() + piece.len() > 4 * GATHER || piece.len() >= GATHER {
        stream.write_all(gathered).await?;
        gathered.clear();
    }
    if piece.len() >= GATHER {
        stream.write_all(piece).await
    } else {
        gathered.extend_from_slice(piece);
        Ok(())
    }
}
