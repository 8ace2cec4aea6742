//! Where fragments are found: the folders of devices that nobody has open, or agents that run.

use async_trait::async_trait;
use bytes::Bytes;
use diptych_core::ids::{Epoch, SiteName};
use diptych_core::records::{ExtentKind, PlacedRow};
use diptych_wire::agent::ExtentFacts;
use futures::stream::BoxStream;

/// Where a source finds a record again: which of its files, and where in it. Sources that need neither leave it at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Number of a segment.
    pub segment: u64,
    /// Where in it the record begins, in bytes.
    pub offset: u64,
}

/// A whole record of a row, and what it says of its extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Site of the device.
    pub site: SiteName,
    /// Of the extent.
    pub facts: ExtentFacts,
    /// Which row, where, which record.
    pub placed: PlacedRow,
    /// For the source.
    pub place: Place,
}

/// Fragments of one cluster.
#[async_trait]
pub trait Fragments: Send + Sync {
    /// The sealed keyrings of all devices that have one.
    async fn keyrings(&self) -> Vec<Vec<u8>>;

    /// The highest epoch that any device has heard.
    async fn highest_epoch(&self) -> Epoch;

    /// Records of extents of a kind, in any order, those that were deleted or never finished left out. An error is about a
    /// device or a part of it, and what else there is follows.
    fn records(&self, kind: ExtentKind) -> BoxStream<'_, Result<Fragment, String>>;

    /// All bytes of a row, each block checked; or why they do not read.
    async fn read(&self, fragment: &Fragment) -> Result<Bytes, String>;
}
