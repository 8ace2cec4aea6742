//! An extent's bytes from the other site's doors, from the first to the last, going on where a connection broke.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use diptych_wire::agent::{AgentError, Door, ExtentFacts};
use diptych_wire::http::{HttpClient, empty};
use diptych_wire::peer::EXTENTS;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::rows::invalid;
use crate::siblings::Siblings;

/// Failures in a row, without a byte between them, after which it is given up.
const PATIENCE: u32 = 6;
/// Between two attempts, times the number of failures.
const PAUSE: Duration = Duration::from_millis(200);
/// For an answer, and between two pieces of a body.
const IDLE: Duration = Duration::from_secs(15);
/// Pieces are gathered to about this before they are worked on.
const PIECE: usize = 1 << 20;

pub(super) struct Fetch {
    path: String,
    length: u64,
    got: u64,
    doors: VecDeque<HttpClient>,
    body: Option<Incoming>,
    failures: u32,
}

impl Fetch {
    pub(super) fn new(siblings: &Siblings, extent: &ExtentFacts, doors: &[Door]) -> Result<Self, AgentError> {
        let doors: VecDeque<_> = doors.iter().map(|door| siblings.door(door)).collect::<Result<_, _>>()?;
        if doors.is_empty() {
            return Err(invalid("no door of the other site was named"));
        }
        let path = format!("{EXTENTS}/{}", extent.extent);
        Ok(Self { path, length: u64::from(extent.length), got: 0, doors, body: None, failures: 0 })
    }

    /// The next piece; None after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, AgentError> {
        while self.got < self.length {
            match self.piece().await {
                Ok(piece) if !piece.is_empty() => {
                    self.got += piece.len() as u64;
                    self.failures = 0;
                    return Ok(Some(piece));
                }
                Ok(_) => self.failed("the body ended early").await?,
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(reason)) => self.failed(&reason).await?,
            }
        }
        Ok(None)
    }

    async fn failed(&mut self, reason: &str) -> Result<(), AgentError> {
        self.body = None;
        self.failures += 1;
        let what = self.doors[0].address().to_owned();
        tracing::warn!(door = what, got = self.got, reason, "fetching an extent broke off");
        if self.failures >= PATIENCE {
            return Err(AgentError::Unreachable {
                what: format!("the other site's door {what}"),
                reason: reason.to_owned(),
            });
        }
        self.doors.rotate_left(1);
        tokio::time::sleep(PAUSE * self.failures).await;
        Ok(())
    }

    async fn piece(&mut self) -> Result<Bytes, Trouble> {
        if self.body.is_none() {
            self.body = Some(self.open().await?);
        }
        let Some(body) = self.body.as_mut() else {
            return Ok(Bytes::new());
        };
        let room = (self.length - self.got) as usize;
        let mut piece = BytesMut::new();
        while piece.len() < PIECE.min(room) {
            let frame = tokio::time::timeout(IDLE, body.frame()).await;
            match frame.map_err(|_| Trouble::Passing(format!("nothing came in {IDLE:?}")))? {
                None => break,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        piece.extend_from_slice(&data);
                    }
                }
                // What came before the break counts.
                Some(Err(_)) if !piece.is_empty() => {
                    self.body = None;
                    break;
                }
                Some(Err(error)) => return Err(Trouble::Passing(error.to_string())),
            }
        }
        if piece.len() > room {
            return Err(Trouble::Final(AgentError::WrongExtent));
        }
        Ok(piece.freeze())
    }

    async fn open(&self) -> Result<Incoming, Trouble> {
        let door = &self.doors[0];
        let wrong = |error: http::Error| Trouble::Final(invalid(error.to_string()));
        let request = Request::builder()
            .method(Method::GET)
            .uri(door.uri(&self.path).map_err(wrong)?)
            .header(header::HOST, door.address())
            .header(header::RANGE, format!("bytes={}-", self.got))
            .body(empty())
            .map_err(wrong)?;
        let answer = tokio::time::timeout(IDLE, door.send(request)).await;
        let answer = answer.map_err(|_| Trouble::Passing(format!("no answer in {IDLE:?}")))?;
        let answer = answer.map_err(|error| Trouble::Passing(error.to_string()))?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&answer) == Some(self.got) => Ok(answer.into_body()),
            StatusCode::OK if self.got == 0 => Ok(answer.into_body()),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(Trouble::Final(AgentError::Gone)),
            status => Err(Trouble::Passing(format!("it answered {status}"))),
        }
    }
}

enum Trouble {
    /// Another attempt may do.
    Passing(String),
    /// None will.
    Final(AgentError),
}

/// First byte of a partial answer.
fn begins_at<B>(answer: &Response<B>) -> Option<u64> {
    let range = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
