//! What a journal or a part of a checkpoint says, as bytes: a format byte, then the document in postcard.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::chunk::ChunkError;
use crate::ids::{Epoch, SiteName};
use crate::keyring::KeyringError;
use crate::keys::Key;
use crate::records::{Holds, Position, Span};
use crate::tail::TailError;

const FORMAT: u8 = 1;

/// Why a document can't be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// The extent's tail does not read or open.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// A chunk does not seal or open.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The ring key is not there.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Written by a newer Diptych.
    #[error("the document has format {found}, this version reads {FORMAT}: start the version that wrote it")]
    NewerFormat {
        /// Its format.
        found: u8,
    },
    /// It opens, and contradicts itself.
    #[error("the document is no journal and no part of a checkpoint: {0}")]
    Malformed(String),
}

/// Who wrote a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The active site.
    pub site: SiteName,
    /// Its term.
    pub epoch: Epoch,
}

/// What a stretch of the feed changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Who wrote it.
    pub writer: Writer,
    /// Which stretch.
    pub span: Span,
    /// Keys with their newest values; None: deleted. In order.
    pub changes: Vec<(Key, Option<Vec<u8>>)>,
}

/// The keys of a checkpoint from one key on, up to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointPart {
    /// Who wrote it.
    pub writer: Writer,
    /// What the checkpoint shows.
    pub at: Position,
    /// First key that it could hold; the first of all is empty.
    pub from: Key,
    /// First key that it does not; None: it goes to the end.
    pub to: Option<Key>,
    /// In order.
    pub entries: Vec<(Key, Vec<u8>)>,
}

/// What one extent of kind journal or checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Document {
    /// Changes.
    Journal(Journal),
    /// A part of a checkpoint.
    Checkpoint(CheckpointPart),
}

impl Document {
    /// What the extent's record and heads say.
    pub const fn holds(&self) -> Holds {
        match self {
            Self::Journal(journal) => Holds::Journal(journal.span),
            Self::Checkpoint(part) => Holds::Checkpoint(part.at),
        }
    }

    /// Who wrote it.
    pub const fn writer(&self) -> &Writer {
        match self {
            Self::Journal(journal) => &journal.writer,
            Self::Checkpoint(part) => &part.writer,
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, DocumentError> {
        postcard::to_extend(self, vec![FORMAT]).map_err(|error| DocumentError::Malformed(error.to_string()))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let malformed = |reason: String| DocumentError::Malformed(reason);
        match bytes.split_first() {
            Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|error| malformed(error.to_string())),
            Some((&found, _)) => Err(DocumentError::NewerFormat { found }),
            None => Err(malformed("it is empty".to_owned())),
        }
    }
}
