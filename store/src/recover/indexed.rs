//! What the index has of a segment without a foot.

use std::collections::BTreeSet;

use diptych_core::fragment::{FootEntry, RecordHead};

use crate::error::StoreError;
use crate::index::{Index, Location, SegmentRow};
use crate::types::InventoryKey;

/// Records of one segment. They were synced before they were entered in the index, so what a scan does not find whole of them is
/// rotten and not unfinished: it stays, for a read or the scrub to say so.
pub(super) struct Indexed<'i> {
    index: &'i Index,
    segment: u64,
    /// Records that the scan has not come upon yet.
    left: u64,
}

impl<'i> Indexed<'i> {
    pub(super) fn of(index: &'i Index, segment: u64, row: Option<&SegmentRow>) -> Self {
        Self { index, segment, left: row.map_or(0, |row| row.live_records) }
    }

    /// What the index says of a record that a scan has come upon; None: it does not have it there.
    pub(super) fn take(&mut self, head: &RecordHead, offset: u64) -> Result<Option<FootEntry>, StoreError> {
        if self.left == 0 {
            return Ok(None);
        }
        let found = self.index.find(head.extent, head.row, Some(head.instance))?;
        let here = |(_, location): &(InventoryKey, Location)| {
            (location.at.segment, location.at.offset) == (self.segment, offset)
        };
        let Some((key, location)) = found.filter(here) else { return Ok(None) };
        self.left -= 1;
        Ok(Some(entry(&key, &location)))
    }

    /// What the scan did not come upon, beside what it `found`. Only where something is missing is the whole index looked through.
    pub(super) fn rest(self, found: &[FootEntry]) -> Result<Vec<FootEntry>, StoreError> {
        if self.left == 0 {
            return Ok(Vec::new());
        }
        let found: BTreeSet<u64> = found.iter().map(|entry| entry.offset).collect();
        let is_missing =
            |location: &Location| location.at.segment == self.segment && !found.contains(&location.at.offset);
        let records = self.index.records_where(is_missing)?;
        Ok(records.iter().map(|(key, location)| entry(key, location)).collect())
    }
}

fn entry(key: &InventoryKey, location: &Location) -> FootEntry {
    FootEntry {
        extent: key.extent,
        row: key.row,
        kind: location.kind.into(),
        instance: key.instance,
        offset: location.at.offset,
        length: location.record_bytes,
    }
}
