//! The peer door: what the other site, and its agents, may ask of this one. HTTP over mTLS, so who asks is known.
//!
//! A gateway listens, and takes forwarded requests aside; lease messages go to its keeper.

mod callers;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use diptych_catalog::{Catalog, CatalogError, FeedEntry, FeedStart, View};
use diptych_core::ids::{Epoch, ExtentId, SiteName};
use diptych_core::keys::{self, Key, KeyRange, Owner};
use diptych_core::lease::Message;
use diptych_core::records::Position;
use diptych_wire::peer::{
    self, Compacted, FeedFrame, RowsWanted, SnapshotPage, SnapshotReply, TermLabel, UnseenTerm,
};
use futures::{Stream, StreamExt, stream};
use http::StatusCode;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::callers::{FromKeeper, FromPeer, JoinToken, OutsideAgent, OutsideToken};
use crate::absorb::absorb;
use crate::drill::{CutSwitch, DrillOrders};
use crate::error::SiteError;
use crate::keeper::{KeeperHandle, boot_time, record};
use crate::keys::KeyProvider;
use crate::lost::is_accounted;
use crate::outside::OutsideJoins;
use crate::status::last_written;

/// A follower that hears nothing for longer takes the feed for broken.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// Keys of a snapshot's page.
const PAGE: usize = 2_000;
/// Its bytes, about, and the keys that are read at once: some values are large.
const PAGE_BYTES: usize = 4 << 20;
const SCAN: usize = 100;
/// Entries that are joined into one write.
const AT_ONCE: usize = 256;

/// Gives the ciphertext of extents, whichever rows it takes, and single rows.
#[async_trait]
pub trait ExtentSource: Send + Sync + 'static {
    /// The answer to a `GET` of an extent: 200 or 206 with a stream, 404 or 410 where this site has none of it, 503 where too
    /// few rows can be read.
    async fn extent(&self, extent: ExtentId, range: Option<&str>) -> Response;

    /// Ranges of this site's own rows: by range its bytes, or why they do not read. The outer error: none can be read now.
    async fn rows(&self, wanted: RowsWanted) -> Result<Vec<Result<Vec<u8>, String>>, String>;
}

/// The site's keeper, as a door needs it: in the same process, or another.
pub trait DoorKeeper: Send + Sync + 'static {
    /// Hands a message of the peer's keeper on. Lost ones are lost.
    fn deliver(&self, message: Message);

    /// The epoch under which this site serves now.
    fn serves(&self) -> Option<Epoch>;
}

impl DoorKeeper for KeeperHandle {
    fn deliver(&self, message: Message) {
        Self::deliver(self, message);
    }

    fn serves(&self) -> Option<Epoch> {
        self.state().loan(boot_time()).map(|loan| loan.epoch)
    }
}

/// Lets the other site join, by a token.
#[async_trait]
pub trait Joins: Send + Sync + 'static {
    /// The answer to a [`peer::JoinQuestion`], as it came, of the one that holds the token of this name.
    async fn join(&self, token: &str, question: Bytes) -> Response;
}

/// What a door needs.
pub struct DoorParts {
    /// The other site: nobody else may ask.
    pub peer: SiteName,
    /// This site's catalog.
    pub catalog: Arc<dyn Catalog>,
    /// Open the keyring of an unseen term.
    pub cluster_keys: Arc<KeyProvider>,
    /// This site's keeper.
    pub keeper: Arc<dyn DoorKeeper>,
    /// This site's rows.
    pub extents: Arc<dyn ExtentSource>,
    /// None: the sites were made together.
    pub joins: Option<Arc<dyn Joins>>,
    /// Lets outside nodes join, and stay.
    pub outside: Arc<dyn OutsideJoins>,
    /// Takes what the other site's drill asks.
    pub drills: Arc<dyn DrillOrders>,
    /// While it is on only that is answered.
    pub cut: CutSwitch,
}

type Door = Arc<DoorParts>;

/// The door's service.
pub fn router(parts: DoorParts) -> Router {
    let door: Door = Arc::new(parts);
    Router::new()
        .route(peer::FEED, get(feed))
        .route(peer::SNAPSHOT, post(snapshot))
        .route(&format!("{}/{{extent}}", peer::EXTENTS), get(extent))
        .route(peer::ROWS, post(rows))
        .route(peer::LEASE, post(lease))
        .route(peer::READ, post(read))
        .route(peer::UNSEEN, post(unseen))
        .route(peer::JOIN, post(join))
        .route(peer::JOIN_OUTSIDE, post(join_outside))
        .route(peer::RENEW_OUTSIDE, post(renew_outside))
        .route(peer::STATUS, get(status))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&door), unless_cut))
        .route(peer::DRILL, post(drill))
        .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
        .with_state(door)
}

fn refuse(status: StatusCode, text: impl Into<String>) -> Response {
    (status, text.into()).into_response()
}

fn failed(error: &impl std::fmt::Display) -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

fn reply(value: &impl Serialize) -> Response {
    match postcard::to_stdvec(value) {
        Ok(bytes) => bytes.into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn question<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Response>> {
    let refusal = |error| refuse(StatusCode::BAD_REQUEST, format!("the body can't be read: {error}"));
    postcard::from_bytes(body).map_err(|error| Box::new(refusal(error)))
}

/// A site that is cut off answers nothing of this, as if the line were broken.
async fn unless_cut(State(door): State<Door>, request: Request, next: Next) -> Response {
    if door.cut.is_cut() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "a drill has cut this site off");
    }
    next.run(request).await
}

async fn drill(_: FromKeeper, State(door): State<Door>, order: Bytes) -> Response {
    door.drills.order(order).await
}

async fn status(_: FromKeeper, State(door): State<Door>) -> Response {
    match last_written(door.catalog.as_ref()).await {
        Ok(Some(status)) => axum::Json(status).into_response(),
        Ok(None) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the keeper has written no status yet"),
        Err(error) => failed(&error),
    }
}

async fn join(JoinToken(token): JoinToken, State(door): State<Door>, question: Bytes) -> Response {
    match &door.joins {
        Some(joins) => joins.join(&token, question).await,
        None => refuse(StatusCode::NOT_FOUND, "nobody joins here"),
    }
}

async fn join_outside(
    OutsideToken(token): OutsideToken,
    State(door): State<Door>,
    question: Bytes,
) -> Response {
    door.outside.join_outside(&token, question).await
}

async fn renew_outside(
    OutsideAgent(node): OutsideAgent,
    State(door): State<Door>,
    question: Bytes,
) -> Response {
    door.outside.renew_outside(&node, question).await
}

async fn extent(
    _: FromPeer,
    State(door): State<Door>,
    Path(extent): Path<String>,
    headers: http::HeaderMap,
) -> Response {
    let Ok(extent) = extent.parse() else { return refuse(StatusCode::BAD_REQUEST, "no extent's name") };
    let range = headers.get(http::header::RANGE).and_then(|range| range.to_str().ok());
    door.extents.extent(extent, range).await
}

async fn rows(_: FromPeer, State(door): State<Door>, body: Bytes) -> Response {
    let wanted: RowsWanted = match question(&body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let bytes: u64 = wanted.spans.iter().map(|span| u64::from(span.len)).sum();
    if bytes > peer::MAX_ROWS_BYTES {
        return refuse(StatusCode::BAD_REQUEST, format!("{bytes} bytes of rows are too many at once"));
    }
    match door.extents.rows(wanted).await {
        Ok(read) => reply(&read),
        Err(reason) => refuse(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn lease(_: FromPeer, State(door): State<Door>, body: Bytes) -> Response {
    match question::<Message>(&body) {
        Ok(message) => {
            door.keeper.deliver(message);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn read(_: FromPeer, State(door): State<Door>, body: Bytes) -> Response {
    let wanted: Vec<Key> = match question(&body) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let read = async {
        let view = door.catalog.view().await?;
        wanted.iter().map(|key| Ok(view.get(key)?.filter(|_| is_fed(key)).map(|raw| raw.to_vec()))).collect()
    };
    match read.await {
        Ok::<Vec<Option<Vec<u8>>>, CatalogError>(values) => reply(&values),
        Err(error) => failed(&error),
    }
}

/// What a site keeps to itself never leaves it.
fn is_fed(key: &Key) -> bool {
    !matches!(keys::owner(key), Some(Owner::Private(_)) | None)
}

async fn unseen(_: FromPeer, State(door): State<Door>, body: Bytes) -> Response {
    let term: UnseenTerm = match question(&body) {
        Ok(term) => term,
        Err(refusal) => return *refusal,
    };
    let Some(epoch) = door.keeper.serves() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "this site is not active");
    };
    match accounted(door.catalog.as_ref(), epoch).await {
        Ok(true) => {}
        Ok(false) => {
            let reason = "what this site lost when it took over is being written down; ask again";
            return refuse(StatusCode::SERVICE_UNAVAILABLE, reason);
        }
        Err(error) => return failed(&error),
    }
    match absorb(door.catalog.as_ref(), epoch, &door.cluster_keys, &term).await {
        Ok(taken) => reply(&taken),
        Err(error) => failed(&error),
    }
}

async fn accounted(catalog: &dyn Catalog, epoch: Epoch) -> Result<bool, SiteError> {
    is_accounted(catalog.view().await?.as_ref(), catalog.site(), epoch)
}

async fn snapshot(_: FromPeer, State(door): State<Door>, body: Bytes) -> Response {
    let page: SnapshotPage = match question(&body) {
        Ok(page) => page,
        Err(refusal) => return *refusal,
    };
    match snapshot_page(door.catalog.as_ref(), page.from).await {
        Ok(page) => reply(&page),
        Err(error) => failed(&error),
    }
}

async fn snapshot_page(catalog: &dyn Catalog, from: Option<Key>) -> Result<SnapshotReply, SiteError> {
    let view = catalog.view().await?;
    let term = term_label(view.as_ref(), catalog.site())?;
    let mut range = KeyRange { start: from.unwrap_or(Key(Vec::new())), end: Key(vec![0xff; 64]) };
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let next = loop {
        let page = view.scan(&range, SCAN)?;
        for (key, value) in page.entries.into_iter().filter(|(key, _)| is_fed(key)) {
            bytes += key.0.len() + value.len();
            entries.push((key, value.to_vec()));
        }
        match page.next {
            Some(next) if entries.len() < PAGE && bytes < PAGE_BYTES => range.start = next,
            next => break next,
        }
    };
    Ok(SnapshotReply { position: view.position(), term, entries, next })
}

/// The term that this site's role-owned changes belong to: the newest, where that is its own.
///
/// FENCING (nothing vanishes): also while its gate is closed. A follower that passed over what this site had committed just before it was
/// started again, or gave its vote away, would never have it.
fn term_label(view: &dyn View, site: &SiteName) -> Result<Option<TermLabel>, SiteError> {
    let record = record::read(view, site)?;
    let newest = record::newest_term(view, record.epoch())?;
    let incarnation = view.position().incarnation;
    let own = newest.filter(|(_, term)| term.holder == *site && term.begun_at.incarnation == incarnation);
    let open = |epoch| record.gate_epoch() == Some(epoch);
    Ok(own.map(|(epoch, term)| TermLabel { epoch, open: open(epoch), begun_at: term.begun_at }))
}

#[derive(Deserialize)]
struct FeedQuery {
    incarnation: u64,
    revision: u64,
}

async fn feed(_: FromPeer, State(door): State<Door>, Query(query): Query<FeedQuery>) -> Response {
    let after = Position { incarnation: query.incarnation, revision: query.revision };
    match door.catalog.feed(after).await {
        Ok(FeedStart::From(entries)) => {
            let cut = door.cut.clone();
            let frames = frames(Arc::clone(&door.catalog), entries);
            let frames = frames.take_until(async move { cut.begun().await });
            Response::new(Body::from_stream(frames.map(Ok::<Bytes, Infallible>)))
        }
        Ok(FeedStart::Compacted { oldest }) => {
            let mut answer = reply(&Compacted { oldest });
            *answer.status_mut() = StatusCode::GONE;
            answer
        }
        Err(error) => failed(&error),
    }
}

/// What the follower was told of the term.
#[derive(PartialEq)]
enum Said {
    Nothing,
    Term(Option<TermLabel>),
}

/// What a feed's stream knows of what it said.
struct FeedState {
    catalog: Arc<dyn Catalog>,
    entries: stream::ReadyChunks<diptych_catalog::Feed>,
    said: Said,
    /// Confirmed before the last wait for entries began; None: none was waited for yet.
    position: Option<Position>,
}

/// Frames of a feed: entries as they come, a beat when there are none, the term whenever it is another.
fn frames(catalog: Arc<dyn Catalog>, entries: diptych_catalog::Feed) -> impl Stream<Item = Bytes> {
    let state =
        FeedState { catalog, entries: entries.ready_chunks(AT_ONCE), said: Said::Nothing, position: None };
    stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match next_frames(&mut state).await {
            Ok(bytes) => Some((bytes, Some(state))),
            Err(error) => {
                tracing::info!(%error, "a feed ends");
                None
            }
        }
    })
}

async fn next_frames(state: &mut FeedState) -> Result<Bytes, SiteError> {
    let position = match state.position.take() {
        Some(position) => position,
        None => state.catalog.position().await?,
    };
    let entries = tokio::time::timeout(BEAT_EVERY, state.entries.next()).await;
    let mut bytes = Vec::new();
    // Looked at after the entries came: what is of a term stands behind its beginning, whatever was open before.
    let view = state.catalog.view().await?;
    let term = term_label(view.as_ref(), state.catalog.site())?;
    state.position = Some(view.position());
    drop(view);
    if state.said != Said::Term(term) {
        state.said = Said::Term(term);
        encode(&FeedFrame::Term(term), &mut bytes);
    }
    match entries {
        Ok(Some(entries)) => {
            for entry in entries {
                encode_entry(entry?, &mut bytes);
            }
        }
        Ok(None) => {
            return Err(SiteError::Catalog(CatalogError::Unavailable {
                reason: "the feed ended".to_owned(),
            }));
        }
        Err(_) => encode(&FeedFrame::Beat { position }, &mut bytes),
    }
    Ok(bytes.into())
}

fn encode_entry(entry: FeedEntry, bytes: &mut Vec<u8>) {
    let changes = entry.changes.into_iter().map(|(key, value)| (key, value.map(|value| value.to_vec())));
    encode(&FeedFrame::Entry { position: entry.position, changes: changes.collect() }, bytes);
}

fn encode(frame: &FeedFrame, bytes: &mut Vec<u8>) {
    if let Ok(frame) = postcard::to_stdvec(frame) {
        bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&frame);
    }
}
