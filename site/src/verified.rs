//! The day on which all rows of an extent were last read and found right goes into its placement.
//!
//! An agent says of each record when the round of scrub began that has read it last. Placements and the records of all devices
//! are in order of extent, so they are walked side by side, a page at a time. An extent gets the day of its least recent row, and
//! none while a row is missing, rotten, newer than its device's last round, or on a device that does not answer: its old day stays,
//! for that day it was so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Limits, View, Write};
use diptych_core::ids::{DeviceId, ExtentId, InstanceId, Row};
use diptych_core::keys::{self, Key};
use diptych_core::records::{Extent, ExtentState, Placement, Record};

use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::place::Place;

/// Placements of one page, and records of one question.
const PAGE: u32 = 1_000;
const DAY: Duration = Duration::from_hours(24);

/// A record, in the order in which its device lists them.
type Entry = (ExtentId, Row, InstanceId);

/// Greater than each record of an extent.
const fn after(extent: ExtentId) -> Entry {
    (extent, Row(u8::MAX), InstanceId([u8::MAX; 8]))
}

/// A placement as it was read, of an extent that lives.
struct Placed {
    key: Key,
    extent: ExtentId,
    raw: Bytes,
    placement: Placement,
    /// Rows that it should have.
    rows: usize,
}

/// One pass over a site's placements; how many got a newer day.
pub async fn pass(context: &SiteContext) -> Result<u64, SiteError> {
    let place = context.here();
    let mut rest = keys::placements(&context.site);
    let (mut changed, mut before, mut silent) = (0, None, BTreeSet::new());
    loop {
        let view = context.catalog.view().await?;
        let page = view.scan(&rest, PAGE as usize)?;
        let placed =
            page.entries.iter().filter_map(|(key, raw)| living(view.as_ref(), context, key, raw).transpose());
        let placed = placed.collect::<Result<Vec<_>, _>>()?;
        drop(view);
        if let Some(last) = page.entries.last().and_then(|(key, _)| keys::extent_of(key)) {
            let verified = verified(&place, &placed, before, last, &mut silent).await;
            changed += write(context, newer(&placed, &verified, day(now_ms()))).await?;
            before = Some(after(last));
        }
        match page.next {
            Some(next) => rest.start = next,
            None => return Ok(changed),
        }
    }
}

fn living(
    view: &dyn View,
    context: &SiteContext,
    key: &Key,
    raw: &Bytes,
) -> Result<Option<Placed>, SiteError> {
    let Some(extent) = keys::extent_of(key) else { return Ok(None) };
    let Some(record) = view.get(&keys::extent(extent))? else { return Ok(None) };
    let record = Extent::decode(&record)?;
    if record.state == ExtentState::Condemned {
        return Ok(None);
    }
    let rows = record.rows_of(&context.site).count();
    Ok(Some(Placed { key: key.clone(), extent, raw: raw.clone(), placement: Placement::decode(raw)?, rows }))
}

/// When the rounds began that have read the records of a page, of those devices that answer. One that did not is asked once a pass.
async fn verified(
    place: &Place,
    placed: &[Placed],
    before: Option<Entry>,
    last: ExtentId,
    silent: &mut BTreeSet<DeviceId>,
) -> BTreeMap<(DeviceId, Entry), u64> {
    let devices: BTreeSet<DeviceId> =
        placed.iter().flat_map(|placed| &placed.placement.rows).map(|row| row.device).collect();
    let mut verified = BTreeMap::new();
    for device in devices.difference(&silent.clone()).copied() {
        match on_device(place, device, before, last).await {
            Ok(records) => verified.extend(records.into_iter().map(|(entry, ms)| ((device, entry), ms))),
            Err(error) => {
                tracing::info!(%device, %error, "when its records were read last is not known now");
                silent.insert(device);
            }
        }
    }
    verified
}

async fn on_device(
    place: &Place,
    device: DeviceId,
    before: Option<Entry>,
    last: ExtentId,
) -> Result<Vec<(Entry, u64)>, SiteError> {
    let agent = place.agent_of(device)?;
    let (mut after, mut found) = (before, Vec::new());
    loop {
        let page = agent.inventory(device, after, None, PAGE).await?;
        let records =
            page.records.iter().map(|record| ((record.extent, record.row, record.instance), record));
        found.extend(
            records
                .filter(|((extent, ..), record)| *extent <= last && record.verified_ms > 0)
                .map(|(entry, record)| (entry, record.verified_ms)),
        );
        match page.records.last() {
            Some(record) if !page.last && record.extent <= last => {
                after = Some((record.extent, record.row, record.instance));
            }
            _ => return Ok(found),
        }
    }
}

/// Those that get a newer day.
fn newer<'a>(
    placed: &'a [Placed],
    verified: &'a BTreeMap<(DeviceId, Entry), u64>,
    today: u32,
) -> impl Iterator<Item = Change> {
    placed.iter().filter_map(move |placed| {
        // An agent's clock may be ahead.
        let day = day_of(placed, verified)?.min(today);
        let placement = Placement { verified_day: day, ..placed.placement.clone() };
        (day > placed.placement.verified_day).then(|| Change {
            guards: vec![Guard { key: placed.key.clone(), expect: Expect::Value(placed.raw.clone()) }],
            writes: vec![Write::Put(placed.key.clone(), Bytes::from(placement.encode()))],
        })
    })
}

/// Days since 1970 when the least recent row was read; None: that can't be said of all rows that it should have.
fn day_of(placed: &Placed, verified: &BTreeMap<(DeviceId, Entry), u64>) -> Option<u32> {
    let rows = &placed.placement.rows;
    let different: BTreeSet<Row> = rows.iter().map(|row| row.row).collect();
    if different.len() < placed.rows {
        return None;
    }
    let read = rows.iter().map(|row| verified.get(&(row.device, (placed.extent, row.row, row.instance))));
    read.collect::<Option<Vec<&u64>>>()?.into_iter().min().map(|least| day(*least))
}

/// Days since 1970 of milliseconds since then.
fn day(ms: u64) -> u32 {
    u32::try_from(u128::from(ms) / DAY.as_millis()).unwrap_or(u32::MAX)
}

/// What somebody else has changed meanwhile gets its day with the next pass.
async fn write(context: &SiteContext, changes: impl Iterator<Item = Change>) -> Result<u64, SiteError> {
    let changes: Vec<Change> = changes.collect();
    for some in changes.chunks(Limits::UNFENCED.changes) {
        context.catalog.commit(Batch { epoch: None, changes: some.to_vec() }).await?;
    }
    Ok(changes.len() as u64)
}
