//! Two sites in virtual time: catalogs, keepers, gateways, clocks that drift, a network, and the properties of
//! docs/lease.md checked after each event.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::witness::Witness;
use crate::ids::{Epoch, KeeperNumber, SiteName};
use crate::lease::{
    Admission, BootTime, Borrowed, Command, Config, Effect, Event, Guard, Lease, Loan, LossDecision, Message,
    Mode, Persisted, SiteRecord, SwapResult, Timers, Waiting, WitnessRead,
};
use crate::records::{Gate, Position};

/// Real time, in microseconds.
pub(super) type Real = u64;
pub(super) const MS: Real = 1_000;
pub(super) const SECOND: Real = 1_000 * MS;

/// A small generator of random numbers (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
}

/// A clock whose rate is off by up to 1 %.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) offset: u64,
    /// Per mille of real time.
    pub(super) rate: u64,
}

impl Clock {
    pub(super) fn at(self, real: Real) -> BootTime {
        BootTime(self.offset + real * self.rate / 1_000 / MS)
    }

    fn real(self, time: BootTime) -> Real {
        ((time.0.saturating_sub(self.offset)) * MS * 1_000).div_ceil(self.rate)
    }
}

/// What goes wrong, in per cent and milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Weather {
    pub(super) link: [bool; 2],
    pub(super) witness: [bool; 2],
    pub(super) loss: u64,
    pub(super) double: u64,
    pub(super) unclear: u64,
    pub(super) stale: u64,
    pub(super) latency: (u64, u64),
    pub(super) witness_latency: (u64, u64),
    pub(super) catalog_latency: (u64, u64),
}

impl Weather {
    pub(super) const fn fine() -> Self {
        Self {
            link: [true; 2],
            witness: [true; 2],
            loss: 0,
            double: 0,
            unclear: 0,
            stale: 0,
            latency: (10, 30),
            witness_latency: (50, 300),
            catalog_latency: (2, 10),
        }
    }
}

#[derive(Debug)]
enum Act {
    Step {
        site: usize,
        keeper: KeeperNumber,
        event: Event,
    },
    Write {
        site: usize,
        keeper: KeeperNumber,
        effect: Effect,
    },
    GatewayAsks {
        site: usize,
    },
    /// Something that the other site committed under `epoch` arrives.
    Entry {
        site: usize,
        epoch: Epoch,
    },
    GatewayHears {
        site: usize,
        asked: BootTime,
        loan: Loan,
    },
}

struct Queued {
    at: Real,
    order: u64,
    act: Act,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Until when processes are stopped, and the messages to them wait.
#[derive(Debug, Clone, Copy)]
struct Sleep {
    keepers: Real,
    /// Those who were elected later are awake.
    last_keeper: KeeperNumber,
    gateway: Real,
    catalog: Real,
}

/// What of a site is stopped, as by SIGSTOP or with its machine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stopped {
    Keepers,
    Gateway,
    All,
}

/// One site: what is durable, its keepers (a replaced one may still run) and its gateway.
pub(super) struct Site {
    pub(super) name: SiteName,
    pub(super) record: Option<SiteRecord>,
    revision: u64,
    pub(super) keepers: BTreeMap<KeeperNumber, Lease>,
    last_keeper: u64,
    pub(super) clock: Clock,
    gateway_clock: Clock,
    pub(super) gateway: Borrowed,
    pub(super) waiting: Option<Waiting>,
    pub(super) up: bool,
    sleep: Sleep,
    /// Keepers that asked for a vote themselves.
    asked: BTreeSet<(KeeperNumber, Epoch)>,
    highest_vote: Epoch,
    highest_commit: Epoch,
    pub(super) released: bool,
    /// Its writes are held back.
    pub(super) holds: bool,
}

pub(super) struct Sim {
    pub(super) now: Real,
    pub(super) random: Random,
    pub(super) sites: [Site; 2],
    pub(super) witness: Witness,
    pub(super) weather: Weather,
    pub(super) wins: Vec<(Epoch, usize, Real)>,
    pub(super) loss_gate: LossDecision,
    pub(super) mode: Mode,
    pub(super) without: Option<Guard>,
    votes: BTreeSet<(Epoch, usize, usize)>,
    swapped: BTreeSet<(Epoch, usize)>,
    queue: BinaryHeap<Queued>,
    order: u64,
    pub(super) trace: Vec<String>,
}

pub(super) const EAST: usize = 0;
pub(super) const WEST: usize = 1;

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let site = |name: &str, random: &mut Random| Site {
            name: name.parse().unwrap(),
            record: None,
            revision: 0,
            keepers: BTreeMap::new(),
            last_keeper: 0,
            clock: Clock { offset: random.below(1_000_000), rate: random.between(990, 1_010) },
            gateway_clock: Clock { offset: random.below(1_000_000), rate: random.between(990, 1_010) },
            gateway: Borrowed::default(),
            waiting: None,
            up: true,
            sleep: Sleep { keepers: 0, last_keeper: KeeperNumber(0), gateway: 0, catalog: 0 },
            asked: BTreeSet::new(),
            highest_vote: Epoch(0),
            highest_commit: Epoch(0),
            released: false,
            holds: false,
        };
        let sites = [site("east", &mut random), site("west", &mut random)];
        let mut sim = Self {
            now: SECOND,
            random,
            sites,
            witness: Witness::default(),
            weather: Weather::fine(),
            wins: Vec::new(),
            loss_gate: LossDecision::Allowed,
            mode: Mode::Automatic,
            without: None,
            votes: BTreeSet::new(),
            swapped: BTreeSet::new(),
            queue: BinaryHeap::new(),
            order: 0,
            trace: Vec::new(),
        };
        for site in [EAST, WEST] {
            sim.schedule(0, Act::GatewayAsks { site });
        }
        sim
    }

    /// Both sites, with nothing anywhere yet, until the preferred one serves.
    pub(super) fn started(seed: u64) -> Self {
        Self::started_without(seed, None)
    }

    pub(super) fn started_without(seed: u64, guard: Option<Guard>) -> Self {
        let mut sim = Self::new(seed);
        sim.without = guard;
        for site in [EAST, WEST] {
            sim.start_keeper(site);
            sim.tell(site, Event::DevicesEmpty(true));
        }
        sim.run_until(10 * SECOND, |sim| sim.serving(EAST)).expect("the first start ends");
        // Long enough for the passive site to have seen the record for a witness lease.
        sim.run(60 * SECOND);
        sim
    }

    fn schedule(&mut self, delay: Real, act: Act) {
        self.order += 1;
        self.queue.push(Queued { at: self.now + delay, order: self.order, act });
    }

    /// A process is elected: the number grows in the catalog, and the machine starts on what it finds there. The one
    /// before may go on for a while without knowing.
    pub(super) fn start_keeper(&mut self, site: usize) {
        let peer = self.sites[1 - site].name.clone();
        let seed = self.random.next();
        let own = &mut self.sites[site];
        own.last_keeper += 1;
        let number = KeeperNumber(own.last_keeper);
        let record = own
            .record
            .take()
            .map_or_else(|| SiteRecord::empty(number), |record| SiteRecord { keeper: number, ..record });
        own.record = Some(record.clone());
        let config = Config {
            own: own.name.clone(),
            peer: Some(peer),
            preferred: "east".parse().unwrap(),
            mode: self.mode,
            timers: Timers::default(),
            seed,
        };
        let now = own.clock.at(self.now);
        let lease = Lease::start_without(Arc::new(config), record, now, self.without);
        own.keepers.insert(number, lease);
        self.trace(site, || format!("keeper {number} starts"));
        self.tell(site, Event::Tick);
    }

    /// The keeper's process ends; gateways and catalog go on.
    pub(super) fn kill_keeper(&mut self, site: usize) {
        self.trace(site, || "keepers die".to_owned());
        self.sites[site].keepers.clear();
    }

    /// Everything of the site ends; what is durable stays.
    pub(super) fn kill_site(&mut self, site: usize) {
        self.kill_keeper(site);
        self.sites[site].up = false;
        self.sites[site].gateway = Borrowed::default();
    }

    pub(super) fn revive_site(&mut self, site: usize) {
        self.sites[site].up = true;
        self.start_keeper(site);
    }

    /// Stops processes of the site for so long. Their clocks go on, and what is on its way from them arrives.
    pub(super) fn sleeps(&mut self, site: usize, what: Stopped, length: Real) {
        let until = self.now + length;
        self.trace(site, || format!("{what:?} sleeps for {} ms", length / MS));
        let own = &mut self.sites[site];
        let last_keeper = KeeperNumber(own.last_keeper);
        own.sleep = match what {
            Stopped::Keepers => Sleep { keepers: until, last_keeper, ..own.sleep },
            Stopped::Gateway => Sleep { gateway: until, ..own.sleep },
            Stopped::All => Sleep { keepers: until, last_keeper, gateway: until, catalog: until },
        };
    }

    /// When whoever shall do it can.
    fn awake_for(&self, act: &Act) -> Real {
        match act {
            Act::Step { site, keeper, .. } => {
                let sleep = &self.sites[*site].sleep;
                if *keeper <= sleep.last_keeper { sleep.keepers } else { 0 }
            }
            Act::GatewayAsks { site } | Act::GatewayHears { site, .. } => self.sites[*site].sleep.gateway,
            Act::Write { site, effect: Effect::ReadRecord { .. } | Effect::Persist { .. }, .. }
            | Act::Entry { site, .. } => self.sites[*site].sleep.catalog,
            // On its way to the witness.
            Act::Write { .. } => 0,
        }
    }

    pub(super) fn tell(&mut self, site: usize, event: Event) {
        if let Some(keeper) = self.sites[site].keepers.keys().next_back().copied() {
            self.schedule(0, Act::Step { site, keeper, event });
        }
    }

    pub(super) fn command(&mut self, site: usize, command: Command) {
        self.tell(site, Event::Command(command));
    }

    /// A gateway of the site would answer now.
    pub(super) fn serving(&self, site: usize) -> bool {
        self.serving_epoch(site).is_some()
    }

    pub(super) fn serving_epoch(&self, site: usize) -> Option<Epoch> {
        let own = &self.sites[site];
        let now = own.gateway_clock.at(self.now);
        let epoch = own.gateway.running(now)?.epoch;
        let open = own.record.as_ref().is_some_and(|record| record.gate == Gate::Open(epoch));
        (own.up && open).then_some(epoch)
    }

    pub(super) fn lease(&self, site: usize) -> Option<&Lease> {
        self.sites[site].keepers.values().next_back()
    }

    pub(super) fn run(&mut self, length: Real) {
        let end = self.now + length;
        while self.queue.peek().is_some_and(|next| next.at <= end) {
            self.next();
        }
        self.now = end;
    }

    /// Runs until `done`, at most for `limit`; the time it took.
    pub(super) fn run_until(&mut self, limit: Real, done: impl Fn(&Self) -> bool) -> Option<Real> {
        let start = self.now;
        while !done(self) {
            if self.queue.peek().is_none_or(|next| next.at > start + limit) {
                return None;
            }
            self.next();
        }
        Some(self.now - start)
    }

    fn next(&mut self) {
        let Some(Queued { at, act, .. }) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        let awake = self.awake_for(&act);
        if awake > self.now {
            return self.schedule(awake - self.now, act);
        }
        match act {
            Act::Step { site, keeper, event } => self.step(site, keeper, event),
            Act::Write { site, keeper, effect } => self.write(site, keeper, effect),
            Act::GatewayAsks { site } => self.gateway_asks(site),
            Act::Entry { site, epoch } => self.take_entry(site, epoch),
            Act::GatewayHears { site, asked, loan } => {
                if self.sites[site].up {
                    self.sites[site].gateway.take(asked, loan);
                }
            }
        }
        self.check();
    }

    fn trace(&mut self, site: usize, text: impl FnOnce() -> String) {
        if self.trace.len() < 200_000 {
            self.trace.push(format!(
                "{:9.3} {} {}",
                self.now as f64 / SECOND as f64,
                self.sites[site].name,
                text()
            ));
        }
    }

    fn step(&mut self, site: usize, keeper: KeeperNumber, event: Event) {
        if !self.sites[site].keepers.contains_key(&keeper) {
            return;
        }
        if event != Event::Tick {
            self.trace(site, || format!("{keeper} <- {event:?}"));
        }
        let own = &mut self.sites[site];
        let now = own.clock.at(self.now);
        let Some(lease) = own.keepers.get_mut(&keeper) else { return };
        let effects = lease.step(now, event);
        self.check_step(site, &effects);
        for effect in effects {
            self.carry_out(site, keeper, effect);
        }
    }

    fn catalog_delay(&mut self) -> Real {
        let (low, high) = self.weather.catalog_latency;
        self.random.between(low * MS, high * MS)
    }

    fn witness_delay(&mut self) -> Real {
        let (low, high) = self.weather.witness_latency;
        self.random.between(low * MS, high * MS)
    }

    fn carry_out(&mut self, site: usize, keeper: KeeperNumber, effect: Effect) {
        if !matches!(effect, Effect::WakeAt(_)) {
            self.trace(site, || format!("{keeper} -> {effect:?}"));
        }
        match effect {
            Effect::SendPeer(message) => self.post(site, keeper, &message),
            Effect::ReadRecord { .. } | Effect::Persist { .. } => {
                let delay = self.catalog_delay();
                self.schedule(delay, Act::Write { site, keeper, effect });
            }
            Effect::ReadWitness { .. } => {
                let delay = self.witness_delay();
                self.schedule(delay, Act::Write { site, keeper, effect });
            }
            Effect::SwapWitness { ref record, .. } => {
                self.sites[site].asked.insert((keeper, record.epoch));
                let delay = self.witness_delay();
                self.schedule(delay, Act::Write { site, keeper, effect });
            }
            Effect::Serve { epoch, .. } => {
                assert!(
                    self.sites[site].asked.contains(&(keeper, epoch)),
                    "property 8: keeper {keeper} serves {epoch} on a vote that it did not ask for"
                );
                self.schedule(0, Act::GatewayAsks { site });
            }
            Effect::AskLossGate => {
                let decision = self.loss_gate;
                self.answer(site, keeper, 5 * MS, Event::LossGate(decision));
            }
            Effect::Drain { .. } => {
                self.sites[site].holds = true;
                self.answer(site, keeper, 50 * MS, Event::Drained);
            }
            Effect::Undrain { .. } => {
                let gate = self.sites[site].record.as_ref().map(|record| record.gate);
                assert!(!matches!(gate, Some(Gate::Sealed(_))), "held writes go on, to be refused: {gate:?}");
                self.sites[site].holds = false;
            }
            Effect::AwaitPeer { position } => {
                if self.weather.link == [true; 2] && self.sites[1 - site].up {
                    self.answer(site, keeper, 100 * MS, Event::PeerConfirmed { position });
                }
            }
            Effect::StopGateways { epoch } => {
                let now = self.sites[site].gateway_clock.at(self.now);
                self.sites[site].gateway.stop(now, keeper);
                self.answer(site, keeper, 10 * MS, Event::GatewaysStopped { epoch });
            }
            Effect::WakeAt(time) => {
                let at = self.sites[site].clock.real(time).max(self.now + 1);
                self.schedule(at - self.now, Act::Step { site, keeper, event: Event::Tick });
            }
            Effect::Report(waiting) => self.sites[site].waiting = waiting,
            Effect::Resign => {
                self.sites[site].keepers.remove(&keeper);
            }
            Effect::Stop | Effect::FencePeer { .. } => {}
        }
    }

    fn answer(&mut self, site: usize, keeper: KeeperNumber, delay: Real, event: Event) {
        self.schedule(delay, Act::Step { site, keeper, event });
    }

    fn post(&mut self, from: usize, keeper: KeeperNumber, message: &Message) {
        match message {
            Message::Renew { epoch, .. } => {
                self.sites[from].asked.insert((keeper, *epoch));
            }
            Message::Release { .. } => self.sites[from].released = true,
            Message::Hello { .. }
            | Message::Greeting { .. }
            | Message::Ack { .. }
            | Message::Refuse { .. } => {}
        }
        if !self.weather.link[from] {
            return;
        }
        let copies = 1 + u64::from(self.random.percent(self.weather.double));
        for _ in 0..copies {
            if self.random.percent(self.weather.loss) {
                continue;
            }
            let (low, high) = self.weather.latency;
            let delay = self.random.between(low * MS, high * MS);
            let to = 1 - from;
            // Whoever speaks for the site hears it, and so may one that has been replaced.
            for keeper in self.sites[to].keepers.keys().copied().collect::<Vec<_>>() {
                let event = Event::FromPeer(message.clone());
                self.schedule(delay, Act::Step { site: to, keeper, event });
            }
        }
    }

    /// A request reaches the catalog or the witness; its answer is on the way then.
    fn write(&mut self, site: usize, keeper: KeeperNumber, effect: Effect) {
        let unclear = self.random.percent(self.weather.unclear);
        match effect {
            Effect::ReadRecord { call } => {
                let record = self.sites[site].record.clone().filter(|_| !unclear && self.sites[site].up);
                let delay = self.catalog_delay();
                self.answer(site, keeper, delay, Event::RecordRead { call, record });
            }
            Effect::Persist { call, new, expect } => {
                let lost = unclear && self.random.percent(50);
                let outcome = if lost { Persisted::Unknown } else { self.store(site, new, &expect) };
                let outcome = if unclear { Persisted::Unknown } else { outcome };
                let delay = self.catalog_delay();
                self.answer(site, keeper, delay, Event::Persisted { call, outcome });
            }
            Effect::ReadWitness { call } => {
                let stale = self.random.percent(self.weather.stale);
                let reached = self.weather.witness[site] && !unclear;
                let result = if reached { self.witness.read(stale) } else { WitnessRead::Failed };
                let delay = self.witness_delay();
                self.answer(site, keeper, delay, Event::WitnessRead { call, result });
            }
            Effect::SwapWitness { call, token, record, .. } => {
                let reached = self.weather.witness[site];
                let lost = !reached || unclear && self.random.percent(50);
                let mut result = SwapResult::Unknown;
                if !lost {
                    let epoch = record.epoch;
                    result = self.witness.swap(token.as_ref(), record);
                    if matches!(result, SwapResult::Won { .. }) {
                        self.swapped.insert((epoch, site));
                    }
                }
                let result = if unclear { SwapResult::Unknown } else { result };
                let delay = self.witness_delay();
                self.answer(site, keeper, delay, Event::SwapAnswered { call, result });
            }
            _ => unreachable!("only requests are written"),
        }
    }

    fn store(&mut self, site: usize, new: SiteRecord, expect: &SiteRecord) -> Persisted {
        let own = &mut self.sites[site];
        own.revision += 1;
        let at = Position { incarnation: site as u64, revision: own.revision };
        if own.record.as_ref() != Some(expect) {
            return Persisted::Refused { record: own.record.clone(), at };
        }
        assert!(
            new.epoch() >= own.highest_vote,
            "property 3: the vote of {} falls to {}",
            own.name,
            new.epoch()
        );
        own.highest_vote = new.epoch();
        if let Some(backs) = new.vote.as_ref().and_then(|vote| vote.backs.clone()) {
            let backed = usize::from(backs == self.sites[1].name);
            self.votes.insert((new.epoch(), site, backed));
        }
        self.sites[site].record = Some(new);
        Persisted::Stored { at }
    }

    /// The gateway asks its keeper, and commits something of its own to the catalog.
    fn gateway_asks(&mut self, site: usize) {
        self.schedule(250 * MS, Act::GatewayAsks { site });
        let latency = self.random.between(0, 5 * MS);
        let own = &mut self.sites[site];
        if !own.up {
            return;
        }
        if let Some(Gate::Open(epoch)) = own.record.as_ref().map(|record| record.gate) {
            assert!(
                epoch >= own.highest_commit,
                "property 3: a commit of {epoch} follows {}",
                own.highest_commit
            );
            own.highest_commit = epoch;
            if self.weather.link[site] {
                let (low, high) = self.weather.latency;
                let delay = self.random.between(low * MS, high * MS);
                self.schedule(delay, Act::Entry { site: 1 - site, epoch });
            }
        }
        let own = &mut self.sites[site];
        let asked = own.gateway_clock.at(self.now);
        let time = own.clock.at(self.now);
        let keepers: Vec<_> = own.keepers.values().filter_map(|lease| lease.loan(time)).collect();
        for loan in keepers {
            self.schedule(latency, Act::GatewayHears { site, asked, loan });
        }
    }

    /// The peer's entry is taken in the transaction that raises the vote, or refused.
    fn take_entry(&mut self, site: usize, epoch: Epoch) {
        let peer = self.sites[1 - site].name.clone();
        let own = &mut self.sites[site];
        let Some(record) = own.record.as_ref().filter(|record| own.up && record.vote.is_some()) else {
            return;
        };
        match record.admit(epoch, &peer) {
            Admission::Refuse { .. } => return,
            Admission::Take => {}
            Admission::TakeRaising(new) => {
                own.highest_vote = new.epoch();
                own.record = Some(new.clone());
                self.trace(site, || format!("an entry raises the vote: {new:?}"));
                self.tell(site, Event::RecordSeen(new));
            }
        }
        let own = &mut self.sites[site];
        assert!(
            epoch >= own.highest_commit,
            "property 3: an entry of {epoch} follows {}",
            own.highest_commit
        );
        own.highest_commit = epoch;
    }

    /// A win is the second vote counted: the machine asks for the gate to open.
    fn check_step(&mut self, site: usize, effects: &[Effect]) {
        let persists = effects.iter().find_map(|effect| match effect {
            Effect::Persist { new, expect, .. } => Some((new, expect)),
            _ => None,
        });
        let Some((new, expect)) = persists else { return };
        let swaps = effects.iter().any(|effect| matches!(effect, Effect::SwapWitness { .. }));
        assert!(!swaps || new.vote == expect.vote, "a swap goes out together with the vote it rests on");
        let Gate::Open(epoch) = new.gate else { return };
        if expect.gate_epoch() == Some(epoch) {
            return;
        }
        let own = &self.sites[site];
        assert!(
            expect.epoch() == epoch && expect.backs(&own.name),
            "property 4: {epoch} was won without the own vote"
        );
        let second = self.votes.contains(&(epoch, 1 - site, site)) || self.swapped.contains(&(epoch, site));
        assert!(second, "property 4: {epoch} was won by {} without a second vote", own.name);
        if let Some(before) = self.wins.iter().find(|win| win.0 == epoch) {
            assert_eq!(before.1, site, "property 2: {epoch} was won by both sites");
            return;
        }
        let last = self.wins.last().map_or(Epoch(0), |win| win.0);
        assert!(epoch > last, "property 2: {epoch} was won after {last}");
        self.wins.push((epoch, site, self.now));
    }

    fn check(&self) {
        for site in [EAST, WEST] {
            let Some(epoch) = self.serving_epoch(site) else { continue };
            let later = self.wins.iter().find(|win| win.0 > epoch && win.1 != site);
            assert!(
                later.is_none(),
                "property 1: {} answers under {epoch} after {later:?}",
                self.sites[site].name
            );
        }
    }
}
