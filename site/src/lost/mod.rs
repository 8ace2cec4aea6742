//! What a takeover loses, and gets back.
//!
//! ```text
//!               told of, lacking (n/)                       whole here
//!  lost version ── head ──takeover──► c/, entry in the ledger ──────────► head again, if nobody has changed the key
//!  last whole   ── v/ ───────────────► head                              └► else it stays a conflict version
//! ```
//! Decided by `core::merge`, carried out by the keeper of the active site, one commit a key, each with a compare on the head.
//! Meanwhile gateways serve: a reader of a head that has not given way yet gets `503 InsufficientFragments`, never other
//! bytes, and a writer replaces it; so it does not matter how long the list is, nor in which order it is worked through.
//! Every step can be done again: what has given way is whole, and that all has is written down last.

mod account;
mod downgraded;
pub mod lacking;
mod settle;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, View, Write};
use diptych_core::ids::{BucketId, Epoch, SiteName};
use diptych_core::keys::{self, Key};
use diptych_core::lease::Timers;
use diptych_core::records::{Bucket, Record, Term};

use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::survey::each;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Heads that gave way.
    pub lost: u64,
    /// Entries of the ledger that were settled.
    pub settled: u64,
}

/// One pass of the active site: what its takeover lost goes to the ledger, then what has come since is settled, and so is
/// what one site acknowledged for both.
pub async fn pass(context: &SiteContext) -> Result<Done, SiteError> {
    let mut done = Done::default();
    let (Some(epoch), Some(_)) = (context.active_epoch(), &context.peer) else { return Ok(done) };
    let view = context.catalog.view().await?;
    let accounted = is_accounted(view.as_ref(), &context.site, epoch)?;
    drop(view);
    if !accounted {
        done.lost = account::account(context, epoch).await?;
    }
    done.settled = settle::settle(context, epoch).await? + downgraded::close(context, epoch).await?;
    Ok(done)
}

/// Whether all that this site lost when it took over for `epoch` is in the ledger.
///
/// FENCING (nothing that is head again is freed, or merged past): until it is, the collector looks at nothing, since the marks
/// of what a lost version replaced still say that it is dead; and no unseen term is taken in, whose heads may name what is only
/// on its way here.
pub fn is_accounted(view: &dyn View, site: &SiteName, epoch: Epoch) -> Result<bool, SiteError> {
    Ok(eight(view, &keys::site_accounted(site))?.is_some_and(|accounted| accounted >= epoch.0))
}

/// Whether this site goes on after a term of its own that is accounted for: what it lacks then is on its way from a site that
/// has returned, and is not lost.
fn goes_on(view: &dyn View, site: &SiteName, epoch: Epoch) -> Result<bool, SiteError> {
    let mut before = None;
    each(view, &keys::terms(), |key, value| {
        let number = key.0.last_chunk().copied().map_or(0, u64::from_be_bytes);
        if number < epoch.0 {
            before = Some((Epoch(number), Term::decode(value)?.holder));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match before {
        Some((term, holder)) if holder == *site => is_accounted(view, site, term),
        Some(_) | None => Ok(false),
    }
}

/// Remembers that a person has accepted what a takeover loses.
pub async fn accept(catalog: &dyn Catalog) -> Result<(), SiteError> {
    let now = Bytes::copy_from_slice(&now_ms().to_be_bytes());
    let write = Write::Put(keys::site_loss_accepted(catalog.site()), now);
    catalog.commit(Batch::one(None, Change::blind(vec![write]))).await?;
    Ok(())
}

/// When a person accepted what the takeover for `epoch` lost; None: nobody was asked.
fn accepted(view: &dyn View, site: &SiteName, epoch: Epoch) -> Result<Option<u64>, SiteError> {
    let Some(term) = view.get(&keys::term(epoch))? else { return Ok(None) };
    let begun_ms = Term::decode(&term)?.begun_ms;
    let accepted = eight(view, &keys::site_loss_accepted(site))?;
    Ok(accepted.filter(|at| (begun_ms.saturating_sub(Timers::LONGEST_APPROVAL.0)..=begun_ms).contains(at)))
}

fn eight(view: &dyn View, key: &Key) -> Result<Option<u64>, SiteError> {
    let raw = view.get(key)?;
    Ok(raw.as_deref().and_then(|raw| raw.try_into().ok()).map(u64::from_be_bytes))
}

/// Names of the buckets.
fn bucket_names(view: &dyn View) -> Result<BTreeMap<BucketId, String>, SiteError> {
    let mut names = BTreeMap::new();
    each(view, &keys::buckets(), |key, value| {
        let id = Bucket::decode(value)?.id;
        names.extend(keys::bucket_name(key).map(|name| (id, name.to_owned())));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(names)
}
