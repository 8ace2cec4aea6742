//! The feed: every commit in order, but for what a site keeps to itself.

use bytes::Bytes;
use diptych_core::keys::Key;
use diptych_core::records::Position;
use futures::stream::BoxStream;

use crate::CatalogError;

/// What one commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// Position of the commit.
    pub position: Position,
    /// Keys with their new values; None: deleted. Keys of `Owner::Private` are left out; an entry may be empty.
    pub changes: Vec<(Key, Option<Bytes>)>,
}

/// Entries as they are committed; it never ends by itself.
pub type Feed = BoxStream<'static, Result<FeedEntry, CatalogError>>;

/// Whether a feed can begin where it was asked to.
pub enum FeedStart {
    /// It can.
    From(Feed),
    /// What comes next was compacted, or the catalog is another incarnation: a snapshot is needed first.
    Compacted {
        /// Oldest position from which a feed can begin.
        oldest: Position,
    },
}
