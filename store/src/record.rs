//! The device record: who the device is, the highest stamp that it has seen, its keyring. A small file, replaced whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use diptych_core::ids::{ClusterId, DeviceId, Generation, SiteName, Stamp};
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::error::StoreError;
use crate::types::{DeviceIdentity, ExpectedIdentity, Keyring};

/// Name of the file in the device's folder.
pub(crate) const FILE: &str = "device";
const MAGIC: &[u8; 8] = b"DIPTYCHD";
/// Raised when an older version must not touch the device any more.
const FORMAT: u32 = 1;
/// Magic, format, length of the body; the body and its CRC32C follow.
const HEAD: usize = 16;

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRecord {
    cluster: ClusterId,
    site: SiteName,
    device: DeviceId,
    generation: Generation,
    pub(crate) highest_stamp: Stamp,
    keyring: Option<(Generation, Vec<u8>)>,
    /// Milliseconds since 1970 when the last whole scrub ended.
    pub(crate) scrub_finished_ms: Option<u64>,
}

impl DeviceRecord {
    pub(crate) fn new(identity: &DeviceIdentity) -> Self {
        Self {
            cluster: identity.cluster,
            site: identity.site.clone(),
            device: identity.device,
            generation: identity.generation,
            highest_stamp: Stamp::default(),
            keyring: None,
            scrub_finished_ms: None,
        }
    }

    pub(crate) fn identity(&self) -> DeviceIdentity {
        DeviceIdentity {
            cluster: self.cluster,
            site: self.site.clone(),
            device: self.device,
            generation: self.generation,
        }
    }

    pub(crate) fn keyring(&self) -> Option<Keyring> {
        self.keyring.as_ref().map(|(number, bytes)| Keyring { number: *number, bytes: bytes.clone() })
    }

    fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEAD + body.len() + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], file: &Path) -> Result<Self, StoreError> {
        let damaged = |reason: &str| StoreError::Damaged { file: file.to_owned(), reason: reason.to_owned() };
        let word =
            |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
        if !bytes.starts_with(MAGIC) {
            return Err(damaged("it does not begin as a device record"));
        }
        let format = word(8).ok_or_else(|| damaged("it is cut"))?;
        if format > FORMAT {
            return Err(StoreError::UnknownFormat { file: file.to_owned(), found: format, known: FORMAT });
        }
        let end = HEAD + word(12).ok_or_else(|| damaged("it is cut"))? as usize;
        let sum = word(end).ok_or_else(|| damaged("it is cut"))?;
        if crc32c::crc32c(&bytes[..end]) != sum {
            return Err(damaged("its checksum is wrong"));
        }
        postcard::from_bytes(&bytes[HEAD..end]).map_err(|error| damaged(&error.to_string()))
    }
}

/// Reads the device record of a folder.
pub(crate) fn read(disk: &dyn Disk, folder: &Path) -> Result<DeviceRecord, StoreError> {
    let file = folder.join(FILE);
    let bytes = disk::read_whole(disk, &file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::Missing { path: folder.to_owned() },
        _ => StoreError::io_at("reading", &file, folder, error),
    })?;
    DeviceRecord::decode(&bytes, &file)
}

/// Writes the device record of a folder, durably.
pub(crate) fn write(disk: &dyn Disk, folder: &Path, record: &DeviceRecord) -> Result<(), StoreError> {
    disk::replace(disk, folder, FILE, &record.encode())
        .map_err(|error| StoreError::io_at("writing", &folder.join(FILE), folder, error))
}

/// Refuses any device but the expected one.
pub(crate) fn expect(
    found: &DeviceRecord,
    expected: &ExpectedIdentity,
    path: &Path,
) -> Result<(), StoreError> {
    let differs = |what, found: String, expected: String| {
        Err(StoreError::WrongIdentity { path: path.to_owned(), what, found, expected })
    };
    if found.cluster != expected.cluster {
        return differs("cluster", found.cluster.to_string(), expected.cluster.to_string());
    }
    if found.site != expected.site {
        return differs("site", found.site.to_string(), expected.site.to_string());
    }
    if found.device != expected.device {
        return differs("device", found.device.to_string(), expected.device.to_string());
    }
    Ok(())
}

/// The record of an open device: in memory what is in the file, never ahead of it.
#[derive(Debug)]
pub(crate) struct RecordFile {
    folder: PathBuf,
    record: RwLock<DeviceRecord>,
}

impl RecordFile {
    pub(crate) fn new(folder: PathBuf, record: DeviceRecord) -> Self {
        Self { folder, record: RwLock::new(record) }
    }

    pub(crate) fn get(&self) -> RwLockReadGuard<'_, DeviceRecord> {
        self.record.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a command with this stamp pass; while the guard is held no higher stamp is taken, so that what is done
    /// under it can't come after the command of a newer sender.
    pub(crate) fn admit(
        &self,
        disk: &dyn Disk,
        stamp: Stamp,
    ) -> Result<RwLockReadGuard<'_, DeviceRecord>, StoreError> {
        let seen = self.get();
        if stamp == seen.highest_stamp {
            return Ok(seen);
        }
        drop(seen);
        let mut record = self.record.write().unwrap_or_else(PoisonError::into_inner);
        let highest = record.highest_stamp;
        if stamp < highest {
            return Err(StoreError::OldStamp { given: stamp, highest });
        }
        // FENCING: a higher stamp is on the disk before its first command is done: after a restart the replaced sender
        // is refused still.
        self.store(disk, &mut record, |fresh| fresh.highest_stamp = stamp)?;
        Ok(RwLockWriteGuard::downgrade(record))
    }

    /// Keeps a keyring that is not older than the one that is there.
    pub(crate) fn put_keyring(&self, disk: &dyn Disk, keyring: Keyring) -> Result<(), StoreError> {
        let mut record = self.record.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((kept, bytes)) = &record.keyring {
            if *kept > keyring.number || (*kept == keyring.number && *bytes != keyring.bytes) {
                return Err(StoreError::OldKeyring { given: keyring.number.0, kept: kept.0 });
            }
            if *kept == keyring.number {
                return Ok(());
            }
        }
        self.store(disk, &mut record, |fresh| fresh.keyring = Some((keyring.number, keyring.bytes)))
    }

    /// What stands in the file now.
    pub(crate) fn read_again(&self, disk: &dyn Disk) -> Result<DeviceRecord, StoreError> {
        let _unchanged = self.get();
        read(disk, &self.folder)
    }

    /// Notes that a round of scrub ended.
    pub(crate) fn scrub_finished(&self, disk: &dyn Disk, now_ms: u64) -> Result<(), StoreError> {
        let mut record = self.record.write().unwrap_or_else(PoisonError::into_inner);
        self.store(disk, &mut record, |fresh| fresh.scrub_finished_ms = Some(now_ms))
    }

    fn store(
        &self,
        disk: &dyn Disk,
        record: &mut DeviceRecord,
        change: impl FnOnce(&mut DeviceRecord),
    ) -> Result<(), StoreError> {
        let mut fresh = record.clone();
        change(&mut fresh);
        write(disk, &self.folder, &fresh)?;
        *record = fresh;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::{Epoch, KeeperNumber};

    use super::*;
    use crate::disk::simulated::SimulatedDisk;

    fn identity() -> DeviceIdentity {
        DeviceIdentity {
            cluster: ClusterId([1; 16]),
            site: "east".parse().expect("a label"),
            device: DeviceId(7),
            generation: Generation(1),
        }
    }

    fn stamp(epoch: u64) -> Stamp {
        Stamp { epoch: Epoch(epoch), keeper: KeeperNumber(1) }
    }

    #[test]
    fn a_raised_stamp_outlives_a_crash_and_refuses_lower_ones() {
        for seed in 0..50 {
            let disk = SimulatedDisk::new();
            let folder = PathBuf::from("/d");
            write(&disk, &folder, &DeviceRecord::new(&identity())).expect("it writes");
            let file = RecordFile::new(folder.clone(), read(&disk, &folder).expect("it reads"));
            drop(file.admit(&disk, stamp(5)).expect("higher passes"));
            disk.crash(seed);
            let file = RecordFile::new(folder.clone(), read(&disk, &folder).expect("it reads"));
            assert!(matches!(file.admit(&disk, stamp(4)), Err(StoreError::OldStamp { .. })), "seed {seed}");
            assert!(file.admit(&disk, stamp(5)).is_ok());
        }
    }

    #[test]
    fn any_flipped_byte_of_the_record_is_noticed() {
        let disk = SimulatedDisk::new();
        let folder = PathBuf::from("/d");
        write(&disk, &folder, &DeviceRecord::new(&identity())).expect("it writes");
        let whole = disk.bytes(&folder.join(FILE));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(DeviceRecord::decode(&bytes, &folder).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_record_of_a_newer_format_names_both_versions() {
        let mut bytes = DeviceRecord::new(&identity()).encode();
        bytes[8] = 9;
        let error = DeviceRecord::decode(&bytes, Path::new("/d/device")).expect_err("format 9 is unknown");
        assert!(error.to_string().contains("has format 9, this version reads up to 1"), "{error}");
    }
}
