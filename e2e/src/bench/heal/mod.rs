//! How fast lost rows come back: Diptych after the death of one node of three, MinIO after a drive was emptied, with the same objects on the
//! same disk, one after the other; and what the disk and the code would allow, measured between.

mod diptych;
mod minio;
mod raw;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::load::{Client, Op};
use super::stores::Store;
use super::{BenchOptions, LARGE, SMALL};
use report::Healing;

/// Bucket of all objects.
const BUCKET: &str = "healed";
/// However slow: what takes longer is stuck.
const LIMIT: Duration = Duration::from_hours(1);
/// How often it is looked how far a store is: the figures are no finer.
const LOOK: Duration = Duration::from_millis(100);

/// What one store did.
#[derive(Debug, Serialize)]
struct Recovery {
    /// What was taken away.
    lost: &'static str,
    /// Objects that lost some of their rows.
    objects: u64,
    /// Their bytes, as clients wrote them.
    object_bytes: u64,
    /// From the loss until the first was being healed.
    noticed_s: f64,
    /// From then until all had every row again.
    healed_s: f64,
    /// Bytes that had to be written.
    rewritten_bytes: u64,
}

impl Recovery {
    fn rewritten_mib_per_s(&self) -> f64 {
        mib(self.rewritten_bytes) / self.healed_s
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Measures both, and prints what came out.
pub(super) async fn measure(options: &BenchOptions, folder: &Path) -> Result<Healing> {
    let (diptych, raw) = diptych::measure(options, &folder.join("diptych")).await?;
    let minio =
        if options.alone { None } else { Some(minio::measure(options, &folder.join("minio")).await?) };
    let healing = Healing::new(diptych, minio, raw);
    super::say(&format!("\n{}", healing.render()));
    Ok(healing)
}

/// Puts the objects.
async fn fill(options: &BenchOptions, store: Store) -> Result<()> {
    let client = Client { tools: &options.tools, store, bucket: BUCKET.to_owned() };
    for (load, objects) in [(SMALL, options.small), (LARGE, options.large)] {
        if objects > 0 {
            super::say(&format!("{} x {objects} into {}", load.name, client.store.address));
            client.run(load.size, load.clients, Op::Fill { objects }).await?;
        }
    }
    Ok(())
}

/// How many there are, and their bytes.
fn objects_of(options: &BenchOptions) -> (u64, u64) {
    (options.small + options.large, options.small * SMALL.size + options.large * LARGE.size)
}
