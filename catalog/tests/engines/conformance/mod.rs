//! What every engine must do, as tests over the contract. `conformance!(start)` makes a test of each case.

pub(crate) mod commits;
pub(crate) mod feeds;
pub(crate) mod model;
pub(crate) mod views;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{Epoch, SiteName};
use diptych_core::keys::{self, Key};
use diptych_core::records::{Gate, Position, Record};
use futures::StreamExt;

use diptych_catalog::{
    Batch, Catalog, Change, Committed, Expect, Feed, FeedEntry, FeedStart, Guard, Outcome, Write,
};

/// How long a case waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a case may take as a whole.
const CASE_DEADLINE: Duration = Duration::from_mins(2);

/// Runs a case; one that an engine's mistake keeps from ending fails.
pub(crate) async fn in_time(case: impl Future<Output = ()>) {
    tokio::time::timeout(CASE_DEADLINE, case).await.expect("the case ends in time");
}

/// An empty catalog, and what keeps it running.
pub(crate) struct Bench {
    /// Handles to one catalog; one per process that the engine allows, and at least one.
    pub(crate) handles: Vec<Arc<dyn Catalog>>,
    /// Dropped after them.
    pub(crate) _keep: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Bench {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bench").field("handles", &self.handles.len()).finish_non_exhaustive()
    }
}

impl Bench {
    fn first(&self) -> &Arc<dyn Catalog> {
        &self.handles[0]
    }

    /// Another process where the engine has several.
    fn last(&self) -> &Arc<dyn Catalog> {
        self.handles.last().unwrap()
    }

    fn site(&self) -> SiteName {
        self.first().site().clone()
    }

    async fn set_gate(&self, gate: Gate) -> Position {
        let key = keys::site_gate(&self.site());
        put_all(self.first(), None, vec![Write::Put(key, gate.encode().into())]).await.position
    }
}

/// Makes a test of each case; `$start` is a path to `async fn() -> Bench`, called for each.
macro_rules! conformance {
    ($start:path) => {
        conformance!($start =>
            commits::a_guard_that_does_not_hold_refuses_its_change_only,
            commits::absent_present_and_value_mean_what_they_say,
            commits::a_commit_passes_only_a_gate_open_at_its_epoch,
            commits::no_commit_follows_the_closing_of_the_gate,
            commits::a_batch_without_epoch_passes_a_closed_gate,
            commits::a_key_in_two_changes_is_refused,
            commits::a_batch_over_a_limit_is_refused,
            commits::a_batch_at_the_limits_is_taken,
            commits::a_mirror_writes_thousands_of_keys_at_once,
            commits::positions_grow_with_each_commit,
            commits::a_refused_batch_moves_nothing,
            commits::a_delete_removes_and_a_second_one_does_nothing,
            commits::counting_by_compare_loses_no_update,
            commits::any_byte_may_stand_in_keys_and_values,
            views::a_view_shows_what_was_committed_before_it,
            views::a_recent_view_shows_what_is_old_enough,
            views::a_view_from_a_position_shows_what_was_committed_up_to_it,
            views::a_view_stays_as_it_was,
            views::pages_of_a_range_join_without_gap,
            views::a_range_ends_before_its_end,
            views::the_last_key_of_a_range_is_found,
            views::a_listing_by_prefix_keeps_to_its_bucket,
            feeds::a_feed_carries_every_commit_in_order,
            feeds::a_feed_resumes_where_it_was_left,
            feeds::what_a_site_keeps_to_itself_is_not_fed,
            feeds::a_feed_waits_for_the_next_commit,
            feeds::a_compacted_feed_asks_for_a_snapshot,
            feeds::another_incarnation_asks_for_a_snapshot,
            feeds::a_follower_that_applies_the_feed_has_the_same_keys,
            feeds::a_view_and_the_feed_after_it_miss_nothing,
            model::random_batches_do_what_the_model_does
        );
    };
    ($start:path => $($module:ident :: $case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let bench = $start().await;
                crate::conformance::in_time(crate::conformance::$module::$case(&bench)).await;
            }
        )*
    };
}

pub(crate) use conformance;

fn key(name: &str) -> Key {
    keys::bucket(name)
}

fn put(name: &str, value: &str) -> Write {
    Write::Put(key(name), Bytes::copy_from_slice(value.as_bytes()))
}

fn expect(name: &str, expect: Expect) -> Guard {
    Guard { key: key(name), expect }
}

fn value(text: &str) -> Expect {
    Expect::Value(Bytes::copy_from_slice(text.as_bytes()))
}

async fn put_all(catalog: &Arc<dyn Catalog>, epoch: Option<Epoch>, writes: Vec<Write>) -> Committed {
    let committed = catalog.commit(Batch::one(epoch, Change::blind(writes))).await.unwrap();
    assert_eq!(committed.outcomes, [Outcome::Applied]);
    committed
}

async fn read(catalog: &Arc<dyn Catalog>, name: &str) -> Option<String> {
    let found = catalog.view().await.unwrap().get(&key(name)).unwrap();
    found.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

async fn feed_from(catalog: &Arc<dyn Catalog>, after: Position) -> Feed {
    match catalog.feed(after).await.unwrap() {
        FeedStart::From(feed) => feed,
        FeedStart::Compacted { oldest } => panic!("compacted to {oldest:?}, asked for {after:?}"),
    }
}

/// Entries up to `last`.
async fn take_until(feed: &mut Feed, last: Position) -> Vec<FeedEntry> {
    let mut entries: Vec<FeedEntry> = Vec::new();
    while entries.last().is_none_or(|entry| entry.position < last) {
        let next = tokio::time::timeout(DEADLINE, feed.next()).await;
        let next = next.unwrap_or_else(|_| panic!("no entry came; {last:?} is awaited after {entries:?}"));
        entries.push(next.expect("a feed never ends").unwrap());
    }
    entries
}
