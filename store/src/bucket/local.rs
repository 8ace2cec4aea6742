//! What a machine remembers of its hold, in a file that one process has locked: so that the next process there knows that the one
//! before it is dead, and need not wait until it was silent for long enough.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FlockOperation;

/// The file, locked while this lives.
#[derive(Debug)]
pub(super) struct LocalMemory(File);

impl LocalMemory {
    /// `None`: another process has it.
    pub(super) fn lock(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The last opening of this machine.
    pub(super) fn opening(&self) -> Option<[u8; 16]> {
        let mut opening = [0; 16];
        self.0.read_exact_at(&mut opening, 0).is_ok().then_some(opening)
    }

    pub(super) fn remember(&self, opening: &[u8; 16]) -> io::Result<()> {
        self.0.write_all_at(opening, 0)
    }
}
