//! What must hold of the formats whatever bytes come. A property takes any bytes, makes of them what a disk, a forger or a
//! peer could, and panics where a decoder takes what nobody wrote, gives back something else, or fails to notice a change.
//!
//! The fuzz targets (`cargo xtask fuzz`) drive the properties; the tests of this crate replay the inputs in `seeds/`.

pub mod agent_protocol;
mod alteration;
pub mod extent_tail;
pub mod fragment_record;
pub mod keyring;
pub mod segment_foot;
pub mod segment_scan;

/// What holds for any bytes, or panics.
pub type Property = fn(&[u8]);

/// Every property by the name of its target, which is that of the folder of its inputs.
pub const PROPERTIES: [(&str, Property); 6] = [
    ("agent_protocol", agent_protocol::holds),
    ("extent_tail", extent_tail::holds),
    ("fragment_record", fragment_record::holds),
    ("keyring", keyring::holds),
    ("segment_foot", segment_foot::holds),
    ("segment_scan", segment_scan::holds),
];
