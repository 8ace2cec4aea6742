//! What a simulated platter keeps of changes that were not synced: some, torn and in any order.

use std::collections::BTreeMap;
use std::path::PathBuf;

const SECTOR: usize = 512;

/// A small generator, so that a seed names a crash.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides.max(1) as u64) as usize
    }
}

#[derive(Debug, Clone)]
pub(super) enum Unsynced {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Vec<u8>,
    pub(super) live: Vec<u8>,
    pub(super) unsynced: Vec<Unsynced>,
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Add(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

pub(super) fn apply(bytes: &mut Vec<u8>, change: &Unsynced) {
    match change {
        Unsynced::Length(len) => bytes.resize(*len, 0),
        Unsynced::Write { offset, bytes: written } => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
    }
}

pub(super) fn rename(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Add(path, inode) => drop(names.insert(path.clone(), *inode)),
        NameChange::Remove(path) => drop(names.remove(path)),
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

/// What the platter kept of unsynced changes: some, in any order, cut at sectors.
pub(super) fn keep_some(inode: &mut Inode, dice: &mut Dice) {
    let mut changes = std::mem::take(&mut inode.unsynced);
    for last in (1..changes.len()).rev() {
        changes.swap(last, dice.roll(last + 1));
    }
    for change in changes {
        match (dice.roll(3), change) {
            (0, _) => {}
            (1, Unsynced::Write { offset, bytes }) => {
                let cut = (dice.roll(bytes.len() / SECTOR + 2) * SECTOR).saturating_sub(offset % SECTOR);
                let cut = cut.min(bytes.len());
                let part = if dice.roll(2) == 0 {
                    Unsynced::Write { offset, bytes: bytes[..cut].to_vec() }
                } else {
                    Unsynced::Write { offset: offset + cut, bytes: bytes[cut..].to_vec() }
                };
                apply(&mut inode.durable, &part);
            }
            (_, change) => apply(&mut inode.durable, &change),
        }
    }
}
