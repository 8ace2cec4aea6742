//! Who uses the installation while its active site is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use diptych::client::s3::S3Client;
use tokio::task::{JoinHandle, JoinSet};

use crate::demo::installation::until;

/// A new probe begins so often, whatever became of those before it.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// A probe is given up after this: an edge may hold on to an origin that is dead.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Between two reads, and after a put that failed.
const PACE: Duration = Duration::from_millis(20);
/// Bytes of an object of the load.
const LOAD_BYTES: usize = 64 << 10;
/// Keys that a client of the load writes in turn.
const LOAD_KEYS: usize = 32;

/// From `killed` to the answer of the first write through the public name that succeeded; each probe was begun after the kill.
pub(super) async fn first_good_write(
    s3: &Arc<S3Client>,
    killed: Instant,
    limit: Duration,
) -> Result<Duration> {
    let mut probes = JoinSet::new();
    let mut next = tokio::time::interval(PROBE_EVERY);
    while killed.elapsed() < limit {
        tokio::select! {
            _ = next.tick() => {
                let s3 = Arc::clone(s3);
                probes.spawn(async move {
                    let put = s3.put("probe", Bytes::from_static(b"probe"));
                    matches!(tokio::time::timeout(PROBE_LIMIT, put).await, Ok(Ok(_)))
                });
            }
            Some(Ok(true)) = probes.join_next() => return Ok(killed.elapsed()),
        }
    }
    bail!("no write through the public name succeeded within {limit:?}")
}

/// Clients that put objects without a pause.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    pub(super) fn start(s3: &Arc<S3Client>, clients: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for client in 0..clients {
            let (s3, ends) = (Arc::clone(s3), Arc::clone(&stop));
            running.spawn(async move {
                let bytes = Bytes::from(vec![client as u8; LOAD_BYTES]);
                for number in (0..LOAD_KEYS).cycle() {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("load/{client}/{number}");
                    let put = tokio::time::timeout(PROBE_LIMIT, s3.put(&key, bytes.clone())).await;
                    if !matches!(put, Ok(Ok(_))) {
                        tokio::time::sleep(PACE).await;
                    }
                }
            });
        }
        Self { stop, clients: running }
    }

    pub(super) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
    }
}

/// What a [`Reader`] saw.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) good: usize,
    pub(super) failed: usize,
    /// The longest time between two good ones.
    pub(super) gap: Duration,
}

/// Reads one object over and over.
pub(super) struct Reader {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    task: JoinHandle<Reads>,
}

impl Reader {
    /// What is read.
    pub(super) const OBJECT: &str = "read-all-the-while";

    pub(super) fn content() -> Bytes {
        Bytes::from(vec![7; LOAD_BYTES])
    }

    pub(super) fn start(s3: Arc<S3Client>) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ends, counts) = (Arc::clone(&stop), Arc::clone(&good));
        let task = tokio::spawn(async move {
            let mut reads = Reads::default();
            let mut last = Instant::now();
            while !ends.load(Ordering::Relaxed) {
                let read = async { anyhow::Ok(s3.get(Self::OBJECT).await?.bytes().await?) };
                match tokio::time::timeout(PROBE_LIMIT, read).await {
                    Ok(Ok(bytes)) if bytes == Self::content() => {
                        reads.good += 1;
                        counts.store(reads.good, Ordering::Relaxed);
                        reads.gap = reads.gap.max(last.elapsed());
                        last = Instant::now();
                    }
                    _ => reads.failed += 1,
                }
                tokio::time::sleep(PACE).await;
            }
            reads
        });
        Self { stop, good, task }
    }

    pub(super) async fn has_begun(&self) -> Result<()> {
        until("the reader reads", Duration::from_secs(10), || async {
            Ok(if self.good.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err("nothing yet".to_owned()) })
        })
        .await
    }

    pub(super) async fn stop(self) -> Result<Reads> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}
