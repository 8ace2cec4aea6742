//! Following the peer's feed: in order, many entries in one transaction, the cursor in it too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::FeedEntry;
use diptych_core::ids::{Epoch, SiteName};
use diptych_core::keys;
use diptych_core::lease::{Event, Millis};
use diptych_core::records::{Cursor, Position, Record};
use diptych_wire::peer::{FeedFrame, TermLabel};

use super::apply::{NotTaken, concerns, mirror_cursor};
use super::client::{FeedOpening, FeedReader, PeerClient, PeerError};
use super::exposure::HeardCursor;
use super::reached::{Known, Reached};
use super::snapshot;
use crate::config::Acknowledge;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::keeper::{KeeperHandle, record};
use crate::rejoin;

/// Entries of one transaction.
const AT_ONCE: usize = 512;
/// A cursor that only passed what does not concern this site is written down so seldom: each write of it is an entry of
/// the own feed, which the peer's cursor passes.
const IDLE_ENTRIES: usize = 4_096;
/// The peer's cursor is written down so seldom, where nobody waits for it.
const MIRRORED_EVERY: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// How far the peer's feed was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// When something of the feed came last.
    pub heard: Instant,
    /// All of the peer's feed up to here is known to have been sent and applied; None: never heard.
    pub position: Option<Position>,
    /// The term that the peer said to be active in, last; None: it is not active, or not heard, or this site may not take it.
    pub term: Option<Epoch>,
    /// Nothing was heard by this keeper yet, and the one before has noted the rest; how long the other site went on unheard, as far as that one saw.
    pub kept: Option<Millis>,
}

impl Default for Followed {
    /// Never heard.
    fn default() -> Self {
        Self { heard: Instant::now(), position: None, term: None, kept: None }
    }
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
    reached: Arc<Reached>,
    heard: HeardCursor,
    term: Option<TermLabel>,
    /// What comes may not be taken now, and not be passed over either.
    held: bool,
    /// As far as it was written down.
    applied: Position,
    /// A position that the own catalog has reached.
    seen: Position,
    /// What was passed since then.
    idle: Vec<FeedEntry>,
    mirrored: Instant,
}

impl Follower {
    /// Moves `reached`, and tells `heard` how far the peer is in this site's feed.
    pub fn new(
        context: Arc<SiteContext>,
        from: SiteName,
        peer: PeerClient,
        keeper: KeeperHandle,
        reached: Arc<Reached>,
        heard: HeardCursor,
    ) -> Self {
        let (nowhere, idle, mirrored) = (Position::default(), Vec::new(), Instant::now());
        let (applied, seen) = (nowhere, nowhere);
        Self {
            context,
            from,
            peer,
            keeper,
            reached,
            heard,
            term: None,
            held: false,
            applied,
            seen,
            idle,
            mirrored,
        }
    }

    /// Follows again and again.
    pub async fn run(mut self) {
        loop {
            let ended = self.follow().await;
            self.context.followed.send_modify(|followed| followed.term = None);
            self.reached.forget().await;
            match ended {
                Ok(()) | Err(FollowError::Released) => {}
                Err(error) => {
                    tracing::info!(site = %self.context.site, from = %self.from, %error, "the feed is not followed now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn follow(&mut self) -> Result<(), FollowError> {
        self.idle.clear();
        (self.term, self.held) = (None, false);
        let known = self.reached.load().await?;
        self.know(known);
        let mut feed = match self.peer.feed(self.applied).await? {
            FeedOpening::Open(feed) => feed,
            FeedOpening::Compacted(compacted) => {
                tracing::info!(site = %self.context.site, oldest = ?compacted.oldest, "a snapshot is taken first");
                self.reached.forget().await;
                return self.begin_anew().await;
            }
        };
        loop {
            let frame = feed.next().await?;
            self.take(frame, &mut feed).await?;
        }
    }

    /// Copies the peer's catalog whole.
    ///
    /// FENCING (nothing vanishes): what this site committed and the peer's term never saw is handed over before it is overwritten.
    async fn begin_anew(&self) -> Result<(), FollowError> {
        let Self { context, from, peer, keeper, seen, .. } = self;
        let term = peer.snapshot(None).await?.term;
        let copied = match term {
            Some(label) => rejoin::settle(context, from, peer, label, keeper, *seen).await?.copied,
            None => false,
        };
        if !copied {
            snapshot::copy(context, from, peer, term.map(|label| label.epoch)).await?;
        }
        Ok(())
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
        if self.held {
            return Ok(());
        }
        let position = beat.or(Some(self.known()));
        let term = self.term.filter(|term| term.open).map(|term| term.epoch);
        self.context.followed.send_replace(Followed { heard: Instant::now(), position, term, kept: None });
        Ok(())
    }

    /// The newest position that was passed, written down or not.
    fn known(&self) -> Position {
        self.idle.last().map_or(self.applied, |entry| entry.position)
    }

    /// FENCING (nothing vanishes): before the first role-owned entry of a newer term is taken, what this site committed
    /// and that term never saw is handed over and put right.
    /// What was committed under a gate that is closed now is neither taken nor passed over where this site has voted for a later term: the other
    /// one may hand it over when it rejoins that, and says so by its next label, or win again and go on with it.
    async fn begin_term(&mut self, term: Option<TermLabel>) -> Result<(), FollowError> {
        if self.held {
            return Err(FollowError::Released);
        }
        let Self { context, from, peer, keeper, seen, .. } = &*self;
        let view = context.catalog.view_from(*seen).await.map_err(SiteError::from)?;
        let voted = record::read(view.as_ref(), &context.site)?.epoch();
        drop(view);
        if term.is_some_and(|label| !label.open && label.epoch < voted) {
            (self.term, self.held) = (None, true);
            return Ok(());
        }
        if let Some(label) = term {
            self.reached.forget().await;
            let settled = rejoin::settle(context, from, peer, label, keeper, *seen).await?;
            let known = self.reached.load_from(settled.seen).await?;
            self.know(known);
        }
        self.term = term;
        Ok(())
    }

    fn know(&mut self, known: Known) {
        self.applied = known.cursor.applied;
        self.seen = known.seen;
    }

    async fn take_entries(&mut self, entries: Vec<FeedEntry>) -> Result<(), FollowError> {
        self.hear(&entries)?;
        if self.held {
            return Ok(());
        }
        // What a settled term skipped is behind the cursor already.
        let applied = self.applied;
        let mut fresh: Vec<FeedEntry> =
            entries.into_iter().filter(|entry| entry.position > applied).collect();
        let concerned = fresh.iter().any(|entry| concerns(entry, &self.from, self.term));
        self.idle.append(&mut fresh);
        if !concerned && self.idle.len() < IDLE_ENTRIES {
            return self.mirror().await;
        }
        let mut rest = std::mem::take(&mut self.idle);
        while !rest.is_empty() {
            match self.reached.take(&self.from, self.term, &rest).await? {
                Ok(taken) => {
                    if let Some(raised) = taken.raised {
                        self.keeper.tell(Event::RecordSeen(raised));
                    }
                    self.know(taken.known);
                    rest.drain(..taken.entries);
                }
                Err(NotTaken::Changed) => return Err(FollowError::Changed),
                Err(NotTaken::OldTerm) => return Err(FollowError::OldTerm),
            }
        }
        Ok(())
    }

    /// Tells at once how far the peer says to be: a write or a handover may wait for it.
    fn hear(&self, entries: &[FeedEntry]) -> Result<(), FollowError> {
        let key = keys::cursor(&self.from);
        let changes = entries.iter().flat_map(|entry| &entry.changes);
        let newest =
            changes.filter(|(changed, _)| *changed == key).filter_map(|(_, value)| value.as_ref()).last();
        if let Some(raw) = newest {
            self.heard.tell(Cursor::decode(raw).map_err(SiteError::from)?);
        }
        Ok(())
    }

    /// Mirrors the peer's cursor alone. Other processes wait for it with `BothSites`; nobody does otherwise.
    async fn mirror(&mut self) -> Result<(), FollowError> {
        let both = self.context.acknowledge == Acknowledge::BothSites;
        if both || self.mirrored.elapsed() >= MIRRORED_EVERY {
            mirror_cursor(&self.context, &self.from, &mut self.idle).await?;
            self.mirrored = Instant::now();
        }
        Ok(())
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
    /// What was held may be taken or passed over now, or in another term: it is read again.
    #[error("another term is in force: what was held is read again")]
    Released,
    /// Another hand changed the record or the cursor.
    #[error("the site's record or cursor changed under way")]
    Changed,
    /// The peer speaks for a term that is over.
    #[error("the other site is of an older term than this site's vote")]
    OldTerm,
}
