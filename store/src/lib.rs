//! A device of a node-agent: one folder that holds rows of extents as records in an append-only log, or one bucket that holds
//! each as an object.
//!
//! [`Device`] is blocking and made for threads: async callers use it through `spawn_blocking`, and await only the
//! [`Pending`] answers of its group commit. Nothing that it answered is lost by a crash, and nothing that it gives back
//! went unchecked. [`inspect`] reads a device's folder by itself, whether or not an agent has it open.

mod admission;
pub mod bucket;
mod commit;
mod compact;
mod device;
mod disk;
mod error;
mod health;
mod index;
pub mod inspect;
mod log;
mod log_device;
mod moving;
mod pending;
mod queue;
mod read;
mod recent;
mod record;
mod recover;
mod room;
mod scan;
mod scrub;
mod segment;
#[cfg(test)]
mod tests;
mod types;
mod writer;

pub use device::{Device, Writer};
pub use error::StoreError;
pub use pending::Pending;
pub use types::{
    ByteRange, Commits, Deleted, DeviceIdentity, ExpectedIdentity, Finding, InventoryEntry, InventoryKey,
    Keyring, NewRow, OpenOptions, OpenReport, Purpose, Room, RowDescription, RowEnd, RowPlace, ScrubProgress,
    ScrubState, Sealed, Verified, WholeRow,
};
