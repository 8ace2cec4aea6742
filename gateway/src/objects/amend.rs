//! What is said of a version set anew: its record is exchanged where it stands, its bytes, its name and its place in the order stay.

use bytes::Bytes;
use diptych_catalog::{Change, View, Write};
use diptych_core::lease::SubLease;
use diptych_core::records::{Head, Record};

use super::types::check_key;
use super::versions::{self, version_id};
use super::{Objects, Target, confirm};
use crate::commit::{ROUNDS, commit_plain};
use crate::error::{GatewayError, Result};

impl Objects {
    /// Exchanges the record of the object that a request names for what `amended` makes of it; the version's id. It may be asked more than
    /// once, each time of the record as it is then.
    pub(super) async fn amend(
        &self,
        lease: &SubLease,
        namespace: &str,
        target: Target<'_>,
        amended: impl Fn(&Head) -> Result<Head>,
    ) -> Result<Option<String>> {
        check_key(target.key)?;
        for _ in 0..ROUNDS {
            let view = self.context.catalog().view().await?;
            let bucket = super::buckets::find(view.as_ref(), namespace, target.bucket)?;
            super::get::describe(view.as_ref(), &bucket, target)?;
            let Some(found) = versions::find(view.as_ref(), bucket.id, target.key, target.version)? else {
                continue;
            };
            drop(view);
            let amended = amended(&found.head)?;
            let value = Bytes::from(amended.encode());
            let writes = vec![Write::Put(found.key.clone(), value.clone())];
            let change = Change { guards: vec![found.guard()], writes };
            let landed = |view: &dyn View| Ok(view.get(&found.key)?.as_ref() == Some(&value));
            if commit_plain(&self.context, lease, change, landed).await? {
                let position = self.context.catalog().position().await?;
                confirm(&self.context, bucket.promise, position).await?;
                return Ok(version_id(bucket.versioning, amended.kept, amended.at));
            }
        }
        Err(GatewayError::Busy("others keep changing the same object"))
    }
}
