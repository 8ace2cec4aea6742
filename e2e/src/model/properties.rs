//! The properties of docs/lease.md by name, and what must be seen at all for the search to mean anything.

use stateright::Property;

use super::configurations::Bounds;
use super::state::{Receipt, World};
use super::transitions::LeaseModel;

type Condition = fn(&LeaseModel, &World) -> bool;

const ALWAYS: &[(&str, Condition)] = &[
    ("1 one valid holder: at most one site's gateways may answer", |_, world| {
        world.sites.iter().filter(|site| site.gateway.left > 0).count() < 2
    }),
    ("1 one valid holder: none below an epoch that the other won", |_, world| {
        (0..2).all(|site| {
            let gateway = world.sites[site].gateway;
            let later = |win: &Option<super::state::Win>| win.is_some_and(|win| win.site != site);
            gateway.left == 0 || !world.wins.iter().skip(gateway.epoch as usize + 1).any(later)
        })
    }),
    ("2 unique epochs: each is won by one site", |_, world| !world.won_twice),
    ("2 unique epochs: wins grow", |_, world| !world.won_out_of_order),
    ("3 epochs never fall in a catalog", |_, world| !world.epoch_fell),
    ("4 a win has two votes", |_, world| !world.one_vote),
    ("5 acknowledged by one was committed before any later win", |_, world| {
        world.writes.iter().all(|write| write.receipt != Receipt::One || write.in_time)
    }),
    ("5 acknowledged by both is in every later term from its start", |_, world| {
        world.writes.iter().enumerate().all(|(at, write)| {
            let kept = |win: &Option<super::state::Win>| win.is_none_or(|win| win.log & 1 << at != 0);
            write.receipt != Receipt::Both || world.wins.iter().skip(write.epoch as usize + 1).all(kept)
        })
    }),
    ("10 a handover misses nothing acknowledged", |_, world| {
        world.writes.iter().enumerate().all(|(at, write)| {
            let next = world.winner(write.epoch + 1).filter(|win| win.released);
            write.receipt == Receipt::None || next.is_none_or(|win| win.log & 1 << at != 0)
        })
    }),
];

const SOMETIMES: &[(&str, Condition)] = &[
    ("the other site takes over", |_, world| {
        world.wins.iter().flatten().any(|win| win.site == 1 && !win.released)
    }),
    ("the holder is on the witness", |_, world| {
        world.sites[0].gateway.left > 0
            && world.current.token > 0
            && world.current.site == 0
            && world.record_age > 0
    }),
    ("a candidate that gave up has its late swap applied", |_, world| {
        world.winner(world.current.epoch).is_none()
            && world.sites[world.current.site].vote().1 != Some(world.current.site)
    }),
    ("a holder serves on while it has raised its vote", |_, world| {
        let own = &world.sites[0];
        own.gateway.left > 0 && own.vote().1 == Some(0) && own.vote().0 > own.gateway.epoch
    }),
];

/// All properties within these bounds.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<LeaseModel>> {
    let always = ALWAYS.iter().map(|(name, condition)| Property::always(name, *condition));
    let sometimes = SOMETIMES.iter().map(|(name, condition)| Property::sometimes(name, *condition));
    let mut all: Vec<_> = always.chain(sometimes).collect();
    if bounds.epochs >= 3 {
        all.push(Property::sometimes("there and back", |_, world: &World| {
            let wins: Vec<_> = world.wins.iter().flatten().map(|win| win.site).collect();
            wins.windows(2).any(|pair| pair == [1, 0])
        }));
    }
    if bounds.handovers {
        all.push(Property::sometimes("a handover is completed", |_, world: &World| {
            world.wins.iter().flatten().any(|win| win.released)
        }));
    }
    if bounds.writes > 0 {
        all.push(Property::sometimes("a write is acknowledged by one", |_, world: &World| {
            world.writes.iter().any(|write| write.receipt == Receipt::One)
        }));
        all.push(Property::sometimes(
            "a late commit of the old term is not acknowledged",
            |_, world: &World| {
                world
                    .writes
                    .iter()
                    .any(|write| write.committed && !write.in_time && write.receipt == Receipt::None)
            },
        ));
    }
    all
}
