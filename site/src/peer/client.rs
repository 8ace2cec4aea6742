//! The client of the other site's peer door.

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use diptych_core::ids::{ClusterId, ExtentId, SiteName};
use diptych_core::keys::Key;
use diptych_core::lease::Message;
use diptych_core::records::Position;
use diptych_wire::http::{HttpClient, HttpError, empty, full};
use diptych_wire::identity::Expected;
use diptych_wire::peer::{
    self, Compacted, DrillAnswer, DrillOrder, FeedFrame, Foundation, JoinQuestion, OutsideAnswer,
    OutsideQuestion, RowSpan, RowsWanted, SnapshotPage, SnapshotReply, UnseenTerm,
};
use diptych_wire::tls::{Credentials, TlsError};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;

use crate::drill::CutSwitch;
use crate::keeper::PeerLink;
use crate::status::SiteStatus;

/// A lease message that takes longer is lost: the next one is on its way.
const LEASE_LIMIT: Duration = Duration::from_secs(1);
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// It is asked for again all the time.
const STATUS_LIMIT: Duration = Duration::from_secs(3);
/// The feed beats each half second; a silent one is broken.
const FEED_SILENCE: Duration = Duration::from_secs(3);
/// Largest answer that is not a stream.
const MAX_ANSWER: usize = 64 << 20;

/// The peer did not do as asked.
#[derive(Debug, Error)]
pub enum PeerError {
    /// It can't be reached.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It answered something else.
    #[error("the other site answered {status}: {text}")]
    Refused {
        /// Of HTTP.
        status: StatusCode,
        /// What it said.
        text: String,
    },
    /// It does not speak this protocol.
    #[error("the other site's answer can't be read: {0}")]
    Unreadable(String),
    /// It fell silent.
    #[error("the other site was silent for {0:?}")]
    Silent(Duration),
    /// A drill has cut this site off.
    #[error("a drill has cut this site off: the other one is not asked")]
    CutOff,
}

/// How a feed begins.
pub enum FeedOpening {
    /// It does.
    Open(FeedReader),
    /// A snapshot is needed first.
    Compacted(Compacted),
}

/// The other site's door. Cheap to clone.
#[derive(Clone)]
pub struct PeerClient {
    http: HttpClient,
    cut: CutSwitch,
}

impl PeerClient {
    /// To a door, whichever of its addresses answers. While `cut` is on nothing is asked of it.
    pub fn new(
        addresses: &[SocketAddr],
        site: &SiteName,
        cluster: ClusterId,
        own: &Credentials,
        cut: CutSwitch,
    ) -> Result<Self, TlsError> {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        Self::at(&addresses, site, cluster, own, cut)
    }

    /// The same by `host:port`.
    pub fn at(
        addresses: &[String],
        site: &SiteName,
        cluster: ClusterId,
        own: &Credentials,
        cut: CutSwitch,
    ) -> Result<Self, TlsError> {
        let expected = Expected::gateway(cluster, site.clone());
        Ok(Self { http: HttpClient::of_any(addresses, own, expected)?, cut })
    }

    /// While it is on nothing is asked.
    pub fn cut(&self) -> &CutSwitch {
        &self.cut
    }

    /// The transport, for what is forwarded.
    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// The feed after a position.
    pub async fn feed(&self, after: Position) -> Result<FeedOpening, PeerError> {
        let path = format!("{}?incarnation={}&revision={}", peer::FEED, after.incarnation, after.revision);
        let request = self.request(Method::GET, &path, None)?;
        let answer = timed(FEED_SILENCE, self.http.send(request)).await?;
        match answer.status() {
            StatusCode::OK => {
                let (body, cut) = (answer.into_body(), self.cut.clone());
                Ok(FeedOpening::Open(FeedReader { body, buffer: BytesMut::new(), cut }))
            }
            StatusCode::GONE => Ok(FeedOpening::Compacted(decode(&collect(answer.into_body()).await?)?)),
            _ => Err(refused(answer).await),
        }
    }

    /// A page of a snapshot.
    pub async fn snapshot(&self, from: Option<Key>) -> Result<SnapshotReply, PeerError> {
        self.post(peer::SNAPSHOT, &SnapshotPage { from }).await
    }

    /// The values of keys, at one position.
    pub async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, PeerError> {
        self.post(peer::READ, &keys).await
    }

    /// What this site is built on, for the token in the client's certificate.
    pub async fn join(&self, question: &JoinQuestion) -> Result<Foundation, PeerError> {
        self.post(peer::JOIN, question).await
    }

    /// What an outside node runs with, for the token in the client's certificate.
    pub async fn join_outside(&self, question: &OutsideQuestion) -> Result<OutsideAnswer, PeerError> {
        self.post(peer::JOIN_OUTSIDE, question).await
    }

    /// A certificate that is valid for longer, for the outside agent whose certificate is the client's.
    pub async fn renew_outside(&self, question: &OutsideQuestion) -> Result<OutsideAnswer, PeerError> {
        self.post(peer::RENEW_OUTSIDE, question).await
    }

    /// Ranges of rows that the other site has: by range its bytes, or why they do not read.
    pub async fn rows(
        &self,
        extent: ExtentId,
        spans: Vec<RowSpan>,
    ) -> Result<Vec<Result<Vec<u8>, String>>, PeerError> {
        self.post(peer::ROWS, &RowsWanted { extent, spans }).await
    }

    /// Hands an unseen term over; how many of its versions were taken in.
    pub async fn unseen(&self, term: &UnseenTerm) -> Result<u64, PeerError> {
        self.post(peer::UNSEEN, term).await
    }

    /// How the other site is, as its keeper wrote it last.
    pub async fn status(&self) -> Result<SiteStatus, PeerError> {
        let request = self.request(Method::GET, peer::STATUS, None)?;
        let answer = timed(STATUS_LIMIT, self.http.send(request)).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused(answer).await);
        }
        serde_json::from_slice(&collect(answer.into_body()).await?)
            .map_err(|error| PeerError::Unreadable(error.to_string()))
    }

    /// What a drill asks of the other site.
    pub async fn drill(&self, order: DrillOrder) -> Result<DrillAnswer, PeerError> {
        self.post(peer::DRILL, &order).await
    }

    async fn post<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
    ) -> Result<A, PeerError> {
        let body = postcard::to_stdvec(question).map_err(|error| PeerError::Unreadable(error.to_string()))?;
        let request = self.request(Method::POST, path, Some(body.into()))?;
        let answer = timed(CALL_LIMIT, self.http.send(request)).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused(answer).await);
        }
        decode(&collect(answer.into_body()).await?)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Request<diptych_wire::http::HttpBody>, PeerError> {
        if self.cut.is_cut() {
            return Err(PeerError::CutOff);
        }
        let unreadable = |error: http::Error| PeerError::Unreadable(error.to_string());
        let uri = self.http.uri(path).map_err(unreadable)?;
        Request::builder().method(method).uri(uri).body(body.map_or_else(empty, full)).map_err(unreadable)
    }
}

#[async_trait]
impl PeerLink for PeerClient {
    async fn send(&self, message: Message) {
        let Ok(body) = postcard::to_stdvec(&message) else { return };
        let Ok(request) = self.request(Method::POST, peer::LEASE, Some(body.into())) else { return };
        if let Err(error) = timed(LEASE_LIMIT, self.http.send(request)).await {
            tracing::debug!(%error, "a lease message was lost");
        }
    }
}

/// Frames of a feed as they come.
pub struct FeedReader {
    body: Incoming,
    buffer: BytesMut,
    cut: CutSwitch,
}

impl FeedReader {
    /// The next frame; waits for it.
    pub async fn next(&mut self) -> Result<FeedFrame, PeerError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            let read = tokio::select! {
                read = tokio::time::timeout(FEED_SILENCE, self.body.frame()) => read,
                () = self.cut.begun() => return Err(PeerError::CutOff),
            };
            let frame = read.map_err(|_| PeerError::Silent(FEED_SILENCE))?;
            let frame = frame.ok_or_else(|| PeerError::Unreadable("the feed ended".to_owned()))?;
            let frame = frame.map_err(|error| PeerError::Unreadable(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// A frame that is here already.
    pub fn buffered(&mut self) -> Result<Option<FeedFrame>, PeerError> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > peer::MAX_FEED_FRAME {
            return Err(PeerError::Unreadable(format!("a frame of {length} bytes")));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        decode(&self.buffer.split_to(length)).map(Some)
    }
}

async fn timed<T, E: Into<PeerError>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, PeerError> {
    tokio::time::timeout(limit, work).await.map_err(|_| PeerError::Silent(limit))?.map_err(Into::into)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PeerError> {
    postcard::from_bytes(bytes).map_err(|error| PeerError::Unreadable(error.to_string()))
}

async fn collect(body: Incoming) -> Result<Bytes, PeerError> {
    let limited = http_body_util::Limited::new(body, MAX_ANSWER);
    let collected = tokio::time::timeout(CALL_LIMIT, limited.collect()).await;
    let collected = collected.map_err(|_| PeerError::Silent(CALL_LIMIT))?;
    Ok(collected.map_err(|error| PeerError::Unreadable(error.to_string()))?.to_bytes())
}

async fn refused(answer: http::Response<Incoming>) -> PeerError {
    let status = answer.status();
    let text = collect(answer.into_body()).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    PeerError::Refused { status, text: text.unwrap_or_default() }
}
