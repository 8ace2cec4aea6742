//! Sessions of REST, as the active site keeps them: collected when they have run out, and merged when a site returns.

use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, View, Write};
use diptych_core::ids::Epoch;
use diptych_core::keys::{self, Key};
use diptych_core::records::{Record, TokenFamily};

use crate::collector::Batches;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::each;

/// Takes out of the catalog what ran out before `now_ms`; how many went. A token whose family is not there is good nowhere, so
/// no clock has to agree with this one.
pub(crate) async fn collect(
    context: &SiteContext,
    epoch: Epoch,
    view: &dyn View,
    now_ms: u64,
) -> Result<u64, SiteError> {
    let mut batches = Batches::new(context, epoch);
    let mut over = Vec::new();
    each(view, &keys::token_families(), |key, value| {
        if TokenFamily::decode(value)?.ends_ms <= now_ms {
            over.push((key.clone(), value.clone()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for (key, raw) in over {
        let guard = Guard { key: key.clone(), expect: Expect::Value(raw) };
        batches.add(Change { guards: vec![guard], writes: vec![Write::Delete(key)] }).await?;
    }
    batches.commit().await
}

/// Merges a family of an unseen term that is here, too; whether that changed it.
pub(crate) async fn merge(
    catalog: &dyn Catalog,
    epoch: Epoch,
    key: &Key,
    unseen: &[u8],
) -> Result<bool, SiteError> {
    let unseen = TokenFamily::decode(unseen)?;
    loop {
        let Some(raw) = catalog.view().await?.get(key)? else { return Ok(false) };
        let here = TokenFamily::decode(&raw)?;
        let merged = here.with_unseen(unseen);
        if merged == here {
            return Ok(false);
        }
        let guard = Guard { key: key.clone(), expect: Expect::Value(raw) };
        let write = Write::Put(key.clone(), Bytes::from(merged.encode()));
        let change = Change { guards: vec![guard], writes: vec![write] };
        if catalog.commit(Batch::one(Some(epoch), change)).await?.all_applied() {
            return Ok(true);
        }
    }
}
