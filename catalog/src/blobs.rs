//! What a version's bytes lie in, whether a site has them, and the marks that say that nothing names them any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_core::ids::{BucketId, SiteName, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Blob, Content, DeadMark, Extent, ExtentState, Head, HeadBody, Record, ReferencePage,
};

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

/// Takes the dead marks off the bytes of a version that becomes head again; those that are there.
///
/// FENCING: they go before it is head, or in the same change: a mark on a blob that is named would let its bytes be freed. If they
/// go and it does not become head, the collector writes them again when the version goes.
///
/// # Errors
/// As [`blobs_of`].
pub fn lifted_marks(view: &dyn View, bucket: BucketId, version: &Head) -> Result<Vec<Write>, CatalogError> {
    let HeadBody::Object(object) = &version.body else { return Ok(Vec::new()) };
    let blobs = blobs_of(view, bucket, version.at.version, &object.content)?;
    let mut lifted = Vec::new();
    for mark in dead_marks(&blobs) {
        if view.get(mark.key())?.is_some() {
            lifted.push(Write::Delete(mark.key().clone()));
        }
    }
    Ok(lifted)
}

/// Whether every byte of a version is in a site, and none of it may be freed. A delete has none.
///
/// # Errors
/// As [`blobs_of`].
pub fn is_whole(
    view: &dyn View,
    site: &SiteName,
    bucket: BucketId,
    version: &Head,
) -> Result<bool, CatalogError> {
    let HeadBody::Object(object) = &version.body else { return Ok(true) };
    let blobs = blobs_of(view, bucket, version.at.version, &object.content)?;
    for piece in blobs.iter().flat_map(|blob| &blob.pieces) {
        let record = view.get(&keys::extent(piece.extent))?.map(|raw| Extent::decode(&raw)).transpose();
        let record = record.map_err(|error| CatalogError::Corrupt { reason: error.to_string() })?;
        let lives = record.is_some_and(|record| match record.state {
            // A version may have been switched to it, and it is freed as little.
            ExtentState::Live | ExtentState::Compacting(_) => true,
            ExtentState::Open(_) | ExtentState::Condemned => false,
        });
        let here = view.get(&keys::placement(site, piece.extent))?.is_some();
        if !lives || !here || view.get(&keys::wanted(site, piece.extent))?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
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
