//! Faults of whole sites and of what they stand on. Through each a writer goes on by the public name, and both sites are asked who holds
//! the lease: every acknowledged record is there at the end, and never do two hold it at a time.

pub(super) mod cables;
mod control;
mod lines;
pub(in crate::kind) mod processes;
mod stops;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::demo::writer::{self, Records, Writer};
use crate::kind::proof::ground::Ground;
use crate::kind::proof::leases::{LeaseWatch, one_holder_at_a_time};

/// Records before a fault begins, and after it is over.
const GOES_ON: u64 = 20;
/// Between two records: each is shown as a FileObject in both clusters for a while.
const PACE: Duration = Duration::from_millis(100);
/// A takeover, also one behind a witness that was renewed lately.
const TAKEOVER: Duration = Duration::from_secs(30);
/// A takeover whose keepers are killed on the way.
const LATE_TAKEOVER: Duration = Duration::from_secs(90);
/// Without an acknowledgement while no role moves.
const UNDISTURBED: Duration = Duration::from_secs(6);

/// Each fault once, then both sites are well before the next.
pub(super) async fn all(table: &mut Table, ground: &Ground<'_>, short: bool) -> Result<()> {
    let away = if short { Duration::from_mins(1) } else { Duration::from_mins(10) };
    ground.told(lines::partitioned(table, ground).await).await;
    ground.well(table).await?;
    ground.told(stops::stopped(table, ground).await).await;
    ground.well(table).await?;
    ground.told(control::without_api_servers(table, ground, away).await).await;
    ground.well(table).await?;
    ground.told(stops::operators_killed(table, ground).await).await;
    ground.well(table).await?;
    ground.told(control::members_lost(table, ground).await).await;
    ground.well(table).await?;
    ground.told(lines::cut_from_cloudflare(table, ground).await).await;
    ground.well(table).await?;
    ground.told(stops::promoted_by_a_person(table, ground).await).await;
    ground.well(table).await
}

/// Lets a fault happen under load, waits until both sites are well, and looks what became of records and lease. No write waits for
/// longer than `gap`.
async fn through(
    ground: &Ground<'_>,
    gap: Duration,
    fault: impl Future<Output = Result<String>>,
) -> Result<((), String)> {
    ground.until_well().await?;
    let [one, other] = ground.clusters;
    let leases = LeaseWatch::start(&ground.reach, [one.site, other.site])?;
    let begun = Instant::now();
    let records = Records { first: first_record()?, pace: PACE };
    let writer = Writer::start_with(ground.s3_by(&ground.reach.endpoints()?.s3, Duration::ZERO)?, records);
    let seen = async {
        writer.has_written(GOES_ON).await?;
        let seen = fault.await?;
        writer.goes_on(GOES_ON).await?;
        // What was acknowledged by a site that was then taken over is back once its unseen term is merged.
        let well = ground.until_well().await?;
        writer.goes_on(GOES_ON).await?;
        anyhow::Ok(format!("{seen}; then {well}"))
    }
    .await;
    let acknowledged = writer.stop().await?;
    let said = leases.stop().await?;
    let held = one_holder_at_a_time(&said);
    let (seen, held) = match (seen, held) {
        (Ok(seen), Ok(held)) => (seen, held),
        // Two holders are worse than whatever was seen of the fault.
        (Err(error), Err(two)) => return Err(error.context(format!("{two:#}"))),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => return Err(error),
    };
    let s3 = ground.s3()?;
    writer::none_missing(&ground.reach, &s3, &acknowledged).await?;
    let longest = writer::longest_gap(&acknowledged, begun, Instant::now());
    ensure!(longest <= gap, "no write was acknowledged for {longest:?}, {gap:?} are allowed; {seen}; {held}");
    writer::take_away(&s3, &acknowledged).await?;
    let (records, longest) = (acknowledged.len(), longest.as_secs_f64());
    Ok((
        (),
        format!(
            "{seen}; {records} records, none missing; longest without an acknowledgement {longest:.2} s; {held}"
        ),
    ))
}

/// A number that no earlier record has: milliseconds since 1970.
fn first_record() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64)
}

/// Waits until a site is active under a newer epoch than `epoch`; when it was.
async fn takes_over(ground: &Ground<'_>, site: &str, epoch: u64, limit: Duration) -> Result<u64> {
    until(&format!("{site} takes over"), limit, || async {
        let status = ground.status(site).await?;
        let done = status.role == "active" && status.epoch.0 > epoch;
        Ok(if done { Ok(status.epoch.0) } else { Err(format!("{} {:?}", status.role, status.lease)) })
    })
    .await
}

/// Waits until so much time has passed since a fault began.
async fn lasts(begun: Instant, length: Duration) {
    tokio::time::sleep_until((begun + length).into()).await;
}
