//! The real input: a tree of files, and one large file, with the SHA-256 of each.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// A file to store.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its key.
    pub key: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Of its bytes.
    pub sha256: [u8; 32],
}

/// What is stored.
#[derive(Debug, Clone, clap::Args)]
pub struct Source {
    /// Folder with real files, at least 3,000
    #[arg(long, default_value = "/usr/share/doc")]
    pub tree: PathBuf,
    /// Store at most so many of them
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    pub files: usize,
    /// Puts on their way at once: small files that are written at the same moment share a commit
    #[arg(long, default_value_t = 32)]
    pub at_once: usize,
    /// MiB of the one large file
    #[arg(long, default_value_t = 1024)]
    pub large: u64,
}

/// Files that are enough for a demo.
pub const ENOUGH: usize = 3_000;

/// The regular files below a folder, hashed: at least [`ENOUGH`], and the first `most` in the order of their keys.
pub fn collect(folder: &Path, prefix: &str, most: usize) -> Result<Vec<Input>> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        let entries =
            std::fs::read_dir(&current).with_context(|| format!("{} can't be listed", current.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                paths.push(entry.path());
            }
        }
    }
    if paths.len().min(most) < ENOUGH {
        bail!(
            "{} has {} files, of which {most} may be taken, {ENOUGH} are needed: give another one with --tree",
            folder.display(),
            paths.len()
        );
    }
    paths.sort();
    paths.iter().take(most).map(|path| input(folder, path, prefix)).collect()
}

fn input(folder: &Path, path: &Path, prefix: &str) -> Result<Input> {
    let below = path.strip_prefix(folder)?.to_string_lossy();
    let (size, sha256) = hash(path)?;
    Ok(Input { key: format!("{prefix}{below}"), path: path.to_path_buf(), size, sha256 })
}

/// A file of random bytes, written once.
pub fn large(path: &Path, mebibytes: u64) -> Result<Input> {
    let mut random = File::open("/dev/urandom")?;
    let mut file = File::create(path).with_context(|| format!("{} can't be made", path.display()))?;
    let mut block = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        random.read_exact(&mut block)?;
        file.write_all(&block)?;
    }
    drop(file);
    let (size, sha256) = hash(path)?;
    Ok(Input { key: "large.bin".to_owned(), path: path.to_path_buf(), size, sha256 })
}

fn hash(path: &Path) -> Result<(u64, [u8; 32])> {
    let mut file = File::open(path).with_context(|| format!("{} can't be opened", path.display()))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok((size, hasher.finalize().into()));
        }
        size += read as u64;
        hasher.update(&block[..read]);
    }
}
