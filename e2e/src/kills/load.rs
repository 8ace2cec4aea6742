//! Writers that go on through every kill, and the book of what they were told is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use diptych::client::s3::S3Client;
use futures::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::demo::installation::until;

/// An attempt is given up after this: what it did is unknown, and the same bytes are put again.
const ATTEMPT: Duration = Duration::from_secs(5);
/// After an attempt that failed.
const PAUSE: Duration = Duration::from_millis(50);
/// Until writes are taken again.
const GOES_ON: Duration = Duration::from_mins(2);
/// Reads on their way at once.
const READS: usize = 16;

/// A record whose write was answered with success.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Its key: which client, and the how many'th of it.
    pub key: String,
    sha256: [u8; 32],
}

/// Clients that put records, each again until it is acknowledged.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    clients: JoinSet<Vec<Record>>,
}

impl Load {
    pub(super) fn start(s3: &Arc<S3Client>, clients: u32, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        for client in 0..clients {
            let rng = StdRng::seed_from_u64(seed ^ (u64::from(client) << 32));
            running.spawn(put_on_and_on(
                Arc::clone(s3),
                client,
                rng,
                Arc::clone(&stop),
                Arc::clone(&acknowledged),
            ));
        }
        Self { stop, acknowledged, clients: running }
    }

    /// Waits until so many more records were acknowledged.
    pub(super) async fn goes_on(&self, records: u64) -> Result<()> {
        let before = self.acknowledged.load(Ordering::Relaxed);
        until("writes are acknowledged again", GOES_ON, || async {
            let more = self.acknowledged.load(Ordering::Relaxed) - before;
            Ok(if more >= records { Ok(()) } else { Err(format!("{more} more records")) })
        })
        .await
    }

    /// Ends it; every acknowledged record.
    pub(super) async fn stop(self) -> Vec<Record> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

async fn put_on_and_on(
    s3: Arc<S3Client>,
    client: u32,
    mut rng: StdRng,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Vec<Record> {
    let mut records = Vec::new();
    for number in 0_u64.. {
        let record = format!("record/{client}/{number:08}");
        let body = content(&mut rng);
        loop {
            if stop.load(Ordering::Relaxed) {
                return records;
            }
            if let Ok(Ok(_)) = tokio::time::timeout(ATTEMPT, s3.put(&record, body.clone())).await {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        records.push(Record { key: record, sha256: Sha256::digest(&body).into() });
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    records
}

/// Mostly small ones that share an extent; some of one stripe, and of several.
fn content(rng: &mut StdRng) -> Bytes {
    let length = match rng.random_range(0..20) {
        0 => rng.random_range(1 << 20..3 << 20),
        1..4 => rng.random_range(64 << 10..400 << 10),
        _ => rng.random_range(0..8 << 10),
    };
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes[..]);
    Bytes::from(bytes)
}

/// Those that do not read as they were acknowledged, and why not.
pub(super) async fn missing(s3: &S3Client, records: &[Record]) -> Vec<(Record, String)> {
    let reads = records.iter().map(|record| async move {
        let why = match sha256_of(s3, &record.key).await {
            Ok(sha256) if sha256 == record.sha256 => return None,
            Ok(_) => "it has other bytes".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        Some((record.clone(), why))
    });
    stream::iter(reads).buffer_unordered(READS).filter_map(async |found| found).collect().await
}

async fn sha256_of(s3: &S3Client, key: &str) -> Result<[u8; 32]> {
    let bytes = s3.get(key).await?.bytes().await.context("it breaks off")?;
    Ok(Sha256::digest(&bytes).into())
}
