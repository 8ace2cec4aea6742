//! A catalog in one redb file: its keys, a log of its changes, and where it stands. Engine of its own for one process,
//! and the mirror beside each process that uses etcd.

mod error;
mod feed;
mod log;
mod tables;
mod view;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_core::records::Position;
use redb::{Database, Durability, ReadableDatabase, StorageBackend};
use tokio::sync::watch;

pub(crate) use self::error::{corrupt, storage, unavailable};
pub(crate) use self::feed::follow;
pub(crate) use self::log::{Changed, is_fed};
pub(crate) use self::tables::{Meta, Tables};
pub(crate) use self::view::DiskView;
use crate::{CatalogError, FeedStart};

/// How far the catalog is, or why it can't be used any more.
pub(crate) type Tip = Result<Position, CatalogError>;

/// An open file.
#[derive(Debug)]
pub(crate) struct Disk {
    database: Database,
    /// None: it is on something else than a file.
    path: Option<PathBuf>,
    tip: watch::Sender<Tip>,
}

/// What the commit of a transaction has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persist {
    /// A loss of power: it is synced before the call returns.
    Synced,
    /// As `Synced`, and opening after a kill costs no walk through the file.
    SyncedForQuickOpen,
    /// Nothing, until the next synced one; only for what can be had again.
    Later,
}

impl Disk {
    /// Opens or makes the file; `new` tells what a file says that was just made.
    pub(crate) fn open(path: &Path, cache_bytes: usize, new: &Meta) -> Result<Self, CatalogError> {
        let fresh = !path.exists();
        let database = guarded(path, || redb::Builder::new().set_cache_size(cache_bytes).create(path))?;
        let disk = Self { path: Some(path.to_owned()), ..Self::start(path, database, new)? };
        if fresh {
            // FENCING: the file's name is durable before anything in it is acknowledged.
            let folder =
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| {
                unavailable(format!("the folder {} can't be synced: {error}", folder.display()))
            })?;
        }
        Ok(disk)
    }

    /// As `open`, on something else than a file.
    pub(crate) fn on_backend(
        backend: impl StorageBackend,
        cache_bytes: usize,
        new: &Meta,
    ) -> Result<Self, CatalogError> {
        let path = Path::new("(no file)");
        let database =
            guarded(path, || redb::Builder::new().set_cache_size(cache_bytes).create_with_backend(backend))?;
        Self::start(path, database, new)
    }

    fn start(path: &Path, database: Database, new: &Meta) -> Result<Self, CatalogError> {
        let position = guarded(path, || Ok(Tables::ensure(&database, new)))??;
        Ok(Self { database, path: None, tip: watch::Sender::new(Ok(position)) })
    }

    /// How far it is; an error once it failed or was closed.
    pub(crate) fn tip(&self) -> Tip {
        self.tip.borrow().clone()
    }

    /// Follows `tip`.
    pub(crate) fn watch(&self) -> watch::Receiver<Tip> {
        self.tip.subscribe()
    }

    /// From here on it answers with `reason` only.
    pub(crate) fn close(&self, reason: &CatalogError) {
        self.tip.send_if_modified(|tip| {
            let open = tip.is_ok();
            if open {
                *tip = Err(reason.clone());
            }
            open
        });
    }

    /// Runs `work` in a transaction and commits what it wrote.
    ///
    /// # Errors
    /// Those of `work`: nothing was done. `Unclear` when the commit itself fails: it may be there after the next
    /// opening, and this file is closed.
    pub(crate) fn write<T>(
        &self,
        persist: Persist,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        self.tip()?;
        let mut transaction = self.database.begin_write().map_err(storage)?;
        transaction.set_quick_repair(persist == Persist::SyncedForQuickOpen);
        transaction
            .set_durability(if persist == Persist::Later { Durability::None } else { Durability::Immediate })
            .map_err(storage)?;
        let mut tables = Tables::open(&transaction)?;
        let before = tables.meta.position();
        let answer = work(&mut tables)?;
        let after = tables.meta.position();
        if !tables.finish()? {
            transaction.abort().map_err(storage)?;
            return Ok(answer);
        }
        // FENCING: only what is synced is seen by readers, and only then is it acknowledged.
        transaction.commit().map_err(|error| {
            let reason =
                format!("the catalog's file could not be written: {error}; reopen it once its disk is well");
            self.close(&unavailable(reason.clone()));
            CatalogError::Unclear { reason }
        })?;
        if after != before {
            self.tip.send_if_modified(|tip| {
                let open = tip.is_ok();
                if open {
                    *tip = Ok(after);
                }
                open
            });
        }
        Ok(answer)
    }

    /// The newest view.
    pub(crate) fn view(&self) -> Result<DiskView, CatalogError> {
        self.tip()?;
        DiskView::open(&self.database.begin_read().map_err(storage)?)
    }

    /// What the file says of itself.
    pub(crate) fn meta(&self) -> Result<Meta, CatalogError> {
        Meta::read(&self.database.begin_read().map_err(storage)?)
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> Result<u64, CatalogError> {
        let Some(path) = &self.path else { return Ok(0) };
        let facts = std::fs::metadata(path);
        facts
            .map(|facts| facts.len())
            .map_err(|error| unavailable(format!("the length of {} is not known: {error}", path.display())))
    }

    /// Forgets log entries up to `keep`.
    pub(crate) fn compact_log(&self, keep: Position) -> Result<(), CatalogError> {
        while !self.write(Persist::Synced, |tables| tables.compact_log(keep))? {}
        Ok(())
    }

    /// A feed from the log.
    pub(crate) fn feed(self: &Arc<Self>, after: Position) -> Result<FeedStart, CatalogError> {
        let meta = self.meta()?;
        let fits =
            after.incarnation == meta.incarnation && (meta.floor..=meta.revision).contains(&after.revision);
        if fits {
            Ok(FeedStart::From(follow(self, after)))
        } else {
            Ok(FeedStart::Compacted { oldest: meta.oldest() })
        }
    }
}

/// redb answers some damage by a panic: that is an error here.
fn guarded<T>(path: &Path, open: impl FnOnce() -> Result<T, redb::DatabaseError>) -> Result<T, CatalogError> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(error::opening(path, error)),
        Err(_) => Err(corrupt(format!("{} is damaged; restore it, or start from the peer", path.display()))),
    }
}
