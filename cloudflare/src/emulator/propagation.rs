//! What edge and DNS see: each changed name spreads by itself, some time after the API acknowledged the change.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::balancing::Balanced;
use super::model::{Database, Record};
use super::prober::Verdicts;
use super::tunnels;

/// What there is of one name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct NameEntry {
    pub(super) records: Vec<Record>,
    /// Stands before the records where there is one.
    pub(super) balanced: Option<Balanced>,
}

impl NameEntry {
    /// Whether the edge fronts it.
    pub(super) fn is_proxied(&self) -> bool {
        match &self.balanced {
            Some(balanced) => balanced.proxied,
            None => self.records.iter().any(|record| record.proxied),
        }
    }
}

/// All names as edge and DNS see them.
#[derive(Debug, Clone, Default)]
pub(super) struct View(HashMap<String, Arc<NameEntry>>);

impl View {
    /// What there is of a name (lower case, no dot at the end), or of the wildcard that covers it.
    pub(super) fn lookup(&self, name: &str) -> Option<&Arc<NameEntry>> {
        self.0.get(name).or_else(|| {
            let mut rest = name;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(found) = self.0.get(&format!("*.{parent}")) {
                    return Some(found);
                }
                rest = parent;
            }
            None
        })
    }

    /// Is there a name below this one? Then it exists, though it has no records.
    pub(super) fn has_below(&self, name: &str) -> bool {
        self.0.keys().any(|other| other.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
    }

    /// Id of the tunnel that a name leads to.
    pub(super) fn tunnel(&self, name: &str) -> Option<&str> {
        let alias = self.lookup(name)?.records.iter().find(|record| record.kind == "CNAME")?;
        alias.content.strip_suffix(tunnels::SUFFIX)
    }

    /// Addresses that a name leads to inside the zones, aliases followed, load balancers asked. Empty: none.
    pub(super) fn addresses(&self, name: &str, verdicts: &Verdicts) -> Vec<IpAddr> {
        let mut name = name.to_owned();
        for _ in 0..8 {
            let Some(entry) = self.lookup(&name) else { return Vec::new() };
            if let Some(balanced) = &entry.balanced {
                return addresses(&balanced.origins(verdicts));
            }
            match entry.records.iter().find(|record| record.kind == "CNAME") {
                Some(alias) => name.clone_from(&alias.content),
                None => return entry.records.iter().filter_map(address).collect(),
            }
        }
        Vec::new()
    }
}

/// Origins that are addresses; those that are names this emulator does not follow.
pub(super) fn addresses(origins: &[String]) -> Vec<IpAddr> {
    origins.iter().filter_map(|origin| origin.parse().ok()).collect()
}

fn address(record: &Record) -> Option<IpAddr> {
    matches!(record.kind.as_str(), "A" | "AAAA").then(|| record.content.parse().ok())?
}

/// The view and what is on its way to it.
#[derive(Debug, Default)]
pub(super) struct Propagation {
    view: ArcSwap<View>,
    pending: Mutex<Pending>,
    wake: Notify,
}

/// A name, and what there is of it then; None: nothing.
type Change = (String, Option<Arc<NameEntry>>);

#[derive(Debug, Default)]
struct Pending {
    delay: Duration,
    jitter: Duration,
    number: u64,
    queue: BTreeMap<(Instant, u64), Change>,
    /// When the newest change of a name is due: none overtakes an older one.
    newest: HashMap<String, Instant>,
}

impl Propagation {
    /// What edge and DNS see now.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// For changes from now on: each name's takes `delay` and, by chance, up to `jitter` more.
    pub(super) fn set_delay(&self, delay: Duration, jitter: Duration) {
        let mut pending = self.pending();
        (pending.delay, pending.jitter) = (delay, jitter);
    }

    /// All of it is seen at once.
    pub(super) fn start_from(&self, database: &Database) {
        self.view.store(Arc::new(View(by_name(database))));
    }

    /// Sends the difference on its way.
    pub(super) fn publish(&self, before: &Database, after: &Database) {
        let (old, mut new) = (by_name(before), by_name(after));
        let mut changed: Vec<Change> =
            old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), None)).collect();
        new.retain(|name, records| old.get(name) != Some(records));
        changed.extend(new.into_iter().map(|(name, records)| (name, Some(records))));
        let mut pending = self.pending();
        let now = Instant::now();
        for (name, records) in changed {
            let jitter = pending.jitter.mul_f64(rand::random());
            let earliest = now + pending.delay + jitter;
            let due = pending.newest.get(&name).map_or(earliest, |newest| earliest.max(*newest));
            pending.newest.insert(name.clone(), due);
            pending.number += 1;
            let number = pending.number;
            pending.queue.insert((due, number), (name, records));
        }
        self.apply_due(&mut pending, now);
        drop(pending);
        self.wake.notify_one();
    }

    /// Everything on its way arrives now.
    pub(super) fn flush(&self) {
        let mut pending = self.pending();
        let last = pending.queue.last_key_value().map(|((due, _), _)| *due);
        if let Some(last) = last {
            self.apply_due(&mut pending, last);
        }
    }

    /// Lets changes arrive when they are due; never ends.
    pub(super) async fn run(&self) {
        loop {
            let next = {
                let mut pending = self.pending();
                self.apply_due(&mut pending, Instant::now());
                pending.queue.first_key_value().map(|((due, _), _)| *due)
            };
            match next {
                None => self.wake.notified().await,
                Some(due) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = sleep_until(due) => {}
                    }
                }
            }
        }
    }

    fn apply_due(&self, pending: &mut Pending, now: Instant) {
        let later = pending.queue.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut pending.queue, later);
        if due.is_empty() {
            return;
        }
        let mut view = View::clone(&self.view.load());
        for ((at, _), (name, records)) in due {
            if pending.newest.get(&name) == Some(&at) {
                pending.newest.remove(&name);
            }
            match records {
                Some(records) => drop(view.0.insert(name, records)),
                None => drop(view.0.remove(&name)),
            }
        }
        self.view.store(Arc::new(view));
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_name(database: &Database) -> HashMap<String, Arc<NameEntry>> {
    let mut names: HashMap<String, NameEntry> = HashMap::new();
    for record in database.zones.iter().flat_map(|zone| &zone.records) {
        names.entry(record.name.clone()).or_default().records.push(record.clone());
    }
    for balancer in database.zones.iter().flat_map(|zone| &zone.load_balancers) {
        if balancer.enabled {
            let balanced = Balanced::of(balancer, database);
            names.entry(balancer.name.clone()).or_default().balanced = Some(balanced);
        }
    }
    names.into_iter().map(|(name, entry)| (name, entry.into())).collect()
}
