//! States that behave alike made equal, so that there are few enough of them: numbers are counted anew, what can have no
//! effect any more is dropped, and what could be known at once is told.

use diptych_core::ids::KeeperNumber;
use diptych_core::lease::{Guard, Labels, Message, Millis, Seq, Standing};

use super::configurations::Mutation;
use super::state::{Flight, NOW, Stage, World, awaits, token, token_number};
use super::transitions::LeaseModel;

/// Of a message whose answer can't count any more.
const DEAD: Seq = Seq { keeper: KeeperNumber(0), number: 0 };

fn seq_of(message: &mut Message) -> Option<&mut Seq> {
    match message {
        Message::Hello { seq }
        | Message::Renew { seq, .. }
        | Message::Ack { seq, .. }
        | Message::Greeting { seq, .. }
        | Message::Refuse { seq, .. } => Some(seq),
        Message::Release { .. } => None,
    }
}

/// The site that sent the renewal that a message is or answers.
fn asker(flight: &Flight) -> usize {
    if matches!(flight.message, Message::Renew { .. }) { 1 - flight.to } else { flight.to }
}

impl LeaseModel {
    pub(super) fn tidy(&self, world: &mut World) {
        self.drop_dead_swaps(world);
        self.drop_dead_flights(world);
        for site in 0..2 {
            Self::renumber(world, site);
        }
        self.rename_tokens(world);
        self.tell(world);
        world.swaps.sort();
        world.flights.sort_by_key(|flight| format!("{flight:?}"));
        world.flights.dedup_by(|a, b| a.to == b.to && a.message == b.message);
    }

    fn drop_dead_swaps(&self, world: &mut World) {
        let current = world.current.token;
        let blind = self.bounds.lacks(Mutation::BlindWitness);
        let sites = &world.sites;
        world.swaps.retain(|swap| match swap.stage {
            Stage::Expects(expected) => blind || expected == current,
            Stage::Wrote(_) => awaits(&sites[swap.site].keeper, swap),
        });
    }

    /// A message below the receiver's durable vote, or an answer that can't be counted, has no effect.
    fn drop_dead_flights(&self, world: &mut World) {
        let revived = [
            Mutation::VoteNotDurable,
            Mutation::Without(Guard::ReadBeforeAck),
            Mutation::Without(Guard::VoteBeforeSwap),
            Mutation::Without(Guard::VoteStands),
            Mutation::Without(Guard::EpochAboveBoth),
        ];
        let revives = revived.iter().any(|mutation| self.bounds.lacks(*mutation));
        let sites = &world.sites;
        for flight in &mut world.flights {
            let asker = asker(flight);
            if let Some(seq) = seq_of(&mut flight.message)
                && !sites[asker].keeper.awaits(*seq)
            {
                *seq = DEAD;
            }
        }
        world.flights.retain(|flight| {
            let (epoch, backs) = sites[flight.to].vote();
            match &flight.message {
                Message::Renew { epoch: asked, .. } => {
                    revives || asked.0 > epoch || asked.0 == epoch && backs == Some(1 - flight.to)
                }
                Message::Ack { epoch: given, seq } => {
                    *seq != DEAD && (revives || given.0 == epoch && backs == Some(flight.to))
                }
                Message::Release { epoch: given, .. } => given.0 > epoch,
                Message::Hello { .. } | Message::Greeting { .. } | Message::Refuse { .. } => false,
            }
        });
    }

    /// Counts the numbers of a site's keeper anew, wherever they are.
    fn renumber(world: &mut World, site: usize) {
        let World { sites, flights, swaps, current, previous, .. } = world;
        let own = &mut sites[site];
        let keeper = own.keeper.keeper();
        let mut used: Vec<u64> = Vec::new();
        for flight in flights.iter_mut().filter(|flight| asker(flight) == site) {
            used.extend(seq_of(&mut flight.message).filter(|seq| seq.keeper == keeper).map(|seq| seq.number));
        }
        used.extend(
            swaps.iter().filter(|swap| swap.site == site && swap.keeper == keeper).map(|swap| swap.call),
        );
        for stored in [&*current, &*previous] {
            used.extend(
                stored.nonce.filter(|nonce| stored.site == site && nonce.0 == keeper).map(|nonce| nonce.1),
            );
        }
        let labels: Labels = own.keeper.canonicalize(NOW, &|number| used.contains(&number));
        for flight in flights.iter_mut().filter(|flight| asker(flight) == site) {
            if let Some(seq) = seq_of(&mut flight.message).filter(|seq| seq.keeper == keeper) {
                *seq = labels.of(seq.number).map_or(DEAD, |number| Seq { keeper, number });
            }
        }
        for swap in swaps.iter_mut().filter(|swap| swap.site == site) {
            let label = labels.of(swap.call).filter(|_| swap.keeper == keeper);
            swap.call = label.unwrap_or(0);
            swap.keeper = label.map_or(KeeperNumber(0), |_| keeper);
        }
        for stored in [current, previous] {
            if stored.site == site {
                let known =
                    stored.nonce.filter(|nonce| nonce.0 == keeper).and_then(|nonce| labels.of(nonce.1));
                stored.nonce = known.map(|number| (keeper, number));
            }
        }
        if let Some(sleeper) = &mut own.sleeper {
            sleeper.canonicalize(NOW, &|_| false);
        }
    }

    /// Tokens in the order of their age; where every site sees every write at once only the current one matters.
    fn rename_tokens(&self, world: &mut World) {
        if !self.bounds.reads {
            world.previous = world.current.clone();
            for site in &mut world.sites {
                site.record.old = None;
                site.keeper.record_mut().old = None;
                if let Some(sleeper) = &mut site.sleeper {
                    sleeper.record_mut().old = None;
                }
            }
        }
        let mut known = vec![world.current.token, world.previous.token];
        known.extend(world.swaps.iter_mut().map(|swap| *swap.stage.token()));
        for site in &world.sites {
            known.extend(site.keeper.seen_token().into_iter().chain(&site.record.old).map(token_number));
        }
        known.sort_unstable();
        known.dedup();
        // Token 0 stays the one that the world began with.
        let new = |old: u64| known.binary_search(&old).map_or(old, |at| at as u64 + u64::from(known[0] > 0));
        world.current.token = new(world.current.token);
        world.previous.token = new(world.previous.token);
        for swap in &mut world.swaps {
            let token = swap.stage.token();
            *token = new(*token);
        }
        for site in &mut world.sites {
            site.keeper.rename_tokens(&|old| token(new(token_number(old))));
            if let Some(old) = &mut site.record.old {
                *old = token(new(token_number(old)));
            }
        }
    }

    /// Tells each keeper the peer's vote and, unless sites read it, the witness's record.
    fn tell(&self, world: &mut World) {
        for site in 0..2 {
            let vote = world.sites[1 - site].record.vote.clone();
            let standing = Standing { vote, holding: false, devices_empty: false };
            let keepers = &mut world.sites[site];
            for keeper in [Some(&mut keepers.keeper), keepers.sleeper.as_mut()].into_iter().flatten() {
                keeper.hear(standing.clone());
                if !self.bounds.reads {
                    let record = world.current.record();
                    keeper.show_witness(NOW, token(world.current.token), record, Millis(world.record_age));
                }
            }
        }
    }
}
