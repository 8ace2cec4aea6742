//! What the tests share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use diptych_core::ids::{
    ClusterId, DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, KeeperNumber, Row, Stamp,
};
use diptych_core::records::ExtentKind;

use crate::bucket::BucketPlace;
use crate::bucket::simulated::SimulatedBucket;
use crate::disk::simulated::{Dice, SimulatedDisk};
use crate::log_device::format_on;
use crate::{
    Device, DeviceIdentity, NewRow, OpenOptions, Pending, Purpose, RowEnd, Sealed, StoreError, WholeRow,
};

pub(super) fn identity() -> DeviceIdentity {
    DeviceIdentity {
        cluster: ClusterId([1; 16]),
        site: "east".parse().expect("a label"),
        device: DeviceId(7),
        generation: Generation(1),
    }
}

pub(super) fn folder() -> PathBuf {
    PathBuf::from("/device")
}

pub(super) fn options() -> OpenOptions {
    OpenOptions {
        segment_bytes: 256 << 10,
        index_cache_bytes: 1 << 20,
        zero_ahead_bytes: 0,
        ..OpenOptions::default()
    }
}

pub(super) fn formatted() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    format_on(&disk, &folder(), &identity()).expect("an empty disk can be formatted");
    disk
}

pub(super) fn open(disk: &SimulatedDisk) -> Device {
    try_open(disk).expect("it opens")
}

pub(super) fn try_open(disk: &SimulatedDisk) -> Result<Device, StoreError> {
    try_open_with(disk, options())
}

pub(super) fn try_open_with(disk: &SimulatedDisk, options: OpenOptions) -> Result<Device, StoreError> {
    Device::open_on(Arc::new(disk.mounted()), &folder(), options)
}

/// What a device lies on.
pub(super) enum Medium {
    Disk(SimulatedDisk),
    Bucket(Arc<BucketPlace>),
}

impl Medium {
    pub(super) fn format(&self) -> Result<(), StoreError> {
        match self {
            Self::Disk(disk) => format_on(disk, &folder(), &identity()),
            Self::Bucket(place) => Device::format_bucket(place, &identity()),
        }
    }

    pub(super) fn try_open(&self, options: OpenOptions) -> Result<Device, StoreError> {
        match self {
            Self::Disk(disk) => try_open_with(disk, options),
            Self::Bucket(place) => Device::open_bucket(place, options),
        }
    }

    pub(super) fn open(&self) -> Device {
        self.try_open(options()).expect("it opens")
    }
}

/// A formatted device of each kind.
pub(super) fn media() -> [Medium; 2] {
    let place = agent_at(&SimulatedBucket::default(), "o1");
    Device::format_bucket(&place, &identity()).expect("an empty bucket can be formatted");
    [Medium::Disk(formatted()), Medium::Bucket(place)]
}

pub(super) fn on_each(test: impl Fn(Medium)) {
    media().into_iter().for_each(test);
}

/// A bucket, as one agent knows it.
pub(super) fn agent_at(bucket: &SimulatedBucket, agent: &str) -> Arc<BucketPlace> {
    let bucket = Arc::new(bucket.clone());
    Arc::new(BucketPlace::new(bucket, "s3://rows/o1".into(), agent.to_owned(), None))
}

pub(super) fn stamp(epoch: u64) -> Stamp {
    Stamp { epoch: Epoch(epoch), keeper: KeeperNumber(1) }
}

pub(super) fn instance(number: u64) -> InstanceId {
    InstanceId(number.to_be_bytes())
}

pub(super) fn new_row(extent: u8, row: u8, number: u64) -> NewRow {
    NewRow {
        kind: ExtentKind::Data,
        extent: ExtentId([extent; 16]),
        row: Row(row),
        instance: instance(number),
        needed: 4,
        coding: 0,
        shard_bytes: 4096,
        epoch: Epoch(3),
        hlc: Hlc(5),
        first_position: None,
    }
}

pub(super) fn end() -> RowEnd {
    RowEnd { extent_bytes: 12_345, extent_hash: [9; 32], last_position: None }
}

/// Bytes that only this seed gives.
pub(super) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..len).map(|_| dice.roll(256) as u8).collect()
}

/// Puts a row and waits until it is durable.
pub(super) fn put(device: &Device, row: &NewRow, bytes: &[u8]) -> Result<(), StoreError> {
    place(device, row, bytes, Purpose::Client)?.wait().map(drop)
}

/// Puts a row whole, under a stamp that no other command of these tests passes.
pub(super) fn place(
    device: &Device,
    row: &NewRow,
    bytes: &[u8],
    purpose: Purpose,
) -> Result<Pending<Sealed>, StoreError> {
    let (stamp, bytes) = (device.highest_stamp().max(stamp(1)), Bytes::copy_from_slice(bytes));
    device.place(WholeRow { stamp, row: row.clone(), bytes, end: end(), purpose })
}

/// Reads a row whole.
pub(super) fn get(device: &Device, row: &NewRow) -> Result<Vec<u8>, StoreError> {
    let description = device.describe(row.extent, row.row, Some(row.instance))?;
    device.read(row.extent, row.row, Some(row.instance), 0..description.row_bytes).map(|bytes| bytes.to_vec())
}

/// Deletes a row and waits until that is durable.
pub(super) fn delete(device: &Device, row: &NewRow) -> Result<(), StoreError> {
    device.delete(row.extent, row.row, row.instance, stamp(1))?.wait().map(drop)
}

/// Segment files in the order of the log.
pub(super) fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let folder = folder().join("segments");
    let names = crate::disk::Disk::list(disk, &folder).expect("it lists");
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// Where `needle` first lies in a file.
pub(super) fn find(disk: &SimulatedDisk, path: &Path, needle: &[u8]) -> Option<usize> {
    find_all(disk, path, needle).first().copied()
}

/// Every place where `needle` lies in a file.
pub(super) fn find_all(disk: &SimulatedDisk, path: &Path, needle: &[u8]) -> Vec<usize> {
    let bytes = disk.bytes(path);
    let windows = bytes.windows(needle.len()).enumerate();
    windows.filter(|(_, window)| *window == needle).map(|(place, _)| place).collect()
}
