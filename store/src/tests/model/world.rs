//! A device on a simulated disk, and what the model says of it.

use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};

use super::super::support::*;
use super::{Mishap, Step, Work};
use crate::disk::simulated::{CutOff, SimulatedDisk};
use crate::{
    Deleted, Device, InventoryKey, NewRow, OpenOptions, Pending, Purpose, Sealed, StoreError, Writer,
};

/// What the model says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    There,
    /// Asked for and not answered: there or not, settled by looking.
    Perhaps,
    Gone,
}

/// A record that was asked for once.
struct Known {
    row: NewRow,
    content: Vec<u8>,
    fate: Fate,
    /// A byte of it has changed since.
    rotten: bool,
}

/// What was asked for and may be answered yet.
enum Asked {
    Put(u64, Pending<Sealed>),
    Delete(u64, Pending<Deleted>),
    Compact(JoinHandle<Result<u64, StoreError>>),
    Nothing,
}

pub(super) struct World {
    disk: SimulatedDisk,
    options: OpenOptions,
    device: Option<Device>,
    open: Option<(Writer, NewRow, Vec<u8>)>,
    /// Everything ever put, by its number: what it was, and what became of it.
    known: BTreeMap<u64, Known>,
    next: u64,
}

impl World {
    pub(super) fn new(zero_ahead_bytes: u64) -> Self {
        let options = OpenOptions { zero_ahead_bytes, ..options() };
        let disk = formatted();
        let mut world = Self { disk, options, device: None, open: None, known: BTreeMap::new(), next: 1 };
        world.reopen();
        world
    }

    fn try_open(&self) -> Result<Device, StoreError> {
        try_open_with(&self.disk, self.options.clone())
    }

    fn device(&self) -> &Device {
        self.device.as_ref().expect("it is open between steps")
    }

    fn known(&mut self, number: u64) -> &mut Known {
        self.known.get_mut(&number).expect("it was put once")
    }

    fn fresh(&mut self, extent: u8, row: u8, len: usize) -> (NewRow, Vec<u8>) {
        self.next += 1;
        (new_row(extent, row, self.next), bytes(self.next, len))
    }

    fn note(&mut self, row: NewRow, content: Vec<u8>, fate: Fate) -> u64 {
        let number = u64::from_be_bytes(row.instance.0);
        self.known.insert(number, Known { row, content, fate, rotten: false });
        number
    }

    fn pick(&self, which: usize, fits: impl Fn(&Known) -> bool) -> Option<u64> {
        let fitting = self.known.iter().filter(|(_, known)| known.fate == Fate::There && fits(known));
        let fitting: Vec<u64> = fitting.map(|(number, _)| *number).collect();
        (!fitting.is_empty()).then(|| fitting[which % fitting.len()])
    }

    /// Drops every handle, which closes the device, and opens it anew.
    fn reopen(&mut self) {
        self.open = None;
        self.device = None;
        self.device = Some(self.try_open().expect("it opens"));
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Works(work) => {
                let asked = self.ask(work).expect("nothing is wrong with the disk");
                self.hear(asked).expect("nothing is wrong with the disk");
            }
            Step::AtOnce(works) => {
                let asked: Vec<Asked> = works
                    .iter()
                    .map(|work| self.ask(work).expect("nothing is wrong with the disk"))
                    .collect();
                for asked in asked {
                    self.hear(asked).expect("nothing is wrong with the disk");
                }
            }
            Step::Mishap { what, during, close } => self.suffer(*what, during, *close),
            Step::CrashWhileOpening { changes, seed } => {
                self.disk.crash(*seed);
                self.open = None;
                self.device = None;
                self.disk.cut_off_after(*changes, CutOff::Power(seed.wrapping_add(1)));
                drop(self.try_open());
                self.disk.crash(seed.wrapping_add(2));
                self.reopen();
            }
            Step::Reopen | Step::LoseIndex => {
                self.open = None;
                self.device().close().expect("it closes");
                self.device = None;
                if matches!(step, Step::LoseIndex) {
                    self.disk.plant(&folder().join("index.redb"), Vec::new());
                }
                self.reopen();
            }
            Step::Rot { which, at, scrub } => self.rot(*which, *at, *scrub),
        }
    }

    /// Asks for one thing; what needs a group commit is answered later.
    fn ask(&mut self, work: &Work) -> Result<Asked, StoreError> {
        match *work {
            Work::Put { extent, row, len } => {
                let (row, content) = self.fresh(extent, row, len);
                let number = self.note(row.clone(), content.clone(), Fate::Perhaps);
                let pending = place(self.device(), &row, &content, Purpose::Client)?;
                return Ok(Asked::Put(number, pending));
            }
            Work::Begin { extent, len } => {
                let (row, content) = self.fresh(extent, 9, len);
                let room = len as u64 + 5_000;
                let mut writer = self.device().begin(&row, room, Purpose::Client)?;
                for piece in content.chunks(7_777) {
                    writer.append(piece)?;
                }
                self.open = Some((writer, row, content));
            }
            Work::Finish => {
                if let Some((writer, row, content)) = self.open.take() {
                    let number = self.note(row, content, Fate::Perhaps);
                    return Ok(Asked::Put(number, writer.seal(&end())?));
                }
            }
            Work::Abandon => {
                if let Some((writer, row, content)) = self.open.take() {
                    writer.abandon();
                    self.note(row, content, Fate::Gone);
                }
            }
            Work::Get(which) => {
                if let Some(number) = self.pick(which, |known| !known.rotten) {
                    let Known { row, content, .. } = &self.known[&number];
                    assert!(get(self.device(), row)? == *content, "record {number} has wrong bytes");
                }
            }
            Work::Delete(which) => {
                if let Some(number) = self.pick(which, |_| true) {
                    self.known(number).fate = Fate::Perhaps;
                    let row = &self.known[&number].row;
                    let pending = self.device().delete(row.extent, row.row, row.instance, stamp(1))?;
                    return Ok(Asked::Delete(number, pending));
                }
            }
            Work::Scrub => while !self.device().scrub_step(50_000, 1)?.finished {},
            Work::Reclaim => drop(self.device().reclaim()?),
            Work::Compact => {
                let device = self.device().clone();
                return Ok(Asked::Compact(thread::spawn(move || device.compact())));
            }
        }
        Ok(Asked::Nothing)
    }

    fn hear(&mut self, asked: Asked) -> Result<(), StoreError> {
        match asked {
            Asked::Put(number, pending) => {
                pending.wait()?;
                self.known(number).fate = Fate::There;
            }
            Asked::Delete(number, pending) => {
                pending.wait()?;
                self.known(number).fate = Fate::Gone;
            }
            Asked::Compact(pass) => drop(pass.join().expect("a pass does not panic")?),
            Asked::Nothing => {}
        }
        Ok(())
    }

    /// Asks for all of it, whatever comes of it. False: something was refused.
    fn ask_in_vain(&mut self, works: &[Work]) -> bool {
        let asked: Vec<_> = works.iter().map(|work| self.ask(work)).collect();
        let heard = asked.into_iter().map(|asked| asked.and_then(|asked| self.hear(asked)));
        heard.fold(true, |all, heard| all & heard.is_ok())
    }

    fn suffer(&mut self, mishap: Mishap, during: &[Work], close: bool) {
        match mishap {
            Mishap::Crash { changes, seed } => self.disk.cut_off_after(changes, CutOff::Power(seed)),
            Mishap::Kill { changes } => self.disk.cut_off_after(changes, CutOff::Kill),
            Mishap::FailingSyncs { syncs } => self.disk.fail_syncs_after(Some(syncs)),
            Mishap::FullDisk { room } => self.disk.leave_room(room),
        }
        let mut sound = self.ask_in_vain(during);
        if matches!(mishap, Mishap::FailingSyncs { .. }) {
            while sound {
                sound = self.ask_in_vain(&[Work::Put { extent: 0, row: 7, len: 5_000 }]);
            }
        }
        if close {
            drop(self.device().close());
        }
        match mishap {
            Mishap::Crash { seed, .. } => self.disk.crash(seed),
            Mishap::Kill { .. } => self.disk.kill(),
            Mishap::FailingSyncs { .. } => self.disk.fail_syncs_after(None),
            Mishap::FullDisk { .. } => self.disk.set_capacity(1 << 40),
        }
        self.answers_nothing_once_it_has_failed();
        self.reopen();
    }

    /// A sync that failed is never tried again: until it is opened anew the device does nothing at all, although its disk
    /// would let it.
    fn answers_nothing_once_it_has_failed(&mut self) {
        if self.device().failure().is_none() {
            return;
        }
        let row = self.known.values().find(|known| known.fate == Fate::There).map(|known| known.row.clone());
        let (fresh, content) = self.fresh(0, 5, 10);
        let device = self.device();
        assert!(put(device, &fresh, &content).is_err(), "a device that has failed takes a row");
        assert!(device.admit(stamp(1)).is_err(), "a device that has failed admits a command");
        assert!(device.inventory(None, None, 1).is_err(), "a device that has failed lists what it has");
        assert!(device.scrub_step(1, 1).is_err(), "a device that has failed scrubs");
        assert!(device.reclaim().is_err(), "a device that has failed unlinks");
        assert!(device.compact().is_err(), "a device that has failed moves rows");
        if let Some(row) = row {
            assert!(get(device, &row).is_err(), "a device that has failed reads");
            assert!(delete(device, &row).is_err(), "a device that has failed deletes");
        }
    }

    fn rot(&mut self, which: usize, at: usize, scrub: bool) {
        const RECOGNIZED_BY: usize = 64;
        let Some(number) = self.pick(which, |known| !known.rotten && known.content.len() >= RECOGNIZED_BY)
        else {
            return;
        };
        let content = &self.known[&number].content;
        // Copies that compaction made and gave up may lie about: each rots.
        let copies: Vec<_> = segments(&self.disk)
            .into_iter()
            .flat_map(|path| {
                let starts = find_all(&self.disk, &path, &content[..RECOGNIZED_BY]);
                starts.into_iter().map(move |start| (path.clone(), start))
            })
            .collect();
        assert!(!copies.is_empty(), "it is on the disk");
        for (path, start) in copies {
            let place = start + at % content.len();
            if place < self.disk.bytes(&path).len() {
                self.disk.flip(&path, place);
            }
        }
        self.known(number).rotten = true;
        if scrub {
            let device = self.device();
            // The first round may have passed it.
            for _ in 0..2 {
                while !device.scrub_step(50_000, 1).expect("it reads").finished {}
            }
            let instance = self.known[&number].row.instance;
            let findings = device.findings().expect("it lists");
            let found = findings.iter().any(|finding| finding.key.instance == instance);
            assert!(found, "scrub does not find that record {number} is rotten");
        }
    }

    /// Everything that must hold, whatever happened.
    pub(super) fn check(&mut self) {
        let device = self.device().clone();
        let mut listed: Vec<InventoryKey> = device
            .inventory(None, None, usize::MAX)
            .expect("it lists")
            .iter()
            .map(|entry| entry.key)
            .collect();
        let mut rotten = Vec::new();
        for known in self.known.values_mut() {
            let Known { row, content, fate, .. } = known;
            let key = InventoryKey { extent: row.extent, row: row.row, instance: row.instance };
            let place = listed.iter().position(|listed| *listed == key);
            match get(&device, row) {
                Ok(read) => {
                    assert_ne!(*fate, Fate::Gone, "{key:?} came back");
                    assert!(read == *content && !known.rotten, "{key:?} has wrong bytes");
                    *fate = Fate::There;
                    listed.remove(place.expect("what reads is listed"));
                }
                // What rots before its segment is sealed is taken for unfinished by the opening after a crash.
                Err(StoreError::NotFound { .. }) => {
                    assert!(*fate != Fate::There || known.rotten, "{key:?} was answered and is lost");
                    assert_eq!(place, None, "{key:?} is listed and not found");
                    *fate = Fate::Gone;
                }
                Err(StoreError::Rotten { .. }) if known.rotten => {
                    assert_ne!(*fate, Fate::Gone, "{key:?} came back");
                    *fate = Fate::There;
                    listed.remove(place.expect("what is in quarantine is listed"));
                    rotten.push(key);
                }
                Err(error) => panic!("{key:?}: {error}"),
            }
        }
        assert!(listed.is_empty(), "never put, or never answered and given up: {listed:?}");
        let mut found: Vec<InventoryKey> =
            device.findings().expect("it lists").iter().map(|finding| finding.key).collect();
        found.sort();
        rotten.sort();
        assert_eq!(found, rotten, "findings are what is rotten");
    }
}
