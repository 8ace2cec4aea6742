//! Writes that one site acknowledged where both were asked for: their entries are closed once both sites have them.

use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, View, Write, is_whole};
use diptych_core::ids::Epoch;
use diptych_core::keys;
use diptych_core::records::{LedgerEntry, Noted, Position, Record, SettledAs, Settlement};

use crate::collector::{Batches, confirmed_by_peer, covers};
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::history::{Here, Ledger};
use crate::peer::cursor_of;
use crate::survey::each;

/// Closes each entry of a downgraded write that both sites have; how many were.
pub(super) async fn close(context: &SiteContext, epoch: Epoch) -> Result<u64, SiteError> {
    let view = context.catalog.view().await?;
    let mut closed = Vec::new();
    each(view.as_ref(), &keys::ledger_entries(), |key, raw| {
        let entry = LedgerEntry::decode(raw)?;
        let Noted::Downgraded { position } = entry.what else { return Ok(ControlFlow::Continue(())) };
        if entry.settled.is_none() && both_have(context, view.as_ref(), &entry, position)? {
            let settled = Some(Settlement { at_ms: now_ms(), outcome: SettledAs::Confirmed });
            let value = Bytes::from(LedgerEntry { settled, ..entry }.encode());
            let guards = vec![Guard { key: key.clone(), expect: Expect::Value(raw.clone()) }];
            closed.push(Change { guards, writes: vec![Write::Put(key.clone(), value)] });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    drop(view);
    let mut batches = Batches::new(context, epoch);
    for change in closed {
        batches.add(change).await?;
    }
    batches.commit().await
}

/// Of what this site acknowledged the other one says how far it is. What the other one did is here when its feed was followed so
/// far, or when the version came with an unseen term and all of its bytes after it.
fn both_have(
    context: &SiteContext,
    view: &dyn View,
    entry: &LedgerEntry,
    position: Position,
) -> Result<bool, SiteError> {
    if position.incarnation == view.position().incarnation {
        return Ok(covers(confirmed_by_peer(context, view)?, position));
    }
    if covers(Some(cursor_of(view, &context.site)?.confirmed), position) {
        return Ok(true);
    }
    let Some(at) = entry.version else { return Ok(false) };
    let here = Here::read(view, entry.bucket, &entry.key, &Ledger::default())?;
    match here.version(at.version) {
        Some(version) => Ok(is_whole(view, &context.site, entry.bucket, version)?),
        None => Ok(false),
    }
}
