//! Which versions name the blobs that lie in some extents.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::View;
use diptych_core::ids::{BlobId, ExtentId};
use diptych_core::keys::{self, Key};
use diptych_core::records::{Blob, Content, Head, HeadBody, Part, Piece, Record, ReferencePage};

use crate::error::SiteError;
use crate::survey::each;

/// A live blob that may be copied: one version names it, and nothing else does.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) blob: BlobId,
    /// Where it lies.
    pub(super) piece: Piece,
    /// The version's key, under `h/`, `v/` or `c/`, and what it says.
    pub(super) version: (Key, Bytes),
}

#[derive(Default)]
struct Names {
    found: Vec<Named>,
    /// How many pieces of a blob were found, in whatever names it.
    times: BTreeMap<BlobId, usize>,
    /// Named by what is not switched: parts of uploads, and pages, of which an object has thousands.
    stays: BTreeSet<BlobId>,
}

/// What may be copied out of `extents`.
///
/// A blob that several versions name stays where it is, as does what only a version names that is on its way to the collector.
pub(super) fn movable(view: &dyn View, extents: &BTreeSet<ExtentId>) -> Result<Vec<Named>, SiteError> {
    let mut names = Names::default();
    for family in [b"h/", b"v/", b"c/"] {
        each(view, &keys::prefix_range(family), |key, value| {
            let head = Head::decode(value)?;
            // What was replaced and is not kept for readers.
            let goes = key.0.starts_with(b"v/") && !head.is_kept();
            if let HeadBody::Object(object) = &head.body
                && let Content::Inline(blobs) = &object.content
            {
                names.take(blobs, extents, (!goes).then_some((key, value)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    each(view, &keys::prefix_range(b"p/"), |_, value| {
        names.take(&ReferencePage::decode(value)?.blobs, extents, None);
        Ok(ControlFlow::Continue(()))
    })?;
    each(view, &keys::prefix_range(b"u/"), |key, value| {
        if let Some((_, _, Some(_))) = keys::upload_of(key) {
            names.take(&[Part::decode(value)?.blob], extents, None);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let Names { mut found, times, stays } = names;
    found.retain(|named| times.get(&named.blob) == Some(&1) && !stays.contains(&named.blob));
    let mut live = Vec::with_capacity(found.len());
    for named in found {
        if view.get(&keys::dead_mark(named.piece.extent, named.blob))?.is_none() {
            live.push(named);
        }
    }
    Ok(live)
}

impl Names {
    /// `by`: the version that names them; None: something that is not switched.
    fn take(&mut self, blobs: &[Blob], extents: &BTreeSet<ExtentId>, by: Option<(&Key, &Bytes)>) {
        for blob in blobs {
            for piece in blob.pieces.iter().filter(|piece| extents.contains(&piece.extent)) {
                *self.times.entry(blob.id).or_default() += 1;
                match by {
                    Some((key, value)) => {
                        let version = (key.clone(), value.clone());
                        self.found.push(Named { blob: blob.id, piece: *piece, version });
                    }
                    None => drop(self.stays.insert(blob.id)),
                }
            }
        }
    }
}
