//! A node of `diptych dev` is killed and stays away.
//!
//! With 4 of 6 on three nodes each extent loses two rows with it. Both are made anew on the two nodes that are left, where some devices then
//! hold two rows of one extent: all rows are there again, which is all that four devices allow.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use diptych_site::status::SiteStatus;

use super::raw::{self, Raw};
use super::{LIMIT, LOOK, Recovery, fill, objects_of};
use crate::bench::BenchOptions;
use crate::bench::stores::Store;
use crate::demo::installation::{Installation, signal, until};

const SITE: &str = "east";
/// k of the coding that these nodes get.
const NEEDED: u64 = 4;
/// Rows of each extent on one node of three.
const LOST: u64 = 2;
/// MiB a second: more than any disk has, so that the budget does not hold repair back.
const REPAIR_LAN: &str = "65536";

/// Since when it heals, and since when nothing waits any more.
#[derive(Debug, Default)]
struct Progress {
    begun: Option<Instant>,
    idle: Option<Instant>,
}

impl Progress {
    /// What repair says of itself counts as far as time is concerned; that all rows are there is the next survey's word.
    fn see(&mut self, status: &SiteStatus, rows_before: u64) -> Result<(Instant, Instant), String> {
        let now = Instant::now();
        let (queue, health) = (status.repair.queue(), &status.health);
        if queue > 0 || status.repair.rows > rows_before {
            self.begun.get_or_insert(now);
        }
        self.idle = if queue == 0 { self.idle.or(Some(now)) } else { None };
        match (self.begun, self.idle) {
            (Some(begun), Some(idle)) if health.degraded == 0 && health.whole == health.extents => {
                Ok((begun, idle))
            }
            _ => Err(format!("{queue} in the queue, {} of {} whole", health.whole, health.extents)),
        }
    }
}

/// Fills it, measures what its disk can do, and kills a node.
pub(super) async fn measure(options: &BenchOptions, folder: &Path) -> Result<(Recovery, Raw)> {
    let words = ["--sites", "1", "--nodes", "3", "--devices", "2", "--repair-lan", REPAIR_LAN];
    let installation = Installation::start_program(&options.diptych, folder, &words).await?;
    fill(options, Store::of(&installation, SITE)?).await?;
    let (objects, object_bytes) = objects_of(options);
    let before = until("every extent is whole", Duration::from_mins(5), || async {
        let status = installation.status(SITE).await?;
        let health = &status.health;
        let is_whole = health.bytes >= object_bytes && health.whole == health.extents;
        Ok(if is_whole { Ok(status) } else { Err(format!("{health:?}")) })
    })
    .await?;
    let measured_in = folder.to_path_buf();
    let raw = tokio::task::spawn_blocking(move || raw::measure(&measured_in)).await??;

    let node = installation.agent(SITE, 2)?;
    super::super::say(&format!(
        "{} dies: {} extents lose {LOST} rows each",
        node.name, before.health.extents
    ));
    let killed = Instant::now();
    signal(node.pid, "KILL")?;
    let progress = RefCell::new(Progress::default());
    let (begun, healed) = until("all rows are made anew", LIMIT, || async {
        let status = installation.status(SITE).await?;
        Ok(progress.borrow_mut().see(&status, before.repair.rows))
    })
    .await?;
    installation.stop().await?;
    std::fs::remove_dir_all(folder).with_context(|| format!("{} can't be removed", folder.display()))?;
    let healed = Recovery {
        lost: "a node of three: 2 rows of 6",
        objects,
        object_bytes,
        noticed_s: (begun - killed).as_secs_f64(),
        healed_s: (healed - begun).max(LOOK).as_secs_f64(),
        rewritten_bytes: before.health.bytes * LOST / NEEDED,
    };
    Ok((healed, raw))
}
