//! The devices of an agent: each in its slot, which outlives failures and replacements of what is in it.

mod error;
mod open;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use diptych_core::ids::{ClusterId, DeviceId, SiteName};
use diptych_core::latency::LatencyHistogram;
use diptych_store::bucket::BucketPlace;
use diptych_store::{Device, OpenOptions, StoreError};
use diptych_wire::agent::{AgentError, DeviceTakes, ReadItem, RowAt};
use tokio::sync::Notify;

pub(crate) use error::agent_error;

/// With fewer measurements it is not said what a device takes.
const KNOWN_FROM: u32 = 64;

/// ```text
///            opened                    failed sync, folder gone, bucket lost
///  Closed ───────────► Open ─────────────────────────────► Closed
///    ▲  looked at each `look`, reasons differ: Missing, Unformatted, Failed
/// ```
#[derive(Debug)]
pub(crate) enum State {
    Open(Opened),
    Closed(Closed),
}

/// A device in use.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: DeviceId,
    pub(crate) device: Device,
    /// Device and inode of the folder, to notice when another stands in its place; None: it is in a bucket.
    folder: Option<(u64, u64)>,
}

/// Why a device is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Its path is not there.
    Missing,
    /// Its folder is empty and waits for its number.
    Unformatted,
    /// It failed, with the reason.
    Failed(String),
}

/// Whose devices these are.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) cluster: ClusterId,
    pub(crate) site: SiteName,
}

/// A path that the agent was given, and the device there.
#[derive(Debug)]
pub(crate) struct Slot {
    path: PathBuf,
    /// Where the path is one in a bucket.
    bucket: Option<Arc<BucketPlace>>,
    options: OpenOptions,
    owner: Owner,
    /// As given, formatted, or found on the disk.
    id: Mutex<Option<DeviceId>>,
    /// At the first look an empty folder, or bucket, is made a device. Not later: a disk that was unmounted leaves one too.
    make: AtomicBool,
    state: ArcSwap<State>,
    /// Counters of the scrub round that runs.
    pub(crate) scrubbed_rows: AtomicU64,
    pub(crate) scrubbed_bytes: AtomicU64,
    pub(crate) scrub_running: AtomicBool,
    /// One scrub step at a time.
    pub(crate) scrub_turn: tokio::sync::Mutex<()>,
    /// A round shall begin before it is due.
    pub(crate) scrub_asked: Notify,
    /// Held by the one thread that reads from memory.
    reading: Mutex<()>,
    /// What clients' reads took.
    pub(crate) reads: LatencyHistogram,
    /// What it took until clients' rows were durable.
    pub(crate) writes: LatencyHistogram,
}

impl Slot {
    pub(crate) fn new(
        path: PathBuf,
        bucket: Option<BucketPlace>,
        id: Option<DeviceId>,
        options: OpenOptions,
        owner: Owner,
    ) -> Self {
        Self {
            path,
            bucket: bucket.map(Arc::new),
            options,
            owner,
            make: AtomicBool::new(id.is_some()),
            id: Mutex::new(id),
            state: ArcSwap::from_pointee(State::Closed(Closed::Missing)),
            scrubbed_rows: AtomicU64::new(0),
            scrubbed_bytes: AtomicU64::new(0),
            scrub_running: AtomicBool::new(false),
            scrub_turn: tokio::sync::Mutex::default(),
            scrub_asked: Notify::new(),
            reading: Mutex::default(),
            reads: LatencyHistogram::default(),
            writes: LatencyHistogram::default(),
        }
    }

    /// What it takes lately.
    pub(crate) fn takes(&self) -> DeviceTakes {
        let p99 = |histogram: &LatencyHistogram| histogram.quantiles(KNOWN_FROM).map(|found| found.p99);
        DeviceTakes { read: p99(&self.reads), write: p99(&self.writes) }
    }

    /// What was measured counts half from now on.
    pub(crate) fn forget_half(&self) {
        self.reads.halve();
        self.writes.halve();
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its number, if it is known.
    pub(crate) fn id(&self) -> Option<DeviceId> {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_id(&self, id: DeviceId) {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The device, if it is in use.
    pub(crate) fn device(&self) -> Result<Device, AgentError> {
        match &**self.state.load() {
            State::Open(opened) => Ok(opened.device.clone()),
            State::Closed(closed) => Err(self.closed_error(closed)),
        }
    }

    fn closed_error(&self, closed: &Closed) -> AgentError {
        let device = self.id().unwrap_or_default();
        match closed {
            Closed::Missing | Closed::Unformatted => AgentError::DeviceMissing { device },
            Closed::Failed(reason) => AgentError::DeviceFailed { device, reason: reason.clone() },
        }
    }

    /// A short range that is in memory, read where the caller stands: waking another thread would cost more. One thread at a time does that: a page
    /// of the index may have to come from the disk, and of a device that hangs not more than one shall wait here.
    pub(crate) fn read_cached(&self, item: &ReadItem) -> Option<Bytes> {
        let RowAt { extent, row, instance, .. } = item.at;
        let device = self.device().ok()?;
        let _alone = self.reading.try_lock().ok()?;
        device.read_cached(extent, row, instance, &item.range())
    }

    /// Does blocking work on the device. A failure of the device closes it.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Device) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, AgentError> {
        let device = self.device()?;
        let worker = device.clone();
        let done = tokio::task::spawn_blocking(move || work(&worker)).await;
        let done = done.map_err(|error| AgentError::Internal { reason: error.to_string() })?;
        self.checked(&device, done)
    }

    /// Turns an error of the device into the agent's, and closes the device where it has failed.
    pub(crate) fn checked<T>(&self, device: &Device, result: Result<T, StoreError>) -> Result<T, AgentError> {
        result.map_err(|error| {
            let broken = matches!(
                error,
                StoreError::DeviceFailed { .. } | StoreError::Index { .. } | StoreError::Closed
            );
            if broken || device.failure().is_some() {
                self.close(&Closed::Failed(error.to_string()));
            }
            agent_error(self.id().unwrap_or_default(), error)
        })
    }

    /// Takes the device out of use. The first reason is logged.
    pub(crate) fn close(&self, closed: &Closed) {
        let old = self.state.swap(Arc::new(State::Closed(closed.clone())));
        if let State::Open(opened) = &*old {
            tracing::error!(device = %opened.id, path = %self.path.display(), reason = ?closed, "device closed");
            self.scrub_running.store(false, Ordering::Relaxed);
        }
    }
}

/// All devices of an agent.
#[derive(Debug)]
pub(crate) struct Devices {
    slots: Vec<Arc<Slot>>,
}

impl Devices {
    pub(crate) fn new(slots: Vec<Arc<Slot>>) -> Self {
        Self { slots }
    }

    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// The slot of a device, open or not.
    pub(crate) fn find(&self, device: DeviceId) -> Result<&Arc<Slot>, AgentError> {
        let mut slots = self.slots.iter();
        slots.find(|slot| slot.id() == Some(device)).ok_or(AgentError::DeviceMissing { device })
    }

    /// Devices in use.
    pub(crate) fn open(&self) -> Vec<(Arc<Slot>, Device)> {
        self.slots.iter().filter_map(|slot| Some((slot.clone(), slot.device().ok()?))).collect()
    }
}
