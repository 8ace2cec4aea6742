//! A body whose rest is read when nobody wants it any more: a client that is still sending would meet a closed connection,
//! and never see why it was refused.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::Request;
use http::header::EXPECT;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// A client that sends for longer is cut off.
const TIME: Duration = Duration::from_secs(5);
/// A client that sends more is cut off.
const BYTES: u64 = 64 << 20;

/// The body of a request.
pub(crate) struct Lingering {
    body: Option<Incoming>,
    /// A client that waits to be asked for its body has sent nothing.
    waits: bool,
}

impl Lingering {
    /// Takes a request's body.
    pub(crate) fn of(request: Request<Incoming>) -> Request<Self> {
        let waits = request.headers().contains_key(EXPECT);
        request.map(|body| Self { body: Some(body), waits })
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !self.waits && !body.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(TIME, read_away(body)));
        }
    }
}

async fn read_away(mut body: Incoming) {
    let mut read = 0;
    while read < BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, |data| data.remaining() as u64);
    }
}
