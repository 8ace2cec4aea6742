//! What is committed is in journals and checkpoints, and nothing goes before it is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use diptych_catalog::{Around, Batch, Catalog, CatalogError, Change, Committed, Write};
use diptych_core::clock;
use diptych_core::ids::{BucketId, DeviceId, Epoch, ExtentId, Hlc, KeeperNumber, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Extent, ExtentKind, ExtentState, Head, HeadBody, Holds, KeeperBeat, Placement, Position, Record,
    VersionRef,
};
use diptych_site::collector::Collector;
use diptych_site::context::LoopOptions;
use diptych_wire::agent::RowAt;
use diptych_wire::client::AgentClient;

use crate::harness::{EPOCH, East, Journaling, at_once, declare, journals_of, progress};
use crate::support::{stamp, until};

fn bucket(number: usize) -> (Key, Vec<u8>) {
    (keys::bucket(&format!("bucket-{number:04}")), vec![number as u8; 100])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_journaled_and_nothing_is_written_where_nothing_is() {
    let east = East::start(None, at_once()).await;
    east.seed().await;
    let journaling = Journaling::default();
    journaling
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            east.put(vec![bucket(1)]).await;
            east.all_journaled().await;
            let before = journals_of(&east).await;
            assert!(!before.is_empty());
            for beat in 0..5 {
                let beat = KeeperBeat { number: KeeperNumber(1), beat }.encode();
                east.put(vec![(keys::site_beat(&east.context.site), beat)]).await;
                east.all_journaled().await;
            }
            assert_eq!(journals_of(&east).await, before, "a beat is no news");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_progress_moves_only_when_the_journal_is_durable() {
    let mut east = East::start(None, at_once()).await;
    east.seed().await;
    let journaling = Journaling::default();
    let East { site, context, .. } = &mut east;
    let context = &*context;
    let work = async {
        until("a checkpoint", || async {
            progress(context).await.is_some_and(|known| known.checkpoint.is_some())
        })
        .await;
        for number in 0..3 {
            site.stop(number).await;
        }
        let (key, value) = bucket(1);
        let put = Change::blind(vec![Write::Put(key, Bytes::from(value))]);
        let committed = context.catalog.commit(Batch::one(Some(EPOCH), put)).await.expect("it commits");
        let committed = committed.position;
        until("it says why", || async {
            journaling.trouble().is_some_and(|why| why.contains("not durable"))
        })
        .await;
        let known = progress(context).await.expect("it has begun");
        assert!(known.upto < committed, "{known:?}");
        assert!(context.journaled.borrow().is_none_or(|journaled| journaled < committed));
        for number in 0..3 {
            site.restart(number).await;
            declare(context, site, number);
        }
        site.raise_all().await;
        until("it is journaled", || async {
            context.journaled.borrow().is_some_and(|journaled| journaled >= committed)
        })
        .await;
        assert!(progress(context).await.expect("it is there").upto >= committed);
    };
    journaling.beside(context, work).await;
}

fn tombstone(hlc: Hlc) -> Head {
    let at = VersionRef { epoch: EPOCH, hlc, version: VersionId([1; 16]) };
    Head::new(at, None, HeadBody::Tombstone)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_stays_until_the_journal_has_it_and_its_time_is_over() {
    let mut east = East::start(None, at_once()).await;
    let key = keys::head(BucketId([3; 8]), b"key");
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later");
    let young = clock::next(now_ms.as_millis() as u64, Hlc(0));
    east.put(vec![(key.clone(), tombstone(young).encode())]).await;
    let mut collector = Collector::default();
    let passes = async |east: &East, collector: &mut Collector| {
        for _ in 0..3 {
            collector.pass(&east.context).await.expect("a pass");
        }
        east.get(&key).await.is_some()
    };
    let journaled = east.context.journaled.send_replace(None);
    assert!(passes(&east, &mut collector).await, "nobody knows how far the journal is");
    let before = Position { revision: 0, ..east.position().await };
    east.context.journaled.send_replace(Some(before));
    assert!(passes(&east, &mut collector).await, "the journal does not have it");
    east.context.journaled.send_replace(journaled);
    east.context.options.tombstone_hold = Duration::from_hours(1);
    let mut collector = Collector::default();
    assert!(passes(&east, &mut collector).await, "a resurrection could find what is older");
    east.context.options.tombstone_hold = Duration::ZERO;
    assert!(!passes(&east, &mut collector).await);
}

/// A catalog that spoils parts of checkpoints, or journals that were merged, as soon as they are entered: three of their six rows
/// are deleted.
struct Spoiling {
    inner: Arc<dyn Catalog>,
    agents: Vec<AgentClient>,
    spoils: Spoils,
}

type Spoils = Arc<Mutex<Option<ExtentKind>>>;

impl Spoiling {
    /// A journal that goes on from the one before is entered with the progress; one that was merged is not.
    fn spoils(&self, change: &Change, kind: ExtentKind) -> bool {
        let goes_on = change.writes.iter().any(|write| *write.key() == keys::journal());
        *self.spoils.lock().expect("no panic") == Some(kind) && !goes_on
    }

    async fn spoil(&self, extent: ExtentId, placement: &Placement) {
        for placed in &placement.rows[..3] {
            let at =
                RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
            let agent = &self.agents[placed.device.0 as usize / 2];
            let deleted = agent.delete(stamp(1, 1), vec![at]).await.expect("an answer");
            assert_eq!(deleted, [Ok(())]);
        }
    }
}

#[async_trait]
impl Around for Spoiling {
    fn inner(&self) -> &Arc<dyn Catalog> {
        &self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        let committed = self.inner.commit(batch.clone()).await?;
        for change in &batch.changes {
            for write in &change.writes {
                let Write::Put(key, value) = write else { continue };
                if !key.0.starts_with(b"x/") {
                    continue;
                }
                let record = Extent::decode(value).expect("it reads");
                if record.state == ExtentState::Live && self.spoils(change, record.holds.kind()) {
                    let extent = keys::extent_of(key).expect("an extent's key");
                    let placement = keys::placement(self.inner.site(), extent);
                    let raw = self.inner.view().await?.get(&placement)?.expect("it is placed");
                    self.spoil(extent, &Placement::decode(&raw).expect("it reads")).await;
                }
            }
        }
        Ok(committed)
    }
}

/// Records of a site's extents of a kind.
async fn extents_of(east: &East, kind: ExtentKind) -> Vec<Extent> {
    let view = east.context.catalog.view().await.expect("a view");
    let all = view.scan(&keys::extents(), 10_000).expect("it reads").entries;
    let records = all.iter().map(|(_, raw)| Extent::decode(raw).expect("it reads"));
    records.filter(|record| record.holds.kind() == kind).collect()
}

/// A site whose catalog spoils what it is told to.
async fn spoiling(options: LoopOptions, spoils: Option<ExtentKind>) -> (East, Spoils) {
    let mut east = East::start(None, options).await;
    east.seed().await;
    let spoils = Spoils::new(Mutex::new(spoils));
    east.context.catalog = Arc::new(Spoiling {
        inner: Arc::clone(&east.context.catalog),
        agents: (0..3).map(|number| east.site.operator(number)).collect(),
        spoils: Arc::clone(&spoils),
    });
    (east, spoils)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_counts_as_journaled_before_the_first_checkpoint_is_whole() {
    let (east, _) = spoiling(at_once(), Some(ExtentKind::Checkpoint)).await;
    let journaling = Journaling::default();
    journaling
        .beside(&east.context, async {
            until("a checkpoint failed", || async {
                journaling.trouble().is_some_and(|why| why.contains("a checkpoint"))
            })
            .await;
            east.put(vec![bucket(1)]).await;
            let position = east.position().await;
            until("a journal has it", || async {
                progress(&east.context).await.is_some_and(|known| known.upto >= position)
            })
            .await;
            assert_eq!(*east.context.journaled.borrow(), None, "a resurrection would have the gap before it");
            let parts = extents_of(&east, ExtentKind::Checkpoint).await;
            assert!(!parts.is_empty() && parts.iter().all(|record| record.state == ExtentState::Condemned));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_older_goes_before_a_checkpoint_was_read_back() {
    let options = LoopOptions { checkpoint_least: 0, ..at_once() };
    let (east, spoils) = spoiling(options, None).await;
    let journaling = Journaling::default();
    journaling
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            *spoils.lock().expect("no panic") = Some(ExtentKind::Checkpoint);
            let first = progress(&east.context).await.expect("it has begun").checkpoint;
            for number in 0.. {
                east.put(vec![bucket(number)]).await;
                if journaling.trouble().is_some_and(|why| why.contains("a checkpoint")) {
                    break;
                }
                tokio::task::yield_now().await;
            }
            east.all_journaled().await;
            assert_eq!(progress(&east.context).await.expect("it is there").checkpoint, first);
            let shown = first.map(|checkpoint| Holds::Checkpoint(checkpoint.at));
            let parts = extents_of(&east, ExtentKind::Checkpoint).await;
            for record in parts.into_iter().chain(extents_of(&east, ExtentKind::Journal).await) {
                let is_spoilt = record.holds.kind() == ExtentKind::Checkpoint && Some(record.holds) != shown;
                assert_eq!(record.state == ExtentState::Condemned, is_spoilt, "{record:?}");
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_go_only_once_the_one_that_they_became_was_read_back() {
    let options = LoopOptions { merge_every: Duration::from_millis(200), ..at_once() };
    let (east, spoils) = spoiling(options, Some(ExtentKind::Journal)).await;
    let journaling = Journaling::default();
    journaling
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            for number in 0..5 {
                east.put(vec![bucket(number)]).await;
                east.all_journaled().await;
            }
            until("a merge failed", || async {
                journaling.trouble().is_some_and(|why| why.contains("a merge"))
            })
            .await;
            // The next merge may be among them.
            assert!(journals_of(&east).await.len() >= 5, "they are all that tells");
            *spoils.lock().expect("no panic") = None;
            until("they are one", || async { journals_of(&east).await.len() == 1 }).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_does_not_become_durable_leaves_no_rows() {
    let east = East::start(None, at_once()).await;
    east.seed().await;
    let journaling = Journaling::default();
    journaling
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            for number in 1..3 {
                east.site.operator(number).raise(stamp(1, 2)).await.expect("another keeper is heard");
            }
            east.put(vec![bucket(1)]).await;
            until("it says why", || async {
                journaling.trouble().is_some_and(|why| why.contains("not durable"))
            })
            .await;
            let view = east.context.catalog.view().await.expect("a view");
            let client = east.site.operator(0);
            until("the rows that were written are gone again", || async {
                let page = client.inventory(DeviceId(0), None, Some(ExtentKind::Journal), 1_000).await;
                let mut known = page
                    .expect("a page")
                    .records
                    .into_iter()
                    .map(|record| view.get(&keys::extent(record.extent)).expect("it reads").is_some());
                known.all(|known| known)
            })
            .await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_supersedes_what_is_older_and_journals_stay_behind_half_of_it() {
    let options = LoopOptions { checkpoint_least: 10_000, ..at_once() };
    let east = East::start(None, options).await;
    east.seed().await;
    let journaling = Journaling::default();
    journaling
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            let first = progress(&east.context).await.expect("it has begun").checkpoint.expect("it is whole");
            for number in 0..200 {
                east.put(vec![bucket(number)]).await;
                east.all_journaled().await;
            }
            until("another checkpoint", || async {
                progress(&east.context)
                    .await
                    .and_then(|known| known.checkpoint)
                    .is_some_and(|now| now.at > first.at)
            })
            .await;
            until("the first one is condemned", || async {
                let view = east.context.catalog.view().await.expect("a view");
                let all = view.scan(&keys::extents(), 10_000).expect("it reads").entries;
                all.iter().any(|(_, raw)| {
                    let record = Extent::decode(raw).expect("it reads");
                    record.holds == Holds::Checkpoint(first.at) && record.state == ExtentState::Condemned
                })
            })
            .await;
            assert!(journaling.status().checkpoint_keys > first.keys, "{:?}", journaling.status());
            until("few journals behind it", || async { journaling.status().journal_bytes <= 10_000 }).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_term_goes_on_where_the_one_before_ended() {
    let mut east = East::start(None, at_once()).await;
    east.seed().await;
    Journaling::default()
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            east.put(vec![bucket(1)]).await;
            east.all_journaled().await;
        })
        .await;
    let known = progress(&east.context).await.expect("it has begun");
    east.take_office(Epoch(2)).await;
    east.put(vec![bucket(2)]).await;
    Journaling::default()
        .beside(&east.context, async {
            east.all_journaled().await;
        })
        .await;
    let now = progress(&east.context).await.expect("it is there");
    assert_eq!(now.checkpoint, known.checkpoint, "no other one is needed");
    assert!(now.upto > known.upto);
}
