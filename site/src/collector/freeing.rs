//! Rows of what nothing names any more, freed in one place: this site, or the outside nodes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, View, Write};
use diptych_core::ids::{ExtentId, SiteName};
use diptych_core::keys;
use diptych_core::records::{Extent, ExtentKind, ExtentState, Holds, Placement, Position, Record, Wanted};
use diptych_wire::agent::{AgentError, RowAt};

use super::may_go;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::place::Place;
use crate::survey::each;

/// Between two looks for placements without an extent.
const LOOK_FOR_UNNAMED: Duration = Duration::from_mins(1);

/// What waits to be freed in one place.
#[derive(Debug, Default)]
pub(super) struct Freeing {
    condemned_since: BTreeMap<ExtentId, (Instant, Position)>,
    unnamed: BTreeMap<ExtentId, Bytes>,
    unnamed_looked: Option<Instant>,
}

impl Freeing {
    /// Deletes the place's rows of what is condemned for long enough and confirmed; of how many extents.
    pub(super) async fn pass(
        &mut self,
        context: &SiteContext,
        place: &Place,
        view: &dyn View,
        confirmed: Option<Position>,
    ) -> Result<u64, SiteError> {
        let mut condemned = condemned_with_rows(view, &place.name)?;
        if self.unnamed_looked.is_none_or(|looked| looked.elapsed() >= LOOK_FOR_UNNAMED) {
            self.unnamed = unnamed_with_rows(view, &place.name)?;
            self.unnamed_looked = Some(Instant::now());
        }
        for (extent, raw) in &self.unnamed {
            // It may have come back since: what a returning site hands over is away for a while.
            if view.get(&keys::extent(*extent))?.is_none() {
                condemned.insert(*extent, raw.clone());
            }
        }
        self.condemned_since.retain(|extent, _| condemned.contains_key(extent));
        let mut freed = 0;
        for (extent, raw) in condemned {
            let fresh = (Instant::now(), view.position());
            let (since, position) = *self.condemned_since.entry(extent).or_insert(fresh);
            if may_go(context, confirmed, since, position) {
                freed += u64::from(free_rows(context, place, extent, &raw).await?);
                self.unnamed.remove(&extent);
            }
        }
        Ok(freed)
    }
}

/// Condemned extents that the place still has rows of, with their placements.
///
/// FENCING: while a journal or a part of a checkpoint is on its way here, none that it may supersede goes.
fn condemned_with_rows(view: &dyn View, place: &SiteName) -> Result<BTreeMap<ExtentId, Bytes>, SiteError> {
    let history_comes = history_comes(view, place)?;
    let mut found = BTreeMap::new();
    each(view, &keys::extents(), |key, value| {
        let record = Extent::decode(value)?;
        if record.state == ExtentState::Condemned
            && (record.holds == Holds::Data || !history_comes)
            && let Some(extent) = keys::extent_of(key)
            && let Some(placement) = view.get(&keys::placement(place, extent))?
        {
            found.insert(extent, placement);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Whether a journal or a part of a checkpoint is on its way to a place.
fn history_comes(view: &dyn View, place: &SiteName) -> Result<bool, SiteError> {
    let mut comes = false;
    each(view, &keys::all_wanted(place), |_, value| {
        comes = Wanted::decode(value)?.kind != ExtentKind::Data;
        Ok(if comes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(comes)
}

/// Placements of extents that the catalog does not know at all.
fn unnamed_with_rows(view: &dyn View, place: &SiteName) -> Result<BTreeMap<ExtentId, Bytes>, SiteError> {
    let mut found = BTreeMap::new();
    each(view, &keys::placements(place), |key, value| {
        if let Some(extent) = keys::extent_of(key)
            && view.get(&keys::extent(extent))?.is_none()
        {
            found.insert(extent, value.clone());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Deletes an extent's rows there, then its placement. False: a device that may come back still has one.
async fn free_rows(
    context: &SiteContext,
    place: &Place,
    extent: ExtentId,
    raw: &Bytes,
) -> Result<bool, SiteError> {
    for placed in Placement::decode(raw)?.rows {
        // Rows on what is dead go with it; if it returns, its inventory shows them as orphans.
        let dead = place.map.find(placed.device).is_none_or(|(_, node, device)| !node.readable(device));
        if dead {
            continue;
        }
        let item = RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
        let agent = place.agent_of(placed.device)?;
        for outcome in agent.delete(place.stamp, vec![item]).await? {
            match outcome {
                Ok(()) | Err(AgentError::NotFound) => {}
                Err(error) => {
                    tracing::info!(%extent, row = %placed.row, %error, "a row could not be freed now");
                    return Ok(false);
                }
            }
        }
    }
    let key = keys::placement(&place.name, extent);
    let guard = Guard { key: key.clone(), expect: Expect::Value(raw.clone()) };
    let change = Change { guards: vec![guard], writes: vec![Write::Delete(key)] };
    Ok(context.catalog.commit(place.batch(change)).await?.all_applied())
}
