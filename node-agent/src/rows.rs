//! Whole rows in, ranges out, deletes, inventory.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use diptych_core::ids::{InstanceId, Row, Stamp};
use diptych_core::layout::{NEEDED_MAX, SHARD, StripeLayout};
use diptych_core::records::Holds;
use diptych_store::{Deleted, InventoryKey, NewRow, Purpose, RowEnd, WholeRow};
use diptych_wire::agent::{
    AgentError, Delete, Describe, Inventory, InventoryPage, InventoryRecord, PlaceRows, Read, ReadItem,
    RowAt, RowFacts, RowHead, Verified, Verify,
};
use diptych_wire::frame;
use tokio::sync::OwnedSemaphorePermit;

use crate::agent::Agent;
use crate::device::Slot;

/// Records in a page of an inventory, whatever was asked for: a page must fit a frame.
const PAGE: u32 = 8_000;

pub(crate) fn invalid(reason: impl Into<String>) -> AgentError {
    AgentError::Invalid { reason: reason.into() }
}

/// Fresh for each attempt at a row.
pub(crate) fn fresh_instance() -> InstanceId {
    InstanceId(rand::random())
}

/// Bytes of each row of an extent, if the extent is one that can be.
pub(crate) fn row_len(needed: u8, extent_len: u32) -> Result<u32, AgentError> {
    if needed == 0 || needed > NEEDED_MAX {
        return Err(invalid(format!("{needed} rows needed, 1 to {NEEDED_MAX} can be")));
    }
    if extent_len == 0 {
        return Err(invalid("an extent of no bytes"));
    }
    Ok(StripeLayout::new(needed, u64::from(extent_len)).row_len() as u32)
}

impl Agent {
    /// FENCING: the stamp passes the agent and is admitted by the device before a byte is written; a row is answered
    /// only after its group commit.
    pub(crate) async fn place_rows(
        &self,
        command: PlaceRows,
        mut payload: Bytes,
        purpose: Purpose,
    ) -> Result<Vec<Result<InstanceId, AgentError>>, AgentError> {
        let PlaceRows { stamp, map_generation, rows } = command;
        self.fence.pass(stamp, Some(map_generation))?;
        if rows.iter().map(|row| row.len as usize).sum::<usize>() != payload.len() {
            return Err(invalid("the payload is not as long as the rows together"));
        }
        let placed = rows.into_iter().map(|head| {
            let bytes = payload.split_to(head.len as usize);
            self.place_row(stamp, head, bytes, purpose)
        });
        Ok(futures::future::join_all(placed).await)
    }

    async fn place_row(
        &self,
        stamp: Stamp,
        head: RowHead,
        bytes: Bytes,
        purpose: Purpose,
    ) -> Result<InstanceId, AgentError> {
        if row_len(head.needed, head.extent_len)? != head.len {
            return Err(invalid(format!("a row of {} bytes does not fit its extent", head.len)));
        }
        let slot = self.devices.find(head.device)?;
        let device = slot.device()?;
        let begun = Instant::now();
        let whole = WholeRow {
            stamp,
            row: new_row(&head),
            bytes,
            end: row_end(head.extent_len, head.extent_hash, head.holds),
            purpose: purpose_of(head.holds, purpose),
        };
        let pending = if device.place_blocks(&whole) {
            slot.with(move |device| device.place(whole)).await?
        } else {
            slot.checked(&device, device.place(whole))?
        };
        let sealed = slot.checked(&device, pending.await)?;
        slot.writes.record(begun.elapsed());
        Ok(sealed.instance)
    }

    /// Ranges, each exactly as long as asked for or an error; the permit keeps their room until they are sent.
    pub(crate) async fn read(
        &self,
        request: Read,
    ) -> Result<(Vec<Result<Bytes, AgentError>>, OwnedSemaphorePermit), AgentError> {
        let total: u64 = request.items.iter().map(|item| u64::from(item.len)).sum();
        if total > frame::MAX_PAYLOAD as u64 {
            return Err(invalid(format!("{total} bytes do not fit one frame, {} do", frame::MAX_PAYLOAD)));
        }
        let room = self.answers.clone().acquire_many_owned(total as u32).await;
        let room = room.map_err(|_| AgentError::ShuttingDown)?;
        let read = request.items.into_iter().map(|item| self.read_item(item));
        Ok((futures::future::join_all(read).await, room))
    }

    pub(crate) async fn read_item(&self, item: ReadItem) -> Result<Bytes, AgentError> {
        let RowAt { device, extent, row, instance } = item.at;
        let slot = self.devices.find(device)?;
        let begun = Instant::now();
        let read = match slot.read_cached(&item) {
            Some(read) => read,
            None => slot.with(move |device| device.read(extent, row, instance, item.range())).await?,
        };
        slot.reads.record(begun.elapsed());
        Ok(read)
    }

    /// What the *disk* has of a row: every block of it is read.
    pub(crate) async fn verify(&self, request: Verify) -> Result<Verified, AgentError> {
        let RowAt { device, extent, row, instance } = request.at;
        let slot = self.devices.find(device)?;
        let verified = slot.with(move |device| device.verify(extent, row, instance)).await?;
        Ok(Verified { row_len: verified.row_bytes, extent_hash: verified.extent_hash })
    }

    pub(crate) async fn describe(&self, request: Describe) -> Result<RowFacts, AgentError> {
        let RowAt { device, extent, row, instance } = request.at;
        let slot = self.devices.find(device)?;
        let described = slot.with(move |device| device.describe(extent, row, instance)).await?;
        let diptych_store::RowDescription { row, end, row_bytes, quarantined } = described;
        let holds = Holds::of(row.kind, row.first_position, end.last_position);
        let reason = || "the record of a journal names no positions".to_owned();
        let holds = holds.ok_or_else(|| AgentError::Internal { reason: reason() })?;
        let head = RowHead {
            device,
            extent: row.extent,
            row: row.row,
            needed: row.needed,
            holds,
            extent_len: end.extent_bytes as u32,
            extent_hash: end.extent_hash,
            birth_epoch: row.epoch,
            birth_hlc: row.hlc,
            len: row_bytes as u32,
        };
        Ok(RowFacts { instance: row.instance, head, quarantined })
    }

    /// FENCING: as for placing; a delete names the instance, so it can't take a newer record of the same row.
    pub(crate) async fn delete(&self, command: Delete) -> Result<Vec<Result<(), AgentError>>, AgentError> {
        let Delete { stamp, items } = command;
        self.fence.pass(stamp, None)?;
        let deleted = items.into_iter().map(|at| self.delete_one(stamp, at));
        Ok(futures::future::join_all(deleted).await)
    }

    async fn delete_one(&self, stamp: Stamp, at: RowAt) -> Result<(), AgentError> {
        let RowAt { device, extent, row, instance } = at;
        let instance = instance.ok_or_else(|| invalid("a delete must name the instance"))?;
        let slot = self.devices.find(device)?;
        let device = slot.device()?;
        let pending = slot.with(move |device| device.delete(extent, row, instance, stamp)).await?;
        match slot.checked(&device, pending.await)? {
            Deleted::Now => Ok(()),
            Deleted::NothingThere => Err(AgentError::NotFound),
        }
    }

    pub(crate) async fn inventory(&self, request: Inventory) -> Result<InventoryPage, AgentError> {
        let limit = request.limit.clamp(1, PAGE) as usize;
        let after = request.after.map(|(extent, row, instance)| InventoryKey { extent, row, instance });
        let slot = self.devices.find(request.device)?;
        let entries = slot.with(move |device| device.inventory(after, request.kind, limit)).await?;
        let last = entries.len() < limit;
        let records = entries
            .into_iter()
            .map(|entry| InventoryRecord {
                extent: entry.key.extent,
                row: entry.key.row,
                instance: entry.key.instance,
                kind: entry.kind,
                record_bytes: entry.record_bytes,
                quarantined: entry.quarantined,
                verified_ms: entry.verified_ms.unwrap_or(0),
            })
            .collect();
        Ok(InventoryPage { records, last })
    }

    /// The slot of a device that can be written to now.
    pub(crate) fn writable(&self, device: diptych_core::ids::DeviceId) -> Result<Arc<Slot>, AgentError> {
        let slot = self.devices.find(device)?;
        slot.device()?;
        Ok(slot.clone())
    }
}

fn new_row(head: &RowHead) -> NewRow {
    NewRow {
        kind: head.holds.kind(),
        extent: head.extent,
        row: Row(head.row.0),
        instance: fresh_instance(),
        needed: head.needed,
        coding: 0,
        shard_bytes: SHARD as u32,
        epoch: head.birth_epoch,
        hlc: head.birth_hlc,
        first_position: head.holds.first_position(),
    }
}

pub(crate) const fn row_end(extent_len: u32, extent_hash: [u8; 32], holds: Holds) -> RowEnd {
    RowEnd { extent_bytes: extent_len as u64, extent_hash, last_position: holds.last_position() }
}

/// How full a device may be for a row: who sends it decides, but for journals and checkpoints.
pub(crate) const fn purpose_of(holds: Holds, sender: Purpose) -> Purpose {
    match holds {
        Holds::Data => sender,
        Holds::Journal(_) | Holds::Checkpoint(_) => Purpose::Journal,
    }
}
