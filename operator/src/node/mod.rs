//! StorageNodes: nodes register themselves by their agent's pod; what the keeper sees of them becomes status.

mod register;
mod status;

pub use register::register;
pub(crate) use status::size;
pub use status::statuses;
