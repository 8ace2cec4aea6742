//! The record on the witness's disk, and the words of its protocol.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use diptych_core::lease::{Token, WitnessRecord};
use serde::{Deserialize, Serialize};

/// Path of the record, for `GET` (a [`Stored`] or 404) and `POST` (a [`SwapRequest`]).
pub(super) const PATH: &str = "/witness/v1/record";

/// The record with the name of its write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Made anew by each write.
    pub token: Token,
    /// What was written.
    pub record: WitnessRecord,
}

/// Write if the token is this one; None: if there is no record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SwapRequest {
    pub token: Option<Token>,
    pub record: WitnessRecord,
}

/// A record in a file; JSON, replaced whole.
pub(super) struct RecordFile {
    path: PathBuf,
    pub current: Option<Stored>,
}

impl RecordFile {
    /// # Errors
    /// Where the file is there and does not read: the witness must not begin with nothing then.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let current = match std::fs::read(path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_path_buf(), current })
    }

    /// FENCING (unique epochs): the new record is on the disk, its name too, before anybody is told that it was written.
    pub(super) fn replace(&mut self, stored: Stored) -> std::io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&fresh)?;
        file.write_all(&serde_json::to_vec(&stored)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        self.current = Some(stored);
        Ok(())
    }
}
