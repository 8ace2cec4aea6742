//! Reading everything again, a little at a time, before it is needed.

use crate::error::StoreError;
use crate::index::{LogPosition, Round};
use crate::read::Reader;
use crate::record::{KeptRecord, RecordPlace};
use crate::types::{InventoryKey, ScrubProgress};

/// Records looked up at once.
const PAGE: usize = 64;

/// One step: whole records, in the order of the inventory, until `budget_bytes` are read. The caller sees to it that
/// steps don't overlap.
///
/// `settled`: all that lies before it in the log is in the index. A round that begins now reads it, and answers for nothing else.
pub(crate) fn step(
    reader: &Reader<'_>,
    record: &KeptRecord,
    place: &dyn RecordPlace,
    settled: LogPosition,
    budget_bytes: u64,
    now_ms: u64,
) -> Result<ScrubProgress, StoreError> {
    let mut state = reader.index.scrub()?;
    if state.after.is_none() {
        reader.index.begin_round(Round { began_ms: now_ms, upto: settled })?;
    }
    let mut progress = ScrubProgress { bytes: 0, records: 0, rotten: 0, finished: false };
    while progress.records == 0 || progress.bytes < budget_bytes {
        let page = reader.index.page(state.after, None, PAGE)?;
        if page.is_empty() {
            progress.finished = true;
            break;
        }
        for (key, location) in page {
            if location.quarantined {
                // Known already; if it was put right meanwhile, this takes it out of quarantine.
                let _ = reader.verify(key.extent, key.row, Some(key.instance));
            } else {
                check(reader, &key, location.record_bytes, &mut progress)?;
            }
            state.after = Some(key);
            if progress.bytes >= budget_bytes {
                break;
            }
        }
    }
    state.bytes += progress.bytes;
    if progress.finished {
        record.scrub_finished(place, now_ms)?;
        reader.index.end_round()?;
    } else {
        reader.index.set_scrub(&state)?;
    }
    Ok(progress)
}

fn check(
    reader: &Reader<'_>,
    key: &InventoryKey,
    record_bytes: u64,
    progress: &mut ScrubProgress,
) -> Result<(), StoreError> {
    progress.bytes += record_bytes;
    progress.records += 1;
    match reader.verify(key.extent, key.row, Some(key.instance)) {
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(StoreError::Rotten { .. }) => {
            progress.rotten += 1;
            Ok(())
        }
        Err(error) => Err(error),
    }
}
