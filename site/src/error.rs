//! What a loop can fail with; it is logged where the loop handles it, and the loop goes on.

use diptych_catalog::CatalogError;
use diptych_core::erasure::ErasureError;
use diptych_core::ids::ExtentId;
use diptych_core::journal::DocumentError;
use diptych_core::keyring::KeyringError;
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
    /// A journal or checkpoint can't be sealed or opened.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Bytes can't be coded.
    #[error(transparent)]
    Coding(#[from] ErasureError),
    /// What every site gets in its first moments is not there.
    #[error("the catalog has no {0} yet")]
    NothingYet(&'static str),
    /// What was to be changed is another by now.
    #[error("the catalog was changed under way: it is looked at again")]
    Changed,
    /// The process ends.
    #[error("the process stops")]
    Stopped,
    /// Too few rows became durable.
    #[error("extent {extent} is not durable: {reason}")]
    NotDurable {
        /// The extent.
        extent: ExtentId,
        /// What is missing.
        reason: String,
    },
    /// Rows with right checksums give other bytes than they were made of.
    #[error("extent {extent} has other bytes than its record says, whichever rows are taken")]
    WrongExtent {
        /// The extent.
        extent: ExtentId,
    },
    /// No such node, or none that answers.
    #[error("node {0} is not known to this site")]
    UnknownNode(String),
    /// It comes about by itself.
    #[error("not yet: {0}")]
    NotYet(&'static str),
    /// A token that the catalog does not know, or not yet.
    #[error(
        "token {0} is no outside node's of this cluster yet, or no longer: declare the node, and take the token that is made for it"
    )]
    UnknownToken(String),
    /// The cluster's authority can't be opened, or does not sign.
    #[error("the cluster's authority can't sign: {0}")]
    Signing(String),
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

impl From<KeyringError> for SiteError {
    fn from(error: KeyringError) -> Self {
        Self::Document(error.into())
    }
}
