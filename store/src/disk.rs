//! The few calls on files that a device makes, behind a trait: the real ones, and for tests a disk that forgets, tears
//! and reorders what was not synced.

mod real;
#[cfg(test)]
pub(crate) mod simulated;

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

pub(crate) use real::RealDisk;

/// What a file system has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSystemRoom {
    /// Free for an unprivileged process.
    pub available: u64,
}

/// A file system.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes an empty file for reading and writing, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a folder and those above it.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name, in the place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away; who has it open can still read it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;
    /// Room of the file system that the folder is in.
    fn room(&self, folder: &Path) -> io::Result<FileSystemRoom>;
    /// A file opened anew, for another process that only reads; `None`: this disk's files are nobody else's.
    fn lend(&self, path: &Path) -> io::Result<Option<OwnedFd>>;
    /// Takes the folder for this process alone until the guard is dropped; `None`: another has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
}

/// Bytes that records are read from: an open file, or an object in a bucket. All calls may come from many threads at once.
pub(crate) trait ReadAt: Debug + Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; fewer only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`ReadAt::read_at`], of what is in memory: [`io::ErrorKind::WouldBlock`] where that is not all.
    fn read_cached(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// How many bytes there are.
    fn len(&self) -> io::Result<u64>;
}

/// An open file.
pub(crate) trait DiskFile: ReadAt {
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// fdatasync: what was written, and the length, are durable when it returns.
    fn sync(&self) -> io::Result<()>;
    /// Asks that the next read of this range comes from the device. What is not synced stays in memory.
    fn drop_cache(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// Reads all of `buffer`; [`io::ErrorKind::UnexpectedEof`] where the file is shorter.
pub(crate) fn read_exact_at(file: &dyn ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buffer, offset)?;
    if read < buffer.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Replaces a small file so that after a crash either the old or the new one is there, whole.
pub(crate) fn replace(disk: &dyn Disk, folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = folder.join(format!("{name}.tmp"));
    let file = disk.create(&fresh)?;
    file.write_at(bytes, 0)?;
    // FENCING: the bytes before the name, the name before the answer: whoever was told has it after a crash.
    file.sync()?;
    disk.rename(&fresh, &folder.join(name))?;
    disk.sync_dir(folder)
}

/// Reads a small file whole.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}
