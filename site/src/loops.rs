//! The loops, put together: one task each, ended together.

mod status;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Write};
use diptych_core::ids::Generation;
use diptych_core::keys;
use diptych_core::lease::Waiting;
use tokio::sync::watch;

use crate::collector::Collector;
use crate::compaction::Compaction;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::forget::Forgetting;
use crate::inventory::{Found, Inventory};
use crate::lost::lacking::lacking;
use crate::nodes::{NodeWatch, Rotten, Seen};
use crate::notify::transitions;
use crate::peer::exposure::Progress;
use crate::repair::{Repairs, look_again};
use crate::status::{
    CompactionStatus, FeedStatus, JournalStatus, KeysStatus, RepairStatus, SiteStatus, WouldLose,
    last_written,
};
use crate::survey::{Health, Scope, Survey, survey};
use crate::{journal, lost, outside, verified};

/// A survey is made at least so often, and at once when the map changes or something rots.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at what scrubs have read, at least: the rounds of a site's devices end one after the other.
const VERIFY_EVERY: Duration = Duration::from_secs(2);
/// Between two looks for rows that belong elsewhere, while the maps are the same and there were none.
const LEVEL_EVERY: Duration = Duration::from_mins(10);
/// What was lost is looked for at once where a term begins, and what has come of it so often.
const SETTLE_EVERY: Duration = Duration::from_secs(2);
/// Between two lists of what a promotion would lose, and objects in one, at most.
const LIST_EVERY: Duration = Duration::from_secs(1);
const LISTED: usize = 10_000;
const COLLECT_EVERY: Duration = Duration::from_secs(5);
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// A keeper that has begun knows by then who answers it: only what is so then is compared with what was written before it.
const KNOWS_AFTER: Duration = Duration::from_secs(5);
/// Written at least so often, though there is no news.
const STATUS_AT_LEAST: Duration = Duration::from_secs(10);

/// What the loops tell each other.
#[derive(Default)]
struct Shared {
    health: watch::Sender<Health>,
    repair: watch::Sender<RepairStatus>,
    inventory: watch::Sender<Arc<Found>>,
    compaction: watch::Sender<CompactionStatus>,
    journal: watch::Sender<JournalStatus>,
    keys: watch::Sender<Option<KeysStatus>>,
    feed: watch::Sender<FeedStatus>,
    would_lose: watch::Sender<Option<WouldLose>>,
}

/// The nodes that a site's keeper watches.
pub struct Watched {
    /// The site's.
    pub own: NodeWatch,
    /// Those in neither site.
    pub outside: NodeWatch,
}

/// What was seen of them.
#[derive(Clone)]
struct SeenNodes {
    own: watch::Receiver<Arc<Seen>>,
    outside: watch::Receiver<Arc<Seen>>,
}

impl SeenNodes {
    /// Waits for news of either; false: nobody watches any more.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.own.changed() => changed.is_ok(),
            changed = self.outside.changed() => changed.is_ok(),
        }
    }

    /// Everything that agents found rotten.
    fn rotten(&self) -> BTreeSet<Rotten> {
        let mut rotten = self.own.borrow().rotten();
        rotten.extend(self.outside.borrow().rotten());
        rotten
    }
}

/// Runs the loops of a site until it is dropped.
///
/// `progress`: how far the other site is, where there is one.
pub async fn run(context: Arc<SiteContext>, nodes: Watched, progress: Option<watch::Receiver<Progress>>) {
    let shared = Shared::default();
    let seen = SeenNodes { own: nodes.own.seen(), outside: nodes.outside.seen() };
    let every = context.options.look_every;
    tokio::join!(
        nodes.own.run(every),
        nodes.outside.run(every),
        outside::declare(&context),
        repair_loop(&context, seen.clone(), &shared),
        lost_loop(&context),
        would_lose_loop(&context, &shared),
        collect_loop(&context),
        compact_loop(&context, &shared),
        forget_loop(&context, &shared),
        inventory_loop(&context, &shared),
        verify_loop(&context, seen.own.clone()),
        journal::run(&context, &shared.journal),
        crate::keys::run(&context, &shared.keys),
        status_loop(&context, seen, &shared, progress),
    );
}

async fn repair_loop(context: &SiteContext, mut seen: SeenNodes, shared: &Shared) {
    let (mut map, mut outside_map) = (context.map.clone(), context.outside.map.clone());
    let mut inventory = shared.inventory.subscribe();
    let mut repairs = Repairs::new(context);
    let mut levelled: Option<Levelled> = None;
    loop {
        let unreadable = found_unreadable(&seen, &inventory);
        let begun = Instant::now();
        let now = Levelled::now(context);
        let looks_for_moves = !levelled.is_some_and(|known| known.still_holds(now));
        match look_over(context, &unreadable, looks_for_moves).await {
            Ok(found) => {
                if looks_for_moves {
                    levelled = found.health.is_level().then_some(now);
                }
                shared.health.send_replace(found.health);
                look_again(context, &repairs.take(found.needs)).await;
            }
            Err(error) => tracing::warn!(site = %context.site, %error, "what lacks rows is not known now"),
        }
        let due = tokio::time::sleep(pause(SURVEY_EVERY, begun));
        tokio::pin!(due);
        loop {
            let budget = repairs.start();
            shared.repair.send_if_modified(|known| {
                let now = repairs.status();
                std::mem::replace(known, now.clone()) != now
            });
            let later = tokio::time::sleep(budget.unwrap_or(SURVEY_EVERY));
            tokio::select! {
                ended = repairs.ended() => {
                    let rows = ended.outcome.as_ref().copied().unwrap_or_default();
                    if let Err(error) = ended.outcome {
                        tracing::warn!(site = %context.site, extent = %ended.extent, %error, "could not be repaired now");
                    }
                    // What could be made was made: how it is now is told at once.
                    if repairs.is_idle() && rows > 0 {
                        break;
                    }
                }
                changed = map.changed() => if changed.is_err() { return } else { break },
                changed = outside_map.changed() => if changed.is_err() { return } else { break },
                () = another(&mut seen, &mut inventory, &unreadable) => break,
                () = &mut due => break,
                () = later => {}
            }
        }
    }
}

/// With which maps nothing lay where it should not, and when.
#[derive(Clone, Copy)]
struct Levelled {
    maps: (Generation, Generation),
    at: Instant,
}

impl Levelled {
    fn now(context: &SiteContext) -> Self {
        let outside = context.outside.map.borrow().generation;
        Self { maps: (context.map().generation, outside), at: Instant::now() }
    }

    /// A write that found a device away has placed its row elsewhere: that is looked for now and then.
    fn still_holds(self, now: Self) -> bool {
        self.maps == now.maps && now.at.duration_since(self.at) < LEVEL_EVERY
    }
}

/// A look over the whole catalog takes a tenth of the time at most, however many files there are.
fn pause(every: Duration, begun: Instant) -> Duration {
    every.max(begun.elapsed() * 10)
}

/// Until what does not read right is another.
async fn another(
    seen: &mut SeenNodes,
    inventory: &mut watch::Receiver<Arc<Found>>,
    known: &BTreeSet<Rotten>,
) {
    loop {
        let ended = tokio::select! {
            changed = seen.changed() => !changed,
            changed = inventory.changed() => changed.is_err(),
        };
        if ended {
            return std::future::pending().await;
        }
        if found_unreadable(seen, inventory) != *known {
            return;
        }
    }
}

/// Rows that are placed and do not read right: rotten on their device, or lost from it.
fn found_unreadable(seen: &SeenNodes, inventory: &watch::Receiver<Arc<Found>>) -> BTreeSet<Rotten> {
    let mut unreadable = seen.rotten();
    unreadable.extend(&inventory.borrow().lost);
    unreadable
}

async fn look_over(
    context: &SiteContext,
    unreadable: &BTreeSet<Rotten>,
    looks_for_moves: bool,
) -> Result<Survey, SiteError> {
    let view = context.catalog.view().await?;
    let (map, outside) = (context.map(), context.outside.map_from_here());
    let scope = Scope {
        site: &context.site,
        peer: context.peer.as_ref(),
        map: &map,
        outside: &outside,
        outside_rows: context.active_epoch().map(|_| context.outside.config.rows),
        unreadable,
        survive: context.survive,
        looks_for_moves,
    };
    survey(view.as_ref(), &scope)
}

/// Compares devices and catalog now and then, and soon after the map has changed: a device may have come back empty.
async fn inventory_loop(context: &SiteContext, shared: &Shared) {
    let (mut own, mut outside) = (Inventory::default(), Inventory::default());
    let (mut map, mut outside_map) = (context.map.clone(), context.outside.map.clone());
    loop {
        match compare(context, &mut own, &mut outside).await {
            Ok(found) => {
                if found.freed > 0 || !found.lost.is_empty() {
                    tracing::info!(site = %context.site, freed = found.freed, lost = found.lost.len(), "devices were compared with the catalog");
                }
                shared.inventory.send_replace(Arc::new(found));
            }
            Err(error) => {
                tracing::warn!(site = %context.site, %error, "devices can't be compared with the catalog now");
            }
        }
        tokio::select! {
            changed = map.changed() => if changed.is_err() { return },
            changed = outside_map.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(context.options.inventory_every) => {}
        }
    }
}

/// Writes down what was read and found right, whenever a device has ended a round of scrub, and where an agent did not answer
/// then, later.
async fn verify_loop(context: &SiteContext, mut seen: watch::Receiver<Arc<Seen>>) {
    loop {
        let (begun, known) = (Instant::now(), seen.borrow_and_update().scrubbed());
        match verified::pass(context).await {
            Ok(0) => {}
            Ok(extents) => {
                tracing::info!(site = %context.site, extents, "all rows were read and found right");
            }
            Err(error) => {
                tracing::warn!(site = %context.site, %error, "what was read and found right is not written down now");
            }
        }
        tokio::time::sleep(pause(VERIFY_EVERY, begun)).await;
        let another = seen.wait_for(|seen| seen.scrubbed() != known);
        if let Ok(Err(_)) = tokio::time::timeout(context.options.inventory_every, another).await {
            return;
        }
    }
}

async fn compare(
    context: &SiteContext,
    own: &mut Inventory,
    outside: &mut Inventory,
) -> Result<Found, SiteError> {
    let found = own.pass(context, &context.here()).await?;
    if let Some(nodes) = context.outside_nodes() {
        return Ok(found.with(outside.pass(context, &nodes).await?));
    }
    *outside = Inventory::default();
    Ok(found)
}

async fn lost_loop(context: &SiteContext) {
    let mut standing = context.standing.clone();
    loop {
        let begun = Instant::now();
        if let Err(error) = lost::pass(context).await {
            tracing::warn!(site = %context.site, %error, "what a takeover lost is not looked at now");
        }
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause(SETTLE_EVERY, begun)) => {}
        }
    }
}

/// Lists what a promotion would lose, while one waits for a person because of it.
async fn would_lose_loop(context: &SiteContext, shared: &Shared) {
    loop {
        let begun = Instant::now();
        let waits = context.lease.borrow().waiting == Some(Waiting::Exposure);
        match would_lose(context, waits).await {
            Ok(listed) => drop(shared.would_lose.send_replace(listed)),
            Err(error) => {
                tracing::warn!(site = %context.site, %error, "what would be lost can't be listed now");
            }
        }
        tokio::time::sleep(pause(LIST_EVERY, begun)).await;
    }
}

async fn would_lose(context: &SiteContext, waits: bool) -> Result<Option<WouldLose>, SiteError> {
    if !waits {
        return Ok(None);
    }
    let view = context.catalog.view().await?;
    let page = lacking(view.as_ref(), &context.site, None, LISTED)?;
    Ok(Some(WouldLose::of(page)).filter(|would_lose| would_lose.objects > 0))
}

async fn collect_loop(context: &SiteContext) {
    let mut collector = Collector::default();
    loop {
        let begun = Instant::now();
        match collector.pass(context).await {
            Ok(done) if done != crate::collector::Collected::default() => {
                tracing::info!(site = %context.site, ?done, "collected");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(site = %context.site, %error, "a pass of the collector failed"),
        }
        tokio::time::sleep(pause(COLLECT_EVERY, begun)).await;
    }
}

/// Behind all repair: what is mostly dead is no danger to anybody.
async fn compact_loop(context: &SiteContext, shared: &Shared) {
    let mut compaction = Compaction::new(context);
    loop {
        let begun = Instant::now();
        let may_begin = shared.repair.borrow().queue() == 0;
        if let Err(error) = compaction.pass(context, may_begin).await {
            tracing::warn!(site = %context.site, %error, "a pass of compaction failed");
        }
        shared.compaction.send_replace(compaction.status());
        tokio::time::sleep(pause(COLLECT_EVERY, begun)).await;
    }
}

async fn forget_loop(context: &SiteContext, shared: &Shared) {
    let mut forgetting = Forgetting::default();
    loop {
        match forgetting.pass(context).await {
            Ok(feed) => drop(shared.feed.send_replace(feed)),
            Err(error) => {
                tracing::warn!(site = %context.site, %error, "what of the feed can be forgotten is not known now");
            }
        }
        tokio::time::sleep(context.options.forget_every).await;
    }
}

async fn status_loop(
    context: &SiteContext,
    seen: SeenNodes,
    shared: &Shared,
    progress: Option<watch::Receiver<Progress>>,
) {
    let begun = Instant::now();
    let mut written: Option<(SiteStatus, Instant)> = None;
    let mut before = last_written(context.catalog.as_ref()).await.unwrap_or_else(|error| {
        tracing::warn!(site = %context.site, %error, "the last status can't be read: what turned since is not told");
        None
    });
    let mut standing = context.standing.clone();
    loop {
        let told = *standing.borrow_and_update();
        let exposure = status::exposed(context, progress.as_ref()).await;
        let mut status = status::status(context, &seen.own.borrow(), shared, exposure);
        let outside = Arc::clone(&seen.outside.borrow());
        if let Err(error) = status::of_outside(context, &outside, &mut status).await {
            tracing::warn!(site = %context.site, %error, "how the outside nodes are is not known");
        }
        if let Err(error) = status::of_failover(context, &mut status).await {
            tracing::warn!(site = %context.site, %error, "what a failover would lose is not known");
        }
        if begun.elapsed() >= KNOWS_AFTER
            && let Some(before) = before.replace(status.clone())
        {
            for turned in transitions(&before, &status) {
                context.notifier.tell(turned);
            }
        }
        let news = news(&status);
        let known = |(known, at): &(SiteStatus, Instant)| *known == news && at.elapsed() < STATUS_AT_LEAST;
        if !written.as_ref().is_some_and(known) {
            match write(context, &status).await {
                Ok(()) => written = Some((news, Instant::now())),
                Err(error) => tracing::warn!(site = %context.site, %error, "the status could not be written"),
            }
        }
        // Who may write is told at once.
        let changed = standing.wait_for(|now| *now != told);
        if let Ok(Err(_)) = tokio::time::timeout(STATUS_EVERY, changed).await {
            return;
        }
    }
}

/// What is worth writing at once: times move all the time, and so does the room of a disk that others use too.
fn news(status: &SiteStatus) -> SiteStatus {
    let mut news = status.clone();
    news.seen_ms = 0;
    news.lease.until_ms = 0;
    if let Some(prediction) = &mut news.prediction {
        prediction.recovery_point = None;
    }
    if let Some(failback) = &mut news.failback {
        failback.due_ms = 0;
    }
    news.feed = FeedStatus { trouble: news.feed.trouble, ..FeedStatus::default() };
    news.journal = JournalStatus { trouble: news.journal.trouble, ..JournalStatus::default() };
    let outside = news.outside.iter_mut().flat_map(|outside| &mut outside.nodes);
    for device in news.nodes.iter_mut().chain(outside).flat_map(|node| &mut node.devices) {
        device.capacity = 0;
        device.used = 0;
    }
    news
}

async fn write(context: &SiteContext, status: &SiteStatus) -> Result<(), SiteError> {
    let json = serde_json::to_vec(status).unwrap_or_default();
    let put = Write::Put(keys::site_status(&context.site), Bytes::from(json));
    context.catalog.commit(Batch::one(None, Change::blind(vec![put]))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use diptych_core::drill::Prediction;
    use diptych_core::lease::Millis;

    use super::*;
    use crate::testing::west;

    #[tokio::test]
    async fn what_moves_with_the_clock_alone_is_no_news() {
        let (context, _folder) = west();
        let at = |recovery_point: u64, exposed_bytes: u64| {
            let prediction = Prediction {
                recovery_time: Some(Millis(5_030)),
                recovery_point: Some(Millis(recovery_point)),
                exposed_bytes: Some(exposed_bytes),
                obstacle: None,
            };
            let status = status::status(&context, &Seen::default(), &Shared::default(), None);
            news(&SiteStatus { prediction: Some(prediction), ..status })
        };
        assert_eq!(at(500, 7), at(1_000, 7));
        assert_ne!(at(500, 7), at(500, 8));
    }
}
