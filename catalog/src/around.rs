//! A catalog with something between it and who uses it. Tests delay, refuse, lose and spoil what passes.

use std::sync::Arc;

use async_trait::async_trait;
use diptych_core::ids::SiteName;
use diptych_core::records::Position;

use crate::{Batch, Catalog, CatalogError, Committed, FeedStart, Room, View};

/// What stands around another catalog, and is one: where it does not say otherwise everything passes.
#[async_trait]
pub trait Around: Send + Sync + 'static {
    /// The other one.
    fn inner(&self) -> &Arc<dyn Catalog>;

    /// [`Catalog::commit`].
    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        self.inner().commit(batch).await
    }

    /// [`Catalog::room`].
    async fn room(&self) -> Result<Room, CatalogError> {
        self.inner().room().await
    }
}

#[async_trait]
impl<A: Around> Catalog for A {
    fn site(&self) -> &SiteName {
        self.inner().site()
    }

    async fn position(&self) -> Result<Position, CatalogError> {
        self.inner().position().await
    }

    async fn view(&self) -> Result<Box<dyn View>, CatalogError> {
        self.inner().view().await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        Around::commit(self, batch).await
    }

    async fn feed(&self, after: Position) -> Result<FeedStart, CatalogError> {
        self.inner().feed(after).await
    }

    async fn compact_feed(&self, keep: Position) -> Result<(), CatalogError> {
        self.inner().compact_feed(keep).await
    }

    async fn room(&self) -> Result<Room, CatalogError> {
        Around::room(self).await
    }
}
