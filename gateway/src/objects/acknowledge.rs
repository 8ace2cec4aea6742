//! When a write is acknowledged: by this site, or when the other one has it too; and what its writer is told of that
//! (docs/adr/0015).

use bytes::Bytes;
use diptych_catalog::{Change, Write};
use diptych_core::ids::{BucketId, Epoch, ExtentId, SiteName};
use diptych_core::keys;
use diptych_core::lease::SubLease;
use diptych_core::records::{LedgerEntry, Noted, OnTimeout, Position, Promise, Record, VersionRef};
use rand::Rng;

use super::types::{Receipt, SiteRows};
use crate::commit::commit_many;
use crate::context::Context;
use crate::error::{GatewayError, Result};

/// By whom a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// By this site; nothing else was asked for.
    OneSite,
    /// By both.
    BothSites {
        /// Rows that the other site has of the extent that has fewest there.
        rows: u8,
    },
    /// By this site, where both were asked for. The ledger says so.
    Downgraded,
}

/// A version that a commit made, deleted or took away.
#[derive(Debug, Clone)]
pub(crate) struct WrittenVersion {
    pub(crate) bucket: BucketId,
    pub(crate) key: String,
    pub(crate) at: VersionRef,
}

/// What was committed together, and what the bucket promises of it.
pub(crate) struct Committed<'a> {
    /// Of the bucket.
    pub(crate) promise: Promise,
    /// Where it was committed, or a later position.
    pub(crate) position: Position,
    /// Where the bytes are.
    pub(crate) extents: &'a [ExtentId],
}

/// Waits for the other site where the cluster wants that, and for as long as the bucket says.
///
/// # Errors
/// The outcome is unknown: it is committed here, and not confirmed there in time; or the bucket has that downgraded, and it could not be
/// written down.
pub(crate) async fn acknowledge(
    context: &Context,
    lease: &SubLease,
    committed: Committed<'_>,
    versions: &[WrittenVersion],
) -> Result<Acknowledged> {
    let Committed { promise, position, extents } = committed;
    let Some(peer) = context.peer() else { return Ok(Acknowledged::OneSite) };
    match (peer.confirmed(position, extents, promise.timeout()).await, promise.on_timeout) {
        (Some(rows), _) => Ok(Acknowledged::BothSites { rows }),
        (None, OnTimeout::Refuse) => Err(unconfirmed()),
        (None, OnTimeout::Downgrade) => {
            note(context, lease, position, versions).await?;
            Ok(Acknowledged::Downgraded)
        }
    }
}

/// The same for what makes no version and has no receipt: tags, settings, sessions. It is never downgraded.
///
/// # Errors
/// The outcome is unknown, as above.
pub(crate) async fn confirm(context: &Context, promise: Promise, position: Position) -> Result<()> {
    match context.peer() {
        Some(peer) => {
            peer.confirmed(position, &[], promise.timeout()).await.map(drop).ok_or_else(unconfirmed)
        }
        None => Ok(()),
    }
}

fn unconfirmed() -> GatewayError {
    let reason = "it is committed in this site, but the other one has not confirmed it in time";
    GatewayError::OutcomeUnknown(reason.to_owned())
}

/// Writes into the ledger that these versions are acknowledged by one site.
///
/// FENCING: before the answer, under the epoch of the write, and with a look at the deadline behind it: while it was waited another
/// site may have won a term that has never heard of the write.
async fn note(
    context: &Context,
    lease: &SubLease,
    position: Position,
    versions: &[WrittenVersion],
) -> Result<()> {
    let at_ms = context.clock().now_ms();
    let entry = |written: &WrittenVersion| LedgerEntry {
        at_ms,
        bucket: written.bucket,
        key: written.key.as_bytes().to_vec(),
        version: Some(written.at),
        what: Noted::Downgraded { position },
        settled: None,
    };
    // The number of a version is for what becomes of it. An answer that is given twice is two entries.
    let entries: Vec<_> = versions
        .iter()
        .map(|written| {
            (keys::ledger(lease.epoch, rand::rng().random()), Bytes::from(entry(written).encode()))
        })
        .collect();
    let put = |(key, value): &(keys::Key, Bytes)| Change::blind(vec![Write::Put(key.clone(), value.clone())]);
    let changes = entries.iter().map(put).collect();
    let landed = |view: &dyn diptych_catalog::View, index: usize| {
        let (key, value) = &entries[index];
        Ok(view.get(key)?.as_ref() == Some(value))
    };
    let unwritten = |reason: String| {
        GatewayError::OutcomeUnknown(format!(
            "it is committed in this site, the other one has not confirmed it in time, and this one can't acknowledge it alone: {reason}"
        ))
    };
    match commit_many(context, lease, changes, landed).await {
        Ok(true) => {
            context.metrics().downgrades.inc_by(versions.len() as u64);
            Ok(())
        }
        Ok(false) => Err(unwritten("a commit was refused".to_owned())),
        Err(error) => Err(unwritten(error.to_string())),
    }
}

/// What the writer of bytes is told; `durable`: rows of the extent that has fewest in this site.
pub(crate) fn receipt(
    context: &Context,
    epoch: Epoch,
    durable: u8,
    acknowledged: Acknowledged,
) -> Result<Receipt> {
    let there = match acknowledged {
        Acknowledged::BothSites { rows } => rows,
        // Some may have crossed already: nobody has said so.
        Acknowledged::OneSite | Acknowledged::Downgraded => 0,
    };
    let durable_in = |site: &SiteName| if site == context.site() { durable } else { there };
    let plan = context.plan()?;
    let rows = plan.rows.iter();
    let sites: Vec<SiteRows> =
        rows.map(|(site, of)| SiteRows { site: site.clone(), durable: durable_in(site), of: *of }).collect();
    Ok(Receipt { sites, ..receipt_of_delete(context, epoch, acknowledged) })
}

/// What is told of a delete: it has no rows.
pub(crate) fn receipt_of_delete(context: &Context, epoch: Epoch, acknowledged: Acknowledged) -> Receipt {
    let two_sites = context.plan().is_ok_and(|plan| plan.rows.len() > 1);
    let both = matches!(acknowledged, Acknowledged::BothSites { .. });
    let downgraded = acknowledged == Acknowledged::Downgraded;
    Receipt { epoch, sites: Vec::new(), exposed: downgraded || two_sites && !both, downgraded }
}
