//! Who has a bucket: a name in the device record, put there and renewed by compare-and-set.
//!
//! ```text
//!         no holder, or one that was silent          renewed: until = sent + HOLD
//!  free ──────────────────────────────────► held ◄───────────────────┐
//!    ▲                                       │ ├──────────────────────┘
//!    └───────── given up, by closing ────────┘ └─► lost: another's name there, or nothing confirmed for HOLD
//! ```
//! No two clocks are compared. The holder counts from before it sent what the store confirmed, and answers nothing after HOLD;
//! who would take over counts from after it first saw what has not changed since, and waits longer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use diptych_core::lease::{BootTime, Millis};
use serde::{Deserialize, Serialize};

use super::local::LocalMemory;
use super::{BucketError, BucketPlace};
use crate::error::StoreError;
use crate::health::Health;
use crate::record::{self, DeviceRecord, RecordPlace};
use crate::types::{DeviceIdentity, ExpectedIdentity};

/// How long a confirmed hold counts.
const HOLD: Millis = Millis(30_000);
/// How long nothing may have been heard of a holder: its hold, and what a call of it may be late.
const SILENT: Millis = Millis(45_000);
/// From one renewal to the next. Tests, whose time is simulated, renew by themselves.
const RENEW: Duration = if cfg!(test) { Duration::MAX } else { Duration::from_secs(10) };
/// Between two attempts at a change that the store did not confirm.
const AGAIN: Duration = Duration::from_secs(1);
/// Key of the device record.
pub(super) const RECORD: &str = "device";
const MAGIC: [u8; 8] = *b"DIPTYCHB";
const FORMAT: u32 = 1;
/// A record is far shorter; a keyring is kilobytes.
pub(super) const MAX_RECORD: u64 = 1 << 20;

/// What stands in the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BucketRecord {
    pub(super) device: DeviceRecord,
    holder: Option<Holder>,
    /// How often the device was opened.
    pub(super) openings: u32,
    /// Grows with each change, so that no two states of the object are the same bytes.
    changes: u64,
}

/// A process that has the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// Random, fresh for each opening.
    opening: [u8; 16],
    /// Its agent, for messages.
    agent: String,
}

/// What was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) record: BucketRecord,
    /// The last holder did not give it up.
    pub(super) was_held: bool,
}

/// What is known of holders from one opening to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Since when nothing was heard of the one that is there.
    silence: Option<Silence>,
    /// The last opening of this process.
    own: Option<([u8; 16], Arc<Health>)>,
    /// That of the process before it.
    local: Option<LocalMemory>,
}

impl Memory {
    /// FENCING: an opening of this process that has failed answers nothing any more, nor does a process that let go of its
    /// lock: nobody has to wait for either.
    fn is_over(&self, opening: [u8; 16]) -> bool {
        match &self.own {
            Some((own, health)) => *own == opening && health.failure().is_some(),
            None => self.local.as_ref().is_some_and(|local| local.opening() == Some(opening)),
        }
    }
}

#[derive(Debug)]
struct Silence {
    etag: String,
    since: BootTime,
}

impl BucketRecord {
    pub(super) fn new(identity: &DeviceIdentity) -> Self {
        Self { device: DeviceRecord::new(identity), holder: None, openings: 0, changes: 0 }
    }

    pub(super) fn encode(&self) -> Bytes {
        record::framed(MAGIC, FORMAT, self).into()
    }
}

/// The record as it lies in a bucket, and its ETag.
pub(super) fn read(place: &BucketPlace) -> Result<(BucketRecord, String), StoreError> {
    let (bytes, etag) = place.bucket.get(RECORD, MAX_RECORD).map_err(|error| match error {
        BucketError::Absent => StoreError::Missing { path: place.name.clone() },
        failed @ BucketError::Failed(_) => place.error("reading", RECORD, failed),
    })?;
    Ok((record::unframed(&bytes, MAGIC, FORMAT, &place.name.join(RECORD))?, etag))
}

/// What the store confirmed last.
#[derive(Debug)]
struct Confirmed {
    record: BucketRecord,
    etag: String,
    /// From then on nothing is answered any more.
    until: BootTime,
}

/// The hold of an open device.
#[derive(Debug)]
pub(super) struct Hold {
    place: Arc<BucketPlace>,
    health: Arc<Health>,
    /// Written under a lock of its own, so that who only looks at the time never waits for the store.
    confirmed: RwLock<Confirmed>,
    changing: Mutex<()>,
    ending: Mutex<bool>,
    told: Condvar,
}

impl Hold {
    /// Takes the bucket, and gives its record as it is now.
    ///
    /// Errors: [`StoreError::Held`] while another has it and is not silent for long enough.
    pub(super) fn take(
        place: &Arc<BucketPlace>,
        health: Arc<Health>,
        expected: Option<&ExpectedIdentity>,
    ) -> Result<(Self, Taken), StoreError> {
        place.lock_here()?;
        let (found, etag) = read(place)?;
        if let Some(expected) = expected {
            record::expect(&found.device, expected, &place.name)?;
        }
        let seen = place.bucket.now();
        if let Some(holder) = &found.holder {
            place.may_take_from(holder, &etag, seen)?;
        }
        let was_held = found.holder.is_some();
        let holder = Holder { opening: rand::random(), agent: place.agent.clone() };
        let own = (holder.opening, Arc::clone(&health));
        // Before it stands in the bucket: it may be the last that this process does.
        place.remember_here(&holder.opening)?;
        let record = BucketRecord {
            holder: Some(holder),
            openings: found.openings + 1,
            changes: found.changes + 1,
            ..found
        };
        // FENCING: whoever renewed, took or changed it meanwhile has given it another ETag, and this is refused.
        let etag = match place.bucket.swap(RECORD, record.encode(), Some(&etag)) {
            Ok(etag) => etag,
            // An answer can be lost: what lies there tells whose it is.
            Err(error) => match read(place)? {
                (there, etag) if there == record => etag,
                _ => return Err(place.error("taking", RECORD, error)),
            },
        };
        place.memory().own = Some(own);
        let confirmed = Confirmed { record: record.clone(), etag, until: seen + HOLD };
        let hold = Self {
            place: Arc::clone(place),
            health,
            confirmed: RwLock::new(confirmed),
            changing: Mutex::default(),
            ending: Mutex::default(),
            told: Condvar::new(),
        };
        Ok((hold, Taken { record, was_held }))
    }

    /// FENCING: asked after the store has confirmed a change of rows and before that is answered. Who took over has waited until
    /// this fails, and lists what is there only then, so it knows of every row that was answered.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.health.check()?;
        if self.place.bucket.now() < self.confirmed().until {
            return Ok(());
        }
        Err(self.lose("the store has confirmed nothing for 30 s"))
    }

    /// Renews until it is told to end; then gives the bucket up. `working`: held by whoever writes or deletes a row.
    pub(super) fn keep(&self, working: &RwLock<()>) {
        while !self.told_to_end() {
            if self.renew().is_err() && self.health.failure().is_some() {
                return;
            }
        }
        // FENCING: no row is written or deleted any more, so that whoever opens it next finds nothing in motion.
        drop(working.write().unwrap_or_else(PoisonError::into_inner));
        if self.health.failure().is_none() {
            self.give_up();
        }
    }

    /// The device is closed: what runs is waited for, then the bucket is given up.
    pub(super) fn end(&self) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }

    fn told_to_end(&self) -> bool {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(ending, RENEW, |ending| !*ending);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn renew(&self) -> Result<(), StoreError> {
        self.change(|_| ())
    }

    fn give_up(&self) {
        let _alone = self.alone();
        let (mut free, etag) = self.known();
        (free.holder, free.changes) = (None, free.changes + 1);
        if let Err(error) = self.place.bucket.swap(RECORD, free.encode(), Some(&etag)) {
            tracing::warn!(place = %self.place.name.display(), %error, "a bucket was not given up: it opens again after 45 s");
        }
    }

    /// Changes the record: it is so in the bucket when this returns. What the store does not confirm is tried until the hold is
    /// over, which closes the device: so nothing is ever done on top of a change that may come later.
    fn change(&self, change: impl FnOnce(&mut BucketRecord)) -> Result<(), StoreError> {
        let _alone = self.alone();
        let (mut fresh, etag) = self.known();
        change(&mut fresh);
        fresh.changes += 1;
        let bytes = fresh.encode();
        let first = self.place.bucket.now();
        loop {
            self.health.check()?;
            let sent = self.place.bucket.now();
            let swapped = self.place.bucket.swap(RECORD, bytes.clone(), Some(&etag));
            let made = match swapped {
                Ok(etag) => Some((etag, sent)),
                // FENCING: it may be the first attempt that was applied, and whoever waits for silence counts from then on.
                Err(error) => self.look(&fresh, &error)?.map(|etag| (etag, first)),
            };
            if let Some((etag, sent)) = made {
                *self.confirmed.write().unwrap_or_else(PoisonError::into_inner) =
                    Confirmed { record: fresh, etag, until: sent + HOLD };
                return Ok(());
            }
            self.check()?;
            self.place.bucket.pause(AGAIN);
        }
    }

    /// What became of a change that was not confirmed: its ETag if it was made, `None` if that is not known yet.
    fn look(&self, fresh: &BucketRecord, failed: &BucketError) -> Result<Option<String>, StoreError> {
        tracing::warn!(place = %self.place.name.display(), error = %failed, "a change of the device record was not confirmed");
        match read(&self.place) {
            Ok((there, etag)) if there == *fresh => Ok(Some(etag)),
            Ok((there, _)) if there == self.known().0 => Ok(None),
            Ok((there, _)) => {
                let agent = there.holder.map_or_else(|| "nobody".to_owned(), |holder| holder.agent);
                Err(self.lose(&format!("the device record is {agent}'s now")))
            }
            Err(StoreError::Io { .. } | StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(self.lose(&error.to_string())),
        }
    }

    fn lose(&self, reason: &str) -> StoreError {
        let failed = format!("{} is not held any more", self.place.name.display());
        self.health.fail(StoreError::failed(&failed, &reason))
    }

    fn known(&self) -> (BucketRecord, String) {
        let confirmed = self.confirmed();
        (confirmed.record.clone(), confirmed.etag.clone())
    }

    fn confirmed(&self) -> std::sync::RwLockReadGuard<'_, Confirmed> {
        self.confirmed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordPlace for Hold {
    fn read(&self) -> Result<DeviceRecord, StoreError> {
        let (there, _) = read(&self.place)?;
        if there.holder != self.confirmed().record.holder {
            return Err(self.lose("the device record names another holder"));
        }
        Ok(there.device)
    }

    fn write(&self, record: &DeviceRecord) -> Result<(), StoreError> {
        self.change(|fresh| fresh.device = record.clone())
    }
}

impl BucketPlace {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps other processes of this machine away.
    fn lock_here(&self) -> Result<(), StoreError> {
        let mut memory = self.memory();
        let Some(path) = self.local.as_ref().filter(|_| memory.local.is_none()) else { return Ok(()) };
        let locked =
            LocalMemory::lock(path).map_err(|error| StoreError::io_at("locking", path, path, error))?;
        memory.local = Some(locked.ok_or_else(|| StoreError::InUse { path: self.name.clone() })?);
        Ok(())
    }

    fn remember_here(&self, opening: &[u8; 16]) -> Result<(), StoreError> {
        let (memory, Some(path)) = (self.memory(), &self.local) else { return Ok(()) };
        let remembered = memory.local.as_ref().map_or(Ok(()), |local| local.remember(opening));
        remembered.map_err(|error| StoreError::io_at("writing", path, path, error))
    }

    /// Passes once the record of a holder has not changed for long enough.
    fn may_take_from(&self, holder: &Holder, etag: &str, now: BootTime) -> Result<(), StoreError> {
        let mut memory = self.memory();
        if memory.is_over(holder.opening) {
            return Ok(());
        }
        let since = match &memory.silence {
            Some(known) if known.etag == etag => known.since,
            _ => {
                memory.silence = Some(Silence { etag: etag.to_owned(), since: now });
                now
            }
        };
        if now >= since + SILENT {
            return Ok(());
        }
        Err(StoreError::Held {
            path: self.name.clone(),
            agent: holder.agent.clone(),
            silent_s: SILENT.0 / 1000,
        })
    }
}
