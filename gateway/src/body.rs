//! Bodies of requests: read in pieces, never longer than announced, never taken for whole when they are not.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};

use crate::error::{GatewayError, Result};

/// What a front hands over: the plaintext as it comes.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// A body that gives pieces of a wanted size and checks its own length.
pub struct Body {
    stream: ByteStream,
    announced: Option<u64>,
    read: u64,
    limit: u64,
    idle: Duration,
    rest: Bytes,
    ended: bool,
}

impl Body {
    /// `announced` is what the request says of its length; more than `limit` is refused; a silence of `idle` ends it.
    pub fn new(stream: ByteStream, announced: Option<u64>, limit: u64, idle: Duration) -> Result<Self> {
        match announced {
            Some(bytes) if bytes > limit => Err(GatewayError::TooLarge(bytes)),
            _ => Ok(Self { stream, announced, read: 0, limit, idle, rest: Bytes::new(), ended: false }),
        }
    }

    /// Bytes that are to come in all, if that is known.
    pub fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Appends to `piece` until it holds `size` bytes or the body ends; true: more may come.
    pub async fn fill(&mut self, piece: &mut BytesMut, size: usize) -> Result<bool> {
        while piece.len() < size {
            if self.rest.is_empty() {
                if !self.pull().await? {
                    return Ok(false);
                }
                continue;
            }
            let wanted = (size - piece.len()).min(self.rest.len());
            piece.extend_from_slice(&self.rest.split_to(wanted));
        }
        self.more().await
    }

    /// Whether another byte comes. Known without waiting where the length was announced.
    async fn more(&mut self) -> Result<bool> {
        while self.rest.is_empty() {
            if !self.pull().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gets the next bytes into `rest`; false: the body is whole and over.
    async fn pull(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let next = tokio::time::timeout(self.idle, self.stream.next()).await;
        let next = next.map_err(|_| GatewayError::SlowBody(self.idle.as_secs()))?;
        match next {
            Some(Ok(bytes)) => {
                self.read += bytes.len() as u64;
                if self.read > self.announced.unwrap_or(self.limit) {
                    return Err(self.too_long());
                }
                self.rest = bytes;
                Ok(true)
            }
            Some(Err(GatewayError::BrokenBody(_)))
                if self.announced.is_some_and(|bytes| self.read < bytes) =>
            {
                Err(self.incomplete())
            }
            Some(Err(error)) => Err(error),
            None if self.announced.is_some_and(|bytes| self.read < bytes) => Err(self.incomplete()),
            None => {
                self.ended = true;
                Ok(false)
            }
        }
    }

    fn incomplete(&self) -> GatewayError {
        GatewayError::IncompleteBody { found: self.read, announced: self.announced.unwrap_or(0) }
    }

    fn too_long(&self) -> GatewayError {
        match self.announced {
            Some(bytes) => GatewayError::BrokenBody(format!("it is longer than the {bytes} bytes announced")),
            None => GatewayError::TooLarge(self.read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&'static [u8]], announced: Option<u64>) -> Body {
        let pieces: Vec<Result<Bytes>> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        Body::new(Box::pin(futures::stream::iter(pieces)), announced, 100, Duration::from_secs(5))
            .expect("it fits")
    }

    #[tokio::test]
    async fn pieces_have_the_wanted_size_and_the_last_one_is_known_as_last() {
        let mut body = body(&[b"abc", b"", b"defg", b"h"], Some(8));
        let mut piece = BytesMut::new();
        assert!(body.fill(&mut piece, 4).await.expect("it reads"));
        assert_eq!(&piece[..], b"abcd");
        let mut piece = BytesMut::new();
        assert!(!body.fill(&mut piece, 4).await.expect("it reads"));
        assert_eq!(&piece[..], b"efgh");
    }

    #[tokio::test]
    async fn a_body_shorter_than_announced_is_an_error_that_says_so() {
        let mut body = body(&[b"abc"], Some(8));
        let error = body.fill(&mut BytesMut::new(), 4).await.expect_err("it is short");
        assert!(matches!(error, GatewayError::IncompleteBody { found: 3, announced: 8 }), "{error}");
    }

    #[tokio::test]
    async fn a_body_longer_than_announced_is_refused() {
        let mut body = body(&[b"abc", b"defg"], Some(5));
        assert!(body.fill(&mut BytesMut::new(), 50).await.is_err());
    }

    #[tokio::test]
    async fn an_empty_body_is_whole() {
        let mut body = body(&[], Some(0));
        let mut piece = BytesMut::new();
        assert!(!body.fill(&mut piece, 4).await.expect("it reads"));
        assert!(piece.is_empty());
    }
}
