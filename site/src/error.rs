//! What a loop can fail with; it is logged where the loop handles it, and the loop goes on.

use diptych_catalog::CatalogError;
use diptych_core::ids::ExtentId;
use diptych_core::placement::PlaceError;
use diptych_core::records::RecordError;
use diptych_wire::client::CallError;
use thiserror::Error;

/// Why a step of a loop was not done.
#[derive(Debug, Error)]
pub enum SiteError {
    /// The catalog did not do as asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A value of the catalog does not read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An agent did not do as asked.
    #[error(transparent)]
    Agent(#[from] CallError),
    /// Rows have nowhere to go.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// No such node, or none that answers.
    #[error("node {0} is not known to this site")]
    UnknownNode(String),
    /// Fewer rows than are needed are left in this site.
    #[error("extent {extent}: {present} rows are left in this site and {needed} are needed")]
    TooFewRows {
        /// The extent.
        extent: ExtentId,
        /// Rows that are left.
        present: usize,
        /// Rows that are needed.
        needed: u8,
    },
}
