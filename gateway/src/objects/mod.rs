//! The object layer: buckets, objects, uploads. Both fronts call it and nothing else.

mod acknowledge;
mod amend;
mod buckets;
mod complete;
mod conditions;
mod conflicts;
mod copy;
mod delete;
mod discard;
mod get;
mod ledger;
mod list;
mod multipart;
mod part_sums;
mod put;
pub(crate) mod retention;
mod tags;
mod types;
mod uploads;
mod verify;
pub(crate) mod versions;

use std::sync::Arc;

use crate::context::Context;
use crate::write::Batches;

pub(crate) use acknowledge::{Acknowledged, Committed, WrittenVersion, acknowledge, confirm};
pub use buckets::{BucketDocument, PromiseChange, WantedTimeout};
pub use complete::{CompletePart, Completion};
pub use conditions::{Condition, ReadConditions, TagList};
pub use conflicts::{ConflictVersion, ConflictsPage};
pub use copy::{CopyPart, CopyRequest};
pub use delete::{Deleted, ToDelete};
pub(crate) use get::extents_of;
pub use get::{Download, Wanted};
pub use ledger::{LedgerLine, LedgerPage};
pub use list::{ListRequest, Listed, Listing};
pub use put::{LateSums, PutRequest, Stored};
pub(crate) use put::{NewObject, turn};
pub use types::{
    MAX_KEY_BYTES, MAX_OBJECT_BYTES, MAX_REQUEST_BYTES, ObjectInfo, Receipt, SiteRows, Target, etag_text,
};
pub use uploads::{PartsPage, StoredPart, UploadSummary, UploadsPage, UploadsRequest};
pub use versions::{ListedVersion, VersionListing, VersionName, VersionsRequest};

/// The object layer of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    context: Arc<Context>,
    batches: Batches,
}

impl Objects {
    /// On a context. Must be made inside a tokio runtime: it keeps a task that gathers small objects.
    pub fn new(context: Arc<Context>) -> Self {
        let batches = Batches::start(context.clone());
        Self { context, batches }
    }

    /// What it works on.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }
}
