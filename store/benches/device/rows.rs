//! Devices, and rows for them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use bytes::Bytes;
use diptych_core::ids::{ClusterId, DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, Row, Stamp};
use diptych_core::layout::SHARD;
use diptych_core::records::ExtentKind;
use diptych_store::{Device, DeviceIdentity, NewRow, OpenOptions, Purpose, RowEnd, WholeRow};

/// A new device, open.
pub(crate) fn device(folder: &Path) -> Result<Device> {
    let identity = DeviceIdentity {
        cluster: ClusterId([1; 16]),
        site: "east".parse()?,
        device: DeviceId(1),
        generation: Generation(1),
    };
    std::fs::create_dir_all(folder)?;
    Device::format(folder, &identity)?;
    Ok(Device::open(folder, OpenOptions::default())?)
}

/// A row of an extent of its own; ids lie in no order, as those of real extents do.
pub(crate) fn next_row() -> NewRow {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut extent = [0; 16];
    extent[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    NewRow {
        kind: ExtentKind::Data,
        extent: ExtentId(extent),
        row: Row(0),
        instance: InstanceId(number.to_be_bytes()),
        needed: 4,
        coding: 0,
        shard_bytes: SHARD as u32,
        epoch: Epoch(1),
        hlc: Hlc(1),
        first_position: None,
    }
}

/// The end of any row.
pub(crate) const END: RowEnd = RowEnd { extent_bytes: 4096, extent_hash: [9; 32], last_position: None };

/// A new row of these bytes, as a client's.
pub(crate) fn whole(bytes: &'static [u8]) -> WholeRow {
    let (stamp, bytes) = (Stamp::default(), Bytes::from_static(bytes));
    WholeRow { stamp, row: next_row(), bytes, end: END, purpose: Purpose::Client }
}
