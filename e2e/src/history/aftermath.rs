//! What is written down once all is over: who held the lease when, and what the product itself says of each register.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_gateway::objects::{ConflictVersion, LedgerLine};

use super::faults::Course;
use super::record::{Line, Recorder};
use super::value::etag;
use crate::demo::installation::until;
use crate::demo::reach::Reach;
use crate::demo::two_sites::{active, other};
use crate::kind::proof::leases::Held;

/// Until both sites have all of each other.
const SETTLES: Duration = Duration::from_mins(5);

/// Waits until both sites have all of each other, an unseen term and the bytes of lost versions included. No client is under way.
pub(super) async fn settled(reach: &Reach, bucket: &str) -> Result<()> {
    until("both sites have all of each other", SETTLES, || async {
        let holder = active(reach).await?;
        let (here, there) = (reach.status(holder).await?, reach.status(other(holder)).await?);
        // The other site follows, and confirms what it has, once its unseen term is merged.
        let exposure = here.exposure.context("no exposure in the status")?;
        if here.epoch != there.epoch || exposure.commits + exposure.bytes > 0 {
            return Ok(Err(format!("{exposure:?}, epochs {} and {}", here.epoch, there.epoch)));
        }
        let lost = ledger(reach, bucket).await?;
        let lost = lost.iter().filter(|entry| entry.kind == "Lost" && entry.settled.is_none()).count();
        Ok(if lost == 0 { Ok(()) } else { Err(format!("{lost} lost versions")) })
    })
    .await
}

/// Writes down each change of the lease's holder.
pub(super) fn terms(recorder: &Recorder, said: &[Held], course: &Course<'_>) -> Result<()> {
    let mut first: BTreeMap<u64, &Held> = BTreeMap::new();
    for held in said {
        let first = first.entry(held.epoch).or_insert(held);
        if held.answered < first.answered {
            *first = held;
        }
    }
    for (epoch, won) in first {
        // When somebody still held an older term, he held it as long as this is not later.
        let older = said.iter().filter(|held| held.epoch < epoch).map(|held| held.asked);
        let Some(after) = older.max() else { continue };
        let at = won.answered.max(after);
        let planned = course.switches.iter().any(|switch| switch.start <= at && after <= switch.end);
        let back = course.returns.iter().copied().filter(|back| *back >= after).min();
        recorder.line(&Line::Term {
            epoch,
            site: won.site,
            planned,
            after: recorder.at(after),
            at: recorder.at(at),
            back: recorder.at(back.unwrap_or(after)),
        })?;
    }
    Ok(())
}

/// Writes down what is kept beside the registers, and what the ledger says of them. `values`: how many were written, from 1 on.
pub(super) async fn named(
    recorder: &Recorder,
    reach: &Reach,
    (bucket, registers): (&str, &[String]),
    values: u64,
) -> Result<()> {
    let by_etag: HashMap<String, u64> = (1..=values).map(|value| (etag(value), value)).collect();
    let conflicts = reach.command(&["conflicts", "--bucket", bucket, "--json"]).await?;
    let conflicts: Vec<ConflictVersion> = serde_json::from_str(&conflicts)?;
    for conflict in conflicts.iter().filter(|conflict| registers.contains(&conflict.id)) {
        let value = by_etag.get(&conflict.etag).copied();
        let value = value.with_context(|| format!("a conflict version that nobody wrote: {conflict:?}"))?;
        recorder.line(&Line::Conflict { register: &conflict.id, value })?;
    }
    for entry in ledger(reach, bucket).await?.iter().filter(|entry| registers.contains(&entry.id)) {
        let settled = entry.settled.as_deref();
        recorder.line(&Line::Ledger { register: &entry.id, entry: &entry.kind, settled })?;
    }
    Ok(())
}

async fn ledger(reach: &Reach, bucket: &str) -> Result<Vec<LedgerLine>> {
    Ok(serde_json::from_str(&reach.command(&["ledger", "--bucket", bucket, "--json"]).await?)?)
}

/// Writes down that all was settled.
pub(super) fn over(recorder: &Recorder) -> Result<()> {
    recorder.line(&Line::Settled { at: recorder.now() })
}
