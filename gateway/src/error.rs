//! What a request can fail with: one type for both fronts, each error with its code, its status and what to do.

use diptych_catalog::CatalogError;
use diptych_core::ids::{ExtentId, VersionId};
use http::StatusCode;
use thiserror::Error;

/// The answer to a request that was not done, or not known to be done.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum GatewayError {
    /// No such bucket for this caller.
    #[error("there is no bucket {0:?}")]
    NoSuchBucket(String),
    /// No such object.
    #[error("there is no object {key:?} in bucket {bucket:?}")]
    NoSuchKey {
        /// Name of the bucket.
        bucket: String,
        /// The object's key.
        key: String,
    },
    /// No such version of the object, or none any more.
    #[error("there is no version {version} of {key:?}: a listing of versions shows which there are")]
    NoSuchVersion {
        /// The object's key.
        key: String,
        /// The version's id.
        version: String,
    },
    /// The version says that the object was deleted.
    #[error("{key:?} was deleted: its version {version:?} is a delete marker")]
    DeleteMarker {
        /// The object's key.
        key: String,
        /// The marker's id.
        version: String,
        /// The request names it; if not, it asks for the newest version.
        is_named: bool,
    },
    /// The upload was completed, aborted or never begun.
    #[error("there is no upload {0}: it was completed, aborted or never begun")]
    NoSuchUpload(String),
    /// Nothing of that name is kept beside the head of the key.
    #[error("{key:?} has no conflict version {version}: it was restored or discarded, or never was one")]
    NoSuchConflict {
        /// The object's key.
        key: String,
        /// The version.
        version: VersionId,
    },
    /// A conflict version whose bytes have not come back.
    #[error(
        "bytes of conflict version {0} are not in this site: it can be restored when the other site has returned, or discarded"
    )]
    ConflictLacksBytes(VersionId),
    /// Nobody asked for the version to be retained.
    #[error("{0:?} has no retention: it may be deleted and replaced at any time")]
    NoRetention(String),
    /// Deletes of buckets are only for empty ones.
    #[error(
        "bucket {0:?} is not empty: delete its objects, abort its uploads and settle its conflict versions first"
    )]
    BucketNotEmpty(String),
    /// It is the caller's already.
    #[error("bucket {0:?} exists already and is yours")]
    BucketExists(String),
    /// It belongs to another namespace.
    #[error("bucket {0:?} belongs to another namespace")]
    BucketTaken(String),
    /// A file that should be new exists.
    #[error("{0:?} exists already: PUT replaces it")]
    Exists(String),
    /// The caller may not do this.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// The version stays until a time that was said with it.
    #[error(
        "access denied: {key:?} is retained until {until}; before that it is neither deleted nor replaced"
    )]
    Retained {
        /// The object's key.
        key: String,
        /// As RFC 3339 writes it.
        until: String,
    },
    /// No credentials, or wrong ones.
    #[error("a valid bearer token is needed: {0}")]
    Unauthorized(String),
    /// Longer than S3 allows.
    #[error("the key has {0} bytes, 1,024 are allowed")]
    KeyTooLong(usize),
    /// A parameter that can't be.
    #[error("{0}")]
    InvalidArgument(String),
    /// A request that does not go with those before it.
    #[error("{0}")]
    InvalidRequest(String),
    /// Tags that can't be.
    #[error("{0}; nothing was stored")]
    InvalidTag(String),
    /// A part that a completion names is missing or differs.
    #[error("part {0} of the completion was not uploaded or has another etag or checksum")]
    InvalidPart(u16),
    /// Parts must be named in ascending order.
    #[error("the parts of a completion must be in ascending order")]
    InvalidPartOrder,
    /// All parts but the last need 5 MiB.
    #[error("part {part} has {size} bytes; all parts but the last need at least 5 MiB")]
    PartTooSmall {
        /// Its number.
        part: u16,
        /// Its bytes.
        size: u64,
    },
    /// Larger than can be stored.
    #[error("{0} bytes are too many; 5 TiB an object and 5 GiB a request are allowed")]
    TooLarge(u64),
    /// The bytes are not those that the client announced.
    #[error("{what} of the bytes is {found}, the request says {announced}; nothing was stored")]
    BadDigest {
        /// Name of the checksum.
        what: &'static str,
        /// As computed.
        found: String,
        /// As announced.
        announced: String,
    },
    /// A checksum header that can't be read.
    #[error("{0} can't be read as a checksum")]
    InvalidDigest(&'static str),
    /// The body ended early.
    #[error("the body ended after {found} bytes, {announced} were announced; nothing was stored")]
    IncompleteBody {
        /// Bytes that came.
        found: u64,
        /// Bytes that were announced.
        announced: u64,
    },
    /// The body could not be read to its end.
    #[error("the body could not be read: {0}; nothing was stored")]
    BrokenBody(String),
    /// No byte came for too long.
    #[error("no byte of the body came for {0} s; nothing was stored")]
    SlowBody(u64),
    /// Nothing of the object lies in the range.
    #[error("the range is outside of the object's {0} bytes")]
    InvalidRange(u64),
    /// `If-Match` and its kin.
    #[error("the object is not in the state that the request asks for ({0})")]
    PreconditionFailed(&'static str),
    /// `If-None-Match`, `If-Modified-Since` on reads.
    #[error("the object was not modified")]
    NotModified,
    /// Another completion of the same upload runs.
    #[error("another completion of this upload is under way")]
    CompletionUnderWay,
    /// This gateway's site is not active, or its time ran out.
    #[error("this site may not write now ({0}); nothing was done, try again")]
    NotActive(String),
    /// `BothSites`: the newest version of the object lies in one site only.
    #[error(
        "the newest version of this object is not in the other site yet, and a failover could take it back: nothing was sent, try again"
    )]
    Unsettled,
    /// It may have been done.
    #[error("the outcome is unknown ({0}): read to know, or send it again")]
    OutcomeUnknown(String),
    /// Fewer rows than are needed to decode.
    #[error("extent {extent}: {needed} rows are needed and {} can be read (rows {}); {unreadable}; nothing was sent", present.len(), numbers(present))]
    InsufficientFragments {
        /// The extent.
        extent: ExtentId,
        /// Rows that are needed.
        needed: u8,
        /// Rows that can be read.
        present: Vec<u8>,
        /// Row by row, where it should be and what is wrong with it.
        unreadable: String,
    },
    /// Too few rows became durable.
    #[error(
        "only {durable} of {wanted} rows became durable, too few for what was declared ({reason}); nothing was stored, try again"
    )]
    NotDurable {
        /// Rows that became durable.
        durable: usize,
        /// Rows that were made.
        wanted: usize,
        /// What they would not survive.
        reason: String,
    },
    /// Too much is under way.
    #[error("too many requests are under way ({0}); nothing was done, try again")]
    Busy(&'static str),
    /// The catalog can't be used.
    #[error("{0}")]
    Catalog(String),
    /// Something stored does not read as it should.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// A plan, map or key is missing: the site is not set up, or not yet.
    #[error("this gateway is not ready: {0}")]
    NotReady(String),
    /// The client asked for something that is not built.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// A defect.
    #[error("internal error: {0}")]
    Internal(String),
}

fn numbers(rows: &[u8]) -> String {
    let list: Vec<String> = rows.iter().map(u8::to_string).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

/// Result of the object layer.
pub type Result<T, E = GatewayError> = std::result::Result<T, E>;

impl GatewayError {
    /// The code, as S3 spells it where it knows such an error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchBucket(_) => "NoSuchBucket",
            Self::NoSuchKey { .. } | Self::DeleteMarker { is_named: false, .. } => "NoSuchKey",
            Self::NoSuchVersion { .. } | Self::NoSuchConflict { .. } => "NoSuchVersion",
            Self::DeleteMarker { is_named: true, .. } => "MethodNotAllowed",
            Self::NoRetention(_) => "NoSuchObjectLockConfiguration",
            Self::InvalidTag(_) => "InvalidTag",
            Self::NoSuchUpload(_) => "NoSuchUpload",
            Self::ConflictLacksBytes(_) => "ConflictLacksBytes",
            Self::BucketNotEmpty(_) => "BucketNotEmpty",
            Self::BucketExists(_) => "BucketAlreadyOwnedByYou",
            Self::BucketTaken(_) => "BucketAlreadyExists",
            Self::Exists(_) => "AlreadyExists",
            Self::AccessDenied(_) | Self::Retained { .. } => "AccessDenied",
            Self::Unauthorized(_) => "Unauthorized",
            Self::KeyTooLong(_) => "KeyTooLongError",
            Self::InvalidArgument(_) => "InvalidArgument",
            Self::InvalidRequest(_) => "InvalidRequest",
            Self::InvalidPart(_) => "InvalidPart",
            Self::InvalidPartOrder => "InvalidPartOrder",
            Self::PartTooSmall { .. } => "EntityTooSmall",
            Self::TooLarge(_) => "EntityTooLarge",
            Self::BadDigest { .. } => "BadDigest",
            Self::InvalidDigest(_) => "InvalidDigest",
            Self::IncompleteBody { .. } | Self::BrokenBody(_) => "IncompleteBody",
            Self::SlowBody(_) => "RequestTimeout",
            Self::InvalidRange(_) => "InvalidRange",
            Self::PreconditionFailed(_) => "PreconditionFailed",
            Self::NotModified => "NotModified",
            Self::CompletionUnderWay => "OperationAborted",
            Self::NotActive(_) | Self::Busy(_) | Self::Unsettled => "SlowDown",
            Self::OutcomeUnknown(_) => "OutcomeUnknown",
            Self::InsufficientFragments { .. } => "InsufficientFragments",
            Self::NotDurable { .. } => "NotDurable",
            Self::Catalog(_) | Self::NotReady(_) => "ServiceUnavailable",
            Self::Unsupported(_) => "NotImplemented",
            Self::Corrupt(_) | Self::Internal(_) => "InternalError",
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchBucket(_)
            | Self::NoSuchKey { .. }
            | Self::NoSuchVersion { .. }
            | Self::NoSuchConflict { .. }
            | Self::NoRetention(_)
            | Self::DeleteMarker { is_named: false, .. }
            | Self::NoSuchUpload(_) => StatusCode::NOT_FOUND,
            Self::DeleteMarker { is_named: true, .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BucketNotEmpty(_)
            | Self::BucketExists(_)
            | Self::BucketTaken(_)
            | Self::Exists(_)
            | Self::ConflictLacksBytes(_)
            | Self::CompletionUnderWay => StatusCode::CONFLICT,
            Self::AccessDenied(_) | Self::Retained { .. } => StatusCode::FORBIDDEN,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::KeyTooLong(_)
            | Self::InvalidArgument(_)
            | Self::InvalidRequest(_)
            | Self::InvalidTag(_)
            | Self::InvalidPart(_)
            | Self::InvalidPartOrder
            | Self::PartTooSmall { .. }
            | Self::TooLarge(_)
            | Self::BadDigest { .. }
            | Self::InvalidDigest(_)
            | Self::IncompleteBody { .. }
            | Self::BrokenBody(_) => StatusCode::BAD_REQUEST,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::InvalidRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::NotActive(_)
            | Self::Busy(_)
            | Self::Unsettled
            | Self::OutcomeUnknown(_)
            | Self::InsufficientFragments { .. }
            | Self::NotDurable { .. }
            | Self::Catalog(_)
            | Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Corrupt(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Seconds after which it is worth trying again.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::NotActive(_)
            | Self::Busy(_)
            | Self::Unsettled
            | Self::OutcomeUnknown(_)
            | Self::NotReady(_) => Some(1),
            Self::NotDurable { .. } | Self::Catalog(_) => Some(2),
            Self::InsufficientFragments { .. } => Some(10),
            _ => None,
        }
    }
}

impl From<CatalogError> for GatewayError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::GateClosed { .. } => Self::NotActive(error.to_string()),
            CatalogError::Unclear { reason } => Self::OutcomeUnknown(reason),
            CatalogError::Corrupt { reason } => Self::Corrupt(reason),
            other @ (CatalogError::TooLarge { .. } | CatalogError::KeyTwice { .. }) => {
                Self::Internal(other.to_string())
            }
            other @ CatalogError::Unavailable { .. } => Self::Catalog(other.to_string()),
        }
    }
}

impl From<diptych_core::records::RecordError> for GatewayError {
    fn from(error: diptych_core::records::RecordError) -> Self {
        Self::Corrupt(error.to_string())
    }
}
