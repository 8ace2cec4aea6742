//! A long write beside what fio measures in the same folder: the same bytes in the same pieces, synced as often, by as many at once.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use diptych_store::{Device, Purpose};

use crate::rows::{END, device, next_row};

/// What is written at once, a group of a rebuild, and how many of them make a row of a whole extent of 4 of 6.
const PIECE: usize = 1 << 20;
const PIECES: u64 = 16;
const WRITERS: [u64; 2] = [1, 4];
/// Turns each gets, one after the other; the fastest counts.
const TURNS: usize = 2;
/// Asked for.
const OF_FIO: f64 = 0.8;

/// Prints a line for each number of writers.
pub(crate) fn measure(folder: &Path, mib: u64) -> Result<()> {
    println!(
        "\nsequential write, rows of {PIECES} MiB synced each, {mib} MiB; at least {OF_FIO} of fio is asked for\n\n\
         | writers | device MiB/s | fio MiB/s | device / fio |\n|---|---|---|---|"
    );
    for writers in WRITERS {
        let rows = (mib / PIECES / writers).max(1);
        let (mut ours, mut theirs) = (0.0_f64, 0.0_f64);
        for _ in 0..TURNS {
            theirs = theirs.max(fio(&folder.join("fio"), writers, rows)?);
            ours = ours.max(written(&folder.join("device"), writers, rows)?);
        }
        println!("| {writers} | {ours:.0} | {theirs:.0} | {:.2} |", ours / theirs);
    }
    Ok(())
}

/// MiB a second of a new device.
fn written(folder: &Path, writers: u64, rows: u64) -> Result<f64> {
    let device = device(folder)?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..writers).map(|_| scope.spawn(|| write(&device, rows))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer ends"))
    })?;
    let took = begun.elapsed().as_secs_f64();
    device.close()?;
    std::fs::remove_dir_all(folder)?;
    Ok((writers * rows * PIECES) as f64 / took)
}

fn write(device: &Device, rows: u64) -> Result<()> {
    let mut piece = vec![0; PIECE];
    for row in 0..rows {
        let mut writer = device.begin(&next_row(), PIECES * PIECE as u64, Purpose::Client)?;
        for number in 0..PIECES {
            // No two alike, as in fio.
            piece[..8].copy_from_slice(&(row * PIECES + number).to_be_bytes());
            writer.append(&piece)?;
        }
        writer.seal(&END)?.wait()?;
    }
    Ok(())
}

/// MiB a second of fio.
fn fio(folder: &Path, writers: u64, rows: u64) -> Result<f64> {
    std::fs::create_dir_all(folder)?;
    let mut command = Command::new("fio");
    command
        .args(["--name=sequential", "--rw=write", "--ioengine=psync", "--thread", "--group_reporting"])
        .args(["--output-format=json", &format!("--directory={}", folder.display())])
        .args([format!("--bs={PIECE}"), format!("--size={}", rows * PIECES * PIECE as u64)])
        .args([format!("--fdatasync={PIECES}"), format!("--numjobs={writers}")]);
    let output = command.output().context("fio can't be started: install it (Debian's package is fio)")?;
    ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_dir_all(folder)?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let bytes = said["jobs"][0]["write"]["bw_bytes"].as_f64().context("fio's answer has no bw_bytes")?;
    Ok(bytes / f64::from(1 << 20))
}
