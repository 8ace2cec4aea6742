//! Following the peer's feed: in order, many entries in one transaction, the cursor in it too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, FeedEntry, Guard, Write};
use diptych_core::ids::{Epoch, SiteName};
use diptych_core::keys;
use diptych_core::lease::Event;
use diptych_core::records::{Cursor, Position, Record};
use diptych_wire::peer::{FeedFrame, TermLabel};
use tokio::sync::{Notify, watch};

use super::apply::{NotTaken, apply, concerns, confirmed, mirror_cursor};
use super::client::{FeedOpening, FeedReader, PeerClient, PeerError};
use super::snapshot;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::keeper::KeeperHandle;
use crate::rejoin;

/// Entries of one transaction.
const AT_ONCE: usize = 512;
/// A cursor that only passed what does not concern this site is written down so seldom: each write of it is an entry of
/// the own feed, which the peer's cursor passes.
const IDLE_ENTRIES: usize = 4_096;
const PAUSE: Duration = Duration::from_millis(200);

/// How far the peer's feed was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// When something of the feed came last.
    pub heard: Instant,
    /// All of the peer's feed up to here is known to have been sent and applied; None: never heard.
    pub position: Option<Position>,
    /// The term that the peer said to be active in, last; None: it is not active, or not heard.
    pub term: Option<Epoch>,
}

impl Followed {
    /// Whether the peer is active in this epoch or a newer one, as far as is known.
    pub fn active_since(&self, epoch: Epoch) -> bool {
        self.term.is_some_and(|term| term >= epoch)
    }
}

/// The follower of one peer.
pub struct Follower {
    context: Arc<SiteContext>,
    from: SiteName,
    peer: PeerClient,
    keeper: KeeperHandle,
    followed: watch::Sender<Followed>,
    crossed: Arc<Notify>,
    wanted: Arc<Notify>,
    term: Option<TermLabel>,
    cursor: Cursor,
    idle: Vec<FeedEntry>,
}

impl Follower {
    /// `crossed` wakes it when an extent became whole here; `wanted` is told of new ones that are not.
    pub fn new(
        context: Arc<SiteContext>,
        from: SiteName,
        peer: PeerClient,
        keeper: KeeperHandle,
        crossed: Arc<Notify>,
        wanted: Arc<Notify>,
    ) -> Self {
        let followed = watch::Sender::new(Followed { heard: Instant::now(), position: None, term: None });
        let (cursor, idle) = (Cursor::default(), Vec::new());
        Self { context, from, peer, keeper, followed, crossed, wanted, term: None, cursor, idle }
    }

    /// How far it is.
    pub fn followed(&self) -> watch::Receiver<Followed> {
        self.followed.subscribe()
    }

    /// Follows again and again.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::info!(site = %self.context.site, from = %self.from, %error, "the feed is not followed now");
            }
            self.followed.send_modify(|followed| followed.term = None);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(&mut self) -> Result<(), FollowError> {
        self.idle.clear();
        self.term = None;
        self.cursor = self.stored_cursor().await?;
        let mut feed = match self.peer.feed(self.cursor.applied).await? {
            FeedOpening::Open(feed) => feed,
            FeedOpening::Compacted(compacted) => {
                tracing::info!(site = %self.context.site, oldest = ?compacted.oldest, "a snapshot is taken first");
                rejoin::before_snapshot(&self.context, &self.from, &self.peer).await?;
                snapshot::copy(&self.context, &self.from, &self.peer).await?;
                return Ok(());
            }
        };
        self.confirm().await?;
        loop {
            let crossed = Arc::clone(&self.crossed);
            let frame = tokio::select! {
                frame = feed.next() => frame?,
                () = crossed.notified() => {
                    self.confirm().await?;
                    continue;
                }
            };
            self.take(frame, &mut feed).await?;
        }
    }

    async fn take(&mut self, frame: FeedFrame, feed: &mut FeedReader) -> Result<(), FollowError> {
        let mut entries = Vec::new();
        let mut next = Some(frame);
        let mut beat = None;
        while let Some(frame) = next {
            match frame {
                FeedFrame::Entry { position, changes } => {
                    let changes = changes.into_iter().map(|(key, value)| (key, value.map(Bytes::from)));
                    entries.push(FeedEntry { position, changes: changes.collect() });
                }
                FeedFrame::Beat { position } => beat = Some(position),
                FeedFrame::Term(term) => {
                    self.take_entries(std::mem::take(&mut entries)).await?;
                    self.begin_term(term).await?;
                }
            }
            next = if entries.len() < AT_ONCE { feed.buffered()? } else { None };
        }
        self.take_entries(entries).await?;
        let position = beat.or(Some(self.known()));
        let term = self.term.map(|term| term.epoch);
        self.followed.send_replace(Followed { heard: Instant::now(), position, term });
        Ok(())
    }

    /// The newest position that was passed, written down or not.
    fn known(&self) -> Position {
        self.idle.last().map_or(self.cursor.applied, |entry| entry.position)
    }

    /// FENCING (nothing vanishes): before the first role-owned entry of a newer term is taken, what this site committed
    /// and that term never saw is handed over and put right.
    async fn begin_term(&mut self, term: Option<TermLabel>) -> Result<(), FollowError> {
        if let Some(label) = term {
            rejoin::settle(&self.context, &self.from, &self.peer, label, &self.keeper).await?;
            self.cursor = self.stored_cursor().await?;
        }
        self.term = term;
        Ok(())
    }

    async fn take_entries(&mut self, entries: Vec<FeedEntry>) -> Result<(), FollowError> {
        // What a settled term skipped is behind the cursor already.
        let applied = self.cursor.applied;
        let mut fresh: Vec<FeedEntry> =
            entries.into_iter().filter(|entry| entry.position > applied).collect();
        let concerned = fresh.iter().any(|entry| concerns(entry, &self.from, self.term));
        if !concerned {
            mirror_cursor(&self.context, &self.from, &mut fresh).await?;
        }
        self.idle.append(&mut fresh);
        if !concerned && self.idle.len() < IDLE_ENTRIES {
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.idle);
        while !rest.is_empty() {
            match apply(&self.context, &self.from, self.term, &rest, &self.cursor).await? {
                Ok(taken) => {
                    if let Some(raised) = taken.raised {
                        self.keeper.tell(Event::RecordSeen(raised));
                    }
                    self.wanted.notify_one();
                    self.cursor = taken.cursor;
                    rest.drain(..taken.entries);
                }
                Err(NotTaken::Changed) => return Err(FollowError::Changed),
                Err(NotTaken::OldTerm) => return Err(FollowError::OldTerm),
            }
        }
        Ok(())
    }

    /// Moves the confirmed position up to what is applied and whole here.
    async fn confirm(&mut self) -> Result<(), FollowError> {
        let view = self.context.catalog.view().await.map_err(SiteError::from)?;
        let Cursor { applied, confirmed: known } = self.cursor;
        let confirmed = confirmed(view.as_ref(), &self.context.site, &BTreeMap::new(), applied, known)?;
        drop(view);
        if confirmed == known {
            return Ok(());
        }
        let new = Cursor { applied, confirmed };
        let key = keys::cursor(&self.context.site);
        let old = if self.cursor == Cursor::default() {
            Expect::Absent
        } else {
            Expect::Value(self.cursor.encode().into())
        };
        let change = Change {
            guards: vec![Guard { key: key.clone(), expect: old }],
            writes: vec![Write::Put(key, Bytes::from(new.encode()))],
        };
        let committed =
            self.context.catalog.commit(Batch::one(None, change)).await.map_err(SiteError::from)?;
        if !committed.all_applied() {
            return Err(FollowError::Changed);
        }
        self.cursor = new;
        Ok(())
    }

    async fn stored_cursor(&self) -> Result<Cursor, SiteError> {
        let view = self.context.catalog.view().await?;
        let stored = view.get(&keys::cursor(&self.context.site))?;
        Ok(stored.map(|raw| Cursor::decode(&raw)).transpose()?.unwrap_or_default())
    }
}

/// Why the feed is not followed now.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The own catalog.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
    /// Another hand changed the record or the cursor.
    #[error("the site's record or cursor changed under way")]
    Changed,
    /// The peer speaks for a term that is over.
    #[error("the other site is of an older term than this site's vote")]
    OldTerm,
}
