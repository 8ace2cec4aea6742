//! The engine for one process: one redb file, one thread that commits.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use diptych_core::ids::SiteName;
use diptych_core::keys::{self, Key};
use diptych_core::records::{Gate, Position, Record};
use redb::StorageBackend;
use tokio::sync::{mpsc, oneshot};

use crate::disk::{Disk, Meta, Persist, Tables, corrupt, unavailable};
use crate::{Batch, Catalog, CatalogError, Committed, FeedStart, Room, View};

/// Batches that wait for the thread before a commit has to wait for room.
const QUEUE: usize = 1024;
/// Bytes of batches that share one sync.
const GROUP_BYTES: usize = 4 << 20;

/// What can be chosen about the file.
#[derive(Debug, Clone)]
pub struct RedbOptions {
    /// Bytes that its cache may take.
    pub cache_bytes: usize,
    /// For a file that is made now; None: random.
    pub incarnation: Option<u64>,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, incarnation: None }
    }
}

/// The catalog of a site that is one process.
///
/// Views and feeds do not keep the file open: once this is dropped they answer `Unavailable`.
#[derive(Debug)]
pub struct RedbCatalog {
    site: SiteName,
    disk: Arc<Disk>,
    queue: Option<mpsc::Sender<Waiting>>,
    committer: Option<JoinHandle<()>>,
}

type Answer = Result<Committed, CatalogError>;

#[derive(Debug)]
struct Waiting {
    batch: Batch,
    answer: oneshot::Sender<Answer>,
}

impl RedbCatalog {
    /// Opens the catalog of `site`, or makes an empty one. Only one process may have it open.
    ///
    /// # Errors
    /// `Unavailable`: it is open elsewhere, of another site, or its disk says no. `Corrupt`: it is damaged, or no
    /// catalog.
    pub fn open(path: &Path, site: SiteName, options: &RedbOptions) -> Result<Self, CatalogError> {
        let disk = Disk::open(path, options.cache_bytes, &options.meta(&site))?;
        Self::start(site, disk)
    }

    /// As `open`, on something else than a file: a simulated disk.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_backend(
        backend: impl StorageBackend,
        site: SiteName,
        options: &RedbOptions,
    ) -> Result<Self, CatalogError> {
        let disk = Disk::on_backend(backend, options.cache_bytes, &options.meta(&site))?;
        Self::start(site, disk)
    }

    fn start(site: SiteName, disk: Disk) -> Result<Self, CatalogError> {
        let disk = Arc::new(disk);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let committer = Committer { gate: keys::site_gate(&site), disk: Arc::clone(&disk) };
        let committer = std::thread::Builder::new()
            .name("catalog".to_owned())
            .spawn(move || committer.run(waiting))
            .map_err(|error| unavailable(format!("its thread can't be started: {error}")))?;
        Ok(Self { site, disk, queue: Some(queue), committer: Some(committer) })
    }
}

impl RedbOptions {
    fn meta(&self, site: &SiteName) -> Meta {
        let incarnation = self.incarnation.unwrap_or_else(rand::random);
        Meta { site: site.clone(), incarnation, revision: 0, floor: 0, engine: "redb".to_owned() }
    }
}

impl Drop for RedbCatalog {
    /// Waits for what was handed in: the file is closed and unlocked when this returns.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(committer) = self.committer.take() {
            let _: Result<(), _> = committer.join();
        }
    }
}

#[async_trait]
impl Catalog for RedbCatalog {
    fn site(&self) -> &SiteName {
        &self.site
    }

    async fn position(&self) -> Result<Position, CatalogError> {
        self.disk.tip()
    }

    async fn view(&self) -> Result<Box<dyn View>, CatalogError> {
        Ok(Box::new(self.disk.view()?))
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        batch.check()?;
        self.disk.tip()?;
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Waiting { batch, answer }).await.map_err(|_| closed())?;
        let lost = |_| CatalogError::Unclear { reason: "its thread ended before it answered".to_owned() };
        answered.await.map_err(lost)?
    }

    async fn feed(&self, after: Position) -> Result<FeedStart, CatalogError> {
        self.disk.tip()?;
        self.disk.feed(after)
    }

    async fn compact_feed(&self, keep: Position) -> Result<(), CatalogError> {
        let disk = Arc::clone(&self.disk);
        let compacted = tokio::task::spawn_blocking(move || disk.compact_log(keep)).await;
        compacted.map_err(|error| unavailable(format!("compaction was stopped: {error}")))?
    }

    async fn room(&self) -> Result<Room, CatalogError> {
        Ok(Room { used: self.disk.bytes()?, limit: None })
    }
}

fn closed() -> CatalogError {
    unavailable("it was closed")
}

/// The thread that writes.
struct Committer {
    gate: Key,
    disk: Arc<Disk>,
}

impl Drop for Committer {
    /// However the thread ends: nothing is served from what can't be written any more.
    fn drop(&mut self) {
        self.disk.close(&closed());
    }
}

impl Committer {
    fn run(self, mut waiting: mpsc::Receiver<Waiting>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut bytes = first.batch.bytes();
            let mut group = vec![first];
            while bytes < GROUP_BYTES
                && let Ok(next) = waiting.try_recv()
            {
                bytes += next.batch.bytes();
                group.push(next);
            }
            self.commit(group);
        }
    }

    /// One transaction, and one sync, for the whole group.
    fn commit(&self, group: Vec<Waiting>) {
        let written = self.disk.write(Persist::Synced, |tables| {
            group.iter().map(|waiting| self.apply(tables, &waiting.batch)).collect::<Result<Vec<Answer>, _>>()
        });
        let answers = written.unwrap_or_else(|error| vec![Err(error); group.len()]);
        for (waiting, answer) in group.into_iter().zip(answers) {
            // Who no longer waits finds out by reading.
            let _: Result<(), Answer> = waiting.answer.send(answer);
        }
    }

    /// The outer error stops the whole group.
    fn apply(&self, tables: &mut Tables<'_>, batch: &Batch) -> Result<Answer, CatalogError> {
        // FENCING: the gate is read in the transaction that writes, so no commit of an older epoch follows its closing.
        if let Some(epoch) = batch.epoch {
            let found = read_gate(tables.get(&self.gate)?)?;
            if found != Gate::Open(epoch) {
                return Ok(Err(CatalogError::GateClosed { epoch, found }));
            }
        }
        let outcomes = tables.apply(batch)?;
        Ok(Ok(Committed { position: tables.meta.position(), outcomes }))
    }
}

/// What stands under the gate's key; nothing there is a closed gate.
pub(crate) fn read_gate(value: Option<Bytes>) -> Result<Gate, CatalogError> {
    value.map_or(Ok(Gate::Closed), |value| Gate::decode(&value).map_err(|error| corrupt(error.to_string())))
}
