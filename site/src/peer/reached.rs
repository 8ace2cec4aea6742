//! How far this site is in the other one's feed. What the feed brings and what crosses both move one cursor, one commit
//! after the other, each seeing the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, FeedEntry, Guard, Outcome, View, Write};
use diptych_core::ids::{ExtentId, SiteName};
use diptych_core::keys::{self, Key};
use diptych_core::records::{Cursor, PlacedRow, Placement, Position, Record};
use diptych_wire::peer::TermLabel;
use tokio::sync::{Mutex, watch};

use super::apply::{NotTaken, Taken, apply, confirmed};
use super::cursor_of;
use crate::context::SiteContext;
use crate::error::SiteError;

/// Extents that are placed in the change that moves the cursor: each has two guards in it, and a change takes 32.
const WITH_CURSOR: usize = 15;

/// What the loops of this site know of their own last commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// As it is stored.
    pub(crate) cursor: Cursor,
    /// A view from here on shows all that they wrote.
    pub(crate) seen: Position,
}

/// An extent whose rows are durable here.
pub(super) struct Whole {
    pub(super) extent: ExtentId,
    /// `n/` as it was read: what the commit compares with.
    pub(super) wanted: Bytes,
    pub(super) rows: Vec<PlacedRow>,
}

/// The cursor in the other site's feed, in one hand at a time.
pub struct Reached {
    context: Arc<SiteContext>,
    /// None: the feed is not followed, or others move the cursor.
    known: Mutex<Option<Known>>,
    /// Where entries were taken last: what they want is in a view from there on.
    taken: watch::Sender<Option<Position>>,
}

impl Reached {
    /// Nothing is known until the feed is followed.
    pub fn new(context: Arc<SiteContext>) -> Self {
        Self { context, known: Mutex::default(), taken: watch::Sender::new(None) }
    }

    /// Until [`Reached::load`] the cursor is not moved here: others may, and the catalog may become another incarnation.
    pub(super) async fn forget(&self) {
        *self.known.lock().await = None;
        self.taken.send_if_modified(|taken| {
            *taken = None;
            false
        });
    }

    /// Begins with what is stored, confirmed as far as it is now.
    pub(super) async fn load(&self) -> Result<Known, SiteError> {
        self.begin(self.context.catalog.view().await?).await
    }

    /// As [`Reached::load`], by what is stored at `seen`: who wrote it there spares a round to a majority.
    pub(super) async fn load_from(&self, seen: Position) -> Result<Known, SiteError> {
        self.begin(self.context.catalog.view_from(seen).await?).await
    }

    async fn begin(&self, view: Box<dyn View>) -> Result<Known, SiteError> {
        let mut known = self.known.lock().await;
        Ok(*known.insert(self.stored_and_confirmed(view).await?))
    }

    /// The position from which on views show what the entries want that were taken last; None: none were.
    pub(super) fn taken(&self) -> watch::Receiver<Option<Position>> {
        self.taken.subscribe()
    }

    /// Takes as many entries as fit in one transaction.
    pub(super) async fn take(
        &self,
        from: &SiteName,
        term: Option<TermLabel>,
        entries: &[FeedEntry],
    ) -> Result<Result<Taken, NotTaken>, SiteError> {
        let mut known = self.known.lock().await;
        let Some(at) = known.as_mut() else { return Ok(Err(NotTaken::Changed)) };
        let taken = apply(&self.context, from, term, entries, at).await?;
        if let Ok(taken) = &taken {
            *at = taken.known;
            self.taken.send_replace(Some(at.seen));
        }
        Ok(taken)
    }

    /// Writes down that these extents are whole here, those of them that are still wanted, and how far all is.
    pub(super) async fn place(&self, together: &[Whole]) -> Result<(), SiteError> {
        let mut known = self.known.lock().await;
        if let Some(at) = known.as_ref()
            && together.len() <= WITH_CURSOR
            && let Some(moved) = self.place_and_confirm(at, together).await?
        {
            *known = Some(moved);
            return Ok(());
        }
        self.place_each(together).await?;
        if known.is_some() {
            *known = Some(self.stored_and_confirmed(self.context.catalog.view().await?).await?);
        }
        Ok(())
    }

    /// The cursor as `view` has it, confirmed as far as all is here.
    async fn stored_and_confirmed(&self, view: Box<dyn View>) -> Result<Known, SiteError> {
        let stored = Known { cursor: cursor_of(view.as_ref(), &self.context.site)?, seen: view.position() };
        drop(view);
        Ok(self.place_and_confirm(&stored, &[]).await?.unwrap_or(stored))
    }

    /// None: one of them is not wanted any more, or the cursor is another; nothing was done.
    ///
    /// FENCING ("gone" only when whole): each `n/` goes in the change that writes its `l/`, after every row of it was synced;
    /// and the position is confirmed in the change that makes it so.
    async fn place_and_confirm(&self, known: &Known, together: &[Whole]) -> Result<Option<Known>, SiteError> {
        let site = &self.context.site;
        let view = self.context.catalog.view_from(known.seen).await?;
        let gone: BTreeMap<Key, Option<Bytes>> =
            together.iter().map(|whole| (keys::wanted(site, whole.extent), None)).collect();
        let Cursor { applied, confirmed: before } = known.cursor;
        let cursor = Cursor { applied, confirmed: confirmed(view.as_ref(), site, &gone, applied, before)? };
        drop(view);
        let mut change = Change { guards: Vec::new(), writes: Vec::new() };
        for placing in together.iter().map(|whole| placing(site, whole)) {
            change.guards.extend(placing.guards);
            change.writes.extend(placing.writes);
        }
        if cursor != known.cursor {
            let stored = Some(known.cursor).filter(|cursor| *cursor != Cursor::default());
            let expect = stored.map_or(Expect::Absent, |cursor| Expect::Value(cursor.encode().into()));
            change.guards.push(Guard { key: keys::cursor(site), expect });
            change.writes.push(Write::Put(keys::cursor(site), cursor.encode().into()));
        }
        if change.writes.is_empty() {
            return Ok(Some(*known));
        }
        let committed = self.context.catalog.commit(Batch::one(None, change)).await?;
        Ok(committed.all_applied().then_some(Known { cursor, seen: committed.position }))
    }

    async fn place_each(&self, together: &[Whole]) -> Result<(), SiteError> {
        let site = &self.context.site;
        let changes = together.iter().map(|whole| placing(site, whole)).collect();
        let committed = self.context.catalog.commit(Batch { epoch: None, changes }).await?;
        for (whole, outcome) in together.iter().zip(&committed.outcomes) {
            // What loses this race is an orphan; the inventory finds it.
            if matches!(outcome, Outcome::Refused { .. }) {
                tracing::info!(%site, extent = %whole.extent, "it crossed, and is not wanted any more");
            }
        }
        Ok(())
    }
}

/// `n/` to `l/`.
fn placing(site: &SiteName, whole: &Whole) -> Change {
    let record = Placement { rows: whole.rows.clone(), verified_day: 0 };
    let (wanted, placement) = (keys::wanted(site, whole.extent), keys::placement(site, whole.extent));
    Change {
        guards: vec![
            Guard { key: wanted.clone(), expect: Expect::Value(whole.wanted.clone()) },
            Guard { key: placement.clone(), expect: Expect::Absent },
        ],
        writes: vec![Write::Put(placement, Bytes::from(record.encode())), Write::Delete(wanted)],
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::{DeviceId, InstanceId, Row};
    use diptych_core::records::{ExtentKind, Wanted};

    use super::*;
    use crate::testing::west;

    fn at(revision: u64) -> Position {
        Position { incarnation: 7, revision }
    }

    fn wanted(revision: u64) -> Bytes {
        Bytes::from(Wanted { kind: ExtentKind::Data, bytes: 1, since_ms: 1, revision }.encode())
    }

    fn whole(extent: ExtentId, wanted: Bytes) -> Whole {
        let row = PlacedRow { row: Row(6), device: DeviceId(1), instance: InstanceId([1; 8]) };
        Whole { extent, wanted, rows: vec![row] }
    }

    /// A site that was told of extents 1.. by as many revisions, and has followed all of them.
    async fn told(count: u8) -> (Arc<SiteContext>, tempfile::TempDir, Vec<ExtentId>) {
        let (context, folder) = west();
        let extents: Vec<ExtentId> = (1..=count).map(|number| ExtentId([number; 16])).collect();
        let note = |extent: &ExtentId| {
            Write::Put(keys::wanted(&context.site, *extent), wanted(u64::from(extent.0[0])))
        };
        let mut writes: Vec<Write> = extents.iter().map(note).collect();
        let cursor = Cursor { applied: at(100), confirmed: Position::default() };
        writes.push(Write::Put(keys::cursor(&context.site), cursor.encode().into()));
        context.catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
        (Arc::new(context), folder, extents)
    }

    async fn stored(context: &SiteContext) -> Cursor {
        let view = context.catalog.view().await.expect("a view");
        cursor_of(view.as_ref(), &context.site).expect("a cursor")
    }

    #[tokio::test]
    async fn an_extent_that_has_become_whole_is_confirmed_in_the_commit_that_places_it() {
        let (context, _folder, extents) = told(2).await;
        let reached = Reached::new(Arc::clone(&context));
        assert_eq!(reached.load().await.expect("it reads").cursor.confirmed, at(0));
        let before = context.catalog.position().await.expect("a position");
        reached.place(&[whole(extents[1], wanted(2))]).await.expect("it commits");
        assert_eq!(stored(&context).await.confirmed, at(0), "the first is lacking");
        reached.place(&[whole(extents[0], wanted(1))]).await.expect("it commits");
        assert_eq!(stored(&context).await, Cursor { applied: at(100), confirmed: at(100) });
        let after = context.catalog.position().await.expect("a position");
        assert_eq!(after.revision, before.revision + 2);
    }

    #[tokio::test]
    async fn only_those_still_wanted_are_placed_and_the_others_hold_nothing_up() {
        let (context, _folder, extents) = told(20).await;
        let reached = Reached::new(Arc::clone(&context));
        reached.load().await.expect("it reads");
        // The last one was wanted anew meanwhile.
        let together: Vec<Whole> =
            extents.iter().map(|extent| whole(*extent, wanted(u64::from(extent.0[0]).min(19)))).collect();
        reached.place(&together[15..]).await.expect("it commits");
        reached.place(&together[..15]).await.expect("it commits");
        assert_eq!(stored(&context).await.confirmed, at(19));
        let view = context.catalog.view().await.expect("a view");
        for extent in &extents {
            let placed = view.get(&keys::placement(&context.site, *extent)).expect("it reads").is_some();
            let lacking = view.get(&keys::wanted(&context.site, *extent)).expect("it reads").is_some();
            assert!(placed != lacking, "{extent}: n/ goes with l/");
            assert_eq!(lacking, extent == &extents[19], "{extent}");
        }
    }

    #[tokio::test]
    async fn while_others_move_the_cursor_extents_are_placed_and_it_stays() {
        let (context, _folder, extents) = told(1).await;
        let reached = Reached::new(Arc::clone(&context));
        reached.load().await.expect("it reads");
        reached.forget().await;
        let before = stored(&context).await;
        reached.place(&[whole(extents[0], wanted(1))]).await.expect("it commits");
        assert_eq!(stored(&context).await, before);
        assert_eq!(reached.load().await.expect("it reads").cursor.confirmed, at(100));
    }
}
