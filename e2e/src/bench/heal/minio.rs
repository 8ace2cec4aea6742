//! A drive of MinIO is put in the place of an empty one while it runs, as a broken one is in a server. MinIO finds that by itself and heals the
//! drive with as many workers as it sees fit; its log says when it begins and when it has ended.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{BUCKET, LIMIT, LOOK, Recovery, fill, objects_of};
use crate::bench::BenchOptions;
use crate::bench::stores::Store;
use crate::demo::installation::until;
use crate::minio::Minio;

/// Which of the drives.
const DRIVE: u32 = 6;
const BEGUN: &str = "Healing drive '";
const ENDED: &str = "is finished (healed: ";

/// Files of a folder and all below it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files {
    count: u64,
    bytes: u64,
}

impl Files {
    fn below(folder: &Path) -> Result<Self> {
        let mut files = Self::default();
        for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
            let entry = entry?;
            let below = if entry.file_type()?.is_dir() {
                Self::below(&entry.path())?
            } else {
                Self { count: 1, bytes: entry.metadata()?.len() }
            };
            files = Self { count: files.count + below.count, bytes: files.bytes + below.bytes };
        }
        Ok(files)
    }
}

/// Fills it, empties a drive, and compares what the drive has afterwards with what it had.
pub(super) async fn measure(options: &BenchOptions, folder: &Path) -> Result<Recovery> {
    fs::create_dir_all(folder)?;
    let minio = Minio::start(&options.tools, folder).await?;
    fill(options, Store::of_minio(&minio)).await?;
    let (objects, object_bytes) = objects_of(options);
    let (drive, aside) = (minio.drive(DRIVE), folder.join("taken-out"));
    let before = Files::below(&drive.join(BUCKET))?;
    ensure!(before.count >= objects, "{} has {} files of {objects} objects", drive.display(), before.count);

    super::super::say(&format!("{} is exchanged for an empty one: {} files", drive.display(), before.count));
    let said = minio.said()?.len();
    let emptied = Instant::now();
    fs::rename(&drive, &aside)?;
    fs::create_dir(&drive)?;
    let until_said = async |word: &'static str| {
        until(word, LIMIT, || async {
            let new = minio.said()?.split_off(said);
            Ok(if new.contains(word) { Ok(Instant::now()) } else { Err(new) })
        })
        .await
    };
    let begun = until_said(BEGUN).await?;
    let ended = until_said(ENDED).await?;
    let after = Files::below(&drive.join(BUCKET))?;
    ensure!(after == before, "the drive had {before:?} and has {after:?}: {}", minio.said()?);
    minio.stop().await?;
    fs::remove_dir_all(folder).with_context(|| format!("{} can't be removed", folder.display()))?;
    Ok(Recovery {
        lost: "a drive of six: 1 row of 6",
        objects,
        object_bytes,
        noticed_s: (begun - emptied).as_secs_f64(),
        healed_s: (ended - begun).max(LOOK).as_secs_f64(),
        rewritten_bytes: before.bytes,
    })
}
