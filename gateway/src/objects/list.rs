//! Lists of a bucket in order of keys. Each page is consistent; the token is the last key.

use diptych_catalog::View;
use diptych_core::ids::BucketId;
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::records::{Head, HeadBody, Record};

use super::{ObjectInfo, Objects};
use crate::error::{GatewayError, Result};

/// Heads that one page looks at, at most: a long run of tombstones ends a page early rather than hold the answer.
const LOOK_LIMIT: usize = 50_000;
const SCAN: usize = 1000;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Keys that begin with it.
    pub prefix: String,
    /// Keys that have it behind the prefix are rolled up to it.
    pub delimiter: Option<String>,
    /// Only keys after it, and groups that are not it.
    pub after: Option<String>,
    /// Keys and groups at most.
    pub limit: usize,
}

/// An entry of a page.
#[derive(Debug, Clone)]
pub enum Listed {
    /// An object.
    Object(Box<ObjectInfo>),
    /// Keys that have this in common up to the delimiter, which ends it.
    Group(String),
}

impl Listed {
    /// The key or group.
    pub fn name(&self) -> &str {
        match self {
            Listed::Object(info) => &info.key,
            Listed::Group(name) => name,
        }
    }
}

/// A page.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// In order.
    pub entries: Vec<Listed>,
    /// There may be more: go on after this.
    pub next: Option<String>,
}

impl Objects {
    /// One page of a bucket.
    pub async fn list(&self, namespace: &str, bucket: &str, request: &ListRequest) -> Result<Listing> {
        let view = self.context.view_for_client().await?;
        let bucket = super::buckets::find(view.as_ref(), namespace, bucket)?;
        let (listing, looked_at) = page(view.as_ref(), bucket.id, request)?;
        let seen = view.position();
        drop(view);
        // What was passed over as deleted may be as new as what is listed.
        if let Some(other) = self.context.settler(bucket.promise)
            && !other.all_settled(&looked_at, seen, bucket.promise.timeout()).await
        {
            return Err(GatewayError::Unsettled);
        }
        Ok(listing)
    }
}

/// A page, and the heads that it hangs on.
fn page(view: &dyn View, bucket: BucketId, request: &ListRequest) -> Result<(Listing, Vec<Key>)> {
    let mut walk = Walk { listing: Listing::default(), request, looked_at: Vec::new() };
    walk.walk(view, bucket)?;
    Ok((walk.listing, walk.looked_at))
}

enum Step {
    Next,
    /// All of a group is passed: go on here.
    Skip(Key),
    Full,
}

struct Walk<'a> {
    listing: Listing,
    request: &'a ListRequest,
    looked_at: Vec<Key>,
}

impl Walk<'_> {
    fn walk(&mut self, view: &dyn View, bucket: BucketId) -> Result<()> {
        let request = self.request;
        if request.limit == 0 {
            return Ok(());
        }
        let Some(mut range) = first_range(bucket, request) else { return Ok(()) };
        loop {
            let found = view.scan(&range, SCAN.min(request.limit + 1))?;
            let mut skip = None;
            for (key, value) in found.entries {
                match self.take(bucket, key, &value)? {
                    Step::Next => {}
                    Step::Skip(past) => {
                        skip = Some(past);
                        break;
                    }
                    Step::Full => return Ok(()),
                }
            }
            match (skip, found.next) {
                (Some(past), _) if past < range.end => range.start = past,
                (Some(_), _) | (None, None) => return Ok(()),
                (None, Some(next)) => range.start = next,
            }
        }
    }

    fn take(&mut self, bucket: BucketId, key: Key, value: &[u8]) -> Result<Step> {
        let head = Head::decode(value)?;
        let (_, object_key) = keys::object_of_head(&key).ok_or_else(|| damaged(&key))?;
        let name = String::from_utf8(object_key).map_err(|_| damaged(&key))?;
        self.looked_at.push(key);
        let HeadBody::Object(object) = head.body else {
            if self.looked_at.len() >= LOOK_LIMIT {
                self.listing.next = Some(name);
                return Ok(Step::Full);
            }
            return Ok(Step::Next);
        };
        if self.listing.entries.len() == self.request.limit {
            self.listing.next = self.listing.entries.last().map(|last| last.name().to_owned());
            return Ok(Step::Full);
        }
        if let Some(group) = group_of(&name, &self.request.prefix, self.request.delimiter.as_deref()) {
            let past = past_group(bucket, &group);
            self.listing.entries.push(Listed::Group(group));
            return Ok(Step::Skip(past));
        }
        let (at, retained_until) = (head.at, head.retained_until);
        let info = ObjectInfo { key: name, at, version: None, object: *object, retained_until };
        self.listing.entries.push(Listed::Object(Box::new(info)));
        Ok(Step::Next)
    }
}

fn damaged(key: &Key) -> GatewayError {
    GatewayError::Corrupt(format!("{key:?} is no key of an object"))
}

/// What a key is rolled up to, if to anything.
pub(super) fn group_of(key: &str, prefix: &str, delimiter: Option<&str>) -> Option<String> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let rest = key.strip_prefix(prefix)?;
    let end = prefix.len() + rest.find(delimiter)? + delimiter.len();
    Some(key[..end].to_owned())
}

fn past_group(bucket: BucketId, group: &str) -> Key {
    keys::heads(bucket, group.as_bytes()).end
}

/// Where a page begins: behind `after`, or behind the whole group that `after` names.
fn first_range(bucket: BucketId, request: &ListRequest) -> Option<KeyRange> {
    let mut range = keys::heads(bucket, request.prefix.as_bytes());
    if let Some(after) = request.after.as_deref().filter(|after| !after.is_empty()) {
        let start = match group_of(after, &request.prefix, request.delimiter.as_deref()) {
            Some(group) if group == after => past_group(bucket, after),
            _ => {
                let mut past = keys::head(bucket, after.as_bytes());
                past.0.push(0);
                past
            }
        };
        range.start = range.start.max(start);
    }
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use diptych_catalog::{CatalogError, Page};
    use diptych_core::ids::{Epoch, Hlc, VersionId};
    use diptych_core::records::{Content, Etag, Object, Position, VersionRef};

    use super::*;

    const BUCKET: BucketId = BucketId([3; 8]);

    struct Shown(BTreeMap<Key, Bytes>);

    impl View for Shown {
        fn position(&self) -> Position {
            Position::default()
        }

        fn get(&self, key: &Key) -> Result<Option<Bytes>, CatalogError> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(&self, range: &KeyRange, limit: usize) -> Result<Page, CatalogError> {
            let mut all = self.0.range(range.start.clone()..range.end.clone());
            let entries = all.by_ref().take(limit).map(|(key, value)| (key.clone(), value.clone())).collect();
            Ok(Page { entries, next: all.next().map(|(key, _)| key.clone()) })
        }

        fn last(&self, range: &KeyRange) -> Result<Option<(Key, Bytes)>, CatalogError> {
            let found = self.0.range(range.start.clone()..range.end.clone()).next_back();
            Ok(found.map(|(key, value)| (key.clone(), value.clone())))
        }
    }

    fn shown(names: &[&str], deleted: &[&str]) -> Shown {
        let at = VersionRef { epoch: Epoch(1), hlc: Hlc(1), version: VersionId([1; 16]) };
        let object = Object {
            size: 1,
            etag: Etag { md5: [0; 16], parts: 0 },
            modified_ms: 0,
            headers: vec![],
            tags: vec![],
            content: Content::Inline(vec![]),
        };
        let head = |body| Bytes::from(Head::new(at, None, body).encode());
        let live = names.iter().map(|name| {
            (keys::head(BUCKET, name.as_bytes()), head(HeadBody::Object(Box::new(object.clone()))))
        });
        let dead =
            deleted.iter().map(|name| (keys::head(BUCKET, name.as_bytes()), head(HeadBody::Tombstone)));
        Shown(live.chain(dead).collect())
    }

    fn all(view: &Shown, request: &ListRequest) -> Vec<String> {
        let mut request = request.clone();
        let mut names = Vec::new();
        loop {
            let (listing, _) = page(view, BUCKET, &request).expect("it lists");
            assert!(listing.entries.len() <= request.limit);
            names.extend(listing.entries.iter().map(|entry| entry.name().to_owned()));
            match listing.next {
                Some(next) => request.after = Some(next),
                None => return names,
            }
        }
    }

    #[test]
    fn groups_are_rolled_up_once_whatever_the_size_of_a_page() {
        let names = ["a", "b/1", "b/2", "b/c/3", "b0", "c/", "d"];
        let view = shown(&names, &["b/0", "e"]);
        for limit in 1..=8 {
            let request = ListRequest { delimiter: Some("/".into()), limit, ..Default::default() };
            assert_eq!(all(&view, &request), ["a", "b/", "b0", "c/", "d"], "limit {limit}");
            let request = ListRequest { limit, ..Default::default() };
            assert_eq!(all(&view, &request), names, "limit {limit}");
            let request =
                ListRequest { prefix: "b/".into(), delimiter: Some("/".into()), limit, ..Default::default() };
            assert_eq!(all(&view, &request), ["b/1", "b/2", "b/c/"], "limit {limit}");
        }
    }

    #[test]
    fn a_page_that_ends_exactly_with_the_last_key_is_the_last() {
        let view = shown(&["a", "b"], &[]);
        let (listing, looked_at) =
            page(&view, BUCKET, &ListRequest { limit: 2, ..Default::default() }).expect("it lists");
        assert_eq!((listing.entries.len(), listing.next, looked_at.len()), (2, None, 2));
    }

    #[test]
    fn a_page_goes_on_after_any_key_even_one_that_is_not_there() {
        let view = shown(&["a", "b/1", "b/2", "c"], &[]);
        let request = ListRequest { after: Some("b/15".into()), limit: 10, ..Default::default() };
        assert_eq!(all(&view, &request), ["b/2", "c"]);
    }
}
