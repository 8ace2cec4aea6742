//! When what was lost has come: the entries of the ledger are settled, one by one.

use diptych_catalog::{Batch, Change, View, is_whole, lifted_marks};
use diptych_core::ids::Epoch;
use diptych_core::merge;
use diptych_core::records::LedgerEntry;

use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::history::{Here, Ledger};

/// Settles each entry whose version is whole here; how many were.
pub(super) async fn settle(context: &SiteContext, epoch: Epoch) -> Result<u64, SiteError> {
    let ledger = Ledger::read(context.catalog.view().await?.as_ref())?;
    let mut settled = 0;
    for entry in ledger.open() {
        let view = context.catalog.view().await?;
        let planned = plan(context, view.as_ref(), &ledger, entry, epoch);
        drop(view);
        match planned {
            // Where a client or a person was faster, the next pass looks again.
            Ok(Some(change)) => {
                let committed = context.catalog.commit(Batch::one(Some(epoch), change)).await?;
                settled += u64::from(committed.all_applied());
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(site = %context.site, version = ?entry.version, %error, "what was lost can't be settled now");
            }
        }
    }
    if settled > 0 {
        tracing::info!(site = %context.site, settled, "entries of the ledger were settled");
    }
    Ok(settled)
}

/// None: its bytes are not here yet.
fn plan(
    context: &SiteContext,
    view: &dyn View,
    ledger: &Ledger,
    entry: &LedgerEntry,
    epoch: Epoch,
) -> Result<Option<Change>, SiteError> {
    let Some(version) = entry.version.map(|at| at.version) else { return Ok(None) };
    let here = Here::read(view, entry.bucket, &entry.key, ledger)?;
    let Some(lost) = here.lost(version) else { return Ok(None) };
    if let Some(change) = here.close(version, epoch) {
        return Ok(Some(change));
    }
    if !is_whole(view, &context.site, entry.bucket, lost)? {
        return Ok(None);
    }
    let settled = merge::settle(version, &here.history, epoch, now_ms());
    let Some(settled) = settled else { return Ok(None) };
    let mut change = here.change(epoch, &[settled], (&[], &[]));
    change.writes.extend(lifted_marks(view, entry.bucket, lost)?);
    Ok(Some(change))
}
