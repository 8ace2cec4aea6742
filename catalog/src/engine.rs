//! The contract that every engine keeps.

use std::time::Duration;

use async_trait::async_trait;
use diptych_core::ids::{Epoch, SiteName};
use diptych_core::records::{Gate, Position};
use thiserror::Error;

use crate::{Batch, Committed, FeedStart, View};

/// The catalog of one site.
///
/// All of it but [`Catalog::recent_view`] and [`Catalog::view_from`] is linearizable: a view shows every commit that was answered before the view was
/// asked for, by whichever process of the site.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The site whose catalog this is.
    fn site(&self) -> &SiteName;

    /// The newest position, confirmed after the call came.
    async fn position(&self) -> Result<Position, CatalogError>;

    /// A view at a position that was confirmed after the call came.
    async fn view(&self) -> Result<Box<dyn View>, CatalogError>;

    /// A view that shows every commit that was answered longer than `within` ago, and maybe newer ones: spares a round to a
    /// majority for what may be known so late.
    async fn recent_view(&self, within: Duration) -> Result<Box<dyn View>, CatalogError> {
        let _ = within;
        self.view().await
    }

    /// A view that shows every commit up to `position`, and maybe newer ones: spares a round to a majority to who knows what to
    /// build on, and guards what others may have changed since.
    async fn view_from(&self, position: Position) -> Result<Box<dyn View>, CatalogError> {
        let _ = position;
        self.view().await
    }

    /// Commits a batch: durable when it answers.
    ///
    /// # Errors
    /// `GateClosed` and `TooLarge`: nothing was done. `Unclear`: it may have been done; read to know.
    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError>;

    /// Every commit after `after`.
    async fn feed(&self, after: Position) -> Result<FeedStart, CatalogError>;

    /// Forgets feed entries below `keep`; a follower that is further behind needs a snapshot.
    async fn compact_feed(&self, keep: Position) -> Result<(), CatalogError>;

    /// What the catalog takes, its feed too, and what it may take.
    async fn room(&self) -> Result<Room, CatalogError>;
}

/// How full a catalog is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes in use: without what compaction has freed, where the engine tells these apart.
    pub used: u64,
    /// Bytes past which it refuses every write; None: as much as its disk has.
    pub limit: Option<u64>,
}

/// Why the catalog did not do as it was asked.
#[derive(Debug, Clone, Error)]
pub enum CatalogError {
    /// This site may not commit under that epoch; nothing was done.
    #[error("the gate is {found:?}, the commit is of epoch {epoch}: this site is no longer active under it")]
    GateClosed {
        /// Epoch of the batch.
        epoch: Epoch,
        /// What the gate says.
        found: Gate,
    },
    /// The batch is over a limit (`Limits`); nothing was done.
    #[error(
        "the batch has {changes} changes and {bytes} bytes: more than is taken at once (under an epoch 64 and 1 MiB)"
    )]
    TooLarge {
        /// Changes in it.
        changes: usize,
        /// Bytes of keys and values in it.
        bytes: usize,
    },
    /// A key that one change of a batch writes stands in another one too (`Footprint`); nothing was done.
    #[error(
        "a batch changes {key} twice, or one change guards what another writes: commit them one after the other"
    )]
    KeyTwice {
        /// The key, escaped.
        key: String,
    },
    /// The answer did not come: it may have been done, and may even be done after a read that does not show it yet. Only
    /// a commit whose guards can't hold beside it settles that.
    #[error("the catalog did not answer, the outcome is unknown: {reason}")]
    Unclear {
        /// What the engine said.
        reason: String,
    },
    /// The engine can't be used at all.
    #[error("the catalog is not available: {reason}")]
    Unavailable {
        /// What the engine said.
        reason: String,
    },
    /// A value that can't be read.
    #[error("the catalog holds a value that can't be read: {reason}")]
    Corrupt {
        /// Key and cause.
        reason: String,
    },
}
