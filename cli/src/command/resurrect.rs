//! `diptych resurrect`: makes a site's catalog anew from its devices and the cluster key. Works on what is stopped, and changes
//! nothing of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use diptych_catalog::{RedbCatalog, RedbOptions};
use diptych_core::ids::SiteName;
use diptych_core::keyring::ClusterKeys;
use diptych_site::keys::read_keys;
use diptych_site::resurrect::{FoundVersion, Options, Report, resurrect};

use super::say;
use crate::folders::Folders;

/// What `diptych dev` calls a site's catalog.
const CATALOG: &str = "catalog.redb";

/// Make a site's catalog anew from its devices and the cluster key.
#[derive(Debug, clap::Args)]
pub struct Resurrect {
    /// Folders of the devices, all that are left of the site, and of the other one where they are at hand
    #[arg(long, required = true, num_args = 1.., value_name = "FOLDER")]
    devices: Vec<PathBuf>,
    /// File with the cluster key; the one before is beside it as `previous-` and its name, if it is needed
    #[arg(long, value_name = "FILE")]
    cluster_key: PathBuf,
    /// Folder that gets the catalog; it must not have one
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
    /// Whose catalog it becomes, where the devices are of both sites
    #[arg(long)]
    site: Option<SiteName>,
    /// Go on where a part of the history is missing
    #[arg(long)]
    accept_gap: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Resurrect {
    /// Runs it. Where it fails there is no catalog.
    pub async fn run(self) -> Result<()> {
        let cluster_keys = read_keys(&self.cluster_key)?;
        let target = self.into.join(CATALOG);
        ensure!(!target.exists(), "{} is there already: move it away first", target.display());
        let folders = Folders::open(&self.devices)?;
        let site = self.site(&folders)?;
        std::fs::create_dir_all(&self.into)?;
        // Under another name until it is whole: nobody takes a part of a catalog for one.
        let unfinished = self.into.join(format!("{CATALOG}.unfinished"));
        remove(&unfinished)?;
        let options = Options { accept_gap: self.accept_gap };
        let made = make(&unfinished, &site, &folders, &cluster_keys, options).await;
        match made {
            Ok(report) => {
                std::fs::rename(&unfinished, &target)?;
                std::fs::File::open(&self.into)?.sync_all()?;
                if self.json {
                    say(serde_json::to_string_pretty(&report)?);
                } else {
                    show(&report, &folders, &site, &target);
                }
                Ok(())
            }
            Err(error) => {
                remove(&unfinished)?;
                Err(error)
            }
        }
    }

    fn site(&self, folders: &Folders) -> Result<SiteName> {
        match (&self.site, &folders.sites()[..]) {
            (Some(site), _) => Ok(site.clone()),
            (None, [only]) => Ok((*only).clone()),
            (None, several) => {
                let names = several.iter().map(|site| site.as_str()).collect::<Vec<_>>().join(", ");
                bail!("the devices are of several sites ({names}): say with --site whose catalog it becomes")
            }
        }
    }
}

async fn make(
    path: &Path,
    site: &SiteName,
    folders: &Folders,
    cluster_keys: &ClusterKeys,
    options: Options,
) -> Result<Report> {
    let catalog = RedbCatalog::open(path, site.clone(), &RedbOptions::default())?;
    Ok(resurrect(folders, cluster_keys, &catalog, options).await?)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} can't be removed", path.display()))
        }
        _ => Ok(()),
    }
}

fn show(report: &Report, folders: &Folders, site: &SiteName, target: &Path) {
    say(format_args!("{} devices, keyring of generation {}", folders.count(), report.keyring));
    match &report.checkpoint {
        Some(found) => say(format_args!(
            "checkpoint of epoch {} at revision {} in {} parts, {} journals behind it",
            found.epoch, found.at.revision, found.parts, report.journals
        )),
        None => say(format_args!("no checkpoint, {} journals", report.journals)),
    }
    if !report.gaps.is_empty() {
        say(format_args!("MISSING, and accepted: {}", report.gaps_as_text()));
    }
    say(format_args!(
        "{} keys: {} versions, {} deletes, {} buckets, {} access keys; {} extents with {} rows",
        report.keys,
        report.versions,
        report.tombstones,
        report.buckets,
        report.access_keys,
        report.extents,
        report.rows
    ));
    if report.lacking > 0 {
        say(format_args!("{} extents have fewer rows here than are needed to read them", report.lacking));
    }
    say(format_args!(
        "{} extents that no journal knows stay away: deleted, or never acknowledged",
        report.stayed_away
    ));
    for FoundVersion { bucket, key, size, left, .. } in &report.found {
        let bucket = bucket.as_deref().unwrap_or("?");
        let what = left.as_deref().map_or("taken".to_owned(), |reason| format!("left: {reason}"));
        say(format_args!("found {bucket}/{key} ({size} bytes): {what}"));
    }
    for trouble in &report.troubles {
        say(format_args!("note: {trouble}"));
    }
    say(format_args!("the catalog of {site} is {}; highest epoch seen: {}", target.display(), report.epoch));
}
