//! Versions of an object: named, found, listed. The newest is head (`h/`), the others lie under `v/`; each says itself whether it is
//! kept for readers (docs/adr/0013).

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, View, Write, blobs_of, dead_marks};
use diptych_core::ids::BucketId;
use diptych_core::keys::{self, Key};
use diptych_core::records::{Head, HeadBody, Kept, Record, VersionRef, Versioning};

use super::Objects;
use super::list::group_of;
use crate::error::{GatewayError, Result};

/// Versions that a scan takes at once.
const SCAN: usize = 100;
/// Keys that one page looks at, at most.
const LOOK_LIMIT: usize = 20_000;
/// The id of a version that has none.
const NULL: &str = "null";

/// A version as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionName {
    /// The one that was written while its bucket kept no versions, or no more of them.
    Null,
    /// One with an id.
    Numbered(VersionRef),
}

impl FromStr for VersionName {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self> {
        if text == NULL {
            return Ok(Self::Null);
        }
        let at = text.parse::<VersionRef>();
        at.map(Self::Numbered).map_err(|error| GatewayError::InvalidArgument(error.to_string()))
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str(NULL),
            Self::Numbered(at) => at.fmt(formatter),
        }
    }
}

impl VersionName {
    /// The 16 bytes name a version: a merge may have given it another place in the order of its key.
    fn is_of(self, head: &Head) -> bool {
        match self {
            Self::Null => matches!(head.kept, Kept::No | Kept::Null) && head.body != HeadBody::Tombstone,
            Self::Numbered(at) => head.kept == Kept::Numbered && head.at.version == at.version,
        }
    }
}

/// What clients are told; None where the bucket has no versions.
pub(crate) fn version_id(versioning: Versioning, kept: Kept, at: VersionRef) -> Option<String> {
    match (versioning, kept) {
        (Versioning::Off, _) => None,
        (_, Kept::Numbered) => Some(at.to_string()),
        (_, Kept::No | Kept::Null | Kept::Discarded) => Some(NULL.to_owned()),
    }
}

/// A version, and where it stands.
pub(crate) struct Found {
    pub key: Key,
    pub raw: Bytes,
    pub head: Head,
}

impl Found {
    pub(crate) fn guard(&self) -> Guard {
        Guard { key: self.key.clone(), expect: Expect::Value(self.raw.clone()) }
    }

    /// Makes an older version one that goes; dead marks for its bytes.
    pub(crate) fn let_go(
        &self,
        view: &dyn View,
        bucket: BucketId,
        kept: Kept,
        change: &mut Change,
    ) -> Result<Vec<Write>> {
        let gone = Head { kept, ..self.head.clone() };
        change.guards.push(self.guard());
        change.writes.push(Write::Put(self.key.clone(), Bytes::from(gone.encode())));
        self.marks(view, bucket)
    }

    /// Dead marks for its bytes.
    pub(crate) fn marks(&self, view: &dyn View, bucket: BucketId) -> Result<Vec<Write>> {
        let HeadBody::Object(object) = &self.head.body else { return Ok(Vec::new()) };
        Ok(dead_marks(&blobs_of(view, bucket, self.head.at.version, &object.content)?))
    }
}

/// The head of a key, whatever it says.
pub(crate) fn newest(view: &dyn View, bucket: BucketId, key: &str) -> Result<Option<Found>> {
    let at = keys::head(bucket, key.as_bytes());
    let Some(raw) = view.get(&at)? else { return Ok(None) };
    Ok(Some(Found { key: at, head: Head::decode(&raw)?, raw }))
}

/// The newest of the older versions of a key of which this holds.
pub(crate) fn older(
    view: &dyn View,
    bucket: BucketId,
    key: &str,
    holds: impl Fn(&Head) -> bool,
) -> Result<Option<Found>> {
    let mut range = keys::older_versions(bucket, key.as_bytes());
    loop {
        let page = view.scan(&range, SCAN)?;
        for (key, raw) in page.entries {
            let head = Head::decode(&raw)?;
            if holds(&head) {
                return Ok(Some(Found { key, raw, head }));
            }
        }
        match page.next {
            Some(next) => range.start = next,
            None => return Ok(None),
        }
    }
}

/// The version that a request names, a delete marker too; without a name the newest one.
pub(crate) fn find(
    view: &dyn View,
    bucket: BucketId,
    key: &str,
    name: Option<&VersionName>,
) -> Result<Option<Found>> {
    let head = newest(view, bucket, key)?.filter(|found| found.head.body != HeadBody::Tombstone);
    let Some(name) = name else { return Ok(head) };
    if let Some(head) = head.filter(|found| name.is_of(&found.head)) {
        return Ok(Some(head));
    }
    if let VersionName::Numbered(at) = name {
        let at = keys::older_version(bucket, key.as_bytes(), at.epoch, at.hlc);
        if let Some(raw) = view.get(&at)? {
            let head = Head::decode(&raw)?;
            if name.is_of(&head) {
                return Ok(Some(Found { key: at, raw, head }));
            }
        }
    }
    older(view, bucket, key, |head| head.is_kept() && name.is_of(head))
}

/// What versions to list.
#[derive(Debug, Clone, Default)]
pub struct VersionsRequest {
    /// Of keys that begin with it.
    pub prefix: String,
    /// Keys that have it behind the prefix are rolled up to it.
    pub delimiter: Option<String>,
    /// Only keys after it (or groups that are not it); with a version, what comes after that version of it, too.
    pub after: Option<(String, Option<VersionName>)>,
    /// Versions and groups at most.
    pub limit: usize,
}

/// An entry of a page.
#[derive(Debug, Clone)]
pub enum ListedVersion {
    /// An object, or a marker that it was deleted.
    Version {
        /// The object's key.
        key: String,
        /// Its id.
        id: String,
        /// It is head.
        is_latest: bool,
        /// What it is.
        head: Box<Head>,
    },
    /// Keys that have this in common up to the delimiter, which ends it.
    Group(String),
}

/// A page.
#[derive(Debug, Clone, Default)]
pub struct VersionListing {
    /// By key, the newest version of each first.
    pub entries: Vec<ListedVersion>,
    /// There may be more: go on after this key, and this version of it.
    pub next: Option<(String, Option<String>)>,
}

impl Objects {
    /// One page of the versions of a bucket.
    pub async fn list_versions(
        &self,
        namespace: &str,
        bucket: &str,
        request: &VersionsRequest,
    ) -> Result<VersionListing> {
        let view = self.context.view_for_client().await?;
        let bucket = super::buckets::find(view.as_ref(), namespace, bucket)?;
        let (listing, looked_at) = page(view.as_ref(), bucket.id, request)?;
        let seen = view.position();
        drop(view);
        if let Some(other) = self.context.settler(bucket.promise)
            && !other.all_settled(&looked_at, seen, bucket.promise.timeout()).await
        {
            return Err(GatewayError::Unsettled);
        }
        Ok(listing)
    }
}

/// A page, and the heads that it hangs on.
fn page(view: &dyn View, bucket: BucketId, request: &VersionsRequest) -> Result<(VersionListing, Vec<Key>)> {
    let mut walk = Walk { view, bucket, request, listing: VersionListing::default() };
    let looked_at = walk.walk()?;
    Ok((walk.listing, looked_at))
}

struct Walk<'a> {
    view: &'a dyn View,
    bucket: BucketId,
    request: &'a VersionsRequest,
    listing: VersionListing,
}

impl Walk<'_> {
    /// Fills the page; the heads that it hangs on.
    fn walk(&mut self) -> Result<Vec<Key>> {
        let mut looked_at: Vec<Key> = Vec::new();
        let mut from = self.begin();
        while let Some(key) = self.next_key(&from)? {
            let name = String::from_utf8_lossy(&key).into_owned();
            if looked_at.len() >= LOOK_LIMIT {
                let last = looked_at.last().and_then(keys::object_of_head);
                self.listing.next = last.map(|(_, key)| (String::from_utf8_lossy(&key).into_owned(), None));
                break;
            }
            looked_at.push(keys::head(self.bucket, &key));
            from = Start::Behind(key);
            let Some(versions) = self.versions_of(&name)? else { continue };
            let entries = match self.group_of(&name) {
                None => versions,
                Some(group) => {
                    from = Start::BehindGroup(group.clone());
                    vec![ListedVersion::Group(group)]
                }
            };
            if !entries.into_iter().all(|entry| self.push(entry)) {
                break;
            }
        }
        Ok(looked_at)
    }

    fn begin(&self) -> Start {
        match &self.request.after {
            None => Start::Prefix,
            Some((key, Some(_))) => Start::At(key.clone().into_bytes()),
            Some((key, None)) => match self.group_of(key) {
                Some(group) if group == *key => Start::BehindGroup(group),
                _ => Start::Behind(key.clone().into_bytes()),
            },
        }
    }

    /// The next object key that has a head or an older version.
    fn next_key(&self, from: &Start) -> Result<Option<Vec<u8>>> {
        let heads = keys::heads(self.bucket, self.request.prefix.as_bytes());
        let older = keys::all_older_versions(self.bucket, self.request.prefix.as_bytes());
        let mut first: Option<Vec<u8>> = None;
        for mut range in [heads, older] {
            let family = range.start.0[..2].to_vec();
            if let Some(start) = from.start(self.bucket, &family) {
                range.start = range.start.max(start);
            }
            if range.start >= range.end {
                continue;
            }
            let page = self.view.scan(&range, 1)?;
            let key =
                page.entries.first().and_then(|(key, _)| keys::bucket_and_object(key)).map(|(_, key)| key);
            first = match (first, key) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        Ok(first)
    }

    /// Those of a key that readers find, from where the page begins; None: there are none.
    fn versions_of(&self, key: &str) -> Result<Option<Vec<ListedVersion>>> {
        let mut found = Vec::new();
        let head =
            newest(self.view, self.bucket, key)?.filter(|found| found.head.body != HeadBody::Tombstone);
        found.extend(head.map(|found| (found.head, true)));
        let mut range = keys::older_versions(self.bucket, key.as_bytes());
        loop {
            let page = self.view.scan(&range, SCAN)?;
            for (_, raw) in &page.entries {
                let head = Head::decode(raw)?;
                if head.is_kept() {
                    found.push((head, false));
                }
            }
            match page.next {
                Some(next) => range.start = next,
                None => break,
            }
        }
        if let Some((after, Some(version))) = &self.request.after
            && after == key
        {
            // One that is gone meanwhile: nothing of its key is left out that was not shown, some may be shown again.
            let shown = found.iter().position(|(head, _)| version.is_of(head)).map_or(0, |at| at + 1);
            found.drain(..shown);
        }
        let version = |(head, is_latest): (Head, bool)| ListedVersion::Version {
            key: key.to_owned(),
            id: version_id(Versioning::Enabled, head.kept, head.at).unwrap_or_default(),
            is_latest,
            head: Box::new(head),
        };
        Ok((!found.is_empty()).then(|| found.into_iter().map(version).collect()))
    }

    fn group_of(&self, key: &str) -> Option<String> {
        group_of(key, &self.request.prefix, self.request.delimiter.as_deref())
    }

    /// False: the page is full, and this goes to the next one.
    fn push(&mut self, entry: ListedVersion) -> bool {
        if self.listing.entries.len() < self.request.limit {
            self.listing.entries.push(entry);
            return true;
        }
        self.listing.next = self.listing.entries.last().map(|last| match last {
            ListedVersion::Version { key, id, .. } => (key.clone(), Some(id.clone())),
            ListedVersion::Group(group) => (group.clone(), None),
        });
        false
    }
}

/// Where a walk goes on.
enum Start {
    Prefix,
    At(Vec<u8>),
    Behind(Vec<u8>),
    BehindGroup(String),
}

impl Start {
    fn start(&self, bucket: BucketId, family: &[u8]) -> Option<Key> {
        let whole = |escaped: Vec<u8>| Key([family, bucket.as_bytes(), &escaped].concat());
        match self {
            Self::Prefix => None,
            Self::At(key) => Some(whole(keys::escape_object_key(key))),
            Self::Behind(key) => Some(keys::prefix_range(&whole(keys::escape_object_key(key)).0).end),
            Self::BehindGroup(group) => {
                Some(keys::prefix_range(&whole(keys::escape_object_prefix(group.as_bytes())).0).end)
            }
        }
    }
}
