//! What is done with this site's own rows alone: sampled objects are read, a resurrection of the catalog is rehearsed.

use std::time::Duration;

use diptych_core::drill::{Rehearsed, Samples};

use super::desk::DrillParts;
use super::rest::Rest;
use crate::resurrect::{self, AgentFragments, Rehearsal};

/// Neither takes longer.
const LIMIT: Duration = Duration::from_mins(10);
/// Keys that are named which would not be as they are.
const NAMED: usize = 8;

pub(super) async fn sample(parts: &DrillParts, objects: u32) -> Result<Samples, String> {
    let own = Rest::new(&parts.own, &parts.token).await?;
    let objects = objects.to_string();
    own.post(&["api", "v1", "verify"], &[("objects", &objects)], LIMIT).await
}

pub(super) async fn rehearse(parts: &DrillParts, keys: u32) -> Result<Rehearsed, String> {
    let context = &parts.context;
    let source = AgentFragments::new(context);
    let cluster_keys = context.cluster_keys.keys();
    let rehearsal = resurrect::rehearse(context.catalog.as_ref(), &source, &cluster_keys, keys as usize);
    match tokio::time::timeout(LIMIT, rehearsal).await {
        Ok(Ok(rehearsal)) => rehearsed(rehearsal),
        Ok(Err(error)) => Err(diptych_wire::http::chain(&error)),
        Err(_) => Err(format!("it took longer than {LIMIT:?}")),
    }
}

fn rehearsed(rehearsal: Rehearsal) -> Result<Rehearsed, String> {
    let Rehearsal { report, sampled, same, changed, mut different, took_ms } = rehearsal;
    if report.upto.is_none() {
        return Err("no journal that reads says how far it goes".to_owned());
    }
    different.truncate(NAMED);
    Ok(Rehearsed { keys: sampled, same, changed, different, gaps: report.gaps.len() as u64, took_ms })
}
