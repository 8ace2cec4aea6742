//! A writer that goes on all the while: numbered records through the public name, and a book of what was acknowledged.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use diptych::client::s3::S3Client;
use diptych_gateway::objects::LedgerLine;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinHandle;

use super::installation::until;
use super::reach::Reach;

const PREFIX: &str = "record/";
/// Between two attempts at the same record.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two records, where nothing else is said.
const PACE: Duration = Duration::from_millis(20);

/// Deletes on their way at once.
const DELETES: usize = 8;
/// Until the bytes of what a takeover gave up have crossed, once the site that has them is back.
const SETTLES_IN: Duration = Duration::from_mins(1);

/// Which records, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Records {
    /// Number of the first. Where an earlier writer's are there still, one of those would pass for one that is lost.
    pub first: u64,
    /// Between two of them.
    pub pace: Duration,
}

impl Default for Records {
    fn default() -> Self {
        Self { first: 0, pace: PACE }
    }
}

/// A record that was answered with success.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// Its number, and its content.
    pub number: u64,
    /// When.
    pub at: Instant,
}

/// A running writer.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: JoinHandle<Vec<Acknowledged>>,
}

impl Writer {
    /// Each record is tried again until it is acknowledged; the client itself must not try again.
    pub fn start(s3: Arc<S3Client>) -> Self {
        Self::start_with(s3, Records::default())
    }

    /// The same with other records.
    pub fn start_with(s3: Arc<S3Client>, Records { first, pace }: Records) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (ends, counts) = (Arc::clone(&stop), Arc::clone(&written));
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut number = first;
            while !ends.load(Ordering::Relaxed) {
                let name = key(number);
                let put = s3.put(&name, content(number));
                if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), put).await {
                    acknowledged.push(Acknowledged { number, at: Instant::now() });
                    number += 1;
                    counts.store(number - first, Ordering::Relaxed);
                    tokio::time::sleep(pace).await;
                } else {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            acknowledged
        });
        Self { stop, written, task }
    }

    /// Waits until so many records were acknowledged.
    pub async fn has_written(&self, records: u64) -> Result<()> {
        until("the writer goes on", Duration::from_mins(2), || async {
            let written = self.written.load(Ordering::Relaxed);
            Ok(if written >= records { Ok(()) } else { Err(format!("{written} records")) })
        })
        .await
    }

    /// Waits until so many more records were acknowledged.
    pub async fn goes_on(&self, records: u64) -> Result<()> {
        self.has_written(self.written.load(Ordering::Relaxed) + records).await
    }

    /// Ends it; what was acknowledged, in order.
    pub async fn stop(self) -> Result<Vec<Acknowledged>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

/// Deletes records that are no longer needed.
pub async fn take_away(s3: &S3Client, acknowledged: &[Acknowledged]) -> Result<()> {
    let deletes = acknowledged.iter().map(|record| {
        let name = key(record.number);
        async move { s3.delete(&name).await.with_context(|| name.clone()) }
    });
    stream::iter(deletes).buffer_unordered(DELETES).try_collect().await
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:08}")
}

fn content(number: u64) -> Bytes {
    Bytes::from(format!("record {number}\n").repeat(16))
}

/// The longest time without an acknowledgement that touches the time from `begin` to `end`.
pub fn longest_gap(acknowledged: &[Acknowledged], begin: Instant, end: Instant) -> Duration {
    let pairs = acknowledged.windows(2).filter(|pair| pair[1].at >= begin && pair[0].at <= end);
    pairs.map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default()
}

/// Every acknowledged record is there, byte for byte. With `OneSite` a takeover may have given some up until the dead site returns: as
/// long as the ledger names them they are waited for.
pub async fn none_missing(reach: &Reach, s3: &S3Client, acknowledged: &[Acknowledged]) -> Result<()> {
    let lost = until("what a takeover gave up is back", SETTLES_IN, || async {
        // Before the records: what is settled in between is there then.
        let open = reach.command(&["ledger", "--open", "--json"]).await?;
        let given_up: HashSet<String> =
            serde_json::from_str::<Vec<LedgerLine>>(&open)?.into_iter().map(|line| line.id).collect();
        let missing = missing(s3, acknowledged).await?;
        let lost: Vec<u64> =
            missing.iter().copied().filter(|number| !given_up.contains(&key(*number))).collect();
        let known = missing.is_empty() || !lost.is_empty();
        Ok(if known { Ok(lost) } else { Err(format!("the ledger has {missing:?}")) })
    })
    .await?;
    ensure!(
        lost.is_empty(),
        "{} of {} acknowledged records are missing, and no ledger names them: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
    Ok(())
}

/// Reads every acknowledged record; the numbers of those that are not there.
async fn missing(s3: &S3Client, acknowledged: &[Acknowledged]) -> Result<Vec<u64>> {
    let listed: BTreeSet<String> = s3.list(PREFIX).await?.into_iter().map(|object| object.key).collect();
    let mut missing = Vec::new();
    for record in acknowledged {
        let name = key(record.number);
        if !listed.contains(&name) {
            missing.push(record.number);
            continue;
        }
        let bytes = s3.get(&name).await?.bytes().await.with_context(|| name.clone())?;
        ensure!(bytes == content(record.number), "{name} has other bytes");
    }
    Ok(missing)
}
