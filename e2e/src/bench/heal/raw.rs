//! What bounds any healing: how fast the disk takes bytes, and how fast one core makes a row.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use diptych_core::erasure::Decoder;
use diptych_core::ids::Row;
use diptych_core::layout::SHARD;
use rand::RngCore;
use serde::Serialize;

use super::mib;

/// Written in a row, in so large pieces, then synced.
const BYTES: usize = 1 << 30;
const PIECE: usize = 1 << 20;
/// How long rows are made for.
const CODED_FOR: Duration = Duration::from_secs(1);

/// Both, in MiB a second.
#[derive(Debug, Serialize)]
pub(super) struct Raw {
    /// One file from its beginning to its end, the sync with it.
    pub(super) disk_mib_per_s: f64,
    /// Bytes of a lost data row from four others, on one core.
    pub(super) codec_mib_per_s: f64,
}

impl Raw {
    /// The slower of both.
    pub(super) const fn limit_mib_per_s(&self) -> f64 {
        self.disk_mib_per_s.min(self.codec_mib_per_s)
    }
}

/// Measures both in a folder.
pub(super) fn measure(folder: &Path) -> Result<Raw> {
    let path = folder.join("raw");
    let disk = disk(&path).with_context(|| format!("{} can't be written", path.display()));
    // Where it was not written it need not go.
    let _ = std::fs::remove_file(&path);
    Ok(Raw { disk_mib_per_s: disk?, codec_mib_per_s: codec()? })
}

fn disk(path: &Path) -> Result<f64> {
    let piece = random(PIECE);
    let begun = Instant::now();
    let mut file = File::create(path)?;
    for _ in 0..BYTES / PIECE {
        file.write_all(&piece)?;
    }
    file.sync_data()?;
    Ok(mib(BYTES as u64) / begun.elapsed().as_secs_f64())
}

fn codec() -> Result<f64> {
    let have = [0, 1, 2, 4].map(Row);
    let decoder = Decoder::new(4, &have, &[Row(3)])?;
    let shards = have.map(|_| random(SHARD));
    let shards: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    let (begun, mut made) = (Instant::now(), 0);
    while begun.elapsed() < CODED_FOR {
        made += black_box(decoder.decode(black_box(&shards))?).iter().map(Vec::len).sum::<usize>();
    }
    Ok(mib(made as u64) / begun.elapsed().as_secs_f64())
}

/// Nothing on the way to a disk can make them fewer.
fn random(bytes: usize) -> Vec<u8> {
    let mut piece = vec![0; bytes];
    rand::rng().fill_bytes(&mut piece);
    piece
}
