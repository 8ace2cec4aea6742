//! Compaction with two sites: of files that share an extent most are deleted, the rest moves in both sites, and is read from either,
//! also after the one that moved it has died.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use diptych_core::drill::Samples;
use diptych_core::ids::ExtentId;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::one_site::inspect;
use diptych_e2e::demo::reach::{BUCKET, site_of};
use diptych_e2e::program::in_folder;

const LIMIT: Duration = Duration::from_mins(2);
const FILES: usize = 48;
/// Of so many files one is kept.
const KEPT_OF: usize = 12;

fn file(number: usize) -> (String, Bytes) {
    let word = (number as u32 + 1).wrapping_mul(2_654_435_761);
    let bytes: Vec<u8> = (0..1_024_u32).flat_map(|at| word.wrapping_mul(at | 1).to_le_bytes()).collect();
    (format!("file-{number:02}"), bytes.into())
}

fn kept() -> impl Iterator<Item = (String, Bytes)> {
    (0..FILES).step_by(KEPT_OF).map(file)
}

/// By file that is kept, the extent that it lies in.
async fn extents(installation: &Installation) -> Result<BTreeMap<String, ExtentId>> {
    let mut found = BTreeMap::new();
    for (key, _) in kept() {
        let inspection = inspect(installation, &key).await?;
        found.insert(key, inspection.extents.first().context("no extent")?.extent);
    }
    Ok(found)
}

/// Waits until a site reads every file that is kept from its own rows alone, every tag of it.
async fn reads_alone(installation: &Installation, site: &str) -> Result<()> {
    for (key, _) in kept() {
        until(&format!("{site} reads {key} from its own rows"), LIMIT, || async {
            let what = [("bucket", BUCKET), ("id", key.as_str())];
            let read: Samples = installation.rest(site)?.post_query(&["api", "v1", "verify"], &what).await?;
            let is_read = (read.objects, read.exposed, read.failed.len()) == (1, 0, 0);
            Ok(if is_read { Ok(()) } else { Err(format!("{read:?}")) })
        })
        .await?;
    }
    Ok(())
}

async fn are_as_stored(installation: &Installation) -> Result<()> {
    let s3 = installation.s3(LIMIT)?;
    for (key, bytes) in kept() {
        ensure!(s3.get(&key).await?.bytes().await? == bytes, "{key} has other bytes");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_left_of_files_that_shared_an_extent_moves_in_both_sites_and_outlives_a_takeover()
-> Result<()> {
    in_folder("compacting", async |folder| {
        let installation = Installation::start(&folder.join("data"), &["--sites", "2"]).await?;
        let s3 = installation.s3(LIMIT)?;
        s3.create_bucket().await?;
        // At the same moment, so that they share extents.
        let files: Vec<(String, Bytes)> = (0..FILES).map(file).collect();
        let puts = files.iter().map(|(key, bytes)| s3.put(key, bytes.clone()));
        futures::future::try_join_all(puts).await?;
        let before = extents(&installation).await?;
        for (key, _) in
            files.iter().enumerate().filter(|(number, _)| number % KEPT_OF != 0).map(|(_, file)| file)
        {
            s3.delete(key).await?;
        }
        let status = until("the rest has moved", LIMIT, || async {
            let status = installation.status("east").await?.compaction;
            Ok(if status.versions > 0 && status.extents == 0 {
                Ok(status)
            } else {
                Err(format!("{status:?}"))
            })
        })
        .await?;
        let after = extents(&installation).await?;
        let moved = after.iter().filter(|(key, extent)| before.get(*key) != Some(*extent)).count() as u64;
        ensure!(moved > 0, "{status:?} and yet each lies where it lay: {after:?}");
        are_as_stored(&installation).await?;
        reads_alone(&installation, "east").await?;
        reads_alone(&installation, "west").await?;

        signal(site_of(&installation.endpoints()?, "east")?.pid, "KILL")?;
        until("west is active", LIMIT, || async {
            let role = installation.status("west").await?.role;
            Ok(if role == "active" { Ok(()) } else { Err(role) })
        })
        .await?;
        are_as_stored(&installation).await?;
        println!("{moved} of {} files that were kept had moved: {status:?}", after.len());
        installation.stop().await
    })
    .await
}
