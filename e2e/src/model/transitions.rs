//! What may happen next, as stateright asks for it.

use std::sync::Arc;

use diptych_core::ids::KeeperNumber;
use diptych_core::lease::{Command, Config, Event, Lease, Millis, SiteRecord, SwapResult};
use diptych_core::records::Position;
use stateright::{Model, Property};

use super::configurations::{Bounds, Mutation};
use super::shell::{Look, Shell};
use super::state::{NOW, Stage, Stored, Swap, World, awaits, config, name, token};
use super::{data, properties};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes everywhere.
    Tick,
    /// A keeper does what is due.
    Poll(usize, Look),
    /// A message arrives.
    Deliver(usize),
    /// A message arrives at a keeper that has been replaced.
    DeliverToSleeper(usize),
    /// A swap arrives at the witness.
    Apply(usize),
    /// A keeper learns that its swap was applied.
    Learn(usize),
    /// A site elects another keeper.
    Restart(usize),
    /// A handover begins.
    HandOver(usize),
    /// Writes in flight have ended.
    Drained(usize),
    /// A handover is given up.
    Cancel(usize),
    /// The peer has everything.
    Confirmed(usize),
    /// All gateways have stopped.
    Stopped(usize),
    /// A client's write begins at a site.
    Begin(usize),
    /// It is committed.
    Commit(usize),
    /// The peer's catalog is asked to take it, for a receipt of two sites.
    Cross(usize),
    /// The peer follows the feed of a site.
    Feed(usize),
    /// The client is answered, for one site or for both.
    Answer(usize, bool),
}

/// The model: bounds, and a configuration for each site.
#[derive(Debug, Clone)]
pub struct LeaseModel {
    pub(super) bounds: Bounds,
    configs: [Arc<Config>; 2],
}

impl LeaseModel {
    /// The model within these bounds.
    pub fn new(bounds: Bounds) -> Self {
        let timers = bounds.timers();
        Self { bounds, configs: [config(0, timers.clone()), config(1, timers)] }
    }

    pub(super) fn shell(&self, site: usize) -> Shell<'_> {
        Shell { model: self, site, sleeper: false, look: Look::Lost }
    }

    fn tick(&self, world: &mut World) {
        world.record_age = world.record_age.saturating_sub(1);
        for site in &mut world.sites {
            site.gateway.left = site.gateway.left.saturating_sub(1);
            site.keeper.age(NOW, Millis(1));
            if let Some(sleeper) = &mut site.sleeper {
                sleeper.age(NOW, Millis(1));
            }
        }
        let longest = self.bounds.peer.max(self.bounds.witness);
        for flight in &mut world.flights {
            flight.age = (flight.age + 1).min(longest);
        }
    }

    fn deliver(&self, world: &mut World, at: usize, sleeper: bool) {
        let Some(flight) = world.flights.get(at).cloned() else { return };
        let shell = Shell { sleeper, ..self.shell(flight.to) };
        shell.step(world, Event::FromPeer(flight.message));
    }

    fn apply(&self, world: &mut World, at: usize) {
        let Some(expected) = world.swaps[at].stage.expects() else { return };
        if expected != world.current.token && !self.bounds.lacks(Mutation::BlindWitness) {
            world.swaps.remove(at);
            return;
        }
        let Swap { site, epoch, keeper, call, .. } = world.swaps[at];
        let same = (site, epoch) == (world.current.site, world.current.epoch);
        let token = if self.bounds.lacks(Mutation::TokenStays) && same {
            world.current.token
        } else {
            let used =
                world.swaps.iter_mut().map(|swap| *swap.stage.token()).filter(|token| *token != u64::MAX);
            let token = used.fold(world.current.token.max(world.previous.token), u64::max) + 1;
            world.record_age = self.bounds.timers().witness_wait.0;
            world.previous = world.current.clone();
            token
        };
        world.current = Stored { token, site, epoch, nonce: Some((keeper, call)) };
        world.swaps[at].stage = Stage::Wrote(token);
    }

    fn learn(&self, world: &mut World, at: usize) -> Option<()> {
        let swap = world.swaps[at].clone();
        let Stage::Wrote(written) = swap.stage else { return None };
        if !awaits(&world.sites[swap.site].keeper, &swap) {
            return None;
        }
        world.swaps.remove(at);
        let call = diptych_core::lease::CallId(swap.call);
        let result = SwapResult::Won { token: token(written) };
        self.shell(swap.site).step(world, Event::SwapAnswered { call, result });
        Some(())
    }

    fn restart(&self, world: &mut World, at: usize) {
        world.restarts += 1;
        let site = &mut world.sites[at];
        let number = KeeperNumber(site.record.keeper.0 + 1);
        site.record = SiteRecord { keeper: number, ..site.record.clone() };
        if self.bounds.lacks(Mutation::VoteNotDurable) {
            let first = diptych_core::ids::Epoch(1);
            site.record = site.record.with(first, Some(name(0)), site.record.gate);
        }
        let guard = self.bounds.guard();
        let keeper = Lease::start_without(self.configs[at].clone(), site.record.clone(), NOW, guard);
        let before = std::mem::replace(&mut site.keeper, keeper);
        site.sleeper = self.bounds.sleepers.then_some(before);
        (site.stops, site.drains) = (false, false);
    }

    fn confirmed(&self, world: &mut World, site: usize) -> Option<()> {
        // The peer has every entry.
        if world.sites[site].log & !world.sites[1 - site].log != 0 {
            return None;
        }
        self.shell(site).step(world, Event::PeerConfirmed { position: Position::default() });
        Some(())
    }

    fn stopped(&self, world: &mut World, site: usize) -> Option<()> {
        if !std::mem::take(&mut world.sites[site].stops) {
            return None;
        }
        world.sites[site].gateway.left = 0;
        let epoch = world.sites[site].record.epoch();
        self.shell(site).step(world, Event::GatewaysStopped { epoch });
        Some(())
    }

    fn happen(&self, world: &mut World, action: Action) -> Option<()> {
        match action {
            Action::Tick => self.tick(world),
            Action::Poll(site, look) => {
                Shell { look, ..self.shell(site) }.step(world, Event::Tick);
            }
            Action::Deliver(at) => self.deliver(world, at, false),
            Action::DeliverToSleeper(at) => self.deliver(world, at, true),
            Action::Apply(at) => self.apply(world, at),
            Action::Learn(at) => self.learn(world, at)?,
            Action::Restart(site) => self.restart(world, site),
            Action::HandOver(site) => self.shell(site).step(world, Event::Command(Command::Handover)),
            Action::Drained(site) => {
                world.sites[site].drains = false;
                self.shell(site).step(world, Event::Drained);
            }
            Action::Cancel(site) => self.shell(site).step(world, Event::Command(Command::CancelHandover)),
            Action::Confirmed(site) => self.confirmed(world, site)?,
            Action::Stopped(site) => self.stopped(world, site)?,
            Action::Begin(site) => data::begin(world, site)?,
            Action::Commit(write) => data::commit(&self.bounds, world, write)?,
            Action::Cross(write) => data::cross(self, world, write)?,
            Action::Feed(site) => data::feed(self, world, site)?,
            Action::Answer(write, both) => data::answer(&self.bounds, world, write, both)?,
        }
        Some(())
    }
}

impl Model for LeaseModel {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::begin(&self.bounds, &self.configs);
        self.tidy(&mut world);
        // East renews once, west acknowledges: a holder with a promise just given.
        self.shell(0).step(&mut world, Event::Tick);
        for _ in 0..2 {
            for at in 0..world.flights.len() {
                self.deliver(&mut world, at, false);
            }
        }
        world.flights.clear();
        world.swaps.clear();
        for site in &mut world.sites {
            site.keeper = site.keeper.clone().without(self.bounds.guard());
        }
        self.tidy(&mut world);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        actions.extend((0..world.flights.len()).map(Action::Deliver));
        for (at, swap) in world.swaps.iter().enumerate() {
            actions.push(if swap.stage.expects().is_some() { Action::Apply(at) } else { Action::Learn(at) });
        }
        for (site, own) in world.sites.iter().enumerate() {
            if self.bounds.reads {
                actions.extend([Look::Now, Look::Before].map(|look| Action::Poll(site, look)));
            }
            actions.push(Action::Poll(site, Look::Lost));
            if world.restarts < self.bounds.restarts {
                actions.push(Action::Restart(site));
            }
            if own.sleeper.is_some() {
                let to_it = |at: &usize| world.flights[*at].to == site;
                actions.extend((0..world.flights.len()).filter(to_it).map(Action::DeliverToSleeper));
            }
            if self.bounds.handovers {
                actions.extend([Action::HandOver(site), Action::Cancel(site)]);
                actions.extend([Action::Confirmed(site), Action::Stopped(site)]);
                if own.drains {
                    actions.push(Action::Drained(site));
                }
            }
            if self.bounds.writes > 0 {
                actions.extend([Action::Begin(site), Action::Feed(site)]);
            }
        }
        for write in 0..world.writes.len() {
            actions.extend([Action::Commit(write), Action::Cross(write)]);
            actions.extend([Action::Answer(write, false), Action::Answer(write, true)]);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        self.happen(&mut world, action)?;
        let beyond = |site: &super::state::Site| site.record.epoch().0 > self.bounds.epochs;
        if world.sites.iter().any(beyond) || world.swaps.iter().any(|swap| swap.epoch > self.bounds.epochs) {
            return None;
        }
        self.tidy(&mut world);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }
}
