//! Descriptors of open files, from process to process: SCM_RIGHTS over a unix socket.
//!
//! The kernel gives a descriptor with the first byte of the write that it went with, and each of them by itself. So they come in the order of the
//! frames that announce one, and are there once the frame's header is.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, WriteHalf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Bytes that are received at one time: messages with descriptors are short.
const PIECE: usize = 4 << 10;
/// Descriptors that may have come before the frames that announce them are read: one frame each, and no more than these come at one time.
const MOST: usize = 64;

/// What frames are written to.
pub(crate) trait Outlet: AsyncWrite + Send + Unpin {
    /// The socket, if it is one that carries descriptors.
    fn unix(&self) -> Option<&UnixStream>;
}

impl Outlet for OwnedWriteHalf {
    fn unix(&self) -> Option<&UnixStream> {
        Some(self.as_ref())
    }
}

/// TLS.
impl<S: AsyncWrite + Send> Outlet for WriteHalf<S> {
    fn unix(&self) -> Option<&UnixStream> {
        None
    }
}

/// Writes some of `bytes`, one at least, and the descriptor with them; how many.
pub(crate) async fn send_with(
    stream: &UnixStream,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let descriptors = [descriptor];
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(fits, "there is room for one");
        Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// Descriptors that came, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received(Arc<Mutex<VecDeque<OwnedFd>>>);

impl Received {
    fn queue(&self) -> MutexGuard<'_, VecDeque<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of the next frame that announces one.
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        self.queue().pop_front()
    }
}

/// The reading half of a unix socket by which descriptors come.
#[derive(Debug)]
pub(crate) struct Inlet {
    half: OwnedReadHalf,
    received: Received,
}

impl Inlet {
    pub(crate) fn new(half: OwnedReadHalf) -> (Self, Received) {
        let received = Received::default();
        (Self { half, received: received.clone() }, received)
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let stream: &UnixStream = self.half.as_ref();
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
        let mut queue = self.received.queue();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                queue.extend(descriptors);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) || queue.len() > MOST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more descriptors came than were announced",
            ));
        }
        Ok(message.bytes)
    }
}

impl AsyncRead for Inlet {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream: &UnixStream = self.half.as_ref();
        loop {
            ready!(stream.poll_read_ready(task))?;
            let room = buffer.remaining().min(PIECE);
            let unfilled = buffer.initialize_unfilled_to(room);
            match stream.try_io(Interest::READABLE, || self.receive(unfilled)) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn file_of(text: &str) -> File {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, text).expect("it is written");
        File::open(path).expect("it opens")
    }

    #[tokio::test]
    async fn descriptors_come_in_the_order_of_the_bytes_that_they_went_with() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let (_, mut write) = here.into_split();
        let (read, _keep) = there.into_split();
        let (mut inlet, received) = Inlet::new(read);
        for (bytes, text) in [(&b"one"[..], "first"), (b"two", "second")] {
            write.write_all(b"before").await.expect("sent");
            let file = file_of(text);
            let unix = write.unix().expect("a socket");
            assert_eq!(send_with(unix, bytes, file.as_fd()).await.expect("sent"), 3);
        }
        let mut bytes = [0; 18];
        inlet.read_exact(&mut bytes).await.expect("received");
        assert_eq!(&bytes, b"beforeonebeforetwo");
        for expected in ["first", "second"] {
            let mut text = String::new();
            let mut file = File::from(received.take().expect("it came"));
            file.read_to_string(&mut text).expect("it reads");
            assert_eq!(text, expected);
        }
        assert!(received.take().is_none());
    }

    #[tokio::test]
    async fn more_descriptors_than_are_announced_end_the_connection() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let (inlet, _received) = Inlet::new(there.into_split().0);
        let file = file_of("x");
        let sent = async {
            for _ in 0..=MOST {
                send_with(&here, b"x", file.as_fd()).await.expect("sent");
            }
        };
        let read = async {
            let mut inlet = inlet;
            let mut byte = [0; 1];
            loop {
                if let Err(error) = inlet.read_exact(&mut byte).await {
                    return error;
                }
            }
        };
        let ((), error) = tokio::join!(sent, read);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
