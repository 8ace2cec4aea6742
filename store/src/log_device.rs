//! The device in a folder: records in an append-only log. What its calls mean and how they fail stands on
//! [`Device`](crate::Device).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use diptych_core::fragment::{RecordHead, Tombstone};
use diptych_core::ids::{ExtentId, InstanceId, Row, Stamp};
use diptych_core::records::ExtentKind;

use crate::admission::Admission;
use crate::commit::Committer;
use crate::compact::Compactor;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::health::Health;
use crate::index::{self, Index};
use crate::log::Log;
use crate::pending::Pending;
use crate::queue::{Item, Queue, Work};
use crate::read::Reader;
use crate::recent::Recent;
use crate::record::{self, DeviceRecord, Folder, KeptRecord};
use crate::recover::{Recovered, Recovery};
use crate::segment::{self, Owner};
use crate::types::{
    ByteRange, Commits, Deleted, DeviceIdentity, Finding, InventoryEntry, InventoryKey, Keyring, NewRow,
    OpenOptions, OpenReport, Purpose, Room, RowDescription, RowPlace, ScrubProgress, ScrubState, Sealed,
    Verified, WholeRow,
};
use crate::writer::{self, LogWriter};
use crate::{room, scrub};

/// Held by the process that has the device open.
pub(crate) const LOCK: &str = "lock";

/// An open device in a folder.
#[derive(Debug, Clone)]
pub(crate) struct LogDevice(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    identity: DeviceIdentity,
    options: OpenOptions,
    report: OpenReport,
    disk: Arc<dyn Disk>,
    health: Arc<Health>,
    record: Arc<KeptRecord>,
    admission: Arc<Admission>,
    log: Arc<Log>,
    queue: Arc<Queue>,
    compactor: Arc<Compactor>,
    compacting: Mutex<Option<JoinHandle<()>>>,
    /// `None` once closed, so that the next one to open the folder has it alone.
    index: RwLock<Option<Arc<Index>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<Lock>>,
    scrubbing: Mutex<()>,
}

/// Keeps other processes away while it lives.
struct Lock(#[expect(dead_code, reason = "held, not read")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Lock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Lock")
    }
}

impl LogDevice {
    /// See [`Device::open`](crate::Device::open).
    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: OpenOptions,
    ) -> Result<Self, StoreError> {
        let found = record::read(&*disk, path)?;
        if let Some(expected) = &options.expect {
            record::expect(&found, expected, path)?;
        }
        let lock =
            disk.lock(&path.join(LOCK)).map_err(|error| StoreError::io_at("locking", path, path, error))?;
        let Some(lock) = lock else { return Err(StoreError::InUse { path: path.to_owned() }) };
        // Another process may have changed it until now.
        let found = record::read(&*disk, path)?;
        let identity = found.identity();
        let owner = Owner::from(&identity);
        let recovery =
            Recovery { disk: &*disk, device: path, owner, index_cache_bytes: options.index_cache_bytes };
        let Recovered { index, segments, next_number, report } = recovery.run()?;
        let (health, queue, index) =
            (Arc::new(Health::default()), Arc::new(Queue::default()), Arc::new(index));
        let limits = (options.segment_bytes, options.zero_ahead_bytes);
        let (log_disk, log_health) = (Arc::clone(&disk), Arc::clone(&health));
        let log = Log::new(log_disk, path.to_owned(), owner, log_health, limits, segments, next_number);
        let log = Arc::new(log);
        let compactor = Arc::new(Compactor {
            log: Arc::clone(&log),
            queue: Arc::clone(&queue),
            health: Arc::clone(&health),
            moving: Arc::default(),
            capacity: options.capacity,
            memory: Mutex::default(),
        });
        let record = Arc::new(KeptRecord::new(found));
        let admission = Arc::new(Admission {
            cluster: identity.cluster,
            capacity: options.capacity,
            log: Arc::clone(&log),
            record: Arc::clone(&record),
        });
        let (threads, compacting) = start_threads(&compactor, &index, &admission)?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            record,
            admission,
            lock: Mutex::new(Some(Lock(lock))),
            index: RwLock::new(Some(index)),
            threads: Mutex::new(threads),
            compacting: Mutex::new(Some(compacting)),
            compactor,
            scrubbing: Mutex::new(()),
            identity,
            options,
            report,
            disk,
            health,
            log,
            queue,
        })))
    }

    /// As if the index had become unreadable.
    #[cfg(test)]
    pub(crate) fn fail_index(&self) {
        self.0.health.fail(StoreError::Index { reason: "a test says so".into() });
    }

    #[cfg(test)]
    pub(crate) fn moving(&self) -> &crate::moving::Moving {
        &self.0.compactor.moving
    }

    pub(crate) fn open_report(&self) -> OpenReport {
        self.0.report
    }

    pub(crate) fn identity(&self) -> &DeviceIdentity {
        &self.0.identity
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn close(&self) -> Result<(), StoreError> {
        self.0.close();
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
    ) -> Result<LogWriter, StoreError> {
        let head = self.0.admit_row(row, reserve, purpose)?;
        LogWriter::begin(Arc::clone(&self.0.log), Arc::clone(&self.0.queue), head, reserve)
    }

    pub(crate) fn place(&self, whole: WholeRow) -> Result<Pending<Sealed>, StoreError> {
        self.0.health.check()?;
        if !whole.is_short() {
            return self.0.write(&whole)?.queue();
        }
        let (answer, pending) = Pending::new();
        self.0.queue.push(Work::Write(Box::new(whole), answer))?;
        Ok(pending)
    }

    pub(crate) fn read(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
        range: ByteRange,
    ) -> Result<Bytes, StoreError> {
        self.0.with_reader(|reader| reader.range(extent, row, instance, &range))
    }

    pub(crate) fn read_cached(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
        range: &ByteRange,
    ) -> Option<Bytes> {
        self.0.with_reader(|reader| Ok(reader.cached(extent, row, instance, range))).ok()?
    }

    pub(crate) fn row_place(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<RowPlace, StoreError> {
        self.0.with_reader(|reader| reader.place(extent, row, instance))
    }

    pub(crate) fn lend(&self, segment: u64) -> Result<Option<OwnedFd>, StoreError> {
        let Inner { health, log, disk, path, .. } = &*self.0;
        health.check()?;
        let Some(segment) = log.segment(segment) else { return Ok(None) };
        match disk.lend(&segment.path) {
            // Unlinked since the log was asked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            lent => lent.map_err(|error| StoreError::io_at("lending", &segment.path, path, error)),
        }
    }

    pub(crate) fn describe(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<RowDescription, StoreError> {
        self.0.with_reader(|reader| reader.describe(extent, row, instance))
    }

    pub(crate) fn read_uncached(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Bytes, StoreError> {
        self.0.with_reader(|reader| reader.uncached(extent, row, instance))
    }

    pub(crate) fn verify(
        &self,
        extent: ExtentId,
        row: Row,
        instance: Option<InstanceId>,
    ) -> Result<Verified, StoreError> {
        self.0.with_reader(|reader| reader.verify(extent, row, instance))
    }

    pub(crate) fn delete(
        &self,
        extent: ExtentId,
        row: Row,
        instance: InstanceId,
        stamp: Stamp,
    ) -> Result<Pending<Deleted>, StoreError> {
        let inner = &self.0;
        inner.health.check()?;
        let _admitted = inner.record.admit(&inner.place(), stamp)?;
        let (answer, pending) = Pending::new();
        let mut fates = inner.compactor.moving.fates();
        if inner.with_index(|index| index.find(extent, row, Some(instance)))?.is_none() {
            answer.give(Ok(Deleted::NothingThere));
            return Ok(pending);
        }
        let cluster = inner.identity.cluster;
        let tombstone = Tombstone { cluster, extent, row, killed: instance, stamp };
        let (reservation, entry) = writer::write_tombstone(&inner.log, &tombstone)?;
        fates.dying.insert(instance);
        drop(fates);
        let key = InventoryKey { extent, row, instance };
        let (at, segment) = (reservation.at, reservation.segment);
        inner.queue.push(Item::Tombstone { key, at, entry, segment, answer })?;
        Ok(pending)
    }

    // ---- device record ----

    pub(crate) fn highest_stamp(&self) -> Stamp {
        self.0.record.get().highest_stamp
    }

    pub(crate) fn admit(&self, stamp: Stamp) -> Result<(), StoreError> {
        self.0.health.check()?;
        self.0.record.admit(&self.0.place(), stamp).map(drop)
    }

    pub(crate) fn keyring(&self) -> Option<Keyring> {
        self.0.record.get().keyring()
    }

    pub(crate) fn read_keyring(&self) -> Result<Option<Keyring>, StoreError> {
        Ok(self.0.record.read_again(&self.0.place())?.keyring())
    }

    pub(crate) fn put_keyring(&self, keyring: Keyring) -> Result<(), StoreError> {
        self.0.health.check()?;
        self.0.record.put_keyring(&self.0.place(), keyring)
    }

    // ---- what it holds ----

    pub(crate) fn inventory(
        &self,
        after: Option<InventoryKey>,
        kind: Option<ExtentKind>,
        limit: usize,
    ) -> Result<Vec<InventoryEntry>, StoreError> {
        // Looked at first: what a round that ends meanwhile has read counts with the next page.
        let scrubbed = self.0.with_index(Index::scrubbed)?;
        let page = self.0.with_index(|index| index.page(after, kind, limit))?;
        Ok(page.iter().map(|found| InventoryEntry::new(found, scrubbed)).collect())
    }

    pub(crate) fn instances(&self, extent: ExtentId, row: Row) -> Result<Vec<InventoryEntry>, StoreError> {
        let scrubbed = self.0.with_index(Index::scrubbed)?;
        let found = self.0.with_index(|index| index.instances(extent, row))?;
        Ok(found.iter().map(|found| InventoryEntry::new(found, scrubbed)).collect())
    }

    pub(crate) fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        self.0.with_index(Index::findings)
    }

    pub(crate) fn room(&self) -> Result<Room, StoreError> {
        self.0.room()
    }

    pub(crate) fn record_count(&self) -> Result<u64, StoreError> {
        self.0.with_index(Index::len)
    }

    pub(crate) fn commits(&self) -> Commits {
        self.0.queue.taken()
    }

    // ---- care ----

    pub(crate) fn scrub_step(&self, budget_bytes: u64, now_ms: u64) -> Result<ScrubProgress, StoreError> {
        let inner = &self.0;
        let _alone = inner.scrubbing.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = inner.log.cursor();
        inner.with_reader(|reader| {
            scrub::step(reader, &inner.record, &inner.place(), settled, budget_bytes, now_ms)
        })
    }

    pub(crate) fn scrub_state(&self) -> Result<ScrubState, StoreError> {
        let last_finished_ms = self.0.record.get().scrub_finished_ms;
        Ok(ScrubState { last_finished_ms, ..self.0.with_index(Index::scrub)? })
    }

    pub(crate) fn compact(&self) -> Result<u64, StoreError> {
        self.0.with_index(|index| self.0.compactor.compact(index))
    }

    pub(crate) fn reclaim(&self) -> Result<u64, StoreError> {
        self.0.health.check()?;
        let (answer, pending) = Pending::new();
        self.0.queue.push(Item::Reclaim(answer))?;
        pending.wait()
    }
}

impl Inner {
    fn place(&self) -> Folder<'_> {
        Folder { disk: &*self.disk, path: &self.path }
    }

    fn index(&self) -> Result<Arc<Index>, StoreError> {
        self.health.check()?;
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Closed)
    }

    /// An index that can't be read closes the device: opening it anew makes another.
    fn with_index<T>(&self, act: impl FnOnce(&Index) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let index = self.index()?;
        act(&index).map_err(|error| match error {
            StoreError::Index { .. } => self.health.fail(error),
            other => other,
        })
    }

    fn with_reader<T>(
        &self,
        act: impl FnOnce(&Reader<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_index(|index| act(&Reader { log: &self.log, index, health: &self.health }))
    }

    fn room(&self) -> Result<Room, StoreError> {
        room::of(&self.log, &*self.index()?, self.options.capacity)
    }

    fn admit_row(&self, row: &NewRow, room: u64, purpose: Purpose) -> Result<RecordHead, StoreError> {
        self.with_index(|index| self.admission.head(index, row, room, purpose))
    }

    fn write(&self, whole: &WholeRow) -> Result<LogWriter, StoreError> {
        self.with_index(|index| self.admission.write(index, &self.queue, whole))
    }

    fn join(&self, threads: impl IntoIterator<Item = JoinHandle<()>>) {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(path = %self.path.display(), "a thread of the device panicked");
            }
        }
    }

    fn close(&self) {
        self.compactor.moving.stop();
        // It ends first, so that its last copies are answered and the log is left whole.
        self.join(self.compacting.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.queue.close();
        self.join(std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner)));
        self.log.stop();
        self.health.close();
        let index = self.index.write().unwrap_or_else(PoisonError::into_inner).take();
        if index.is_some() && self.health.index_failed() {
            drop(index);
            // If it can't be removed the next opening finds out by itself.
            drop(self.disk.remove(&self.path.join(index::FILE)));
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// [`Device::format`](crate::Device::format) on any disk.
pub(crate) fn format_on(disk: &dyn Disk, path: &Path, identity: &DeviceIdentity) -> Result<(), StoreError> {
    let failed = |error| StoreError::io_at("formatting", path, path, error);
    let segments = path.join(segment::FOLDER);
    disk.create_dir(path).map_err(failed)?;
    let names = disk.list(path).map_err(failed)?;
    if names.iter().any(|name| name == record::FILE) {
        let found = record::read(disk, path)?.identity();
        let found = format!("{} of site {}, cluster {}", found.device, found.site, found.cluster);
        return Err(StoreError::AlreadyFormatted { path: path.to_owned(), found });
    }
    // What a file system makes by itself, and what an interrupted format left.
    let ours = ["lost+found", segment::FOLDER, "device.tmp"];
    if let Some(found) = names.into_iter().find(|name| !ours.contains(&name.as_str())) {
        return Err(StoreError::NotEmpty { path: path.to_owned(), found });
    }
    disk.create_dir(&segments).map_err(failed)?;
    if disk
        .list(&segments)
        .map_err(failed)?
        .iter()
        .any(|name| segment::named(name) != segment::Named::Unfinished)
    {
        return Err(StoreError::NotEmpty { path: path.to_owned(), found: segment::FOLDER.to_owned() });
    }
    if let Some(parent) = path.parent() {
        disk.sync_dir(parent).map_err(failed)?;
    }
    record::write(disk, path, &DeviceRecord::new(identity))
}

/// Those that end by themselves once the queue is closed; then the one that empties segments, which is stopped before.
fn start_threads(
    compactor: &Arc<Compactor>,
    index: &Arc<Index>,
    admission: &Arc<Admission>,
) -> Result<(Vec<JoinHandle<()>>, JoinHandle<()>), StoreError> {
    let Compactor { log, queue, health, moving, .. } = &**compactor;
    let start = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let started = thread::Builder::new().name(name.to_owned()).spawn(body);
        started.map_err(|error| StoreError::io_at("starting threads for", &log.device, &log.device, error))
    };
    let committer = Committer {
        log: Arc::clone(log),
        index: Arc::clone(index),
        queue: Arc::clone(queue),
        health: Arc::clone(health),
        moving: Arc::clone(moving),
        admission: Arc::clone(admission),
        unsynced_bytes: 0,
        unsynced_batches: 0,
        deaths: true,
        reclaimed: Instant::now(),
        recent: Recent::default(),
    };
    let (groomed, compactor, index) = (Arc::clone(log), Arc::clone(compactor), Arc::clone(index));
    let groomer = start("store-groom", Box::new(move || groomed.groom()))?;
    let committer = start("store-commit", Box::new(move || committer.run()))?;
    let compacting = start("store-compact", Box::new(move || compactor.run(&index)))?;
    Ok((vec![groomer, committer], compacting))
}
