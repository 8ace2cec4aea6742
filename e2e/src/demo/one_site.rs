//! One site: files go in, a node dies, a byte rots, rows vanish, everything is stopped and started; the files come out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use diptych::client::s3::S3Client;
use diptych::command::inspect::{InspectedRow, Inspection};
use std::os::unix::fs::FileExt;

use super::DemoOptions;
use super::faults::Faults;
use super::installation::{Installation, until};
use super::memory;
use super::reach::Reach;
use super::table::Table;
use super::tree::{self, Input};
use super::verify::{put_all, verify, verify_all};

/// Clients go on trying for so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The files of a demo.
pub struct Files {
    /// The tree.
    pub tree: Vec<Input>,
    /// The one large file.
    pub large: Input,
    /// Puts on their way at once.
    pub at_once: usize,
}

impl Files {
    /// All of them.
    pub fn all(&self) -> Vec<Input> {
        self.tree.iter().cloned().chain([self.large.clone()]).collect()
    }

    /// The largest of the tree: one above 256 KiB shares its extent with no other file, so that a read of it reads every data
    /// row. A small one may lie in a single row, and a read of it sees nothing of the others.
    pub fn alone(&self) -> Result<&Input> {
        let largest = self.tree.iter().max_by_key(|input| input.size);
        largest.filter(|input| input.size > 256 << 10).context("the tree has no file above 256 KiB")
    }
}

/// Reads the input.
pub async fn input(table: &mut Table, source: &tree::Source, scratch: &Path) -> Result<Files> {
    table
        .step("real input", async {
            let tree = tree::collect(&source.tree, "tree/", source.files)?;
            let large = tree::large(&scratch.join("large.bin"), source.large)?;
            let bytes: u64 = tree.iter().map(|input| input.size).sum();
            let seen =
                format!("{} files of {} MiB, and one of {} MiB", tree.len(), bytes >> 20, source.large);
            Ok((Files { tree, large, at_once: source.at_once }, seen))
        })
        .await
}

/// Puts everything through the public name and reads it back.
pub async fn store(table: &mut Table, installation: &Reach, s3: &Arc<S3Client>, files: &Files) -> Result<()> {
    table
        .step("put the tree through the public name by S3", async {
            s3.create_bucket().await?;
            let begun = Instant::now();
            put_all(s3, &files.tree, files.at_once).await?;
            let rate = files.tree.len() as f64 / begun.elapsed().as_secs_f64();
            Ok(((), format!("{} files, {rate:.0} a second", files.tree.len())))
        })
        .await?;
    let pids = installation.pids()?;
    let numbers: Vec<u32> = pids.iter().map(|(_, pid)| *pid).collect();
    memory::forget_peaks(&numbers);
    table
        .step("put the large file, in parts", async {
            s3.put_file(&files.large.key, &files.large.path).await?;
            Ok(((), memory::largest_peak(&pids)?))
        })
        .await?;
    memory::forget_peaks(&numbers);
    table
        .step("get the large file", async {
            verify(s3, &files.large).await?;
            Ok(((), format!("SHA-256 is right; {}", memory::largest_peak(&pids)?)))
        })
        .await?;
    verified(table, "read every file back", s3, &files.all()).await
}

/// Reads all of them; a step of its own.
pub async fn verified(table: &mut Table, name: &str, s3: &Arc<S3Client>, inputs: &[Input]) -> Result<()> {
    table
        .step(name, async {
            let bytes = verify_all(s3, inputs).await?;
            Ok(((), format!("{} files, {} MiB, every SHA-256 is right", inputs.len(), bytes >> 20)))
        })
        .await
}

/// Waits until a site has every row.
pub async fn whole(installation: &Reach, site: &str, limit: Duration) -> Result<String> {
    until("every extent is whole", limit, || async {
        let status = installation.status(site).await?;
        let health = &status.health;
        if health.extents > 0
            && health.whole == health.extents
            && status.repair.queue() == 0
            && health.wanted == 0
        {
            return Ok(Ok(format!(
                "{} extents whole in {site}, {} rows made anew",
                health.extents, status.repair.rows
            )));
        }
        Ok(Err(format!("{health:?}, {} in the queue", status.repair.queue())))
    })
    .await
}

/// One node dies for good, with its devices.
pub async fn node_dies(
    table: &mut Table,
    installation: &Reach,
    faults: &dyn Faults,
    site: &str,
    s3: &Arc<S3Client>,
    files: &Files,
) -> Result<()> {
    let died = table
        .step("a node dies for good, its devices with it", async {
            let died = faults.node_dies(site).await?;
            Ok((died.clone(), format!("{died} of {site}")))
        })
        .await?;
    verified(table, "all is readable at once", s3, &files.all()).await?;
    table
        .step("repaired to full margin on what is left", async {
            until("the dead node is noticed", Duration::from_mins(1), || async {
                let status = installation.status(site).await?;
                let dead = status.nodes.iter().any(|node| node.name == died && node.state == "dead");
                Ok(if dead { Ok(()) } else { Err(format!("{:?}", status.nodes)) })
            })
            .await?;
            Ok(((), whole(installation, site, Duration::from_mins(3)).await?))
        })
        .await
}

/// What `diptych inspect` says of a file.
pub async fn inspect(installation: &Reach, key: &str) -> Result<Inspection> {
    let mounted = installation.mounted.iter().flat_map(|mounted| ["--mounted", mounted.as_str()]);
    let words: Vec<&str> = ["inspect", key, "--json"].into_iter().chain(mounted).collect();
    let output = installation.output(&words).await?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("inspect said {}", String::from_utf8_lossy(&output.stderr)))
}

/// A byte of a fragment is flipped on the disk.
pub async fn byte_rots(
    table: &mut Table,
    installation: &Reach,
    site: &str,
    s3: &Arc<S3Client>,
    file: &Input,
) -> Result<()> {
    let flipped = table
        .step("a byte of a fragment is flipped on disk", async {
            let inspection = inspect(installation, &file.key).await?;
            ensure!(inspection.sound, "not sound before: {inspection:?}");
            let row =
                inspection.extents.first().and_then(|extent| extent.rows.first()).context("no row")?.clone();
            let segment = row.segment.clone().context("the row has no segment")?;
            let disk = std::fs::OpenOptions::new().read(true).write(true).open(&segment)?;
            let mut byte = [0];
            disk.read_exact_at(&mut byte, row.payload_offset)?;
            disk.write_all_at(&[byte[0] ^ 1], row.payload_offset)?;
            disk.sync_all()?;
            let after = inspect(installation, &file.key).await?;
            ensure!(!after.sound, "inspect did not see it");
            Ok((row.clone(), format!("row {} on {}; inspect sees it", row.row, row.node)))
        })
        .await?;
    table
        .step("scrub finds it, it is rebuilt, inspect agrees", async {
            // Asked again where a keeper was replaced in the middle of it.
            until("a scrub has run to its end", Duration::from_mins(2), || async {
                let scrubbed = installation.rest(site)?.post(&["api", "v1", "scrub"]).await;
                Ok(scrubbed.map(|_: serde_json::Value| ()).map_err(|error| format!("{error:#}")))
            })
            .await?;
            let seen = until("inspect is sound again", Duration::from_mins(1), || async {
                let inspection = inspect(installation, &file.key).await?;
                let rows = inspection.extents.iter().flat_map(|extent| &extent.rows);
                let anew = rows.clone().any(|row| row.row == flipped.row && row.instance != flipped.instance);
                Ok(if inspection.sound && anew {
                    Ok(format!("all {} rows are right", rows.count()))
                } else {
                    Err(format!("{inspection:?}"))
                })
            })
            .await?;
            verify(s3, file).await?;
            Ok(((), seen))
        })
        .await
}

/// Overwrites rows on their disks; where they were, with what they had.
pub fn overwrite<'a>(rows: impl Iterator<Item = &'a InspectedRow>) -> Result<Vec<(PathBuf, u64, Vec<u8>)>> {
    let mut taken = Vec::new();
    for row in rows {
        let segment = row.segment.clone().context("the row has no segment")?;
        let disk = std::fs::OpenOptions::new().read(true).write(true).open(&segment)?;
        let mut bytes = vec![0; row.row_bytes as usize];
        disk.read_exact_at(&mut bytes, row.payload_offset)?;
        disk.write_all_at(&vec![0xa5; bytes.len()], row.payload_offset)?;
        disk.sync_all()?;
        taken.push((segment, row.payload_offset, bytes));
    }
    Ok(taken)
}

/// So many rows of a file are taken away that fewer than k are left anywhere, and put back.
pub async fn rows_vanish(table: &mut Table, installation: &Reach, file: &Input) -> Result<()> {
    let impatient = installation.s3(Duration::ZERO)?;
    let aside = table
        .step("too many rows of one file are taken away", async {
            let inspection = inspect(installation, &file.key).await?;
            let extent = inspection.extents.first().context("no extent")?;
            let take = usize::from(extent.here) - usize::from(extent.needed) + 1;
            let taken = overwrite(extent.rows.iter().take(take))?;
            let error = match verify(&impatient, file).await {
                Ok(_) => bail!("it could still be read"),
                Err(error) => format!("{error:#}"),
            };
            ensure!(error.contains("InsufficientFragments"), "the error is not clear: {error}");
            ensure!(!error.contains("SHA-256"), "wrong bytes were given: {error}");
            let message = error.split("<Message>").nth(1).and_then(|rest| rest.split("</Message>").next());
            Ok((taken, format!("503 InsufficientFragments: {}", message.unwrap_or(&error))))
        })
        .await?;
    table
        .step("put back, it reads", async {
            for (segment, offset, bytes) in &aside {
                let disk = std::fs::OpenOptions::new().write(true).open(segment)?;
                disk.write_all_at(bytes, *offset)?;
                disk.sync_all()?;
            }
            until("it reads", Duration::from_secs(30), || async {
                Ok(verify(&impatient, file).await.map_err(|error| format!("{error:#}")))
            })
            .await?;
            Ok(((), "SHA-256 is right".to_owned()))
        })
        .await
}

/// The whole demo of one site.
pub async fn demo(table: &mut Table, options: &DemoOptions, data_dir: &Path, scratch: &Path) -> Result<()> {
    let site = "east";
    let words = ["--sites", "1", "--node-dead-after", "3"];
    let files = input(table, &options.source, scratch).await?;
    let installation = started(table, "diptych dev --sites 1", data_dir, &words).await?;
    let s3 = installation.s3(PATIENCE)?;
    store(table, &installation, &s3, &files).await?;
    node_dies(table, &installation, &installation, site, &s3, &files).await?;
    let file = files.alone()?;
    byte_rots(table, &installation, site, &s3, file).await?;
    rows_vanish(table, &installation, file).await?;
    verified(table, "read every file back", &s3, &files.all()).await?;
    table
        .step("the whole is stopped", async {
            installation.stop().await?;
            Ok(((), "every process ended".to_owned()))
        })
        .await?;
    let installation = started(table, "started again on the same folder", data_dir, &words).await?;
    let s3 = installation.s3(PATIENCE)?;
    verified(table, "read every file back after the restart", &s3, &files.all()).await?;
    installation.stop().await
}

/// Starts an installation; a step of its own.
pub async fn started(table: &mut Table, name: &str, data_dir: &Path, words: &[&str]) -> Result<Installation> {
    table
        .step(name, async {
            let installation = Installation::start(data_dir, words).await?;
            let pids = installation.pids()?;
            Ok((installation, format!("{} processes are ready", pids.len())))
        })
        .await
}
