//! What waits for repair: `core::repair` says what comes first and when its budget allows it; here it is carried out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_core::ids::ExtentId;
use diptych_core::repair::{Cause, Lane, Next, RepairQueue, TokenBucket};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::repair;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::status::RepairStatus;
use crate::survey::Need;

/// A repair that ended.
#[derive(Debug)]
pub struct Ended {
    /// Of what.
    pub extent: ExtentId,
    /// Rows that were made anew or moved, or why none were.
    pub outcome: Result<u64, SiteError>,
}

/// What lacks rows or moves, and since when it is known.
struct Known {
    need: Arc<Need>,
    since_ms: u64,
}

/// A repair that runs.
struct UnderWay {
    bytes: u64,
    kind: Kind,
}

/// What a repair is for whoever waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Damage in this site.
    Damage,
    /// Margin outside is lacking.
    Margin,
    /// Nothing is lacking.
    Move,
}

impl Kind {
    fn of(need: &Need) -> Self {
        match need.cause {
            Cause::Lacking if need.is_outside() => Self::Margin,
            Cause::Lacking => Self::Damage,
            Cause::Draining | Cause::Levelling => Self::Move,
        }
    }
}

/// The repairs of a site.
pub struct Repairs<'a> {
    context: &'a SiteContext,
    queue: RepairQueue,
    known: HashMap<ExtentId, Known>,
    running: FuturesUnordered<BoxFuture<'a, Ended>>,
    under_way: HashMap<ExtentId, UnderWay>,
    begun: Instant,
    pace: Option<Pace>,
    rows: u64,
    moved: u64,
}

/// How fast the present backlog is worked off.
struct Pace {
    since: Instant,
    bytes: u64,
}

impl<'a> Repairs<'a> {
    /// Nothing waits yet; the budgets are those of the site's options.
    pub fn new(context: &'a SiteContext) -> Self {
        let bucket = |rate| TokenBucket::new(rate, Duration::ZERO);
        let options = &context.options;
        Self {
            context,
            queue: RepairQueue::new(bucket(options.repair_lan), bucket(options.repair_wan)),
            known: HashMap::new(),
            running: FuturesUnordered::new(),
            under_way: HashMap::new(),
            begun: Instant::now(),
            pace: None,
            rows: 0,
            moved: 0,
        }
    }

    /// Takes what a survey found in the place of what was known. Gives back what can't be repaired now: fewer than k rows
    /// are left anywhere.
    pub fn take(&mut self, needs: Vec<Need>) -> Vec<Need> {
        let mut before = std::mem::take(&mut self.known);
        let mut lost = Vec::new();
        for need in needs {
            let extent = need.facts.extent;
            let since_ms = before.remove(&extent).map_or_else(now_ms, |known| known.since_ms);
            // The survey does not know how one that runs will end; the next one will.
            let running = self.under_way.contains_key(&extent);
            match need.repair(since_ms) {
                Some(repair) if !running => {
                    self.queue.push(repair);
                    self.known.insert(extent, Known { need: Arc::new(need), since_ms });
                }
                Some(_) => {}
                None => lost.push(need),
            }
        }
        for extent in before.into_keys() {
            self.queue.remove(extent);
        }
        for need in &lost {
            self.queue.remove(need.facts.extent);
        }
        lost
    }

    /// Starts what may start now; when to come again, if something waits for its budget.
    pub fn start(&mut self) -> Option<Duration> {
        while self.running.len() < self.context.options.repairs_at_once {
            let now = self.begun.elapsed();
            let next = match self.queue.pop(now) {
                Next::Start(next) => next,
                Next::WaitUntil(at) => return Some(at.saturating_sub(now)),
                Next::Paused | Next::Idle => return None,
            };
            let Some(Known { need, .. }) = self.known.remove(&next.extent) else {
                self.queue.finish(next.extent);
                continue;
            };
            let kind = Kind::of(&need);
            self.under_way.insert(next.extent, UnderWay { bytes: next.bytes, kind });
            self.pace.get_or_insert_with(|| Pace { since: Instant::now(), bytes: 0 });
            let context = self.context;
            let run = async move {
                let outcome = repair(context, &need).await;
                Ended { extent: need.facts.extent, outcome }
            };
            self.running.push(run.boxed());
        }
        None
    }

    /// The next that ends; waits for ever while none runs.
    pub async fn ended(&mut self) -> Ended {
        let Some(ended) = self.running.next().await else { return std::future::pending().await };
        self.queue.finish(ended.extent);
        let done = self.under_way.remove(&ended.extent);
        let bytes = done.as_ref().map_or(0, |done| done.bytes);
        if let Ok(rows) = ended.outcome {
            let is_move = done.is_some_and(|done| done.kind == Kind::Move);
            *(if is_move { &mut self.moved } else { &mut self.rows }) += rows;
            self.pace.get_or_insert_with(|| Pace { since: Instant::now(), bytes: 0 }).bytes += bytes;
        }
        if self.is_idle() {
            self.pace = None;
        }
        ended
    }

    /// Nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty()
    }

    /// How much is left, and how long it will take at the pace so far, or by its budget.
    pub fn status(&self) -> RepairStatus {
        let (lan, wan) = (self.queue.waiting_bytes(Lane::Lan), self.queue.waiting_bytes(Lane::Wan));
        let bytes = lan + wan + self.under_way.values().map(|running| running.bytes).sum::<u64>();
        let options = &self.context.options;
        let by_budget = |bytes: u64, rate: u64| if bytes == 0 { Some(0) } else { bytes.checked_div(rate) };
        let measured = self.pace.as_ref().filter(|pace| pace.bytes > 0).map(|pace| {
            (bytes as f64 * pace.since.elapsed().as_secs_f64() / pace.bytes as f64).ceil() as u64
        });
        let budget = by_budget(lan, options.repair_lan).zip(by_budget(wan, options.repair_wan));
        let waiting = self.known.values().map(|known| Kind::of(&known.need));
        let kinds: Vec<Kind> = waiting.chain(self.under_way.values().map(|running| running.kind)).collect();
        let of = |kind: Kind| kinds.iter().filter(|other| **other == kind).count() as u64;
        RepairStatus {
            waiting: self.queue.len() as u64,
            running: self.running.len() as u64,
            outside: of(Kind::Margin),
            moving: of(Kind::Move),
            bytes,
            seconds_left: budget.map(|(lan, wan)| lan.max(wan).max(measured.unwrap_or(0))),
            rows: self.rows,
            moved: self.moved,
        }
    }
}
