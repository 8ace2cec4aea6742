//! redb's storage on a file of the device's disk, so that a simulated crash takes the index along.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use crate::disk::{DiskFile, read_exact_at};

#[derive(Debug)]
pub(super) struct Backend {
    file: Arc<dyn DiskFile>,
}

impl Backend {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        read_exact_at(&*self.file, out, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write_at(data, offset)
    }
}
