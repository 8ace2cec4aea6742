//! What of the feed is forgotten, and who holds it back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diptych_catalog::{Around, Catalog, CatalogError, FeedStart, Room};
use diptych_core::ids::{Epoch, KeeperNumber};
use diptych_core::journal::Progress;
use diptych_core::keys;
use diptych_core::records::{Cursor, Extent, Holds, KeeperBeat, Position, Record, Span, Vote};
use diptych_site::context::LoopOptions;
use diptych_site::forget::Forgetting;
use diptych_site::status::FeedStatus;

use crate::harness::{East, Journaling, at_once, journals_of, progress, west};
use crate::support::until;

const LONG: Duration = Duration::from_hours(1);

/// However little goes, it goes at once; who is away is waited for.
fn waiting() -> LoopOptions {
    LoopOptions { forget_at_once: 1, young_feed: Duration::ZERO, orphan_hold: LONG, ..at_once() }
}

async fn commit(east: &East) -> Position {
    east.put(vec![(keys::bucket("b"), b"value".to_vec())]).await;
    east.position().await
}

/// What the other site says of itself.
async fn follows(east: &East, applied: Position, confirmed: Position) {
    east.put(vec![(keys::cursor(&west()), Cursor { applied, confirmed }.encode())]).await;
}

/// A keeper's passes, until it has seen what it forgets.
async fn pass(east: &East) -> FeedStatus {
    let mut forgetting = Forgetting::default();
    forgetting.pass(&east.context).await.expect("a pass");
    forgetting.pass(&east.context).await.expect("a pass")
}

/// The revision from which on the feed goes.
async fn begins_at(east: &East) -> u64 {
    let beginning = Position { revision: 0, ..east.position().await };
    match east.context.catalog.feed(beginning).await.expect("it answers") {
        FeedStart::From(_) => 0,
        FeedStart::Compacted { oldest } => oldest.revision,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_site_has_not_confirmed_stays_and_the_rest_goes() {
    let east = East::start(Some(west()), waiting()).await;
    let confirmed = commit(&east).await;
    let applied = commit(&east).await;
    pass(&east).await;
    assert_eq!(begins_at(&east).await, 0, "nobody knows how far it is");
    follows(&east, Position { incarnation: 1, ..applied }, Position { incarnation: 1, ..confirmed }).await;
    pass(&east).await;
    assert_eq!(begins_at(&east).await, 0, "it followed another catalog");
    follows(&east, applied, confirmed).await;
    let status = pass(&east).await;
    assert_eq!(begins_at(&east).await, confirmed.revision);
    let now = east.position().await;
    assert_eq!(status.entries, now.revision - confirmed.revision);
    assert!(status.forgotten_ms > 0 && status.bytes > 0 && status.trouble.is_none(), "{status:?}");
    follows(&east, applied, applied).await;
    pass(&east).await;
    assert_eq!(begins_at(&east).await, applied.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_away_is_waited_for_as_long_as_the_hold() {
    let mut east = East::start(Some(west()), waiting()).await;
    let away_at = commit(&east).await;
    follows(&east, away_at, away_at).await;
    let now = commit(&east).await;
    pass(&east).await;
    assert_eq!(begins_at(&east).await, away_at.revision);
    east.context.options.orphan_hold = Duration::ZERO;
    pass(&east).await;
    assert_eq!(begins_at(&east).await, now.revision);
}

/// A catalog that has so much room.
struct Roomy {
    inner: Arc<dyn Catalog>,
    room: Room,
}

#[async_trait]
impl Around for Roomy {
    fn inner(&self) -> &Arc<dyn Catalog> {
        &self.inner
    }

    async fn room(&self) -> Result<Room, CatalogError> {
        Ok(self.room)
    }
}

fn has_room(east: &mut East, used: u64) {
    let inner = Arc::clone(&east.context.catalog);
    east.context.catalog = Arc::new(Roomy { inner, room: Room { used, limit: Some(1_000) } });
}

#[tokio::test(flavor = "multi_thread")]
async fn where_room_is_short_nobody_who_is_away_is_waited_for_and_it_says_so() {
    let mut east = East::start(Some(west()), waiting()).await;
    let away_at = commit(&east).await;
    follows(&east, away_at, away_at).await;
    let now = commit(&east).await;
    has_room(&mut east, 740);
    assert_eq!(pass(&east).await.trouble, None);
    assert_eq!(begins_at(&east).await, away_at.revision);
    has_room(&mut east, 760);
    let trouble = pass(&east).await.trouble.expect("room is short");
    assert!(trouble.contains("760 bytes"), "{trouble}");
    assert_eq!(begins_at(&east).await, now.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_before_a_site_that_was_active_has_rejoined_the_newer_term() {
    let mut east = East::start(Some(west()), waiting()).await;
    let unseen = commit(&east).await;
    let newer = Vote { epoch: Epoch(2), backs: Some(west()) };
    east.put(vec![(keys::site_vote(&east.context.site), newer.encode())]).await;
    east.leave_office(Epoch(2)).await;
    // The other site follows on past what it never takes.
    let later = commit(&east).await;
    follows(&east, later, later).await;
    east.context.options.orphan_hold = Duration::ZERO;
    has_room(&mut east, 990);
    let trouble = pass(&east).await.trouble.expect("room is short");
    assert!(trouble.contains("handed over"), "{trouble}");
    assert_eq!(begins_at(&east).await, 0, "revision {} is to be handed over", unseen.revision);
    let rejoined = keys::site_rejoined(&east.context.site);
    east.put(vec![(rejoined, 2_u64.to_be_bytes().to_vec())]).await;
    pass(&east).await;
    assert!(begins_at(&east).await >= unseen.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_young_stays_for_who_loads_a_snapshot() {
    let options = LoopOptions { young_feed: LONG, orphan_hold: Duration::ZERO, ..waiting() };
    let mut east = East::start(None, options).await;
    commit(&east).await;
    has_room(&mut east, 990);
    pass(&east).await;
    assert_eq!(begins_at(&east).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_commits_are_not_worth_it() {
    let east = East::start(None, LoopOptions { forget_at_once: 10, ..waiting() }).await;
    let mut newest = commit(&east).await;
    pass(&east).await;
    assert_eq!(begins_at(&east).await, 0);
    while newest.revision < 12 {
        newest = commit(&east).await;
    }
    pass(&east).await;
    assert_eq!(begins_at(&east).await, newest.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_journal_holds_stays() {
    let east = East::start(None, waiting()).await;
    let upto = commit(&east).await;
    let progress = Progress { upto, checkpoint: None };
    east.put(vec![(keys::journal(), progress.encode())]).await;
    commit(&east).await;
    pass(&east).await;
    assert_eq!(begins_at(&east).await, upto.revision);
    let other = Progress { upto: Position { incarnation: 1, ..upto }, checkpoint: None };
    east.put(vec![(keys::journal(), other.encode())]).await;
    let now = east.position().await;
    pass(&east).await;
    assert_eq!(begins_at(&east).await, now.revision, "that is the other site's");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_progress_moves_past_what_is_no_news_and_the_next_journal_leaves_no_gap() {
    let east = East::start(None, at_once()).await;
    east.seed().await;
    let begun = Journaling::default();
    begun
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            east.put(vec![(keys::bucket("one"), b"1".to_vec())]).await;
            east.all_journaled().await;
            let before = (journals_of(&east).await, progress(&east.context).await.expect("it has begun"));
            let beat = |beat| {
                let beat = KeeperBeat { number: KeeperNumber(1), beat }.encode();
                east.put(vec![(keys::site_beat(&east.context.site), beat)])
            };
            futures::future::join_all((0..5_000).map(beat)).await;
            until("the progress moves", || async {
                let now = progress(&east.context).await.expect("it is there");
                now.upto.revision >= before.1.upto.revision + 4_000
            })
            .await;
            assert_eq!(journals_of(&east).await, before.0, "beats are no news");
        })
        .await;
    let moved = progress(&east.context).await.expect("it is there").upto;
    east.context.catalog.compact_feed(moved).await.expect("it forgets");
    let again = Journaling::default();
    again
        .beside(&east.context, async {
            east.put(vec![(keys::bucket("two"), b"2".to_vec())]).await;
            east.all_journaled().await;
        })
        .await;
    let checkpoint =
        progress(&east.context).await.expect("it is there").checkpoint.expect("the same as before");
    let view = east.context.catalog.view().await.expect("a view");
    let spans = journals_of(&east).await.into_iter().filter_map(|extent| {
        let raw = view.get(&keys::extent(extent)).expect("it reads")?;
        match Extent::decode(&raw).expect("it reads").holds {
            Holds::Journal(span) => Some(span),
            Holds::Data | Holds::Checkpoint(_) => None,
        }
    });
    let mut journals: Vec<Span> = spans.collect();
    journals.sort();
    assert!(journals.len() >= 2 && journals[0].after <= checkpoint.at, "{journals:?}");
    assert!(journals.windows(2).all(|pair| pair[1].after <= pair[0].upto), "{journals:?}");
}
