//! Reading everything again from the bucket, a little at a time. Each round begins with a list: an object that somebody took away
//! is missed, one that nobody knows of is found.

use super::device::Inner;
use super::name::{ROWS, RowName};
use crate::error::StoreError;
use crate::types::ScrubProgress;

/// Records looked up at once.
const PAGE: usize = 64;

impl Inner {
    /// Compares what is known with what the bucket lists.
    pub(super) fn list(&self) -> Result<(), StoreError> {
        let known = self.contents.begin_list();
        let mut listed = Vec::new();
        let mut take = |page: Vec<super::ListedObject>| {
            for object in page {
                match RowName::parse(&object.key) {
                    Some(name) => listed.push((name, object.bytes)),
                    None => {
                        tracing::warn!(key = object.key, "an object that is no row lies among a device's");
                    }
                }
            }
        };
        let made = self.place.bucket.list(ROWS, &mut take);
        made.map_err(|error| self.place.error("listing", ROWS, error))?;
        self.contents.end_list(&known, listed);
        Ok(())
    }

    /// One step: whole records, in the order of the inventory, until `budget_bytes` are read.
    pub(super) fn scrub_step(&self, budget_bytes: u64, now_ms: u64) -> Result<ScrubProgress, StoreError> {
        let mut state = self.contents.scrub();
        if state.after.is_none() {
            self.list()?;
            self.contents.begin_round(now_ms);
        }
        let mut progress = ScrubProgress { bytes: 0, records: 0, rotten: 0, finished: false };
        while progress.records == 0 || progress.bytes < budget_bytes {
            let page = self.contents.page(state.after, None, PAGE);
            if page.is_empty() {
                progress.finished = true;
                break;
            }
            for entry in page {
                let key = entry.key;
                let checked = self.verify(key.extent, key.row, Some(key.instance));
                state.after = Some(key);
                progress.records += 1;
                progress.bytes += entry.record_bytes;
                match checked {
                    Ok(_) | Err(StoreError::NotFound { .. }) => {}
                    Err(StoreError::Rotten { .. }) if entry.quarantined => {}
                    Err(StoreError::Rotten { .. }) => progress.rotten += 1,
                    Err(error) => return Err(error),
                }
                if progress.bytes >= budget_bytes {
                    break;
                }
            }
        }
        state.bytes += progress.bytes;
        if progress.finished {
            self.record.scrub_finished(&*self.hold, now_ms)?;
            self.contents.end_round();
        } else {
            self.contents.scrubbed_to(state);
        }
        Ok(progress)
    }
}
