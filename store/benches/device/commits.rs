//! Group commit: writers that wait for each row, and how many of them one sync answers.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use diptych_store::{Commits, Device};

use crate::rows::{device, whole};

const WRITERS: [u64; 4] = [1, 4, 16, 64];
/// A row of 4 of 6 of an object of 4 KiB.
static ROW: [u8; 1024] = [3; 1024];

/// Prints a line for each number of writers.
pub(crate) fn measure(folder: &Path, time: Duration) -> Result<()> {
    let device = device(folder)?;
    println!(
        "group commit, rows of {} bytes\n\n| writers | rows/s | syncs/s | rows a sync |\n|---|---|---|---|",
        ROW.len()
    );
    for writers in WRITERS {
        let before = device.commits();
        let begun = Instant::now();
        let rows = write(&device, writers, begun + time)?;
        let took = begun.elapsed().as_secs_f64();
        let Commits { batches, records } = device.commits();
        let (syncs, records) = ((batches - before.batches) as f64, (records - before.records) as f64);
        println!("| {writers} | {:.0} | {:.0} | {:.1} |", rows as f64 / took, syncs / took, records / syncs);
    }
    device.close()?;
    Ok(std::fs::remove_dir_all(folder)?)
}

/// Rows that became durable.
fn write(device: &Device, writers: u64, until: Instant) -> Result<u64> {
    let rows = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writer = || -> Result<()> {
            while Instant::now() < until {
                device.place(whole(&ROW))?.wait()?;
                rows.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let writers: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer ends"))
    })?;
    Ok(rows.into_inner())
}
