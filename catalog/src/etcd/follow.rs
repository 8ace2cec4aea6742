//! Keeps the mirror at the tip of etcd.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_core::ids::SiteName;
use diptych_core::records::Position;
use etcd_client::{GetOptions, KeyValue};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;

use super::EtcdOptions;
use super::client::{Etcd, header, read_error};
use super::members::CallError;
use super::tail::{Commit, Tailed};
use crate::CatalogError;
use crate::disk::{Disk, Meta, Persist, unavailable};

/// A mirror that is killed has to get again what came in this time.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Revisions that the mirror's log keeps; older ones a feed takes from etcd.
const LOG_REVISIONS: u64 = 200_000;
/// And how many more before they are removed.
const LOG_SLACK: u64 = 20_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Bytes of a page of a snapshot: its keys are halved or doubled to come near that.
const PAGE_BYTES: usize = 4 << 20;
const FIRST_PAGE_KEYS: i64 = 1_000;
const MOST_PAGE_KEYS: i64 = 16_000;

/// Opens the mirror's file; a damaged one is put aside, since etcd has all that is in it.
pub(super) fn open_mirror(site: &SiteName, options: &EtcdOptions) -> Result<Disk, CatalogError> {
    let engine = format!("etcd {}", options.prefix);
    let new = Meta { site: site.clone(), incarnation: 0, revision: 0, floor: 0, engine };
    let open = || Disk::open(&options.mirror, options.mirror_cache_bytes, &new);
    match open() {
        Err(CatalogError::Corrupt { reason }) => {
            let aside = options.mirror.with_extension("damaged");
            tracing::warn!(reason, aside = %aside.display(), "the mirror is damaged: it begins anew");
            std::fs::rename(&options.mirror, &aside).map_err(|error| {
                unavailable(format!("{} can't be put aside: {error}", options.mirror.display()))
            })?;
            open()
        }
        opened => opened,
    }
}

/// The task that follows etcd.
pub(super) struct Follower {
    pub(super) etcd: Etcd,
    pub(super) disk: Arc<Disk>,
    pub(super) restart: Arc<Notify>,
}

impl Follower {
    /// Until its catalog is dropped.
    pub(super) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let (_, left) = self.etcd.members.chosen();
            let followed = tokio::select! {
                followed = self.follow() => followed,
                () = self.restart.notified() => Err(unavailable("it was asked to begin anew")),
                () = left => Err(read_error(&CallError::Left)),
            };
            let Err(error) = followed;
            if self.disk.tip().is_err() {
                tracing::error!(%error, "the mirror can't be written: the catalog is closed");
                return;
            }
            tracing::warn!(%error, "the mirror stopped following etcd: it tries again");
            pause =
                if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn follow(&self) -> Result<Infallible, CatalogError> {
        let incarnation = self.etcd.ensure_incarnation(self.disk.tip()?).await?;
        if self.disk.tip()?.incarnation != incarnation {
            self.load(incarnation).await?;
        }
        let mut tail = self.etcd.tail(self.disk.tip()?.revision + 1).await?;
        let mut synced = Instant::now();
        loop {
            match tail.next().await? {
                Tailed::Compacted { .. } => {
                    self.load(incarnation).await?;
                    tail = self.etcd.tail(self.disk.tip()?.revision + 1).await?;
                }
                Tailed::Commits(commits) => {
                    let sync = synced.elapsed() >= SYNC_INTERVAL;
                    self.apply(commits, incarnation, sync).await?;
                    if sync {
                        self.trim().await?;
                        synced = Instant::now();
                    }
                }
            }
        }
    }

    async fn apply(&self, commits: Vec<Commit>, incarnation: u64, sync: bool) -> Result<(), CatalogError> {
        let persist = if sync { Persist::SyncedForQuickOpen } else { Persist::Later };
        self.blocking(move |disk| {
            disk.write(persist, |tables| {
                for commit in commits {
                    if commit.incarnation.is_some_and(|found| found != incarnation) {
                        return Err(unavailable("the catalog became another incarnation"));
                    }
                    // FENCING: the mirror's revision moves with the changes, in one transaction, and never back.
                    if commit.revision > tables.meta.revision {
                        tables.record(commit.revision, commit.changes)?;
                        tables.advance(commit.revision);
                    }
                }
                Ok(())
            })
        })
        .await
    }

    async fn trim(&self) -> Result<(), CatalogError> {
        self.blocking(|disk| {
            let meta = disk.meta()?;
            if meta.revision - meta.floor < LOG_REVISIONS + LOG_SLACK {
                return Ok(());
            }
            disk.compact_log(Position { revision: meta.revision - LOG_REVISIONS, ..meta.position() })
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let disk = Arc::clone(&self.disk);
        spawn_blocking(move || work(&disk)).await.map_err(|error| read_error(&error))?
    }

    /// Takes everything anew, as it is at one revision; the mirror shows what it had until all is there.
    async fn load(&self, incarnation: u64) -> Result<(), CatalogError> {
        let (pages, mut loaded) = mpsc::channel::<SnapshotPage>(2);
        let writer = self.blocking(move |disk| {
            disk.write(Persist::SyncedForQuickOpen, |tables| {
                let meta = tables.meta.clone();
                tables.reset(Meta { incarnation, ..meta.clone() })?;
                while let Some(page) = loaded.blocking_recv() {
                    for (key, value) in &page.pairs {
                        tables.load(key, value)?;
                    }
                    if let Some(revision) = page.complete_at {
                        tables.reset_position(revision);
                        return Ok(());
                    }
                }
                Err(unavailable("the snapshot of etcd was cut"))
            })
        });
        let (fetched, written) = tokio::join!(self.fetch(pages), writer);
        fetched.and(written)
    }

    async fn fetch(&self, pages: mpsc::Sender<SnapshotPage>) -> Result<(), CatalogError> {
        let space = &self.etcd.space;
        let end = diptych_core::keys::prefix_range(space.keys()).end.0;
        let mut start = space.keys().to_vec();
        let mut revision = 0;
        let mut keys = FIRST_PAGE_KEYS;
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(keys).with_revision(revision);
            let answer = self.etcd.get(&start, Some(options)).await?;
            if revision == 0 {
                revision = header(&answer)?.0 as i64;
            }
            let pairs: Vec<_> = answer.kvs().iter().filter_map(|pair| self.pair(pair)).collect();
            let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
            let next = answer.kvs().last().filter(|_| answer.more()).map(|last| [last.key(), &[0]].concat());
            let complete_at = next.is_none().then_some(revision as u64);
            let stopped = pages.send(SnapshotPage { pairs, complete_at }).await.is_err();
            match next {
                Some(next) if !stopped => start = next,
                _ => return Ok(()),
            }
            keys = if bytes > PAGE_BYTES { keys / 2 } else { keys * 2 }.clamp(1, MOST_PAGE_KEYS);
        }
    }

    fn pair(&self, pair: &KeyValue) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((self.etcd.space.key(pair.key())?.to_vec(), pair.value().to_vec()))
    }
}

/// A piece of a snapshot.
struct SnapshotPage {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Revision of the whole, with its last piece.
    complete_at: Option<u64>,
}
