//! The sending half of a connection: what waits in the queue goes out in as few writes as it can.

use bytes::Bytes;
use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::frame::Outgoing;

/// Frames that are taken from the queue at once.
const BATCH: usize = 64;
/// Pieces below this are gathered into one write, greater ones are written as they are.
const GATHER: usize = 16 << 10;

/// A frame to send, and what is let go once it was written.
pub(crate) struct Queued<P> {
    pub(crate) frame: Outgoing,
    #[expect(dead_code, reason = "dropped after the write: it holds room in a budget until then")]
    pub(crate) hold: P,
}

impl<P> Queued<P> {
    pub(crate) const fn new(frame: Outgoing, hold: P) -> Self {
        Self { frame, hold }
    }
}

/// Sends until the queue is closed and empty, or the connection breaks.
pub(crate) async fn send_all<P: Send, W: AsyncWrite + Unpin>(
    mut queue: mpsc::Receiver<Queued<P>>,
    mut stream: W,
) -> std::io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut gathered = BytesMut::with_capacity(2 * GATHER);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        for queued in &batch {
            put(&mut stream, &mut gathered, &queued.frame.head).await?;
            for piece in &queued.frame.payload {
                put(&mut stream, &mut gathered, piece).await?;
            }
        }
        stream.write_all(&gathered).await?;
        gathered.clear();
        stream.flush().await?;
        batch.clear();
    }
    stream.shutdown().await
}

async fn put<W: AsyncWrite + Unpin>(stream: &mut W, gathered: &mut BytesMut, piece: &Bytes) -> std::io::Result<()> {
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
