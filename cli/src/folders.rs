//! Fragments in the folders of devices that nobody has open: read as they lie, nothing is changed.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use diptych_core::ids::{Epoch, InstanceId, SiteName};
use diptych_core::records::{ExtentKind, Holds, PlacedRow};
use diptych_site::resurrect::{Fragment, Fragments, Place};
use diptych_store::inspect::{self, FoundRow, Held, InspectedDevice};
use diptych_store::{RowDescription, StoreError};
use diptych_wire::agent::ExtentFacts;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;

/// Records that were read and not yet taken.
const AHEAD: usize = 1_024;

/// One device's folder.
#[derive(Clone)]
struct Folder {
    path: PathBuf,
    device: InspectedDevice,
    deleted: HashSet<InstanceId>,
    /// No agent opens it meanwhile.
    _held: Arc<Held>,
}

/// Devices of one cluster.
pub struct Folders {
    folders: Vec<Folder>,
}

impl Folders {
    /// Looks at each.
    ///
    /// # Errors
    /// A folder that is no device, is in use, is named twice, or is another cluster's.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut folders: Vec<Folder> = Vec::new();
        for path in paths {
            let folder = Folder::open(path)?;
            let identity = &folder.device.identity;
            if let Some(first) = folders.first() {
                let (one, other) = (first.device.identity.cluster, identity.cluster);
                let here = first.path.display();
                ensure!(one == other, "{} is of cluster {other}, {here} of {one}", path.display());
            }
            let twice = folders.iter().find(|known| {
                let known = &known.device.identity;
                (&known.site, known.device) == (&identity.site, identity.device)
            });
            if let Some(twice) = twice {
                let (site, device) = (&identity.site, identity.device);
                bail!("{} and {} are both device {device} of {site}", twice.path.display(), path.display());
            }
            folders.push(folder);
        }
        Ok(Self { folders })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.folders.len()
    }

    /// Their sites, each once.
    pub fn sites(&self) -> Vec<&SiteName> {
        let mut sites: Vec<&SiteName> =
            self.folders.iter().map(|folder| &folder.device.identity.site).collect();
        sites.sort();
        sites.dedup();
        sites
    }

    fn find(&self, fragment: &Fragment) -> Result<&Folder, String> {
        let of = |folder: &&Folder| {
            let identity = &folder.device.identity;
            identity.device == fragment.placed.device && identity.site == fragment.site
        };
        let mut folders = self.folders.iter();
        folders.find(of).ok_or_else(|| format!("device {} is not one of these", fragment.placed.device))
    }
}

impl Folder {
    fn open(path: &Path) -> Result<Self> {
        let named = || format!("{} can't be read as a device", path.display());
        let device = inspect::device(path).with_context(named)?;
        let Some(held) = inspect::hold(path).with_context(named)? else {
            bail!("{} is in use: stop the node-agent that has it open first", path.display());
        };
        let mut deleted = HashSet::new();
        // A segment that does not read is named when its rows are listed.
        inspect::each_tombstone(path, |tombstone| {
            deleted.insert(tombstone.killed);
        })
        .with_context(named)?;
        Ok(Self { path: path.to_owned(), device, deleted, _held: Arc::new(held) })
    }

    /// Sends every record of a kind, until nobody wants more.
    fn list(&self, kind: ExtentKind, records: &mpsc::Sender<Result<Fragment, String>>) {
        let listed = inspect::rows(&self.path, kind, &self.deleted, |row| {
            let record = match row {
                Ok(row) => self.fragment(row).map(Ok),
                Err(error) => Some(Err(self.named(&error))),
            };
            let Some(record) = record else { return ControlFlow::Continue(()) };
            if records.blocking_send(record).is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        if let Err(error) = listed {
            let _ = records.blocking_send(Err(self.named(&error)));
        }
    }

    fn named(&self, error: &StoreError) -> String {
        format!("{}: {error}", self.path.display())
    }

    fn fragment(&self, found: FoundRow) -> Option<Fragment> {
        let FoundRow { segment, offset, description: RowDescription { row, end, .. } } = found;
        let identity = &self.device.identity;
        let facts = ExtentFacts {
            extent: row.extent,
            needed: row.needed,
            holds: Holds::of(row.kind, row.first_position, end.last_position)?,
            length: u32::try_from(end.extent_bytes).ok()?,
            hash: end.extent_hash,
            birth_epoch: row.epoch,
            birth_hlc: row.hlc,
        };
        let placed = PlacedRow { row: row.row, device: identity.device, instance: row.instance };
        Some(Fragment { site: identity.site.clone(), facts, placed, place: Place { segment, offset } })
    }
}

#[async_trait]
impl Fragments for Folders {
    async fn keyrings(&self) -> Vec<Vec<u8>> {
        self.folders.iter().filter_map(|folder| Some(folder.device.keyring.as_ref()?.bytes.clone())).collect()
    }

    async fn highest_epoch(&self) -> Epoch {
        let epochs = self.folders.iter().map(|folder| folder.device.highest_stamp.epoch);
        epochs.max().unwrap_or_default()
    }

    fn records(&self, kind: ExtentKind) -> BoxStream<'_, Result<Fragment, String>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let folders = self.folders.clone();
        tokio::task::spawn_blocking(move || {
            for folder in folders {
                folder.list(kind, &sender);
            }
        });
        stream::unfold(receiver, |mut receiver| async move {
            let record = receiver.recv().await?;
            Some((record, receiver))
        })
        .boxed()
    }

    async fn read(&self, fragment: &Fragment) -> Result<Bytes, String> {
        let folder = self.find(fragment)?;
        let Place { segment, offset } = fragment.place;
        let path = folder.path.clone();
        let read = tokio::task::spawn_blocking(move || inspect::row_at(&path, segment, offset)).await;
        let read = read.map_err(|error| error.to_string())?;
        read.map(Bytes::from).map_err(|error| folder.named(&error))
    }
}
