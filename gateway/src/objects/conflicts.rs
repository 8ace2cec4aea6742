//! Conflict versions: what a return or a takeover kept beside the head, for a person to restore or discard.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, View, Write, blobs_of, is_whole, lifted_marks};
use diptych_core::ids::{BucketId, Epoch, ExtentId, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::records::{Bucket, Head, HeadBody, LedgerEntry, Noted, Record, SettledAs, Settlement};
use serde::{Deserialize, Serialize};

use super::acknowledge::{Committed, WrittenVersion, acknowledge};
use super::get::extents;
use super::types::check_key;
use super::{Condition, Objects, etag_text, retention};
use crate::authority::may_write;
use crate::commit::{HeadChange, commit_heads, commit_plain};
use crate::error::{GatewayError, Result};

/// Records of a page of a scan.
const PAGE: usize = 500;

/// A version that is kept beside the head of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictVersion {
    /// Name of the bucket.
    pub bucket: String,
    /// The object's key.
    pub id: String,
    /// Its name.
    pub version: String,
    /// Bytes of plaintext.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// Milliseconds since 1970 when it was written.
    pub modified_ms: u64,
    /// A takeover lost its bytes: when they come it is head again, unless its key was changed meanwhile.
    pub lost: bool,
    /// All of its bytes are in this site: it can be restored.
    pub whole: bool,
}

/// Some of them, in the order of buckets and keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictsPage {
    /// They.
    pub conflicts: Vec<ConflictVersion>,
    /// Where to go on; None: these are the last.
    pub next: Option<String>,
}

/// An entry of the ledger and its key.
type Noting = (Key, Bytes, LedgerEntry);

/// A conflict version, as it was read.
struct Conflict {
    bucket: Bucket,
    key: Key,
    raw: Bytes,
    version: Head,
    noting: Option<Noting>,
}

impl Objects {
    /// Up to `limit` conflict versions of a namespace, or of one of its buckets.
    pub async fn conflicts(
        &self,
        namespace: &str,
        bucket: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ConflictsPage> {
        let view = self.context.view_for_client().await?;
        let names = buckets_of(view.as_ref(), namespace, bucket)?;
        let ledger: BTreeMap<(BucketId, Vec<u8>, VersionId), LedgerEntry> = ledger(view.as_ref())?
            .into_iter()
            .filter_map(|(_, _, entry)| {
                Some(((entry.bucket, entry.key.clone(), entry.version?.version), entry))
            })
            .collect();
        let mut page = ConflictsPage::default();
        let mut range = keys::prefix_range(b"c/");
        begin_behind(&mut range.start, after)?;
        loop {
            let scanned = view.scan(&range, PAGE)?;
            for (key, raw) in &scanned.entries {
                let Some((id, object, version)) = keys::object_of_conflict(key) else { continue };
                let Some(name) = names.get(&id) else { continue };
                let entry = ledger.get(&(id, object.clone(), version));
                if entry.is_some_and(is_discarded) {
                    continue;
                }
                if page.conflicts.len() == limit {
                    page.next = Some(hex::encode(&key.0));
                    return Ok(page);
                }
                let head = Head::decode(raw)?;
                let HeadBody::Object(described) = &head.body else { continue };
                page.conflicts.push(ConflictVersion {
                    bucket: name.clone(),
                    id: String::from_utf8_lossy(&object).into_owned(),
                    version: version.to_string(),
                    size: described.size,
                    etag: etag_text(&described.etag),
                    modified_ms: described.modified_ms,
                    lost: entry.is_some_and(LedgerEntry::is_open_loss),
                    whole: is_whole(view.as_ref(), self.context.site(), id, &head)?,
                });
            }
            match scanned.next {
                Some(next) => range.start = next,
                None => return Ok(page),
            }
        }
    }

    /// Makes a conflict version head, as a new change over what is head now.
    pub async fn restore_conflict(
        &self,
        namespace: &str,
        bucket: &str,
        key: &str,
        version: VersionId,
    ) -> Result<()> {
        let lease = may_write(self.context.authority())?;
        let view = self.context.view_for_client().await?;
        let conflict = read(view.as_ref(), namespace, bucket, key, version)?;
        if !is_whole(view.as_ref(), self.context.site(), conflict.bucket.id, &conflict.version)? {
            return Err(GatewayError::ConflictLacksBytes(version));
        }
        let named = named(view.as_ref(), &conflict)?;
        let lifted = lifted_marks(view.as_ref(), conflict.bucket.id, &conflict.version)?;
        drop(view);
        let now_ms = self.context.clock().now_ms();
        let (guards, entry) = conflict.settled(key, lease.epoch, SettledAs::Restored, now_ms);
        let mut writes = vec![entry, Write::Delete(conflict.key.clone())];
        writes.extend(lifted);
        let change = HeadChange {
            bucket_name: bucket.to_owned(),
            bucket: conflict.bucket.id,
            versioning: conflict.bucket.versioning,
            key: key.to_owned(),
            version,
            body: conflict.version.body,
            retain_until: conflict.version.retained_until,
            condition: Condition::default(),
            guards,
            writes,
        };
        let committed = commit_heads(&self.context, &lease, &[change], None).await;
        for head in committed {
            let head = head?;
            let promise = conflict.bucket.promise;
            let committed = Committed { promise, position: head.position, extents: &named };
            let restored = WrittenVersion { bucket: conflict.bucket.id, key: key.to_owned(), at: head.at };
            acknowledge(&self.context, &lease, committed, &[restored]).await?;
        }
        Ok(())
    }

    /// Gives a conflict version up: its bytes are freed once both sites know.
    pub async fn discard_conflict(
        &self,
        namespace: &str,
        bucket: &str,
        key: &str,
        version: VersionId,
    ) -> Result<()> {
        let lease = may_write(self.context.authority())?;
        let view = self.context.view_for_client().await?;
        let conflict = read(view.as_ref(), namespace, bucket, key, version)?;
        retention::check(&self.context, view.as_ref(), key, &conflict.version)?;
        drop(view);
        let now_ms = self.context.clock().now_ms();
        let (guards, entry) = conflict.settled(key, lease.epoch, SettledAs::Discarded, now_ms);
        let written = entry.clone();
        let landed = |view: &dyn View| match &written {
            Write::Put(key, value) => Ok(view.get(key)?.as_ref() == Some(value)),
            Write::Delete(_) => Ok(false),
        };
        let change = Change { guards, writes: vec![entry] };
        if commit_plain(&self.context, &lease, change, landed).await? {
            return Ok(());
        }
        Err(GatewayError::Busy("the conflict version was settled by somebody else meanwhile; list them anew"))
    }
}

impl Conflict {
    /// The entry of the ledger that says what a person decided, and what must hold for it.
    fn settled(&self, object: &str, epoch: Epoch, outcome: SettledAs, now_ms: u64) -> (Vec<Guard>, Write) {
        let settled = Some(Settlement { at_ms: now_ms, outcome });
        let (key, expect, entry) = match &self.noting {
            Some((key, raw, entry)) => (key.clone(), Expect::Value(raw.clone()), entry.clone()),
            None => (
                keys::ledger(epoch, LedgerEntry::number(self.version.at.version)),
                Expect::Absent,
                LedgerEntry {
                    at_ms: now_ms,
                    bucket: self.bucket.id,
                    key: object.as_bytes().to_vec(),
                    version: Some(self.version.at),
                    what: Noted::Conflict,
                    settled: None,
                },
            ),
        };
        let write = Write::Put(key.clone(), Bytes::from(LedgerEntry { settled, ..entry }.encode()));
        let kept = Guard { key: self.key.clone(), expect: Expect::Value(self.raw.clone()) };
        (vec![kept, Guard { key, expect }], write)
    }
}

fn read(
    view: &dyn View,
    namespace: &str,
    bucket_name: &str,
    key: &str,
    version: VersionId,
) -> Result<Conflict> {
    check_key(key)?;
    let missing = || GatewayError::NoSuchConflict { key: key.to_owned(), version };
    let bucket = super::buckets::find(view, namespace, bucket_name)?;
    let conflict_key = keys::conflict(bucket.id, key.as_bytes(), version);
    let raw = view.get(&conflict_key)?.ok_or_else(missing)?;
    let noting = ledger(view)?.into_iter().find(|(_, _, entry)| {
        let same = entry.version.is_some_and(|at| at.version == version);
        same && entry.bucket == bucket.id && entry.key == key.as_bytes()
    });
    if noting.as_ref().is_some_and(|(_, _, entry)| is_discarded(entry)) {
        return Err(missing());
    }
    let version = Head::decode(&raw)?;
    Ok(Conflict { bucket, key: conflict_key, raw, version, noting })
}

/// The extents that a version names.
fn named(view: &dyn View, conflict: &Conflict) -> Result<Vec<ExtentId>> {
    let HeadBody::Object(object) = &conflict.version.body else { return Ok(Vec::new()) };
    let version = conflict.version.at.version;
    Ok(extents(&blobs_of(view, conflict.bucket.id, version, &object.content)?))
}

fn is_discarded(entry: &LedgerEntry) -> bool {
    entry.settled.is_some_and(|settled| settled.outcome == SettledAs::Discarded)
}

/// All of the ledger that says what became of a version.
fn ledger(view: &dyn View) -> Result<Vec<Noting>> {
    let (mut range, mut entries) = (keys::ledger_entries(), Vec::new());
    loop {
        let page = view.scan(&range, PAGE)?;
        for (key, raw) in page.entries {
            let entry = LedgerEntry::decode(&raw)?;
            if entry.decides() {
                entries.push((key, raw, entry));
            }
        }
        match page.next {
            Some(next) => range.start = next,
            None => return Ok(entries),
        }
    }
}

/// The buckets of a namespace by their ids, or the one that is asked for.
pub(super) fn buckets_of(
    view: &dyn View,
    namespace: &str,
    only: Option<&str>,
) -> Result<BTreeMap<BucketId, String>> {
    if let Some(name) = only {
        let found = super::buckets::find(view, namespace, name)?;
        return Ok(BTreeMap::from([(found.id, name.to_owned())]));
    }
    let (mut range, mut names) = (keys::buckets(), BTreeMap::new());
    loop {
        let page = view.scan(&range, PAGE)?;
        for (key, raw) in &page.entries {
            let bucket = Bucket::decode(raw)?;
            if let Some(name) = keys::bucket_name(key).filter(|_| bucket.namespace == namespace) {
                names.insert(bucket.id, name.to_owned());
            }
        }
        match page.next {
            Some(next) => range.start = next,
            None => return Ok(names),
        }
    }
}

/// A list goes on at the place that its last page named.
pub(super) fn begin_behind(start: &mut Key, after: Option<&str>) -> Result<()> {
    let Some(after) = after else { return Ok(()) };
    let token = hex::decode(after).map_err(|_| {
        GatewayError::InvalidArgument(format!("after is {after:?}: give what `next` of the last page said"))
    })?;
    if Key(token.clone()) > *start {
        *start = Key(token);
    }
    Ok(())
}
