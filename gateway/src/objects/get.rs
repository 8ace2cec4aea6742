//! Reading an object, or a range of it.

use std::ops::Range;

use super::conditions::ReadConditions;
use super::versions::{self, Found, version_id};
use super::{ObjectInfo, Objects, Target, etag_text};
use crate::error::{GatewayError, Result};
use crate::read::{BodyStream, open_stream};
use diptych_catalog::{View, blobs_of};
use diptych_core::ids::ExtentId;
use diptych_core::keys;
use diptych_core::records::{Blob, Bucket, HeadBody};

/// The bytes that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// From a byte on, up to and with another.
    From(u64, Option<u64>),
    /// The last so many.
    Last(u64),
}

impl Wanted {
    /// Reads a `Range` header. None: it is none that is understood, and so means all (RFC 9110, 14.2).
    pub fn parse(header: &str) -> Option<Self> {
        let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (first.trim(), last.trim());
        if first.is_empty() {
            return last.parse().ok().map(Self::Last);
        }
        let first = first.parse().ok()?;
        let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
        last.is_none_or(|last| last >= first).then_some(Self::From(first, last))
    }

    /// The range in an object of so many bytes.
    pub fn resolve(self, size: u64) -> Result<Range<u64>> {
        match self {
            Self::All => Ok(0..size),
            Self::From(first, last) if first < size => {
                Ok(first..last.map_or(size, |last| (last + 1).min(size)))
            }
            Self::Last(count) if count > 0 && size > 0 => Ok(size.saturating_sub(count)..size),
            Self::From(..) | Self::Last(_) => Err(GatewayError::InvalidRange(size)),
        }
    }
}

/// An object, and its bytes as they come.
pub struct Download {
    /// The object.
    pub info: ObjectInfo,
    /// Which of its bytes.
    pub range: Range<u64>,
    /// They are not all of it.
    pub partial: bool,
    /// The bytes.
    pub body: BodyStream,
}

impl Objects {
    /// Begins to read. Errors after that break the body off.
    pub async fn get(
        &self,
        namespace: &str,
        target: Target<'_>,
        wanted: Wanted,
        conditions: &ReadConditions,
    ) -> Result<Download> {
        let (info, blobs) = self.find(namespace, target).await?;
        conditions.check(&etag_text(&info.object.etag), info.object.modified_ms)?;
        let range = wanted.resolve(info.object.size)?;
        let body = open_stream(&self.context, &blobs, range.clone()).await?;
        let partial = wanted != Wanted::All;
        Ok(Download { info, range, partial, body })
    }

    /// The object that a client may be told of, and its blobs.
    pub(super) async fn find(&self, namespace: &str, target: Target<'_>) -> Result<(ObjectInfo, Vec<Blob>)> {
        super::types::check_key(target.key)?;
        let view = self.context.view_for_client().await?;
        let found = super::buckets::find(view.as_ref(), namespace, target.bucket)?;
        let seen = view.position();
        let named = describe(view.as_ref(), &found, target).and_then(|info| {
            let blobs = blobs_of(view.as_ref(), found.id, info.at.version, &info.object.content)?;
            Ok((info, blobs))
        });
        drop(view);
        if let Some(other) = self.context.settler(found.promise) {
            // That there is none may be as new as an object.
            let extents = named.as_ref().map_or_else(|_| Vec::new(), |(_, blobs)| extents(blobs));
            let head = keys::head(found.id, target.key.as_bytes());
            if !other.settled(&head, seen, &extents, found.promise.timeout()).await {
                return Err(GatewayError::Unsettled);
            }
        }
        named
    }
}

/// The object that a request names.
pub(super) fn describe(view: &dyn View, bucket: &Bucket, target: Target<'_>) -> Result<ObjectInfo> {
    let key = target.key.to_owned();
    let Some(Found { head, .. }) = versions::find(view, bucket.id, target.key, target.version)? else {
        return Err(match target.version {
            Some(version) => GatewayError::NoSuchVersion { key, version: version.to_string() },
            None => GatewayError::NoSuchKey { bucket: target.bucket.to_owned(), key },
        });
    };
    let version = version_id(bucket.versioning, head.kept, head.at);
    match head.body {
        HeadBody::Object(object) => {
            let (at, retained_until) = (head.at, head.retained_until);
            Ok(ObjectInfo { key, at, version, object: *object, retained_until })
        }
        HeadBody::Marker | HeadBody::Tombstone => {
            let version = version.unwrap_or_default();
            Err(GatewayError::DeleteMarker { key, version, is_named: target.version.is_some() })
        }
    }
}

pub(super) fn extents(blobs: &[Blob]) -> Vec<ExtentId> {
    blobs.iter().flat_map(|blob| &blob.pieces).map(|piece| piece.extent).collect()
}

/// Extents that an object's bytes lie in, in order.
pub(crate) fn extents_of(
    view: &dyn diptych_catalog::View,
    namespace: &str,
    bucket: &str,
    key: &str,
) -> Result<Vec<ExtentId>> {
    super::types::check_key(key)?;
    let found = super::buckets::find(view, namespace, bucket)?;
    let info = describe(view, &found, Target::newest(bucket, key))?;
    let blobs = blobs_of(view, found.id, info.at.version, &info.object.content)?;
    Ok(extents(&blobs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        assert_eq!(Wanted::parse("bytes=0-9"), Some(Wanted::From(0, Some(9))));
        assert_eq!(Wanted::parse("bytes=5-"), Some(Wanted::From(5, None)));
        assert_eq!(Wanted::parse("bytes=-3"), Some(Wanted::Last(3)));
        assert_eq!(Wanted::parse("bytes=9-3"), None);
        assert_eq!(Wanted::parse("lines=1-2"), None);
        assert_eq!(Wanted::From(5, Some(100)).resolve(10).expect("it overlaps"), 5..10);
        assert_eq!(Wanted::Last(100).resolve(10).expect("all of it"), 0..10);
        assert!(Wanted::From(10, None).resolve(10).is_err());
        assert!(Wanted::Last(0).resolve(10).is_err());
        assert_eq!(Wanted::All.resolve(0).expect("an empty object"), 0..0);
    }
}
