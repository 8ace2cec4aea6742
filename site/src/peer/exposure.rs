//! What the other site has not confirmed: it would be lost with this site.
//!
//! The own feed is read along with: each commit that changed role-owned keys is exposed until the other site's cursor,
//! which comes back through its feed, confirms a position behind it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use diptych_catalog::{Catalog, FeedEntry, FeedStart};
use diptych_core::ids::{ExtentId, SiteName};
use diptych_core::keys::{self, Key, Owner};
use diptych_core::records::{Cursor, Placement, Position, Record};
use futures::StreamExt;
use tokio::sync::watch;

use crate::context::now_ms;
use crate::error::SiteError;
use crate::peer::{cursor_of, each_lacking};
use crate::status::Exposure;

const PAUSE: Duration = Duration::from_millis(500);

/// A commit that the other site has not confirmed.
#[derive(Debug, Clone)]
struct Exposed {
    revision: u64,
    /// When it was seen here, milliseconds since 1970.
    since_ms: u64,
    /// Hashes of the heads that it changed.
    heads: Box<[u64]>,
}

/// What is known of the other site's progress.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The other site's cursor in this site's feed.
    pub cursor: Cursor,
    /// Commits that it has not confirmed.
    exposed: VecDeque<Exposed>,
    /// Commits that it has not applied.
    unapplied: VecDeque<u64>,
    /// Heads that those of `exposed` changed, by hash: revision of the newest.
    heads: HashMap<u64, u64>,
    hasher: RandomState,
    /// The newest position of this site's feed that was looked at.
    seen: Position,
    /// The feed has forgotten which heads the commits up to this revision changed, and the other site has not confirmed all of them.
    forgotten: Option<u64>,
}

impl Progress {
    /// How it begins, where the feed goes back to `oldest` only.
    ///
    /// FENCING (BothSites): what was forgotten counts as exposed, every head of it, until the other site has confirmed all of it.
    fn behind(oldest: Position, cursor: Cursor) -> Self {
        let commit = Exposed { revision: oldest.revision, since_ms: now_ms(), heads: Box::default() };
        let mut progress = Self {
            exposed: VecDeque::from([commit]),
            unapplied: VecDeque::from([oldest.revision]),
            seen: oldest,
            forgotten: Some(oldest.revision),
            ..Self::default()
        };
        progress.move_cursor(cursor);
        progress
    }

    /// Whether the other site has all role-owned changes up to `position`, with every extent of them whole.
    pub fn confirms(&self, position: Position) -> bool {
        let known = self.seen >= position && self.forgotten.is_none();
        known && self.exposed.front().is_none_or(|commit| commit.revision > position.revision)
    }

    /// Whether the other site has applied all role-owned changes up to `position`.
    pub fn has_applied(&self, position: Position) -> bool {
        // Of what was forgotten the last stands for all of it.
        let first = self.unapplied.front();
        let lacks = |first: &u64| *first <= position.revision || self.forgotten == Some(*first);
        self.seen >= position && !first.is_some_and(lacks)
    }

    /// The newest commit that changed this head and is exposed; None: the other site has confirmed all of them. Two heads may
    /// share a hash, so what is named may be a later commit, of another one.
    pub fn exposes(&self, head: &Key) -> Option<Position> {
        let revision = self.heads.get(&self.hasher.hash_one(head)).copied().or(self.forgotten)?;
        Some(Position { revision, ..self.seen })
    }

    /// How many commits are exposed, and for how long the oldest is.
    pub fn commits(&self) -> (u64, u64) {
        let age = self.exposed.front().map_or(0, |commit| now_ms().saturating_sub(commit.since_ms));
        (self.exposed.len() as u64, age)
    }

    /// How many objects they made, changed or deleted. Those in a stretch that the feed has forgotten are not among them.
    pub fn objects(&self) -> u64 {
        self.heads.len() as u64
    }

    fn note(&mut self, entry: &FeedEntry, own: &SiteName, peer: &SiteName) -> Result<(), SiteError> {
        self.seen = entry.position;
        let revision = entry.position.revision;
        // What was mirrored came with this site's own cursor, and from the other site: it has that.
        let own_cursor = keys::cursor(own);
        let mirrored = entry.changes.iter().any(|(key, _)| *key == own_cursor);
        let is_role_owned = |key: &Key| keys::owner(key) == Some(Owner::Active) && !keys::is_outside(key);
        let ours = |(key, _): &&(Key, _)| !mirrored && is_role_owned(key);
        // The other site's cursor may have been heard of before this site's own feed came so far.
        let done = |cursor: Position| {
            cursor.incarnation == entry.position.incarnation && cursor.revision >= revision
        };
        if entry.changes.iter().any(|change| ours(&change)) && !done(self.cursor.confirmed) {
            let changed = entry.changes.iter().filter(ours).filter(|(key, _)| keys::is_head(key));
            let heads: Box<[u64]> = changed.map(|(head, _)| self.hasher.hash_one(head)).collect();
            self.heads.extend(heads.iter().map(|head| (*head, revision)));
            self.exposed.push_back(Exposed { revision, since_ms: now_ms(), heads });
            if !done(self.cursor.applied) {
                self.unapplied.push_back(revision);
            }
        }
        let cursor_key = keys::cursor(peer);
        let cursors = entry.changes.iter().filter(|(key, _)| *key == cursor_key);
        for raw in cursors.filter_map(|(_, value)| value.as_ref()) {
            let cursor = Cursor::decode(raw)?;
            // It was mirrored later than it was heard.
            let older = cursor.applied.incarnation == self.cursor.applied.incarnation
                && cursor.applied <= self.cursor.applied
                && cursor.confirmed <= self.cursor.confirmed;
            if !older {
                self.move_cursor(cursor);
            }
        }
        Ok(())
    }

    fn move_cursor(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        let same = |position: Position| position.incarnation == self.seen.incarnation;
        if same(cursor.confirmed) {
            let done = |commit: &mut Exposed| commit.revision <= cursor.confirmed.revision;
            self.forgotten = self.forgotten.filter(|upto| *upto > cursor.confirmed.revision);
            while let Some(commit) = self.exposed.pop_front_if(done) {
                for head in commit.heads {
                    if self.heads.get(&head) == Some(&commit.revision) {
                        self.heads.remove(&head);
                    }
                }
            }
        }
        if same(cursor.applied) {
            while self.unapplied.front().is_some_and(|revision| *revision <= cursor.applied.revision) {
                self.unapplied.pop_front();
            }
        }
    }
}

/// Tells an [`ExposureWatch`] of the other site's cursor before this site's catalog has it.
#[derive(Debug, Clone)]
pub struct HeardCursor(watch::Sender<Progress>);

impl HeardCursor {
    /// The other site has written this down.
    pub fn tell(&self, cursor: Cursor) {
        self.0.send_if_modified(|progress| {
            let moved = progress.cursor != cursor;
            progress.move_cursor(cursor);
            moved
        });
    }
}

/// Follows the own feed and says how far the other site is.
pub struct ExposureWatch {
    catalog: Arc<dyn Catalog>,
    peer: SiteName,
    progress: watch::Sender<Progress>,
}

impl ExposureWatch {
    /// Of `peer`, seen from the site of `catalog`.
    pub fn new(catalog: Arc<dyn Catalog>, peer: SiteName) -> Self {
        Self { catalog, peer, progress: watch::Sender::new(Progress::default()) }
    }

    /// How far the other site is, as it moves.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// For who follows the other site's feed.
    pub fn heard(&self) -> HeardCursor {
        HeardCursor(self.progress.clone())
    }

    /// Follows for ever.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!(peer = %self.peer, %error, "the exposure is not known now");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(&self) -> Result<(), SiteError> {
        let view = self.catalog.view().await?;
        let cursor = cursor_of(view.as_ref(), &self.peer)?;
        let now = view.position();
        drop(view);
        let begin = if cursor.confirmed.incarnation == now.incarnation {
            cursor.confirmed
        } else {
            Position { revision: 0, ..now }
        };
        let (mut feed, progress) = match self.catalog.feed(begin).await? {
            FeedStart::From(feed) => (feed, Progress { cursor, seen: begin, ..Progress::default() }),
            FeedStart::Compacted { oldest } => match self.catalog.feed(oldest).await? {
                FeedStart::From(feed) => (feed, Progress::behind(oldest, cursor)),
                FeedStart::Compacted { .. } => return Ok(()),
            },
        };
        self.progress.send_replace(progress);
        while let Some(entry) = feed.next().await {
            let entry = entry?;
            let mut outcome = Ok(());
            let own = self.catalog.site();
            self.progress.send_modify(|progress| outcome = progress.note(&entry, own, &self.peer));
            outcome?;
        }
        Ok(())
    }
}

/// What would be lost if this site vanished now.
pub async fn exposure(
    catalog: &dyn Catalog,
    peer: &SiteName,
    progress: &Progress,
) -> Result<Exposure, SiteError> {
    let (commits, age_ms) = progress.commits();
    let mut exposure = Exposure { commits, objects: progress.objects(), age_ms, ..Exposure::default() };
    let view = catalog.view().await?;
    each_lacking(view.as_ref(), peer, |_, wanted| {
        exposure.extents += 1;
        exposure.bytes += u64::from(wanted.bytes);
    })?;
    Ok(exposure)
}

/// Waits until the other site has what this site's head was at `seen`, with these extents: what was read is there after a
/// failover too.
pub async fn peer_has_head(
    catalog: &dyn Catalog,
    peer: &SiteName,
    progress: &mut watch::Receiver<Progress>,
    head: &Key,
    seen: Position,
    extents: &[ExtentId],
) -> Result<(), SiteError> {
    if progress.wait_for(|progress| progress.seen >= seen).await.is_err() {
        return std::future::pending().await;
    }
    let exposed = progress.borrow().exposes(head);
    match exposed {
        Some(position) => peer_holds(catalog, peer, progress, position, extents).await.map(drop),
        None => Ok(()),
    }
}

/// Waits until the other site has these heads as they were at `seen`, and all their extents.
pub async fn peer_has_heads(progress: &mut watch::Receiver<Progress>, heads: &[Key], seen: Position) {
    if progress.wait_for(|progress| progress.seen >= seen).await.is_err() {
        return std::future::pending().await;
    }
    let newest = {
        let progress = progress.borrow();
        heads.iter().filter_map(|head| progress.exposes(head)).max_by_key(|position| position.revision)
    };
    if let Some(position) = newest
        && progress.wait_for(|progress| progress.confirms(position)).await.is_err()
    {
        std::future::pending::<()>().await;
    }
}

/// Waits until the other site has applied all up to `position` and holds these extents, whatever else it lacks: how many rows it
/// has of the extent that has fewest there.
pub async fn peer_holds(
    catalog: &dyn Catalog,
    peer: &SiteName,
    progress: &mut watch::Receiver<Progress>,
    position: Position,
    extents: &[ExtentId],
) -> Result<u8, SiteError> {
    let placements: Vec<Key> = extents.iter().map(|extent| keys::placement(peer, *extent)).collect();
    loop {
        progress.mark_unchanged();
        if progress.borrow().has_applied(position) {
            let view = catalog.view().await?;
            let placed = placements
                .iter()
                .map(|key| Ok(view.get(key)?.as_deref().map(Placement::decode).transpose()?));
            let placed: Vec<Option<Placement>> = placed.collect::<Result<_, SiteError>>()?;
            if let Some(placed) = placed.into_iter().collect::<Option<Vec<_>>>() {
                return Ok(placed.iter().map(|placement| placement.rows.len()).min().unwrap_or(0) as u8);
            }
        }
        if progress.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use diptych_core::ids::BucketId;

    use super::*;

    fn at(revision: u64) -> Position {
        Position { incarnation: 1, revision }
    }

    fn entry(revision: u64, key: Key, value: &[u8]) -> FeedEntry {
        FeedEntry { position: at(revision), changes: vec![(key, Some(Bytes::copy_from_slice(value)))] }
    }

    #[test]
    fn a_commit_is_exposed_until_the_peers_cursor_confirms_it() {
        let (east, west): (SiteName, SiteName) =
            ("east".parse().expect("a name"), "west".parse().expect("a name"));
        let mut progress = Progress { seen: at(0), ..Progress::default() };
        progress.note(&entry(1, keys::bucket("b"), b""), &east, &west).expect("it reads");
        assert!(!progress.confirms(at(1)));
        let cursor = Cursor { applied: at(1), confirmed: at(0) };
        progress.note(&entry(2, keys::cursor(&west), &cursor.encode()), &east, &west).expect("it reads");
        assert!(progress.has_applied(at(1)) && !progress.confirms(at(1)));
        let cursor = Cursor { applied: at(1), confirmed: at(1) };
        progress.note(&entry(3, keys::cursor(&west), &cursor.encode()), &east, &west).expect("it reads");
        assert!(progress.confirms(at(1)), "{progress:?}");
        assert!(progress.confirms(at(3)), "what is not role-owned is not waited for: {progress:?}");
        assert!(!progress.confirms(at(4)), "what was not looked at yet is not confirmed");
    }

    #[test]
    fn a_cursor_that_was_heard_counts_before_this_site_has_it_and_for_what_its_own_feed_brings_later() {
        let (east, west): (SiteName, SiteName) =
            ("east".parse().expect("a name"), "west".parse().expect("a name"));
        let sender = watch::Sender::new(Progress { seen: at(0), ..Progress::default() });
        let note = |entry: &FeedEntry| {
            sender.send_modify(|progress| progress.note(entry, &east, &west).expect("it reads"));
        };
        note(&entry(1, keys::bucket("a"), b""));
        let old = Cursor { applied: at(1), confirmed: at(0) };
        HeardCursor(sender.clone()).tell(Cursor { applied: at(2), confirmed: at(2) });
        assert!(sender.borrow().confirms(at(1)));
        assert!(!sender.borrow().confirms(at(2)), "this site has not looked at its own commit yet");
        note(&entry(2, keys::bucket("b"), b""));
        note(&entry(3, keys::bucket("c"), b""));
        note(&entry(4, keys::cursor(&west), &old.encode()));
        let progress = sender.borrow();
        assert!(progress.confirms(at(2)) && !progress.confirms(at(3)), "{progress:?}");
        assert!(progress.has_applied(at(2)) && !progress.has_applied(at(3)), "{progress:?}");
    }

    #[test]
    fn what_the_feed_has_forgotten_counts_as_exposed_until_all_of_it_is_confirmed() {
        let head = keys::head(BucketId([1; 8]), b"key");
        let away = Cursor { applied: at(4), confirmed: at(3) };
        let mut progress = Progress::behind(at(9), away);
        assert_eq!(progress.exposes(&head), Some(at(9)));
        assert!(!progress.confirms(at(5)) && !progress.has_applied(at(5)) && !progress.confirms(at(9)));
        progress.move_cursor(Cursor { applied: at(9), confirmed: at(8) });
        assert!(
            progress.has_applied(at(5)) && !progress.confirms(at(5)) && progress.exposes(&head).is_some()
        );
        progress.move_cursor(Cursor { applied: at(9), confirmed: at(9) });
        assert!(progress.confirms(at(5)) && progress.confirms(at(9)), "{progress:?}");
        assert_eq!((progress.exposes(&head), progress.commits().0), (None, 0));
        let back = Progress::behind(at(9), Cursor { applied: at(12), confirmed: at(12) });
        assert!(back.confirms(at(9)), "it was confirmed before it was forgotten");
    }

    #[tokio::test]
    async fn a_head_is_exposed_until_its_commit_is_confirmed_and_never_if_it_came_from_the_peer() {
        let (east, west): (SiteName, SiteName) =
            ("east".parse().expect("a name"), "west".parse().expect("a name"));
        let [ours, theirs] = ["ours", "theirs"].map(|name| keys::head(BucketId([1; 8]), name.as_bytes()));
        let mut progress = Progress { seen: at(0), ..Progress::default() };
        progress.note(&entry(1, ours.clone(), b""), &east, &west).expect("it reads");
        let mirrored = FeedEntry {
            position: at(2),
            changes: vec![
                (theirs.clone(), Some(Bytes::new())),
                (keys::cursor(&east), Some(Cursor::default().encode().into())),
            ],
        };
        progress.note(&mirrored, &east, &west).expect("it reads");
        assert_eq!((progress.exposes(&ours), progress.exposes(&theirs)), (Some(at(1)), None), "{progress:?}");
        assert_eq!(progress.objects(), 1, "the other site has its own");
        let (sender, mut receiver) = watch::channel(progress.clone());
        peer_has_heads(&mut receiver, std::slice::from_ref(&theirs), at(2)).await;
        let both = [theirs, ours.clone()];
        let mut waits = Box::pin(peer_has_heads(&mut receiver, &both, at(2)));
        assert!(futures::poll!(&mut waits).is_pending(), "one of them is exposed");
        let cursor = Cursor { applied: at(1), confirmed: at(1) };
        progress.note(&entry(3, keys::cursor(&west), &cursor.encode()), &east, &west).expect("it reads");
        assert_eq!((progress.exposes(&ours), progress.objects()), (None, 0), "{progress:?}");
        sender.send_replace(progress);
        waits.await;
    }
}
