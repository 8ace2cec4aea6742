//! What this site was told of and lacks, by object: what a promotion of it would lose.

use std::collections::BTreeMap;

use diptych_catalog::{View, blobs_of};
use diptych_core::ids::{BucketId, ExtentId, SiteName};
use diptych_core::keys::{self, Key};
use diptych_core::records::{Head, HeadBody, Record};
use serde::{Deserialize, Serialize};

use super::bucket_names;
use crate::error::SiteError;
use crate::peer::each_lacking;

/// Heads of a page of a scan.
const PAGE: usize = 1_000;
/// Heads that one call looks at, at most: where there are more, `next` says where to go on.
const LOOKED_AT: usize = 200_000;

/// An object whose newest version this site was told of, and whose bytes it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LackingObject {
    /// Name of its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// The version.
    pub version: String,
    /// Bytes of plaintext.
    pub size: u64,
    /// Bytes of ciphertext that are not here.
    pub lacking: u64,
    /// Milliseconds since 1970 when this site was told of the oldest of them.
    pub since_ms: u64,
}

/// Objects in the order of buckets and keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LackingPage {
    /// They.
    pub objects: Vec<LackingObject>,
    /// Where to go on; None: these are the last.
    pub next: Option<String>,
}

/// The extents of objects' bytes that a site was told of and lacks: milliseconds since 1970 when it was.
pub(super) struct Lacking(BTreeMap<ExtentId, u64>);

/// How much of a version is not here.
pub(super) struct Lack {
    /// Bytes of ciphertext.
    bytes: u64,
    since_ms: u64,
}

impl Lacking {
    pub(super) fn read(view: &dyn View, site: &SiteName) -> Result<Self, SiteError> {
        let mut extents = BTreeMap::new();
        each_lacking(view, site, |key, wanted| {
            extents.extend(keys::extent_of(key).map(|extent| (extent, wanted.since_ms)));
        })?;
        Ok(Self(extents))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// None: it is not lacking here.
    pub(super) fn of(
        &self,
        view: &dyn View,
        bucket: BucketId,
        head: &Head,
    ) -> Result<Option<Lack>, SiteError> {
        let HeadBody::Object(object) = &head.body else { return Ok(None) };
        let blobs = blobs_of(view, bucket, head.at.version, &object.content)?;
        let mut lack: Option<Lack> = None;
        for piece in blobs.iter().flat_map(|blob| &blob.pieces) {
            let Some(since_ms) = self.0.get(&piece.extent) else { continue };
            let known = lack.get_or_insert(Lack { bytes: 0, since_ms: *since_ms });
            known.bytes += u64::from(piece.sealed);
            known.since_ms = known.since_ms.min(*since_ms);
        }
        Ok(lack)
    }
}

/// Whether some of a version's bytes are on their way here still.
pub(super) fn is_lacking(
    view: &dyn View,
    site: &SiteName,
    bucket: BucketId,
    head: &Head,
) -> Result<bool, SiteError> {
    let HeadBody::Object(object) = &head.body else { return Ok(false) };
    for piece in
        blobs_of(view, bucket, head.at.version, &object.content)?.iter().flat_map(|blob| &blob.pieces)
    {
        if view.get(&keys::wanted(site, piece.extent))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Up to `limit` of them, from behind the one at which the last page ended. Where nothing is lacking nothing is looked at.
///
/// # Errors
/// A token that no page gave is none: the list begins at its place in the order.
pub fn lacking(
    view: &dyn View,
    site: &SiteName,
    after: Option<&str>,
    limit: usize,
) -> Result<LackingPage, SiteError> {
    let lacking = Lacking::read(view, site)?;
    let mut page = LackingPage::default();
    if lacking.is_empty() {
        return Ok(page);
    }
    let names = bucket_names(view)?;
    let mut range = keys::prefix_range(b"h/");
    if let Some(after) = after.and_then(|after| hex::decode(after).ok()) {
        range.start = range.start.max(Key(after));
    }
    let mut looked_at = 0;
    loop {
        let heads = view.scan(&range, PAGE)?;
        for (key, raw) in &heads.entries {
            looked_at += 1;
            if page.objects.len() == limit || looked_at > LOOKED_AT {
                page.next = Some(hex::encode(&key.0));
                return Ok(page);
            }
            let Some((bucket, object)) = keys::object_of_head(key) else { continue };
            let head = Head::decode(raw)?;
            if let Some(lack) = lacking.of(view, bucket, &head)? {
                let name = names.get(&bucket).cloned().unwrap_or_else(|| bucket.to_string());
                page.objects.push(described(name, &object, &head, &lack));
            }
        }
        match heads.next {
            Some(next) => range.start = next,
            None => return Ok(page),
        }
    }
}

fn described(bucket: String, object: &[u8], head: &Head, lack: &Lack) -> LackingObject {
    let size = match &head.body {
        HeadBody::Object(object) => object.size,
        HeadBody::Marker | HeadBody::Tombstone => 0,
    };
    LackingObject {
        bucket,
        key: String::from_utf8_lossy(object).into_owned(),
        version: head.at.version.to_string(),
        size,
        lacking: lack.bytes,
        since_ms: lack.since_ms,
    }
}
