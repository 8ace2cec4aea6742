//! redb's errors as the catalog's.

use std::io::ErrorKind;
use std::path::Path;

use redb::{DatabaseError, StorageError};

use crate::CatalogError;

pub(crate) fn unavailable(reason: impl Into<String>) -> CatalogError {
    CatalogError::Unavailable { reason: reason.into() }
}

pub(crate) fn corrupt(reason: impl Into<String>) -> CatalogError {
    CatalogError::Corrupt { reason: reason.into() }
}

/// An error of a read or of a write that did not reach its commit.
pub(crate) fn storage(error: impl Into<redb::Error>) -> CatalogError {
    match error.into() {
        redb::Error::Corrupted(reason) => corrupt(format!("its file is damaged: {reason}")),
        other => unavailable(format!("its file can't be used: {other}")),
    }
}

pub(super) fn opening(path: &Path, error: DatabaseError) -> CatalogError {
    let path = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => unavailable(format!(
            "{path} is open in another process: stop that one, or give this one its own file"
        )),
        DatabaseError::Storage(StorageError::Corrupted(reason)) => {
            corrupt(format!("{path} is damaged: {reason}"))
        }
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            corrupt(format!("{path} is no catalog, or a damaged one: {error}"))
        }
        DatabaseError::UpgradeRequired(found) => {
            corrupt(format!("{path} has file format {found}, which this version does not read"))
        }
        other => unavailable(format!("{path} can't be opened: {other}")),
    }
}
