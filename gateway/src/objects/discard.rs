//! One version deleted for good, by its name. What was head makes way for the newest version that is kept below it.
//!
//! ```text
//! h/ X        v/ P …   ──delete X──►  h/ P   v/ X discarded, dead marks
//! h/ X                 ──delete X──►  h/ tombstone   v/ X discarded, dead marks
//! h/ …        v/ X     ──delete X──►  h/ …   v/ X discarded, dead marks
//! ```
//! The record of a discarded version stays until both sites and the journal have it, as that of any version that goes.

use bytes::Bytes;
use diptych_catalog::{Change, View, Write};
use diptych_core::ids::VersionId;
use diptych_core::keys;
use diptych_core::lease::SubLease;
use diptych_core::records::{Bucket, Head, HeadBody, Kept, Record, VersionRef};
use rand::Rng;

use super::acknowledge::{Committed, WrittenVersion, acknowledge, receipt_of_delete};
use super::delete::Deleted;
use super::types::check_key;
use super::versions::{self, Found, VersionName, version_id};
use super::{Condition, Objects, retention};
use crate::authority::{may_write, still_may_answer};
use crate::commit::{MARKS_WITH_HEAD, ROUNDS, commit_plain, mark_dead};
use crate::error::{GatewayError, Result};

impl Objects {
    pub(super) async fn discard(
        &self,
        lease: &SubLease,
        (bucket_name, bucket): (&str, &Bucket),
        key: &str,
        name: &VersionName,
        condition: &Condition,
    ) -> Result<Deleted> {
        check_key(key)?;
        for _ in 0..ROUNDS {
            may_write(self.context.authority())?;
            let view = self.context.catalog().view().await?;
            let Some(found) = versions::find(view.as_ref(), bucket.id, key, Some(name))? else {
                still_may_answer(self.context.authority(), lease.epoch)?;
                return Ok(Deleted { version: Some(name.to_string()), ..Deleted::default() });
            };
            condition.check(bucket_name, key, Some(&found.head))?;
            retention::check(&self.context, view.as_ref(), key, &found.head)?;
            let (mut change, mut marks) = self.discarding(view.as_ref(), lease, bucket, key, &found)?;
            drop(view);
            if marks.len() <= MARKS_WITH_HEAD {
                change.writes.append(&mut marks);
            }
            let landed = |view: &dyn View| {
                let now = versions::find(view, bucket.id, key, Some(name))?;
                Ok(now.is_none_or(|now| now.head.at.version != found.head.at.version))
            };
            if commit_plain(&self.context, lease, change, landed).await? {
                mark_dead(&self.context, lease, marks).await;
                let position = self.context.catalog().position().await?;
                let committed = Committed { promise: bucket.promise, position, extents: &[] };
                let gone = WrittenVersion { bucket: bucket.id, key: key.to_owned(), at: found.head.at };
                let acknowledged = acknowledge(&self.context, lease, committed, &[gone]).await?;
                return Ok(Deleted {
                    existed: true,
                    is_marker: found.head.body == HeadBody::Marker,
                    version: version_id(bucket.versioning, found.head.kept, found.head.at),
                    receipt: Some(receipt_of_delete(&self.context, lease.epoch, acknowledged)),
                });
            }
        }
        Err(GatewayError::Busy("others keep changing the same key"))
    }

    /// What to commit, and dead marks for the version's bytes.
    fn discarding(
        &self,
        view: &dyn View,
        lease: &SubLease,
        bucket: &Bucket,
        key: &str,
        found: &Found,
    ) -> Result<(Change, Vec<Write>)> {
        let mut change = Change { guards: Vec::new(), writes: Vec::new() };
        if !keys::is_head(&found.key) {
            let marks = found.let_go(view, bucket.id, Kept::Discarded, &mut change)?;
            return Ok((change, marks));
        }
        let at = found.head.at;
        let gone = Head { kept: Kept::Discarded, ..found.head.clone() };
        let place = keys::older_version(bucket.id, key.as_bytes(), at.epoch, at.hlc);
        change.guards.push(found.guard());
        change.writes.push(Write::Put(place, Bytes::from(gone.encode())));
        // FENCING: it is head again with the very record that it had, if it still has that: its name, its place in the order and its
        // bytes are as they were.
        if let Some(next) = versions::older(view, bucket.id, key, Head::is_kept)? {
            change.guards.push(next.guard());
            change.writes.push(Write::Delete(next.key));
            change.writes.push(Write::Put(found.key.clone(), next.raw));
        } else {
            let hlc = self.context.clock().tick(at.hlc);
            let version = VersionId(rand::rng().random());
            let nothing =
                Head::new(VersionRef { epoch: lease.epoch, hlc, version }, Some(at), HeadBody::Tombstone);
            change.writes.push(Write::Put(found.key.clone(), Bytes::from(nothing.encode())));
        }
        Ok((change, found.marks(view, bucket.id)?))
    }
}
