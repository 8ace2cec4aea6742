//! What an error of a device means to whoever asked.

use std::error::Error as _;

use diptych_core::ids::DeviceId;
use diptych_store::StoreError;
use diptych_wire::agent::AgentError;

/// The answer to a request that the device refused or could not do.
pub(crate) fn agent_error(device: DeviceId, error: StoreError) -> AgentError {
    let failed = |error: &StoreError| AgentError::DeviceFailed { device, reason: with_source(error) };
    match error {
        error if error.is_full() => AgentError::DeviceFull { device },
        StoreError::Missing { .. } => AgentError::DeviceMissing { device },
        StoreError::NotFound { .. } => AgentError::NotFound,
        StoreError::OutOfRange { row_bytes, .. } => AgentError::OutOfRange { len: row_bytes as u32 },
        StoreError::Rotten { .. } => AgentError::Rotten { device },
        StoreError::OldStamp { highest, .. } => AgentError::StaleStamp { have: highest },
        StoreError::TooLong { .. }
        | StoreError::BadRow { .. }
        | StoreError::OldKeyring { .. }
        | StoreError::NotEmpty { .. }
        | StoreError::AlreadyFormatted { .. } => AgentError::Invalid { reason: error.to_string() },
        StoreError::Busy { .. } => AgentError::Busy,
        StoreError::InstanceUsed { .. } => AgentError::Internal { reason: error.to_string() },
        StoreError::ReadOnly { .. }
        | StoreError::InUse { .. }
        | StoreError::Held { .. }
        | StoreError::WrongIdentity { .. }
        | StoreError::UnknownFormat { .. }
        | StoreError::Damaged { .. }
        | StoreError::ForeignSegment { .. }
        | StoreError::DeviceFailed { .. }
        | StoreError::DeviceFull { .. }
        | StoreError::Closed
        | StoreError::Io { .. }
        | StoreError::Index { .. } => failed(&error),
    }
}

pub(super) fn with_source(error: &StoreError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
