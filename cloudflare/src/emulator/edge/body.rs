//! A request's body on its way through: counted, and cut at the limit.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// What is known of an upload, seen from outside.
#[derive(Debug)]
pub(super) struct UploadState {
    bytes: AtomicU64,
    too_large: AtomicBool,
    empty: bool,
}

impl UploadState {
    pub(super) fn new(empty: bool) -> Self {
        Self { bytes: AtomicU64::new(0), too_large: AtomicBool::new(false), empty }
    }

    /// Bytes that went through so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_too_large(&self) -> bool {
        !self.empty && self.too_large.load(Ordering::Relaxed)
    }
}

/// The body.
#[derive(Debug)]
pub(super) struct Upload {
    inner: Incoming,
    left: u64,
    state: Arc<UploadState>,
}

impl Upload {
    pub(super) fn new(inner: Incoming, limit: u64, state: Arc<UploadState>) -> Self {
        Self { inner, left: limit, state }
    }
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the body is larger than the edge lets through")]
    TooLarge,
    #[error("the client broke off")]
    Client(#[source] hyper::Error),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(UploadError::Client(error)))),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            let length = data.remaining() as u64;
            self.state.bytes.fetch_add(length, Ordering::Relaxed);
            let Some(left) = self.left.checked_sub(length) else {
                self.state.too_large.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(UploadError::TooLarge)));
            };
            self.left = left;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
