//! What a version's bytes lie in, and the marks that say that nothing names them any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_core::ids::{BucketId, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::records::{Blob, Content, DeadMark, Record, ReferencePage};

use crate::{CatalogError, View, Write};

/// One mark for each extent that a blob has bytes in.
pub fn dead_marks(blobs: &[Blob]) -> Vec<Write> {
    let mut marks: BTreeMap<Key, u64> = BTreeMap::new();
    for blob in blobs {
        for piece in &blob.pieces {
            *marks.entry(keys::dead_mark(piece.extent, blob.id)).or_default() += u64::from(piece.sealed);
        }
    }
    marks
        .into_iter()
        .map(|(key, sealed)| Write::Put(key, Bytes::from(DeadMark { sealed }.encode())))
        .collect()
}

/// All blobs of an object, those of its pages included.
///
/// # Errors
/// `Corrupt` where a page is missing or does not read.
pub fn blobs_of(
    view: &dyn View,
    bucket: BucketId,
    version: VersionId,
    content: &Content,
) -> Result<Vec<Blob>, CatalogError> {
    let pages = match content {
        Content::Inline(blobs) => return Ok(blobs.clone()),
        Content::Paged { pages } => *pages,
    };
    let corrupt = |reason: String| CatalogError::Corrupt { reason };
    let mut blobs: Vec<Blob> = Vec::new();
    for page in 0..pages {
        let raw = view.get(&keys::reference_page(bucket, version, page))?;
        let raw = raw.ok_or_else(|| corrupt(format!("page {page} of version {version} is missing")))?;
        let record = ReferencePage::decode(&raw).map_err(|error| corrupt(error.to_string()))?;
        for mut blob in record.blobs {
            match blobs.last_mut() {
                Some(last) if last.id == blob.id => last.pieces.append(&mut blob.pieces),
                _ => blobs.push(blob),
            }
        }
    }
    Ok(blobs)
}
