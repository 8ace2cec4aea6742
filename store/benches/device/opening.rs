//! How soon a device of very many records is open: closed as it should be, with nothing of it in memory, and after its index was lost.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use diptych_store::{Device, OpenOptions, Pending, Sealed};
use rustix::fs::{Advice, fadvise};

use crate::rows::{device, whole};

static ROW: [u8; 16] = [3; 16];
/// Rows on their way to the disk at once: a commit answers very many.
const UNDER_WAY: usize = 4096;
/// Asked for, in seconds, of a device that has its index.
const SECONDS: f64 = 3.0;

/// Prints a line for each way to open it.
pub(crate) fn measure(folder: &Path, records: u64) -> Result<()> {
    generate(folder, records)?;
    println!(
        "\nopening a device of {records} records; {SECONDS} s are asked for where the index is there\n\n| | s |\n|---|---|"
    );
    println!("| in memory | {:.2} |", opened(folder, records)?);
    files_of(folder)?.iter().try_for_each(|file| forget(file))?;
    println!("| on the disk alone | {:.2} |", opened(folder, records)?);
    std::fs::remove_file(folder.join("index.redb")).context("the device has no index")?;
    println!("| without its index, in memory | {:.2} |", opened(folder, records)?);
    Ok(std::fs::remove_dir_all(folder)?)
}

fn generate(folder: &Path, records: u64) -> Result<()> {
    let device = device(folder)?;
    let mut under_way: VecDeque<Pending<Sealed>> = VecDeque::with_capacity(UNDER_WAY);
    for _ in 0..records {
        if under_way.len() == UNDER_WAY
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.wait()?;
        }
        under_way.push_back(device.place(whole(&ROW))?);
    }
    under_way.into_iter().try_for_each(|pending| pending.wait().map(drop))?;
    Ok(device.close()?)
}

/// Seconds until it knows its records.
fn opened(folder: &Path, records: u64) -> Result<f64> {
    let begun = Instant::now();
    let device = Device::open(folder, OpenOptions::default())?;
    let known = device.record_count()?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(known == records, "{known} of {records} records are there: {:?}", device.open_report());
    device.close()?;
    Ok(took)
}

/// All files of a folder and of those in it.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_of(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Takes a file out of the page cache.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}
