//! The device record: who the device is, the highest stamp that it has seen, its keyring. A small file or object, replaced
//! whole.

use std::io;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use diptych_core::ids::{ClusterId, DeviceId, Generation, SiteName, Stamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::error::StoreError;
use crate::types::{DeviceIdentity, ExpectedIdentity, Keyring};

/// Name of the file in the device's folder.
pub(crate) const FILE: &str = "device";
const MAGIC: [u8; 8] = *b"DIPTYCHD";
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
        framed(MAGIC, FORMAT, self)
    }

    fn decode(bytes: &[u8], file: &Path) -> Result<Self, StoreError> {
        unframed(bytes, MAGIC, FORMAT, file)
    }
}

/// Magic, format and length, the body, a checksum of it all.
pub(crate) fn framed(magic: [u8; 8], format: u32, body: &impl Serialize) -> Vec<u8> {
    let body = postcard::to_stdvec(body).unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEAD + body.len() + 4);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&format.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// What [`framed`] made; `format`: the newest that is known.
///
/// Errors: [`StoreError::Damaged`], [`StoreError::UnknownFormat`].
pub(crate) fn unframed<T: DeserializeOwned>(
    bytes: &[u8],
    magic: [u8; 8],
    format: u32,
    file: &Path,
) -> Result<T, StoreError> {
    let damaged = |reason: &str| StoreError::Damaged { file: file.to_owned(), reason: reason.to_owned() };
    let word =
        |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
    if !bytes.starts_with(&magic) {
        return Err(damaged("it does not begin as a device record"));
    }
    let found = word(8).ok_or_else(|| damaged("it is cut"))?;
    if found > format {
        return Err(StoreError::UnknownFormat { file: file.to_owned(), found, known: format });
    }
    let end = HEAD + word(12).ok_or_else(|| damaged("it is cut"))? as usize;
    let sum = word(end).ok_or_else(|| damaged("it is cut"))?;
    if crc32c::crc32c(&bytes[..end]) != sum {
        return Err(damaged("its checksum is wrong"));
    }
    postcard::from_bytes(&bytes[HEAD..end]).map_err(|error| damaged(&error.to_string()))
}

/// Where the record of an open device is kept.
pub(crate) trait RecordPlace {
    /// The record as it lies there now.
    fn read(&self) -> Result<DeviceRecord, StoreError>;
    /// Replaces it; durable when this returns.
    fn write(&self, record: &DeviceRecord) -> Result<(), StoreError>;
}

/// A folder, with the record in a file of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folder<'d> {
    pub(crate) disk: &'d dyn Disk,
    pub(crate) path: &'d Path,
}

impl RecordPlace for Folder<'_> {
    fn read(&self) -> Result<DeviceRecord, StoreError> {
        read(self.disk, self.path)
    }

    fn write(&self, record: &DeviceRecord) -> Result<(), StoreError> {
        write(self.disk, self.path, record)
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

/// The record of an open device: in memory what is kept in its place, never ahead of it.
#[derive(Debug)]
pub(crate) struct KeptRecord {
    record: RwLock<DeviceRecord>,
    /// A lock of its own: who only looks never waits for the place.
    changing: RwLock<()>,
}

impl KeptRecord {
    pub(crate) fn new(record: DeviceRecord) -> Self {
        Self { record: RwLock::new(record), changing: RwLock::default() }
    }

    pub(crate) fn get(&self) -> RwLockReadGuard<'_, DeviceRecord> {
        self.record.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unchanged(&self) -> RwLockReadGuard<'_, ()> {
        self.changing.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> RwLockWriteGuard<'_, ()> {
        self.changing.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a command with this stamp pass; while the guard is held no higher stamp is taken, so that what is done
    /// under it can't come after the command of a newer sender.
    pub(crate) fn admit(
        &self,
        place: &dyn RecordPlace,
        stamp: Stamp,
    ) -> Result<RwLockReadGuard<'_, ()>, StoreError> {
        let unchanged = self.unchanged();
        if stamp == self.get().highest_stamp {
            return Ok(unchanged);
        }
        drop(unchanged);
        let changing = self.changing();
        let highest = self.get().highest_stamp;
        if stamp < highest {
            return Err(StoreError::OldStamp { given: stamp, highest });
        }
        // FENCING: a higher stamp is durable before its first command is done: after a restart the replaced sender
        // is refused still.
        self.store(place, |fresh| fresh.highest_stamp = stamp)?;
        Ok(RwLockWriteGuard::downgrade(changing))
    }

    /// Keeps a keyring that is not older than the one that is there.
    pub(crate) fn put_keyring(&self, place: &dyn RecordPlace, keyring: Keyring) -> Result<(), StoreError> {
        let _changing = self.changing();
        if let Some(kept) = self.get().keyring() {
            if kept.number > keyring.number || (kept.number == keyring.number && kept.bytes != keyring.bytes)
            {
                return Err(StoreError::OldKeyring { given: keyring.number.0, kept: kept.number.0 });
            }
            if kept.number == keyring.number {
                return Ok(());
            }
        }
        self.store(place, |fresh| fresh.keyring = Some((keyring.number, keyring.bytes)))
    }

    /// What stands there now.
    pub(crate) fn read_again(&self, place: &dyn RecordPlace) -> Result<DeviceRecord, StoreError> {
        let _unchanged = self.unchanged();
        place.read()
    }

    /// Notes that a round of scrub ended.
    pub(crate) fn scrub_finished(&self, place: &dyn RecordPlace, now_ms: u64) -> Result<(), StoreError> {
        let _changing = self.changing();
        self.store(place, |fresh| fresh.scrub_finished_ms = Some(now_ms))
    }

    /// Called with [`KeptRecord::changing`] held.
    fn store(
        &self,
        place: &dyn RecordPlace,
        change: impl FnOnce(&mut DeviceRecord),
    ) -> Result<(), StoreError> {
        let mut fresh = self.get().clone();
        change(&mut fresh);
        place.write(&fresh)?;
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
            let file = KeptRecord::new(read(&disk, &folder).expect("it reads"));
            drop(file.admit(&Folder { disk: &disk, path: &folder }, stamp(5)).expect("higher passes"));
            disk.crash(seed);
            let file = KeptRecord::new(read(&disk, &folder).expect("it reads"));
            assert!(
                matches!(
                    file.admit(&Folder { disk: &disk, path: &folder }, stamp(4)),
                    Err(StoreError::OldStamp { .. })
                ),
                "seed {seed}"
            );
            assert!(file.admit(&Folder { disk: &disk, path: &folder }, stamp(5)).is_ok());
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
