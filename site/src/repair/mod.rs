//! Repair: rows that are missing are made anew by the agents that shall hold them, from k others.
//!
//! It is one act for any reason: an agent reads k rows, decodes, checks the extent's hash, writes, syncs and reads the row
//! back from its device; then the placement is exchanged by compare-and-set. Who loses that race deletes what it made.
//!
//! A row that only lies in the wrong place is moved by the same act, read where it is instead of from k others: it costs a k-th
//! of the reads.
//!
//! A row for an outside node is made by an agent of this site, which sends that row and no other bytes.

mod queue;
mod rebuild;
mod relocate;

use std::collections::BTreeSet;

use bytes::Bytes;
use diptych_catalog::{Change, Expect, Guard, Write};
use diptych_core::ids::{DeviceId, ExtentId, Row};
use diptych_core::keys;
use diptych_core::placement::{self, Promise};
use diptych_core::records::{PlacedRow, Placement, Record};
use diptych_wire::agent::{AgentError, ReadItem, RowAt};
use diptych_wire::client::CallError;

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::peer::cross::bring_over;
use crate::place::Place;
use crate::survey::Need;
use rebuild::rebuild;
use relocate::relocate;

pub use queue::{Ended, Repairs};

/// Makes the rows that are lacking, here or outside, or moves those that lie in the wrong place. Rows made.
///
/// From this site's own rows; where they are too few, from the other site's, and outside rows come last.
async fn repair(context: &SiteContext, need: &Need) -> Result<u64, SiteError> {
    let place = if need.is_outside() { context.outside_nodes() } else { Some(context.here()) };
    let Some(place) = place else {
        return Err(SiteError::NotYet("the active site sees to the outside rows"));
    };
    if !need.moves.is_empty() {
        return relocate(context, &place, need).await;
    }
    if need.margin_here() >= 0 {
        return repair_in(context, &place, need).await;
    }
    match bring_back(context, &place, need).await {
        Err(error) if need.margin_with_outside() >= 0 => {
            let extent = need.facts.extent;
            tracing::info!(site = %context.site, %extent, %error, "rows outside take part in a repair");
            repair_in(context, &place, need).await
        }
        done => done,
    }
}

/// From k rows of this site and outside. A source that turns out to lie is missing too, and made anew with the others.
async fn repair_in(context: &SiteContext, place: &Place, need: &Need) -> Result<u64, SiteError> {
    let extent = need.facts.extent;
    let mut need = need.clone();
    let mut open = place.map.for_kind(need.facts.holds.kind()).into_owned();
    let promise = Promise::new(need.facts.needed, place.survive);
    let mut made: Vec<PlacedRow> = Vec::new();
    let mut failure = None;
    while let (false, None) = (need.missing.is_empty(), &failure) {
        if need.margin_with_outside() < 0 {
            failure = Some(too_few(&need));
            break;
        }
        let staying = need.held().iter().chain(&made).map(|placed| (placed.row, placed.device));
        let staying: Vec<(Row, DeviceId)> = staying.collect();
        let targets = match placement::replace(&open, promise, extent, &staying, &need.missing) {
            Ok(targets) => targets,
            Err(error) => {
                failure = Some(error.into());
                break;
            }
        };
        need.missing.clear();
        let rebuilt = targets.rows.iter().map(|&(row, device)| rebuild(context, place, &need, row, device));
        let mut lying = BTreeSet::new();
        let outcomes = futures::future::join_all(rebuilt).await;
        for (&(row, _), outcome) in targets.rows.iter().zip(outcomes) {
            match outcome {
                Ok((row, liars)) => {
                    made.push(row);
                    lying.extend(liars.into_iter().map(|liar| (liar.row, liar.instance)));
                }
                // One that is fuller than the map says: another takes the row.
                Err(SiteError::Agent(CallError::Agent(AgentError::DeviceFull { device }))) => {
                    open.leave_out(device);
                    need.missing.push(row);
                }
                Err(error) => failure = Some(error),
            }
        }
        let lies = |placed: &mut PlacedRow| lying.contains(&(placed.row, placed.instance));
        let liars: Vec<PlacedRow> = need.held_mut().extract_if(.., lies).collect();
        need.missing.extend(liars.iter().map(|placed| placed.row));
        need.rotten.extend(liars);
    }
    if !made.is_empty() && exchange(context, place, &need, &made).await? {
        delete_rows(place, extent, replaced(&need, &made)).await;
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(made.len() as u64),
    }
}

/// Rotten records whose rows were made anew.
fn replaced<'a>(need: &'a Need, made: &'a [PlacedRow]) -> impl Iterator<Item = &'a PlacedRow> {
    need.rotten.iter().filter(|old| made.iter().any(|new| new.row == old.row))
}

fn too_few(need: &Need) -> SiteError {
    let (extent, needed) = (need.facts.extent, need.facts.needed);
    SiteError::TooFewRows { extent, present: need.readable.len(), needed }
}

/// Fewer than k rows are left here, and enough in both sites together: it crosses again.
///
/// FENCING: all of this site's rows are made anew, and durable, before the placement names them instead of the old ones;
/// what it named until then is deleted only afterwards.
async fn bring_back(context: &SiteContext, place: &Place, need: &Need) -> Result<u64, SiteError> {
    let Some(placement) = need.placement.as_ref().filter(|_| !context.doors.is_empty()) else {
        return Err(too_few(need));
    };
    let extent = need.facts.extent;
    let made = bring_over(context, &place.map, &context.doors, extent, &need.record).await?;
    if exchange(context, place, need, &made).await? {
        let old = Placement::decode(placement)?;
        let there = old.rows.iter().filter(|old| {
            let device = place.map.find(old.device);
            let anew = made.iter().any(|new| new.row == old.row);
            anew && device.is_some_and(|(_, node, device)| node.readable(device))
        });
        delete_rows(place, extent, there).await;
    }
    Ok(made.len() as u64)
}

/// An agent looks at a record in quarantine again when it is read: what was put right counts with the next survey.
pub async fn look_again(context: &SiteContext, needs: &[Need]) {
    for place in context.places() {
        let here = needs.iter().filter(|need| need.place == place.name);
        for (need, placed) in here.flat_map(|need| need.rotten.iter().map(move |placed| (need, placed))) {
            let (device, row, instance) = (placed.device, placed.row, Some(placed.instance));
            let at = RowAt { device, extent: need.facts.extent, row, instance };
            if let Ok(agent) = place.agent_of(device) {
                let _ = agent.read(ReadItem { at, offset: 0, len: 1 }).await;
            }
        }
    }
}

/// Puts the new rows into the placement, if it is still the one that was repaired. False: somebody else was faster, and
/// the rows made here are deleted.
async fn exchange(
    context: &SiteContext,
    place: &Place,
    need: &Need,
    made: &[PlacedRow],
) -> Result<bool, SiteError> {
    let key = keys::placement(&place.name, need.facts.extent);
    let anew: BTreeSet<Row> = made.iter().map(|placed| placed.row).collect();
    let old = need.placement.as_deref().map(Placement::decode).transpose()?;
    let mut record = old.unwrap_or(Placement { rows: Vec::new(), verified_day: 0 });
    record.rows.retain(|placed| !anew.contains(&placed.row));
    record.rows.extend_from_slice(made);
    record.rows.sort_by_key(|placed| placed.row);
    let expect = need.placement.clone().map_or(Expect::Absent, Expect::Value);
    let guard = Guard { key: key.clone(), expect };
    let change = Change { guards: vec![guard], writes: vec![Write::Put(key, Bytes::from(record.encode()))] };
    let committed = context.catalog.commit(place.batch(change)).await?;
    if !committed.all_applied() {
        delete_rows(place, need.facts.extent, made.iter()).await;
    }
    Ok(committed.all_applied())
}

/// Deletes records that the placement no longer names; one that can't be reached now is an orphan.
async fn delete_rows(place: &Place, extent: ExtentId, rows: impl Iterator<Item = &PlacedRow>) {
    for placed in rows {
        let item = RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
        let deleted = match place.agent_of(placed.device) {
            Ok(agent) => agent.delete(place.stamp, vec![item]).await.map(drop).map_err(SiteError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::info!(place = %place.name, %extent, row = %placed.row, %error, "an old record stays as an orphan");
        }
    }
}
