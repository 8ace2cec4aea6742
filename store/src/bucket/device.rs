//! The device in a bucket. What its calls mean and how they fail stands on [`Device`](crate::Device).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use diptych_core::fragment::RecordHead;
use diptych_core::ids::{ExtentId, InstanceId, Row, Stamp};
use diptych_core::records::ExtentKind;

use super::BucketPlace;
use super::contents::Contents;
use super::hold::{self, BucketRecord, Hold, RECORD};
use super::name::RowName;
use super::read::{OpenObject, Reader};
use super::writer::{BucketWriter, Record};
use crate::error::StoreError;
use crate::health::Health;
use crate::pending::Pending;
use crate::read::describe;
use crate::record::KeptRecord;
use crate::scan::RecordFault;
use crate::types::{
    ByteRange, Deleted, DeviceIdentity, Finding, InventoryEntry, InventoryKey, Keyring, NewRow, OpenOptions,
    OpenReport, Purpose, Room, RowDescription, RowEnd, ScrubProgress, ScrubState, Sealed, Verified, WholeRow,
};
use crate::{room, writer};

/// What a bucket is taken to hold where nobody says: a store has no end that it tells of.
const CAPACITY: u64 = 1 << 40;
/// Objects of trials whether the store keeps its word; one may be left over.
const TRIALS: &str = "trial-";

/// An open device in a bucket.
#[derive(Debug, Clone)]
pub(crate) struct BucketDevice(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) place: Arc<BucketPlace>,
    identity: DeviceIdentity,
    options: OpenOptions,
    report: OpenReport,
    pub(super) health: Arc<Health>,
    pub(super) hold: Arc<Hold>,
    pub(super) record: KeptRecord,
    pub(super) contents: Contents,
    /// Bytes of rows that are being gathered.
    pub(super) memory: Arc<AtomicU64>,
    /// Order of the next row.
    order: AtomicU64,
    /// Held shared by whoever writes or deletes a row.
    working: Arc<RwLock<()>>,
    renewing: Mutex<Option<JoinHandle<()>>>,
    scrubbing: Mutex<()>,
}

impl BucketDevice {
    pub(crate) fn format(place: &BucketPlace, identity: &DeviceIdentity) -> Result<(), StoreError> {
        place.bucket.prove().map_err(|error| place.error("trying", "", error))?;
        match hold::read(place) {
            Ok((found, _)) => {
                let found = found.device.identity();
                let found = format!("{} of site {}, cluster {}", found.device, found.site, found.cluster);
                return Err(StoreError::AlreadyFormatted { path: place.name.clone(), found });
            }
            Err(StoreError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut other = None;
        let mut look = |page: Vec<super::ListedObject>| {
            other = other.take().or_else(|| page.into_iter().find(|object| !object.key.starts_with(TRIALS)));
        };
        place.bucket.list("", &mut look).map_err(|error| place.error("listing", "", error))?;
        if let Some(found) = other {
            return Err(StoreError::NotEmpty { path: place.name.clone(), found: found.key });
        }
        let made = place.bucket.swap(RECORD, BucketRecord::new(identity).encode(), None);
        made.map(drop).map_err(|error| place.error("formatting", RECORD, error))
    }

    pub(crate) fn open(place: &Arc<BucketPlace>, options: OpenOptions) -> Result<Self, StoreError> {
        // FENCING: a store that was not seen to refuse a write with a wrong condition lets two agents hold one device.
        place.bucket.prove().map_err(|error| place.error("trying", "", error))?;
        let health = Arc::new(Health::default());
        let (hold, found) = Hold::take(place, Arc::clone(&health), options.expect.as_ref())?;
        let (hold, working) = (Arc::new(hold), Arc::<RwLock<()>>::default());
        let renewing = renew(&hold, &working, &place.name)?;
        let device = Self(Arc::new(Inner {
            place: Arc::clone(place),
            identity: found.record.device.identity(),
            options,
            report: OpenReport { unclean: found.was_held, ..OpenReport::default() },
            health,
            hold,
            order: AtomicU64::new(u64::from(found.record.openings) << 32),
            record: KeptRecord::new(found.record.device),
            contents: Contents::default(),
            memory: Arc::default(),
            working,
            renewing: Mutex::new(Some(renewing)),
            scrubbing: Mutex::default(),
        }));
        // FENCING: listed only now that the bucket is held: nobody else's row is answered from here on.
        device.0.list()?;
        Ok(device)
    }

    /// As if it was time to renew the hold.
    #[cfg(test)]
    pub(crate) fn renew(&self) -> Result<(), StoreError> {
        self.0.hold.renew()
    }

    pub(crate) fn open_report(&self) -> OpenReport {
        self.0.report
    }

    pub(crate) fn identity(&self) -> &DeviceIdentity {
        &self.0.identity
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.place.name
    }

    pub(crate) fn close(&self) -> Result<(), StoreError> {
        self.0.end();
        let renewing = self.0.renewing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if renewing.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(path = %self.path().display(), "a thread of the device panicked");
        }
        self.failure().map_or(Ok(()), Err)
    }

    pub(crate) fn failure(&self) -> Option<StoreError> {
        self.0.health.failure()
    }

    // ---- rows ----

    pub(crate) fn begin(
        &self,
        row: &NewRow,
        reserve: u64,
        purpose: Purpose,
    ) -> Result<BucketWriter, StoreError> {
        let head = self.0.admit_row(row, reserve, purpose)?;
        BucketWriter::begin(Arc::clone(&self.0), head, reserve)
    }

    pub(crate) fn place(&self, whole: WholeRow) -> Result<Pending<Sealed>, StoreError> {
        let WholeRow { stamp, row, bytes, end, purpose } = whole;
        self.admit(stamp)?;
        let mut record = Record::new(self.0.admit_row(&row, bytes.len() as u64, purpose)?);
        record.push(&bytes);
        self.0.place_row(record, &end)
    }

    pub(crate) fn read(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
        range: ByteRange,
    ) -> Result<Bytes, StoreError> {
        let inside = |object: &OpenObject| range.start <= range.end && range.end <= object.trailer.row_bytes;
        let read = self.0.reader().with((extent, row, instance), false, |object| {
            let bytes = if inside(object) { Some(object.read(&range)?) } else { None };
            Ok((bytes, object.trailer.row_bytes))
        });
        let (bytes, row_bytes) = read?;
        bytes.ok_or(StoreError::OutOfRange { start: range.start, end: range.end, row_bytes })
    }

    pub(crate) fn describe(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<RowDescription, StoreError> {
        let described = |object: &OpenObject| Ok(describe(&object.head, Some(&object.trailer), false));
        self.0.reader().with((extent, row, instance), false, described)
    }

    pub(crate) fn read_uncached(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Bytes, StoreError> {
        let all = |object: &OpenObject| object.read(&(0..object.trailer.row_bytes));
        self.0.reader().with((extent, row, instance), true, all)
    }

    pub(crate) fn verify(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Verified, StoreError> {
        self.0.verify(extent, row, instance)
    }

    pub(crate) fn delete(
        &self,
        extent: ExtentId,
        row: Row,
        instance: InstanceId,
        stamp: Stamp,
    ) -> Result<Pending<Deleted>, StoreError> {
        let inner = &self.0;
        let _working = inner.work()?;
        let _admitted = inner.record.admit(&*inner.hold, stamp)?;
        let (answer, pending) = Pending::new();
        let Some(entry) = inner.contents.find(extent, row, Some(instance)) else {
            answer.give(Ok(Deleted::NothingThere));
            return Ok(pending);
        };
        let object = entry.name.object();
        let deleted = inner.place.bucket.delete(&object);
        deleted.map_err(|error| inner.place.error("deleting", &object, error))?;
        inner.contents.remove(&entry.name.key);
        inner.hold.check()?;
        answer.give(Ok(Deleted::Now));
        Ok(pending)
    }

    // ---- device record ----

    pub(crate) fn highest_stamp(&self) -> Stamp {
        self.0.record.get().highest_stamp
    }

    pub(crate) fn admit(&self, stamp: Stamp) -> Result<(), StoreError> {
        self.0.health.check()?;
        self.0.record.admit(&*self.0.hold, stamp).map(drop)
    }

    pub(crate) fn keyring(&self) -> Option<Keyring> {
        self.0.record.get().keyring()
    }

    pub(crate) fn read_keyring(&self) -> Result<Option<Keyring>, StoreError> {
        Ok(self.0.record.read_again(&*self.0.hold)?.keyring())
    }

    pub(crate) fn put_keyring(&self, keyring: Keyring) -> Result<(), StoreError> {
        self.0.health.check()?;
        self.0.record.put_keyring(&*self.0.hold, keyring)
    }

    // ---- what it holds ----

    pub(crate) fn inventory(
        &self,
        after: Option<InventoryKey>,
        kind: Option<ExtentKind>,
        limit: usize,
    ) -> Result<Vec<InventoryEntry>, StoreError> {
        self.0.health.check()?;
        Ok(self.0.contents.page(after, kind, limit))
    }

    pub(crate) fn instances(&self, extent: ExtentId, row: Row) -> Result<Vec<InventoryEntry>, StoreError> {
        self.0.health.check()?;
        Ok(self.0.contents.instances(extent, row))
    }

    pub(crate) fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        self.0.health.check()?;
        Ok(self.0.contents.findings())
    }

    pub(crate) fn room(&self) -> Result<Room, StoreError> {
        self.0.health.check()?;
        Ok(self.0.room())
    }

    pub(crate) fn record_count(&self) -> Result<u64, StoreError> {
        self.0.health.check()?;
        Ok(self.0.contents.count())
    }

    // ---- care ----

    pub(crate) fn scrub_step(&self, budget_bytes: u64, now_ms: u64) -> Result<ScrubProgress, StoreError> {
        let _alone = self.0.scrubbing.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.health.check()?;
        self.0.scrub_step(budget_bytes, now_ms)
    }

    pub(crate) fn scrub_state(&self) -> Result<ScrubState, StoreError> {
        self.0.health.check()?;
        let last_finished_ms = self.0.record.get().scrub_finished_ms;
        Ok(ScrubState { last_finished_ms, ..self.0.contents.scrub() })
    }

    /// What is deleted is gone: there is nothing to gather.
    pub(crate) fn compact(&self) -> Result<u64, StoreError> {
        self.reclaim()
    }

    pub(crate) fn reclaim(&self) -> Result<u64, StoreError> {
        self.0.health.check().map(|()| 0)
    }
}

impl Inner {
    fn reader(&self) -> Reader<'_> {
        let Self { place, contents, health, .. } = self;
        Reader { place, contents, health }
    }

    pub(super) fn verify(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Verified, StoreError> {
        let check = |object: &OpenObject| -> Result<Verified, RecordFault> {
            object.check_all()?;
            let trailer = &object.trailer;
            Ok(Verified {
                instance: object.head.instance,
                row_bytes: trailer.row_bytes,
                extent_bytes: trailer.extent_bytes,
                extent_hash: trailer.extent_hash,
            })
        };
        self.reader().with((extent, row, instance), true, check)
    }

    fn room(&self) -> Room {
        let (capacity, used) = (self.options.capacity.unwrap_or(CAPACITY), self.contents.bytes());
        Room { capacity, used, free: capacity.saturating_sub(used) }
    }

    /// While the guard is held the bucket is not given up.
    fn work(&self) -> Result<std::sync::RwLockReadGuard<'_, ()>, StoreError> {
        let working = self.working.read().unwrap_or_else(PoisonError::into_inner);
        self.hold.check().map(|()| working)
    }

    /// Everything that can refuse a row before a byte of it is sent.
    fn admit_row(&self, row: &NewRow, room: u64, purpose: Purpose) -> Result<RecordHead, StoreError> {
        self.health.check()?;
        let head = writer::record_head(self.identity.cluster, row, room);
        let limit = self.options.segment_bytes;
        if head.reserved > limit {
            return Err(StoreError::TooLong { bytes: room, limit });
        }
        head.validate().map_err(|reason| StoreError::BadRow { reason })?;
        let (extent, instance) = (row.extent, row.instance);
        if self.contents.find(extent, row.row, Some(instance)).is_some() {
            return Err(StoreError::InstanceUsed { extent, instance });
        }
        room::check(&self.room(), head.reserved, purpose)?;
        Ok(head)
    }

    /// Sends a whole record.
    ///
    /// FENCING: the store has it, then the hold is looked at, then it is answered.
    pub(super) fn place_row(&self, record: Record, end: &RowEnd) -> Result<Pending<Sealed>, StoreError> {
        let _working = self.work()?;
        let RecordHead { extent, row, instance, kind, .. } = record.head;
        let order = self.order.fetch_add(1, Ordering::Relaxed);
        let name = RowName { key: InventoryKey { extent, row, instance }, kind, order };
        let (bytes, row_bytes) = record.end(end);
        let (object, len) = (name.object(), bytes.len() as u64);
        let put = self.place.bucket.put(&object, bytes);
        put.map_err(|error| self.place.error("writing", &object, error))?;
        self.contents.put(name, len);
        self.hold.check()?;
        let (answer, pending) = Pending::new();
        answer.give(Ok(Sealed { instance, row_bytes }));
        Ok(pending)
    }

    /// Takes nothing more; the bucket is given up behind what runs. Never blocks.
    fn end(&self) {
        self.health.close();
        self.hold.end();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

fn renew(hold: &Arc<Hold>, working: &Arc<RwLock<()>>, name: &Path) -> Result<JoinHandle<()>, StoreError> {
    let (hold, working) = (Arc::clone(hold), Arc::clone(working));
    let renewing = thread::Builder::new().name("store-hold".to_owned()).spawn(move || hold.keep(&working));
    renewing.map_err(|error| StoreError::io_at("starting a thread for", name, name, error))
}
