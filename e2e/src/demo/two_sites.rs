//! Two sites: everything that one site survives, and then the active site dies, returns, and gets its role back.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use diptych::client::s3::S3Client;

use super::DemoOptions;
use super::faults::Faults;
use super::installation::until;
use super::one_site::{self, PATIENCE, started, verified};
use super::reach::Reach;
use super::table::Table;
use super::tree::Input;
use super::verify::verify;
use super::writer::{self, Writer};

const EAST: &str = "east";
const WEST: &str = "west";
/// Records of a writer that goes on before the active site dies.
const GOES_ON: u64 = 50;
/// Records of it before and after a planned switch.
const AROUND_SWITCH: u64 = 10;
/// Looks one after the other that must find both sites well, before a person would switch.
const WELL: u32 = 20;
/// A planned switch refuses no write for longer.
const SWITCH_LIMIT: Duration = Duration::from_secs(2);
/// Until a planned switch is asked for again.
const SWITCH_AGAIN: Duration = Duration::from_secs(5);
/// Until a planned switch has to have come about.
const SWITCH_PATIENCE: Duration = Duration::from_mins(1);

/// The whole demo of two sites, with one way of acknowledging.
pub async fn demo(
    table: &mut Table,
    options: &DemoOptions,
    acknowledge: &str,
    data_dir: &Path,
    scratch: &Path,
) -> Result<()> {
    let words = ["--sites", "2", "--node-dead-after", "3", "--acknowledge", acknowledge];
    let files = one_site::input(table, &options.source, scratch).await?;
    let installation =
        started(table, &format!("diptych dev --acknowledge {acknowledge}"), data_dir, &words).await?;
    let s3 = installation.s3(PATIENCE)?;
    one_site::store(table, &installation, &s3, &files).await?;
    let scene = Scene { reach: &installation, faults: &installation, acknowledge, files: &files };
    scene.play(table).await?;
    installation.stop().await
}

/// An installation with the files in it, and what can happen to it.
pub struct Scene<'a> {
    /// The way to it.
    pub reach: &'a Reach,
    /// What breaks it.
    pub faults: &'a dyn Faults,
    /// How it acknowledges.
    pub acknowledge: &'a str,
    /// What was stored.
    pub files: &'a one_site::Files,
}

impl Scene<'_> {
    /// A node, a byte, some rows, then the whole active site; its return and the switch back.
    pub async fn play(&self, table: &mut Table) -> Result<()> {
        let Self { reach, faults, acknowledge, files } = *self;
        let s3 = reach.s3(PATIENCE)?;
        protected(table, reach, "everything is protected in both sites").await?;
        let writer = Writer::start(reach.s3(Duration::ZERO)?);
        if acknowledge == "OneSite" {
            one_site::node_dies(table, reach, faults, EAST, &s3, files).await?;
            let file = files.alone()?;
            one_site::byte_rots(table, reach, EAST, &s3, file).await?;
            rows_of_one_site_vanish(table, reach, active(reach).await?, file).await?;
            one_site::rows_vanish(table, reach, file).await?;
        }
        self.site_dies_and_returns(table, writer).await
    }

    /// The active site dies and is taken over; it returns and is handed the lease. `writer` wrote all the while.
    pub async fn site_dies_and_returns(&self, table: &mut Table, writer: Writer) -> Result<()> {
        let Self { reach, faults, acknowledge, files } = *self;
        let s3 = reach.s3(PATIENCE)?;
        writer.has_written(GOES_ON).await?;
        protected(table, reach, "the exposure is 0").await?;
        let dies = active(reach).await?;
        let died = active_site_dies(table, reach, faults, dies, acknowledge, &files.tree[0].key).await?;
        verified(table, "the public name serves every file", &s3, &files.all()).await?;
        dead_site_returns(table, reach, faults, dies, &s3).await?;
        protected(table, reach, "nothing is exposed").await?;
        settled(table, reach).await?;
        writer.goes_on(AROUND_SWITCH).await?;
        let mut switched = switch(table, reach, other(dies)).await?;
        // Before anything else is asked of the site: what holds a write up now is the switch.
        writer.goes_on(AROUND_SWITCH).await?;
        switched.end = Instant::now();
        verified(table, "every file after the switch back", &s3, &files.all()).await?;
        records(table, reach, writer, died, switched).await
    }
}

/// Fewer than k rows of a file are left in the active site: the other site's are read, and the extent crosses again.
async fn rows_of_one_site_vanish(
    table: &mut Table,
    installation: &Reach,
    active: &str,
    file: &Input,
) -> Result<()> {
    table
        .step(
            "too few rows of one file are left in the active site: it is read from both, and crosses again",
            async {
                let inspection = one_site::inspect(installation, &file.key).await?;
                let extent = inspection.extents.first().context("no extent")?;
                let here = || extent.rows.iter().filter(|row| row.site == active);
                let take = here().count() + 1 - usize::from(extent.needed);
                one_site::overwrite(here().take(take))?;
                verify(&*installation.s3(Duration::ZERO)?, file).await?;
                until("every row is right again", Duration::from_mins(1), || async {
                    let inspection = one_site::inspect(installation, &file.key).await?;
                    Ok(if inspection.sound { Ok(()) } else { Err(format!("{inspection:?}")) })
                })
                .await?;
                Ok((
                    (),
                    format!(
                        "{take} of {} rows taken away; SHA-256 is right; all rows are right again",
                        here().count()
                    ),
                ))
            },
        )
        .await
}

/// Waits until nothing lies in one site only, as far as that can be with a writer that goes on.
pub async fn protected(table: &mut Table, installation: &Reach, name: &str) -> Result<()> {
    table
        .step(name, async {
            let active = active(installation).await?;
            let passive = other(active);
            let seen = until("nothing is exposed", Duration::from_mins(2), || async {
                let (here, there) = (installation.status(active).await?, installation.status(passive).await?);
                let exposure = here.exposure.clone().context("no exposure in the status")?;
                let lacks = there.health.wanted;
                // A writer goes on: its newest record is always under way.
                let done = exposure.bytes < 1 << 20
                    && exposure.age_ms < 2_000
                    && lacks < 8
                    && there.health.extents > 0;
                Ok(if done {
                    Ok(format!(
                        "{passive} holds {} extents; {} commits under way",
                        there.health.extents, exposure.commits
                    ))
                } else {
                    Err(format!("{exposure:?}, {passive} lacks {lacks}"))
                })
            })
            .await?;
            Ok(((), seen))
        })
        .await
}

/// A site that has just returned still starts the rest of what runs on its machines.
pub async fn settled(table: &mut Table, installation: &Reach) -> Result<()> {
    table
        .step("both sites' nodes and keepers answer: a planned switch may come", async {
            let begun = Instant::now();
            both_are_well(installation, Duration::from_mins(5)).await?;
            Ok((
                (),
                format!("after {:.1} s, in {WELL} looks one after the other", begun.elapsed().as_secs_f64()),
            ))
        })
        .await
}

/// Waits until several looks one after the other find every node of both sites there, and each site hears the other.
pub async fn both_are_well(installation: &Reach, limit: Duration) -> Result<()> {
    let well = AtomicU32::new(0);
    until("both sites are well", limit, || async {
        for site in [EAST, WEST] {
            let status = installation.status(site).await?;
            let silent = status.nodes.iter().find(|node| matches!(node.state.as_str(), "silent" | "waiting"));
            let trouble = match silent {
                Some(node) => Some(format!("{} of {site} is {}", node.name, node.state)),
                None if !status.lease.peer_connected => Some(format!("{site} does not hear the other site")),
                None => None,
            };
            if let Some(trouble) = trouble {
                well.store(0, Ordering::Relaxed);
                return Ok(Err(trouble));
            }
        }
        let looks = well.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(if looks >= WELL { Ok(()) } else { Err(format!("well in {looks} looks")) })
    })
    .await
}

/// Which site says that it is active.
pub async fn active(installation: &Reach) -> Result<&'static str> {
    for site in [EAST, WEST] {
        if installation.status(site).await.is_ok_and(|status| status.role == "active") {
            return Ok(site);
        }
    }
    bail!("no site is active")
}

/// The other one.
pub fn other(site: &str) -> &'static str {
    if site == EAST { WEST } else { EAST }
}

/// Every process of the active site is killed.
///
/// With BothSites nothing is acknowledged while one site is away, so the first good read is looked for instead.
async fn active_site_dies(
    table: &mut Table,
    installation: &Reach,
    faults: &dyn Faults,
    site: &str,
    acknowledge: &str,
    file: &str,
) -> Result<Instant> {
    let heir = other(site);
    let probe = installation.s3(Duration::ZERO)?;
    table
        .step("the whole active site dies at once, the other takes over", async {
            let died = Instant::now();
            faults.site_dies(site).await?;
            let reads = acknowledge == "BothSites";
            let took = first_answer(&probe, reads.then_some(file), died, Duration::from_mins(1)).await?;
            until("the term is in the status", Duration::from_secs(10), || async {
                let status = installation.status(heir).await?;
                Ok(if status.role == "active" { Ok(()) } else { Err(status.role) })
            })
            .await?;
            let epoch = installation.status(heir).await?.epoch;
            let what = if reads { "read" } else { "write" };
            let seen = format!(
                "{site}: first {what} through the public name after {:.2} s, epoch {epoch}",
                took.as_secs_f64()
            );
            Ok((died, seen))
        })
        .await
}

/// Until a write, or a read of `file`, is answered with success; edges and clients give no answer for a while.
pub async fn first_answer(
    probe: &S3Client,
    file: Option<&str>,
    since: Instant,
    limit: Duration,
) -> Result<Duration> {
    loop {
        let attempt = async {
            match file {
                Some(file) => probe.get(file).await.map(drop),
                None => probe.put("probe", bytes::Bytes::from_static(b"probe")).await.map(drop),
            }
        };
        match tokio::time::timeout(Duration::from_secs(1), attempt).await {
            Ok(Ok(())) => return Ok(since.elapsed()),
            Ok(Err(error)) if since.elapsed() > limit => {
                return Err(error.context("nothing after the takeover"));
            }
            Err(_) if since.elapsed() > limit => bail!("no answer through the public name"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn dead_site_returns(
    table: &mut Table,
    installation: &Reach,
    faults: &dyn Faults,
    site: &str,
    s3: &Arc<S3Client>,
) -> Result<()> {
    table
        .step("the dead site returns: passive, catches up, its unseen term is merged", async {
            faults.site_returns(site).await?;
            let seen = until("it has caught up", Duration::from_mins(5), || async {
                let (back, active) =
                    (installation.status(site).await?, installation.status(other(site)).await?);
                ensure!(back.role != "active", "the returning site is active");
                let exposure = active.exposure.clone().context("no exposure in the status")?;
                let done = back.epoch == active.epoch
                    && back.repair.queue() + active.repair.queue() == 0
                    && back.health.wanted < 8
                    && exposure.age_ms < 2_000
                    && exposure.bytes < 1 << 20;
                Ok(if done {
                    Ok(format!(
                        "{site} is {} in epoch {}, {} extents whole",
                        back.role, back.epoch, back.health.whole
                    ))
                } else {
                    Err(format!("{exposure:?}, {site} {:?}, {} to repair", back.health, back.repair.queue()))
                })
            })
            .await?;
            s3.put("after-the-return", bytes::Bytes::from_static(b"x")).await?;
            Ok(((), seen))
        })
        .await
}

/// Asks for a planned switch until it has come about, since one that would refuse writes for too long is given up by itself. How often.
pub async fn hand_over(installation: &Reach, from: &str) -> Result<u32> {
    let (begun, to) = (Instant::now(), other(from));
    let what = format!("{to} is active");
    let mut asked = 0;
    loop {
        asked += 1;
        let _: serde_json::Value = installation.rest(from)?.post(&["api", "v1", "handover"]).await?;
        let switched = until(&what, SWITCH_AGAIN, || async {
            let status = installation.status(to).await?;
            Ok(if status.role == "active" { Ok(()) } else { Err(status.role) })
        });
        match switched.await {
            Err(error) if begun.elapsed() > SWITCH_PATIENCE => return Err(error),
            Err(_) => {}
            Ok(()) => return Ok(asked),
        }
    }
}

/// The lease is handed from `from` to the other site; when that was under way.
pub async fn switch(table: &mut Table, installation: &Reach, from: &str) -> Result<Range<Instant>> {
    let to = other(from);
    table
        .step("a planned switch back", async {
            let begun = Instant::now();
            let asked = hand_over(installation, from).await?;
            let epoch = installation.status(to).await?.epoch;
            Ok((
                begun..Instant::now(),
                format!(
                    "{to} is active again after {:.2} s, asked for {asked} times, epoch {epoch}",
                    begun.elapsed().as_secs_f64()
                ),
            ))
        })
        .await
}

/// What became of the records that were written all the while.
async fn records(
    table: &mut Table,
    installation: &Reach,
    writer: Writer,
    died: Instant,
    switched: Range<Instant>,
) -> Result<()> {
    table
        .step("every acknowledged record of the writer is there", async {
            let acknowledged = writer.stop().await?;
            let outage = writer::longest_gap(&acknowledged, died, switched.start);
            let refused = writer::longest_gap(&acknowledged, switched.start, switched.end);
            let s3 = installation.s3(PATIENCE)?;
            writer::none_missing(installation, &s3, &acknowledged).await?;
            ensure!(refused <= SWITCH_LIMIT, "the planned switch refused writes for {refused:?}");
            let seen = format!(
                "{} records, none missing; longest time without an acknowledgement {:.2} s in the outage, {:.2} s in the switch",
                acknowledged.len(),
                outage.as_secs_f64(),
                refused.as_secs_f64()
            );
            Ok(((), seen))
        })
        .await
}
