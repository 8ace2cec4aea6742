//! Whether a device may still answer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::StoreError;

/// Shared by all that works on a device.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failure: OnceLock<StoreError>,
    closed: AtomicBool,
    index_failed: AtomicBool,
}

impl Health {
    /// Refuses once the device has failed or was closed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// The first failure closes the device for good; gives the one that counts.
    // FENCING: after a failed sync the page cache calls pages clean that the disk never got. So nothing is answered
    // from it any more, neither writes that waited nor reads.
    pub(crate) fn fail(&self, failure: StoreError) -> StoreError {
        let failure = match failure {
            StoreError::Index { .. } => {
                self.index_failed.store(true, Ordering::Release);
                StoreError::failed("the index", &failure)
            }
            other => other,
        };
        let first = self.failure.get_or_init(|| failure);
        tracing::error!(error = %first, "device failed");
        first.clone()
    }

    /// The index is not to be trusted: the next opening makes it anew.
    pub(crate) fn index_failed(&self) -> bool {
        self.index_failed.load(Ordering::Acquire)
    }

    pub(crate) fn failure(&self) -> Option<StoreError> {
        self.failure.get().cloned()
    }

    /// True for the first to close.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }
}
