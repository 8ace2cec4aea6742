//! A catalog made anew from fragments and the cluster key, when both catalogs are gone.
//!
//! ```text
//! keyring of any device + cluster key ──► newest whole checkpoint ──► journals behind it ──► placements from the records themselves
//!                                                  │ a gap is named and asks a person           ──► versions that no journal knows
//! ```
//! It reads a device or an agent and writes into an empty catalog, by the `Catalog` trait, so any engine will do. Nothing is
//! written before it is known that nothing is missing, and no more is in memory than a part of a checkpoint.

mod agents;
mod extent;
mod found;
mod fragments;
mod history;
mod load;
mod placements;
mod rehearse;
mod report;

use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, CatalogError, Change, View, Write};
use diptych_core::ids::Epoch;
use diptych_core::journal::is_recorded;
use diptych_core::keyring::{ClusterKeys, Keyring, KeyringError};
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::records::{CodingPlan, Extent, ExtentState, Head, HeadBody, Record, Vote};
use thiserror::Error;

use crate::error::SiteError;
use crate::survey::each;
use history::History;

pub use agents::AgentFragments;
pub use fragments::{Fragment, Fragments, Place};
pub use rehearse::{Rehearsal, rehearse};
pub use report::{CheckpointFound, FoundVersion, GapFound, Report};

/// Why no catalog was made. What was read is as it was.
#[derive(Debug, Error)]
pub enum ResurrectError {
    /// No device holds a keyring.
    #[error(
        "none of these devices holds a keyring: they were never in use, or they are not all of the cluster's; name more of them"
    )]
    NoKeyring,
    /// The cluster key opens none of the keyrings.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Nothing to make a catalog of.
    #[error(
        "neither a journal nor a checkpoint is on these devices, so nothing can be made of them; name more of them"
    )]
    Nothing,
    /// Something is missing on the way.
    #[error(
        "what was changed in between is missing: {0}. Name more devices, or accept the loss with --accept-gap; nothing was made"
    )]
    Gap(String),
    /// There is something already.
    #[error(
        "the catalog is not empty ({0} is in it): a resurrection is made in an empty one; nothing was changed"
    )]
    NotEmpty(String),
    /// The catalog did not do as asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A record does not read.
    #[error(transparent)]
    Site(#[from] SiteError),
}

/// What a person decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Go on over what is missing.
    pub accept_gap: bool,
}

/// Makes the catalog of a site.
///
/// # Errors
/// [`ResurrectError`]. Up to `NotEmpty` nothing was written; behind it the catalog is unfinished and to be thrown away.
pub async fn resurrect(
    source: &dyn Fragments,
    cluster_keys: &ClusterKeys,
    catalog: &dyn Catalog,
    options: Options,
) -> Result<Report, ResurrectError> {
    refuse_full(catalog).await?;
    let mut report = Report::default();
    let keyring = keyring(source, cluster_keys).await?;
    report.keyring = keyring.generation();
    let history = History::find(source, &keyring, &mut report).await;
    report.note_history(&history);
    if !history.gaps.is_empty() && !options.accept_gap {
        return Err(ResurrectError::Gap(report.gaps_as_text()));
    }
    if history.is_empty() {
        return Err(ResurrectError::Nothing);
    }
    history.load(source, &keyring, catalog).await?;
    let unknown = placements::enter(source, catalog, &history, &mut report).await?;
    found::take(source, &keyring, catalog, &history, unknown, &mut report).await?;
    finish(source, cluster_keys, &keyring, catalog, &history, &mut report).await?;
    Ok(report)
}

async fn refuse_full(catalog: &dyn Catalog) -> Result<(), ResurrectError> {
    let view = catalog.view().await?;
    let all = KeyRange { start: Key(Vec::new()), end: Key(vec![0xff; 64]) };
    match view.scan(&all, 1)?.entries.first() {
        Some((key, _)) => Err(ResurrectError::NotEmpty(format!("{key:?}"))),
        None => Ok(()),
    }
}

/// The newest that any device has, and with it the ring keys of older ones that open: a term that the newest did not know of
/// may have made some. A device that was away while the cluster key was exchanged has one of the key before: by itself that does
/// not open what was sealed since, so it is no substitute.
async fn keyring(source: &dyn Fragments, cluster_keys: &ClusterKeys) -> Result<Keyring, ResurrectError> {
    let mut sealed = source.keyrings().await;
    sealed.sort_by_cached_key(|sealed| std::cmp::Reverse(Keyring::generation_of(sealed).ok()));
    sealed.dedup();
    let newest = sealed.first().and_then(|sealed| Keyring::generation_of(sealed).ok());
    let newest = newest.ok_or(ResurrectError::NoKeyring)?;
    let opened: Vec<_> = sealed.iter().map(|sealed| cluster_keys.open(sealed)).collect();
    let Some(first) = opened.iter().flatten().find(|keyring| keyring.generation() == newest) else {
        let refused = opened.into_iter().find_map(Result::err);
        return Err(refused.map_or(ResurrectError::NoKeyring, ResurrectError::Keyring));
    };
    let mut union = first.clone();
    for other in opened.iter().flatten() {
        union = union.merged(other)?.unwrap_or(union);
    }
    // Devices refuse other bytes under the generation that they have.
    let is_theirs = sealed.contains(&union.seal(cluster_keys.newest()));
    Ok(if is_theirs || union.generation() > newest { union } else { union.next_generation() })
}

/// What no journal holds: the keyring as it is on the devices, and with one site the vote under which it goes on.
async fn finish(
    source: &dyn Fragments,
    cluster_keys: &ClusterKeys,
    keyring: &Keyring,
    catalog: &dyn Catalog,
    history: &History,
    report: &mut Report,
) -> Result<(), ResurrectError> {
    let site = catalog.site().clone();
    let view = catalog.view().await?;
    count(view.as_ref(), report)?;
    report.epoch = source.highest_epoch().await.max(history.epoch).max(newest_term(view.as_ref())?);
    let plan = view.last(&keys::plans())?.map(|(_, raw)| CodingPlan::decode(&raw)).transpose();
    let plan = plan.map_err(SiteError::from)?;
    drop(view);
    let mut writes = vec![Write::Put(keys::keyring(), Bytes::from(keyring.seal(cluster_keys.newest())))];
    if plan.is_some_and(|plan| plan.rows.len() == 1) {
        // FENCING (epochs never fall): whatever was committed and is not here was of a lower epoch. With two sites the vote stays
        // away: the other site or a person says which term it is.
        let vote = Vote { epoch: Epoch(report.epoch.0 + 1), backs: Some(site.clone()) };
        writes.push(Write::Put(keys::site_vote(&site), Bytes::from(vote.encode())));
    }
    catalog.commit(Batch::one(None, Change::blind(writes))).await?;
    // Nobody follows from before.
    catalog.compact_feed(catalog.position().await?).await?;
    Ok(())
}

/// Of a catalog; 0: it has none.
pub(crate) fn newest_term(view: &dyn View) -> Result<Epoch, CatalogError> {
    let newest = view.last(&keys::terms())?;
    let epoch = newest.and_then(|(key, _)| key.0.last_chunk().copied()).map_or(0, u64::from_be_bytes);
    Ok(Epoch(epoch))
}

/// Counts what was made, and finds what has too few rows.
fn count(view: &dyn View, report: &mut Report) -> Result<(), ResurrectError> {
    let all = KeyRange { start: Key(Vec::new()), end: Key(vec![0xff; 64]) };
    each(view, &all, |key, value| {
        report.keys += u64::from(is_recorded(key, Some(value))?);
        match key.0.first() {
            Some(b'h' | b'v') => match Head::decode(value)?.body {
                HeadBody::Object(_) => report.versions += 1,
                HeadBody::Marker | HeadBody::Tombstone => report.tombstones += 1,
            },
            Some(b'b') => report.buckets += 1,
            Some(b'a') => report.access_keys += 1,
            Some(b'x') => {
                let record = Extent::decode(value)?;
                report.extents += 1;
                if let (Some(extent), true) = (keys::extent_of(key), record.state != ExtentState::Condemned) {
                    let rows = placements::rows_of(view, extent, &record)?;
                    report.lacking += u64::from(rows.len() < usize::from(record.needed));
                }
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(())
}
