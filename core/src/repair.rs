//! The order of repair: fewest further losses first, a site's loss counted, then age; rows that are all there and only lie
//! in the wrong place come behind all that lacks some. Budgets for LAN and WAN are apart.
//!
//! Pure: time is a `Duration` since any fixed moment, and never runs on its own.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::ids::ExtentId;
use crate::margin::{Further, Margin};

mod budget;

pub use budget::TokenBucket;

/// Why an extent's rows are touched, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Some are missing: they are made anew.
    Lacking,
    /// Some lie on what a person wants emptied.
    Draining,
    /// They are all there, and not level: a node is new, or has come back, or they were crowded.
    Levelling,
}

/// How urgent a repair is; the least comes first.
///
/// What lacks rows comes before all that only moves. Of either, what a site's loss would lose comes before all that it would
/// not, then whatever survives the fewest further losses once that site is gone, then as things stand, then what has waited
/// longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepairPriority {
    cause: Cause,
    after_a_site: Option<Further>,
    now: Option<Further>,
    since_ms: u64,
}

impl RepairPriority {
    /// Of an extent with this margin, found in need of repair at `since_ms` (milliseconds since 1970).
    pub const fn new(cause: Cause, margin: &Margin, since_ms: u64) -> Self {
        Self { cause, after_a_site: margin.after_a_site, now: margin.now, since_ms }
    }
}

/// Which budget a repair is paid from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The site has k rows: nothing crosses.
    Lan,
    /// Bytes come from the other site, or from outside.
    Wan,
}

/// A repair that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// What is repaired.
    pub extent: ExtentId,
    /// How urgent it is.
    pub priority: RepairPriority,
    /// Which budget it is paid from.
    pub lane: Lane,
    /// Bytes that it moves.
    pub bytes: u64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start this one, and call `finish` when it has ended, however it ended.
    Start(Repair),
    /// Repairs wait for their budget: look again then.
    WaitUntil(Duration),
    /// Repairs wait, and their budget is zero: nothing happens before it is changed.
    Paused,
    /// Nothing waits.
    Idle,
}

/// Repairs that wait, the most urgent first, each extent once.
///
/// ```text
///            push                    pop                      finish
///  (unknown) ────► waiting ─────────────────────► running ───────────► (unknown)
///                    │ ▲ push: newer priority        │ push: kept, waits again after finish
///                    └─┘                             └──────────────────────────► waiting
/// ```
#[derive(Debug)]
pub struct RepairQueue {
    lan: LaneQueue,
    wan: LaneQueue,
    waiting: HashMap<ExtentId, Repair>,
    /// With what was asked for meanwhile.
    running: HashMap<ExtentId, Option<Repair>>,
}

#[derive(Debug)]
struct LaneQueue {
    budget: TokenBucket,
    order: BTreeSet<(RepairPriority, ExtentId)>,
}

impl RepairQueue {
    /// An empty queue with a budget for each lane.
    pub fn new(lan: TokenBucket, wan: TokenBucket) -> Self {
        let lane = |budget| LaneQueue { budget, order: BTreeSet::new() };
        Self { lan: lane(lan), wan: lane(wan), waiting: HashMap::new(), running: HashMap::new() }
    }

    /// The budget of a lane, to change its rate.
    pub fn budget_mut(&mut self, lane: Lane) -> &mut TokenBucket {
        &mut self.lane(lane).budget
    }

    /// Repairs that wait, those left out that run.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Repairs that were started and have not ended.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Bytes that wait, by lane.
    pub fn waiting_bytes(&self, lane: Lane) -> u64 {
        self.waiting.values().filter(|repair| repair.lane == lane).map(|repair| repair.bytes).sum()
    }

    /// Adds a repair, or puts a newer view in the place of the one that waits. While the extent is being repaired the
    /// view is kept, and waits once that has ended: what was found meanwhile may not be in it.
    pub fn push(&mut self, repair: Repair) {
        if let Some(after) = self.running.get_mut(&repair.extent) {
            *after = Some(repair);
            return;
        }
        if let Some(old) = self.waiting.insert(repair.extent, repair) {
            self.lane(old.lane).order.remove(&(old.priority, old.extent));
        }
        self.lane(repair.lane).order.insert((repair.priority, repair.extent));
    }

    /// Forgets an extent that is whole again or gone. One that runs is not stopped, but will not wait again.
    pub fn remove(&mut self, extent: ExtentId) {
        if let Some(after) = self.running.get_mut(&extent) {
            *after = None;
        }
        if let Some(old) = self.waiting.remove(&extent) {
            self.lane(old.lane).order.remove(&(old.priority, extent));
        }
    }

    /// The most urgent repair whose lane has budget left at `now`; it is paid for at once.
    pub fn pop(&mut self, now: Duration) -> Next {
        let lanes = [(Lane::Lan, &mut self.lan), (Lane::Wan, &mut self.wan)];
        let heads = lanes.map(|(lane, queue)| {
            let head = queue.order.first().copied()?;
            Some((head, lane, queue.budget.ready_at(now)))
        });
        let heads = || heads.iter().flatten();
        let ready =
            heads().filter(|(_, _, at)| at.is_some_and(|at| at <= now)).min_by_key(|(head, ..)| *head);
        if let Some(&(head, lane, _)) = ready
            && let Some(repair) = self.waiting.remove(&head.1)
        {
            let queue = self.lane(lane);
            queue.order.remove(&head);
            queue.budget.take(now, repair.bytes);
            self.running.insert(repair.extent, None);
            return Next::Start(repair);
        }
        match heads().filter_map(|&(_, _, at)| at).min() {
            Some(at) => Next::WaitUntil(at),
            None if heads().next().is_some() => Next::Paused,
            None => Next::Idle,
        }
    }

    /// A repair that was started has ended, well or not; one that failed is pushed again by whoever sees that.
    pub fn finish(&mut self, extent: ExtentId) {
        if let Some(Some(again)) = self.running.remove(&extent) {
            self.push(again);
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneQueue {
        match lane {
            Lane::Lan => &mut self.lan,
            Lane::Wan => &mut self.wan,
        }
    }
}

#[cfg(test)]
mod tests;
