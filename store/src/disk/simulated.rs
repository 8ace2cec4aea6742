//! A disk for tests. It keeps apart what is durable and what is only in memory: a crash keeps of the unsynced writes and
//! names a random choice, torn at sectors and in any order. It can be cut off at any change, syncs can be made to fail,
//! room to run out, bytes to rot.

mod platter;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, FileSystemRoom, ReadAt};
pub(crate) use platter::Dice;
use platter::{Inode, NameChange, Unsynced, apply, keep_some, rename};

/// How a machine ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CutOff {
    /// Power off and on: the seed says which unsynced changes survive.
    Power(u64),
    /// The process dies, the machine lives: what was written stays in memory, synced or not.
    Kill,
}

#[derive(Debug)]
struct State {
    /// Grows with each crash: handles of an earlier life are dead.
    life: u64,
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    /// Syncs that still succeed before all fail.
    syncs_left: Option<u64>,
    capacity: u64,
    /// Nothing of what is read is in memory.
    cold: bool,
    /// Changes and syncs that were asked for.
    changes: u64,
    /// The machine is cut off instead of more changes than these.
    cut_off: Option<(u64, CutOff)>,
}

/// Cheap to clone; clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    /// The machine that works with it; `None`: the test itself, which survives crashes.
    life: Option<u64>,
}

fn dead() -> io::Error {
    io::Error::other("the machine of this handle has crashed")
}

impl SimulatedDisk {
    pub(crate) fn new() -> Self {
        let state = State {
            life: 0,
            inodes: HashMap::new(),
            next_inode: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            locks: BTreeSet::new(),
            syncs_left: None,
            capacity: 1 << 40,
            cold: false,
            changes: 0,
            cut_off: None,
        };
        Self { state: Arc::new(Mutex::new(state)), life: None }
    }

    /// The disk as a machine sees it that dies with the next crash.
    pub(crate) fn mounted(&self) -> Self {
        let life = Some(self.state().life);
        Self { state: Arc::clone(&self.state), life }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the disk")
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if self.life.is_none_or(|life| life == state.life) { Ok(state) } else { Err(dead()) }
    }

    /// As [`CutOff::Power`], now.
    pub(crate) fn crash(&self, seed: u64) {
        cut_off(&mut self.state(), CutOff::Power(seed));
    }

    /// As [`CutOff::Kill`], now.
    pub(crate) fn kill(&self) {
        cut_off(&mut self.state(), CutOff::Kill);
    }

    /// After so many more changes, in the middle of what is done then.
    pub(crate) fn cut_off_after(&self, changes: u64, how: CutOff) {
        let mut state = self.state();
        state.cut_off = Some((state.changes + changes, how));
    }

    /// After so many more syncs all fail; `None`: none does.
    pub(crate) fn fail_syncs_after(&self, syncs: Option<u64>) {
        self.state().syncs_left = syncs;
    }

    /// Whether what is read has to come from the device.
    pub(crate) fn set_cold(&self, cold: bool) {
        self.state().cold = cold;
    }

    /// Bytes that all files together may have.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Lets files grow by so many bytes together.
    pub(crate) fn leave_room(&self, bytes: u64) {
        let mut state = self.state();
        state.capacity = used(&state) + bytes;
    }

    /// Lets one byte rot, on the platter and in memory.
    pub(crate) fn flip(&self, path: &Path, offset: usize) {
        let mut state = self.state();
        let number = state.names[path];
        let inode = state.inodes.get_mut(&number).expect("named files are there");
        inode.live[offset] ^= 0x10;
        inode.durable[offset] ^= 0x10;
    }

    /// Lets one byte rot where no memory covers it up once it is dropped.
    pub(crate) fn flip_platter(&self, path: &Path, offset: usize) {
        let mut state = self.state();
        let number = state.names[path];
        state.inodes.get_mut(&number).expect("named files are there").durable[offset] ^= 0x10;
    }

    /// A file as it is now.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.inodes[&state.names[path]].live.clone()
    }

    /// Puts a file there, durably, behind everyone's back.
    pub(crate) fn plant(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let number = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(number, Inode { durable: bytes.clone(), live: bytes, unsynced: Vec::new() });
        state.names.insert(path.to_owned(), number);
        state.durable_names.insert(path.to_owned(), number);
    }
}

fn cut_off(state: &mut State, how: CutOff) {
    state.life += 1;
    state.locks.clear();
    state.cut_off = None;
    let CutOff::Power(seed) = how else { return };
    let mut dice = Dice::new(seed);
    state.syncs_left = None;
    for change in std::mem::take(&mut state.unsynced_names) {
        if dice.roll(2) == 0 {
            rename(&mut state.durable_names, &change);
        }
    }
    state.names = state.durable_names.clone();
    let mut order: Vec<u64> = state.inodes.keys().copied().collect();
    order.sort_unstable();
    for number in order {
        let inode = state.inodes.get_mut(&number).expect("it was just listed");
        keep_some(inode, &mut dice);
        inode.live = inode.durable.clone();
    }
}

/// Counts a change, unless it comes too late.
fn count_change(state: &mut State) -> io::Result<()> {
    match state.cut_off {
        Some((last, how)) if state.changes >= last => {
            cut_off(state, how);
            Err(dead())
        }
        _ => {
            state.changes += 1;
            Ok(())
        }
    }
}

fn used(state: &State) -> u64 {
    state.names.values().map(|number| state.inodes[number].live.len() as u64).sum()
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.alive()?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode, life: state.life }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.alive()?;
        count_change(&mut state)?;
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.names.insert(path.to_owned(), inode);
        state.unsynced_names.push(NameChange::Add(path.to_owned(), inode));
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode, life: state.life }))
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.alive()?;
        let inside = state.names.keys().filter_map(|path| path.strip_prefix(folder).ok());
        let first =
            inside.filter_map(|rest| rest.iter().next()).map(|name| name.to_string_lossy().into_owned());
        Ok(first.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        count_change(&mut state)?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        rename(&mut state.names, &change);
        state.unsynced_names.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        count_change(&mut state)?;
        if state.names.remove(path).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.unsynced_names.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        count_change(&mut state)?;
        count_sync(&mut state)?;
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.unsynced_names).into_iter().partition(|change| {
                let (NameChange::Add(path, _) | NameChange::Remove(path) | NameChange::Rename(_, path)) =
                    change;
                path.parent() == Some(folder)
            });
        for change in &here {
            rename(&mut state.durable_names, change);
        }
        state.unsynced_names = elsewhere;
        Ok(())
    }

    fn room(&self, _folder: &Path) -> io::Result<FileSystemRoom> {
        let state = self.alive()?;
        Ok(FileSystemRoom { available: state.capacity.saturating_sub(used(&state)) })
    }

    fn lend(&self, _path: &Path) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut state = self.alive()?;
        if !state.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock { disk: self.clone(), path: path.to_owned(), life: state.life })))
    }
}

fn count_sync(state: &mut State) -> io::Result<()> {
    match &mut state.syncs_left {
        None => Ok(()),
        Some(0) => Err(io::Error::other("the simulated device lost a write")),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
    }
}

struct Lock {
    disk: SimulatedDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
    life: u64,
}

impl SimulatedFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life == self.life { act(&mut state, self.inode) } else { Err(dead()) }
    }

    fn change(&self, change: Unsynced) -> io::Result<()> {
        self.with(|state, number| {
            count_change(state)?;
            let end = match &change {
                Unsynced::Write { offset, bytes } => offset + bytes.len(),
                Unsynced::Length(len) => *len,
            };
            let grown = end.saturating_sub(state.inodes[&number].live.len()) as u64;
            if grown > 0 && used(state) + grown > state.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let inode = state.inodes.get_mut(&number).ok_or_else(dead)?;
            apply(&mut inode.live, &change);
            inode.unsynced.push(change);
            Ok(())
        })
    }
}

impl ReadAt for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, number| {
            let live = &state.inodes[&number].live;
            let start = usize::try_from(offset).map_err(io::Error::other)?.min(live.len());
            let len = buffer.len().min(live.len() - start);
            buffer[..len].copy_from_slice(&live[start..start + len]);
            Ok(len)
        })
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.disk.state().cold {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            self.read_at(buffer, offset)
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, number| Ok(state.inodes[&number].live.len() as u64))
    }
}

impl DiskFile for SimulatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.change(Unsynced::Write { offset, bytes: bytes.to_vec() })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Unsynced::Length(usize::try_from(len).map_err(io::Error::other)?))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, number| {
            count_change(state)?;
            let counted = count_sync(state);
            let mut dice = Dice::new(number ^ state.changes);
            let inode = state.inodes.get_mut(&number).ok_or_else(dead)?;
            if counted.is_err() {
                // As Linux does: the pages are called clean although the platter has only some of them.
                keep_some(inode, &mut dice);
            }
            for change in std::mem::take(&mut inode.unsynced) {
                apply(&mut inode.durable, &change);
            }
            counted
        })
    }

    fn drop_cache(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.with(|state, number| {
            let inode = state.inodes.get_mut(&number).ok_or_else(dead)?;
            if inode.unsynced.is_empty() {
                inode.live.clone_from(&inode.durable);
            }
            Ok(())
        })
    }
}
