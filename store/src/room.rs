//! How full a device is, and who may still write.

use std::path::Path;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::index::Index;
use crate::log::Log;
use crate::types::{Purpose, Room};

/// The file system is not filled to its last byte: the index and feet of segments need some.
const SLACK_MOST: u64 = 64 << 20;

/// Counts `used` bytes against the given capacity, or against what the file system has.
fn room(disk: &dyn Disk, device: &Path, used: u64, capacity: Option<u64>) -> Result<Room, StoreError> {
    let file_system =
        disk.room(device).map_err(|error| StoreError::io_at("asking for room in", device, device, error))?;
    let capacity = capacity.unwrap_or(used + file_system.available);
    Ok(Room { capacity, used, free: capacity.saturating_sub(used).min(file_system.available) })
}

/// How full a device is.
pub(crate) fn of(log: &Log, index: &Index, capacity: Option<u64>) -> Result<Room, StoreError> {
    room(&*log.disk, &log.device, log.bytes() + index.file_bytes(), capacity)
}

/// Refuses what would pass the limit of its purpose.
pub(crate) fn check(room: &Room, bytes: u64, purpose: Purpose) -> Result<(), StoreError> {
    let limit_percent = match purpose {
        Purpose::Client => 90,
        Purpose::Repair => 95,
        Purpose::Journal => 97,
    };
    let after = u128::from(room.used) + u128::from(bytes);
    let slack = SLACK_MOST.min(room.capacity / 64);
    if after * 100 > u128::from(room.capacity) * limit_percent || room.free < bytes + slack {
        return Err(StoreError::DeviceFull {
            used: room.used,
            capacity: room.capacity,
            used_percent: room.used_percent(),
            limit_percent: limit_percent as u8,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_stop_at_ninety_percent_repair_at_ninety_five_and_the_journal_later() {
        let room = Room { capacity: 1000, used: 890, free: 110 };
        assert!(check(&room, 10, Purpose::Client).is_ok());
        let error = check(&room, 11, Purpose::Client).expect_err("that passes 90 %");
        assert_eq!(
            error.to_string(),
            "the device is 89 % full (890 of 1000 bytes) and takes these writes below 90 % only: delete, or add a device"
        );
        assert!(check(&room, 60, Purpose::Repair).is_ok());
        assert!(check(&room, 61, Purpose::Repair).is_err());
        assert!(check(&room, 80, Purpose::Journal).is_ok());
        assert!(check(&room, 81, Purpose::Journal).is_err());
    }

    #[test]
    fn what_others_take_of_the_file_system_counts() {
        let room = Room { capacity: 1000, used: 10, free: 30 };
        assert!(check(&room, 31, Purpose::Repair).is_err());
    }
}
