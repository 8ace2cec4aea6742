//! Clients' writes: gateways, commits that compare the gate, entries that the peer's catalog takes, receipts.

use diptych_core::ids::Epoch;
use diptych_core::lease::{Admission, Event};

use super::configurations::{Bounds, Mutation};
use super::state::{Receipt, World, name};
use super::transitions::LeaseModel;

/// A gateway with a running sub-lease begins a write.
pub(super) fn begin(world: &mut World, site: usize) -> Option<()> {
    let own = &world.sites[site];
    if own.gateway.left == 0 || own.record.gate_epoch().is_none() {
        return None;
    }
    let epoch = own.gateway.epoch;
    let write = world.writes.iter_mut().find(|write| write.epoch == 0)?;
    (write.site, write.epoch) = (site, epoch);
    Some(())
}

/// The commit compares the gate.
pub(super) fn commit(bounds: &Bounds, world: &mut World, at: usize) -> Option<()> {
    let highest = world.highest_win();
    let write = &mut world.writes[at];
    if write.epoch == 0 || write.committed {
        return None;
    }
    let own = &mut world.sites[write.site];
    if own.open_gate() != Some(write.epoch) && !bounds.lacks(Mutation::GateNotCompared) {
        return None;
    }
    world.epoch_fell |= own.log_epoch > write.epoch;
    own.log_epoch = own.log_epoch.max(write.epoch);
    own.log |= 1 << at;
    write.committed = true;
    write.in_time = highest == write.epoch;
    Some(())
}

/// The other site's catalog takes what `from` wrote under `epoch`, in a transaction that compares its vote.
fn take(model: &LeaseModel, world: &mut World, from: usize, epoch: u64, entries: u8) -> Option<()> {
    let to = 1 - from;
    let own = &mut world.sites[to];
    match own.record.admit(Epoch(epoch), &name(from)) {
        Admission::Refuse { .. } if !model.bounds.lacks(Mutation::OldEpochsTaken) => return None,
        Admission::TakeRaising(record) if !model.bounds.lacks(Mutation::HigherEntryLeavesGate) => {
            own.record = record.clone();
            enter(world, to, epoch, entries);
            model.shell(to).step(world, Event::RecordSeen(record));
            return Some(());
        }
        Admission::Refuse { .. } | Admission::Take | Admission::TakeRaising(_) => {}
    }
    enter(world, to, epoch, entries);
    Some(())
}

fn enter(world: &mut World, to: usize, epoch: u64, entries: u8) {
    let own = &mut world.sites[to];
    world.epoch_fell |= own.log_epoch > epoch;
    own.log_epoch = own.log_epoch.max(epoch);
    own.log |= entries;
}

/// For a receipt of two sites the gateway asks the peer's catalog to take the entry.
pub(super) fn cross(model: &LeaseModel, world: &mut World, at: usize) -> Option<()> {
    let write = world.writes[at];
    if write.epoch == 0 || write.crossed {
        return None;
    }
    take(model, world, write.site, write.epoch, 1 << at)?;
    world.writes[at].crossed = true;
    Some(())
}

/// The other site follows the feed.
pub(super) fn feed(model: &LeaseModel, world: &mut World, from: usize) -> Option<()> {
    let missing = world.sites[from].log & !world.sites[1 - from].log;
    let vote = world.sites[1 - from].record.epoch().0;
    let (mut entries, mut epoch) = (0, 0);
    for (at, write) in world.writes.iter().enumerate() {
        if missing & 1 << at != 0 && write.site == from && write.epoch >= vote {
            entries |= 1 << at;
            epoch = epoch.max(write.epoch);
        }
    }
    if entries == 0 {
        return None;
    }
    take(model, world, from, epoch, entries)
}

/// For one site the look after the commit counts; for two no clock is asked.
pub(super) fn answer(bounds: &Bounds, world: &mut World, at: usize, both: bool) -> Option<()> {
    let write = &mut world.writes[at];
    if !write.committed || write.receipt != Receipt::None {
        return None;
    }
    if both {
        if !write.crossed {
            return None;
        }
        write.receipt = Receipt::Both;
        return Some(());
    }
    let gateway = world.sites[write.site].gateway;
    let runs = gateway.left > 0 && gateway.epoch == write.epoch;
    if !runs && !bounds.lacks(Mutation::NoLookAfterCommit) {
        return None;
    }
    write.receipt = Receipt::One;
    Some(())
}
