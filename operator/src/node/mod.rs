//! StorageNodes: nodes register themselves by their agent's pod; what the keeper sees of them becomes status.

mod drain;
mod register;
mod share;
mod status;

pub use drain::drain;
pub use register::register;
pub use share::{DomainLabels, domain_labels, share};
pub(crate) use status::size;
pub use status::statuses;

use diptych_api::StorageNode;
use diptych_core::ids::DeviceId;
use diptych_site::config::DeviceConfig;

/// A node's devices, as processes are configured with them.
pub fn devices(node: &StorageNode) -> Vec<DeviceConfig> {
    let devices = node.spec.devices.iter();
    devices
        .map(|device| DeviceConfig { id: DeviceId(device.id as u32), path: device.path.clone().into() })
        .collect()
}
