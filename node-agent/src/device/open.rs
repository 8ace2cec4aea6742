//! Opening a device, making one, and noticing that one has gone or come back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use diptych_core::ids::{DeviceId, Generation, Stamp};
use diptych_store::bucket::BucketPlace;
use diptych_store::{Device, DeviceIdentity, ExpectedIdentity, OpenOptions, StoreError};
use diptych_wire::agent::AgentError;

use super::error::{agent_error, with_source};
use super::{Closed, Opened, Slot, State};

impl Slot {
    /// Looks whether the device is still there, or there again; opens it if it can be. Blocking.
    ///
    /// Gives the device if it was opened just now; it is in use only once [`Slot::put_in_use`] was called.
    pub(crate) fn look(&self) -> Option<Opened> {
        if let State::Open(opened) = &*self.state() {
            if let Some(failure) = opened.device.failure() {
                self.close(&Closed::Failed(with_source(&failure)));
            } else if opened.folder.is_some() && folder_of(&self.path) != opened.folder {
                self.close(&Closed::Missing);
            }
            return None;
        }
        match self.open() {
            Ok(opened) => Some(opened),
            Err(closed) => {
                self.note(closed);
                None
            }
        }
    }

    /// FENCING: called only after the device has admitted the highest stamp that the agent has heard.
    pub(crate) fn put_in_use(&self, opened: Opened) {
        let report = opened.device.open_report();
        tracing::info!(device = %opened.id, path = %self.path.display(), ?report, "device open");
        self.set_id(opened.id);
        self.state.store(Arc::new(State::Open(opened)));
    }

    /// Admits a stamp on a device that is not in use yet. Blocking.
    pub(crate) fn admit_first(&self, opened: &Opened, stamp: Stamp) -> Result<(), AgentError> {
        match opened.device.admit(stamp) {
            // The device comes from elsewhere and knows a newer one.
            Ok(()) | Err(StoreError::OldStamp { .. }) => Ok(()),
            Err(error) => {
                self.note(Closed::Failed(with_source(&error)));
                Err(agent_error(opened.id, error))
            }
        }
    }

    /// Makes the empty folder a device and remembers its number; it is opened by the next look. Blocking.
    pub(crate) fn format(&self, id: DeviceId) -> Result<(), AgentError> {
        if self.device().is_ok() && self.id() == Some(id) {
            return Ok(());
        }
        self.make_device(id).map_err(|error| agent_error(id, error))?;
        self.set_id(id);
        Ok(())
    }

    fn note(&self, closed: Closed) {
        if let State::Closed(old) = &*self.state()
            && *old == closed
        {
            return;
        }
        tracing::warn!(device = ?self.id(), path = %self.path.display(), reason = ?closed, "device not in use");
        self.state.store(Arc::new(State::Closed(closed)));
    }

    fn open(&self) -> Result<Opened, Closed> {
        let device = match &self.bucket {
            Some(place) => self.open_bucket(place)?,
            None => self.open_folder()?,
        };
        let found = device.identity();
        if found.cluster != self.owner.cluster || found.site != self.owner.site {
            let reason = format!("it belongs to site {} of cluster {}", found.site, found.cluster);
            return Err(Closed::Failed(reason));
        }
        let folder = match &self.bucket {
            Some(_) => None,
            None => Some(folder_of(&self.path).ok_or(Closed::Missing)?),
        };
        Ok(Opened { id: found.device, device, folder })
    }

    fn open_folder(&self) -> Result<Device, Closed> {
        let make = self.make.swap(false, Ordering::Relaxed);
        // A folder that is not there is never made: what was on it would seem to be lost.
        if !self.path.is_dir() {
            return Err(Closed::Missing);
        }
        if is_empty(&self.path) {
            match self.id().filter(|_| make) {
                Some(id) => self.make_device(id).map_err(closed)?,
                None => return Err(Closed::Unformatted),
            }
        }
        Device::open(&self.path, self.expecting()).map_err(closed)
    }

    fn open_bucket(&self, place: &Arc<BucketPlace>) -> Result<Device, Closed> {
        let opened = match Device::open_bucket(place, self.expecting()) {
            Err(StoreError::Missing { .. }) => {
                match self.id().filter(|_| self.make.load(Ordering::Relaxed)) {
                    Some(id) => self.make_device(id).map_err(closed)?,
                    None => return Err(Closed::Unformatted),
                }
                Device::open_bucket(place, self.expecting())
            }
            opened => opened,
        };
        // A store that can't be reached has not been looked at yet.
        if !matches!(opened, Err(StoreError::Io { .. })) {
            self.make.store(false, Ordering::Relaxed);
        }
        opened.map_err(closed)
    }

    fn expecting(&self) -> OpenOptions {
        let expect = self.id().map(|device| ExpectedIdentity {
            cluster: self.owner.cluster,
            site: self.owner.site.clone(),
            device,
        });
        OpenOptions { expect, ..self.options.clone() }
    }

    fn make_device(&self, device: DeviceId) -> Result<(), StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let identity = DeviceIdentity {
            cluster: self.owner.cluster,
            site: self.owner.site.clone(),
            device,
            // Nothing is left of a device that comes back empty, so its generation can only grow with the clock.
            generation: Generation(now.as_millis() as u64),
        };
        tracing::info!(%device, path = %self.path.display(), "an empty place is made a device");
        match &self.bucket {
            Some(place) => Device::format_bucket(place, &identity),
            None => Device::format(&self.path, &identity),
        }
    }
}

fn closed(error: StoreError) -> Closed {
    match error {
        StoreError::Missing { .. } => Closed::Missing,
        error => Closed::Failed(with_source(&error)),
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn folder_of(path: &Path) -> Option<(u64, u64)> {
    let facts = rustix::fs::stat(path).ok()?;
    Some((facts.st_dev, facts.st_ino))
}
