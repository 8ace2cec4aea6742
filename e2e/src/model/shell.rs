//! What a site's shell does in the model: carries effects out against the catalog, the witness and the network.

use diptych_core::ids::Epoch;
use diptych_core::lease::{
    CallId, Effect, Event, Guard, LossDecision, Message, Persisted, SiteRecord, WitnessRead,
};
use diptych_core::records::{Gate, Position};

use super::configurations::Mutation;
use super::state::{Flight, NOW, Stage, Swap, Win, World, token, token_number};
use super::transitions::LeaseModel;

/// Where a look at the witness leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Look {
    /// No answer.
    Lost,
    /// What stands there.
    Now,
    /// What stood there before.
    Before,
}

/// One site's turn: which of its keepers, and what its calls meet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shell<'a> {
    pub(super) model: &'a LeaseModel,
    pub(super) site: usize,
    pub(super) sleeper: bool,
    pub(super) look: Look,
}

impl Shell<'_> {
    /// Feeds an event, and whatever the catalog answers to what comes of it.
    pub(super) fn step(&self, world: &mut World, event: Event) {
        let own = &mut world.sites[self.site];
        let keeper = if self.sleeper { own.sleeper.as_mut() } else { Some(&mut own.keeper) };
        let Some(keeper) = keeper else { return };
        let effects = keeper.step(NOW, event);
        for effect in effects {
            self.carry_out(world, effect);
        }
    }

    fn carry_out(&self, world: &mut World, effect: Effect) {
        match effect {
            Effect::SendPeer(message) => self.send(world, message),
            Effect::ReadRecord { call } => {
                let record = Some(world.sites[self.site].record.clone());
                self.step(world, Event::RecordRead { call, record });
            }
            Effect::Persist { call, new, expect } => {
                let outcome = self.store(world, new, &expect);
                self.step(world, Event::Persisted { call, outcome });
            }
            Effect::ReadWitness { call } => self.look(world, call),
            Effect::SwapWitness { call, token, record, .. } => {
                // A swap beyond the bound is lost on its way.
                if world.swaps.iter().filter(|swap| swap.stage.expects().is_some()).count()
                    < self.model.bounds.swaps
                {
                    let keeper = record.nonce.keeper;
                    let stage = Stage::Expects(token.as_ref().map_or(u64::MAX, token_number));
                    world.swaps.push(Swap {
                        site: self.site,
                        keeper,
                        call: call.0,
                        stage,
                        epoch: record.epoch.0,
                    });
                }
            }
            Effect::Serve { epoch, until, .. } => {
                let left = NOW.until(until).0;
                let gateway = &mut world.sites[self.site].gateway;
                if epoch.0 > gateway.epoch {
                    (gateway.epoch, gateway.left) = (epoch.0, left.max(gateway.left));
                } else if epoch.0 == gateway.epoch {
                    gateway.left = left.max(gateway.left);
                }
            }
            Effect::AskLossGate => self.step(world, Event::LossGate(LossDecision::Allowed)),
            Effect::Drain { .. } => {
                if self.model.bounds.lacks(Mutation::Without(Guard::LookAfterSeal)) {
                    world.sites[self.site].drains = true;
                } else {
                    self.step(world, Event::Drained);
                }
            }
            Effect::StopGateways { .. } => world.sites[self.site].stops = true,
            Effect::Resign => world.sites[self.site].sleeper = None,
            Effect::AwaitPeer { .. }
            | Effect::Stop
            | Effect::FencePeer { .. }
            | Effect::Undrain { .. }
            | Effect::WakeAt(_)
            | Effect::Report(_) => {}
        }
    }

    fn look(&self, world: &mut World, call: CallId) {
        let shown = match self.look {
            Look::Lost => return,
            Look::Now => &world.current,
            Look::Before => &world.previous,
        };
        let result = WitnessRead::Found { token: token(shown.token), record: shown.record() };
        // One look a poll.
        Shell { look: Look::Lost, ..*self }.step(world, Event::WitnessRead { call, result });
    }

    fn store(&self, world: &mut World, new: SiteRecord, expect: &SiteRecord) -> Persisted {
        let at = Position::default();
        let own = &mut world.sites[self.site];
        if own.record != *expect {
            return Persisted::Refused { record: Some(own.record.clone()), at };
        }
        own.record = new;
        if own.record.epoch() < expect.epoch() {
            world.epoch_fell = true;
        }
        self.note_win(world, expect);
        let (epoch, backs) = world.sites[self.site].vote();
        if matches!(expect.gate, Gate::Sealed(_))
            && backs == Some(1 - self.site)
            && epoch < world.released.len() as u64
        {
            world.released[epoch as usize] = true;
        }
        Persisted::Stored { at }
    }

    /// The gate opens at an epoch for the first time: two votes were counted.
    fn note_win(&self, world: &mut World, before: &SiteRecord) {
        let own = &world.sites[self.site];
        let Gate::Open(Epoch(epoch)) = own.record.gate else { return };
        if before.gate_epoch() == Some(Epoch(epoch)) || epoch > self.model.bounds.epochs {
            return;
        }
        let win = Win { site: self.site, released: world.released[epoch as usize], log: own.log };
        let backed = world.sites[1 - self.site].vote() == (epoch, Some(self.site));
        let recorded = (world.current.epoch, world.current.site) == (epoch, self.site);
        world.one_vote |= own.vote() != (epoch, Some(self.site)) || !backed && !recorded;
        if let Some(earlier) = world.winner(epoch) {
            world.won_twice |= earlier.site != self.site;
        } else {
            world.won_out_of_order |= world.highest_win() > epoch;
            world.wins[epoch as usize] = Some(win);
        }
    }

    /// Puts a message on the wire. With as many of its kind there already, the oldest is lost.
    fn send(&self, world: &mut World, mut message: Message) {
        let to = 1 - self.site;
        if let Message::Renew { wrote, .. } = &mut message {
            // The other site knows of each write the moment it is made, which is earlier; see `tidy`.
            *wrote = None;
        }
        let limit = match message {
            // Told at once, by the most permissive observer; see `tidy`.
            Message::Hello { .. } | Message::Greeting { .. } => return,
            Message::Refuse { seq, standing } => {
                // The sender learns at once that its epoch is burned, but not that this site may hold.
                let standing = diptych_core::lease::Standing { holding: false, ..standing };
                let shell = Shell { site: to, sleeper: false, ..*self };
                if !self.sleeper {
                    shell.step(world, Event::FromPeer(Message::Refuse { seq, standing }));
                }
                return;
            }
            Message::Renew { .. } => self.model.bounds.renewals,
            Message::Ack { .. } => self.model.bounds.acknowledgements,
            Message::Release { .. } => 1,
        };
        if world.flights.iter().any(|flight| flight.to == to && flight.message == message) {
            return;
        }
        let alike = |flight: &Flight| {
            flight.to == to && std::mem::discriminant(&flight.message) == std::mem::discriminant(&message)
        };
        let mut kind: Vec<usize> = (0..world.flights.len()).filter(|at| alike(&world.flights[*at])).collect();
        if kind.len() >= limit {
            kind.sort_by_key(|at| world.flights[*at].age);
            if let Some(oldest) = kind.last() {
                world.flights.remove(*oldest);
            }
        }
        world.flights.push(Flight { to, message, age: 0 });
    }
}
