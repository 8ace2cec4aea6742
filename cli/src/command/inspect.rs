//! `diptych inspect`: reads a file's fragments from the devices themselves, not through the agents, and computes every hash
//! anew: CRC32C of each block, BLAKE3 of each extent, and each row from the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use diptych_core::erasure;
use diptych_core::fragment::RECORD_HEAD_LEN;
use diptych_core::ids::{ExtentId, InstanceId, Row, SiteName};
use diptych_core::layout::StripeLayout;
use diptych_gateway::rest::fragments::{ExtentFragments, FileFragments, RowFragment};
use diptych_node_agent::bucket::{BucketStore, is_bucket, place};
use diptych_store::bucket;
use diptych_store::inspect::{InspectedRecord, RecordState, records, row_bytes};
use serde::{Deserialize, Serialize};

use super::{Target, date, say};
use crate::bucket::{BucketOptions, of_dev};

/// Read a file's fragments from the devices themselves.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The file's key
    key: String,
    /// Its bucket
    #[arg(long, default_value = "files")]
    bucket: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Where the file system of another machine is found here; may be repeated
    #[arg(long, value_name = "NODE=FOLDER", value_parser = mounted)]
    mounted: Vec<(String, PathBuf)>,
    #[command(flatten)]
    bucket_store: BucketOptions,
    #[command(flatten)]
    target: Target,
}

/// What was found of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inspection {
    /// Its key.
    pub key: String,
    /// Every row is where it should be and right.
    pub sound: bool,
    /// Its extents.
    pub extents: Vec<InspectedExtent>,
}

/// What was found of an extent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InspectedExtent {
    /// Which.
    pub extent: ExtentId,
    /// Rows that are needed to decode.
    pub needed: u8,
    /// Rows that are right.
    pub here: u8,
    /// The day, `2026-11-22`, on which all rows of a site were last read and found right, by site; those of which it can't be said
    /// are left out.
    #[serde(default)]
    pub verified: BTreeMap<String, String>,
    /// What the bytes say, put together from the rows that are right.
    pub verdict: String,
    /// Each row.
    pub rows: Vec<InspectedRow>,
}

/// What was found of a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InspectedRow {
    /// Its site.
    pub site: String,
    /// Its number.
    pub row: u8,
    /// Its node.
    pub node: String,
    /// Which record.
    pub instance: InstanceId,
    /// The file or object it lies in.
    pub segment: Option<PathBuf>,
    /// Where its first byte is.
    pub payload_offset: u64,
    /// How many bytes it has.
    pub row_bytes: u64,
    /// `right`, or what is wrong.
    pub state: String,
}

/// Devices that were looked at already.
struct Devices {
    /// Records of folders.
    folders: BTreeMap<PathBuf, Result<Vec<InspectedRecord>, String>>,
    /// The store that buckets are in.
    store: Option<BucketStore>,
}

/// A row that reads.
struct Found {
    segment: PathBuf,
    payload_offset: u64,
    bytes: Vec<u8>,
}

impl Inspect {
    /// Runs it. Fails when anything is not as it should be.
    pub async fn run(self) -> Result<()> {
        let endpoints = self.target.endpoints()?;
        let query = [("bucket", self.bucket.as_str())];
        let mut answer = None;
        for site in endpoints.sites.values() {
            let rest = self.target.rest(&site.rest, &endpoints.token)?;
            answer =
                Some(rest.document::<FileFragments>(&["api", "v1", "fragments", &self.key], &query).await);
            if matches!(answer, Some(Ok(_))) {
                break;
            }
        }
        let mut file = answer.context("no site is known")??;
        for row in file.extents.iter_mut().flat_map(|extent| &mut extent.rows) {
            row.path = row.path.take().map(|path| self.here(&row.node, path));
        }
        let store = self.bucket_store.store()?.or_else(|| endpoints.outside_store.as_ref().map(of_dev));
        let mut devices = Devices { folders: BTreeMap::new(), store };
        // Devices are read by calls that block.
        let read = tokio::task::spawn_blocking(move || {
            file.extents.iter().map(|extent| inspect(extent, &mut devices)).collect::<Vec<_>>()
        });
        let extents = read.await?;
        let sound = extents.iter().all(|(_, sound)| *sound);
        let extents = extents.into_iter().map(|(extent, _)| extent).collect();
        let inspection = Inspection { key: self.key, sound, extents };
        if self.json {
            say(serde_json::to_string_pretty(&inspection)?);
        } else {
            show(&inspection);
        }
        if !sound {
            std::process::exit(1);
        }
        Ok(())
    }

    /// Where a path of a node is found on this machine.
    fn here(&self, node: &str, path: String) -> String {
        if is_bucket(Path::new(&path)) {
            return path;
        }
        let Some((_, folder)) = self.mounted.iter().find(|(name, _)| name == node) else { return path };
        folder.join(path.trim_start_matches('/')).display().to_string()
    }
}

fn mounted(word: &str) -> Result<(String, PathBuf), String> {
    let (node, folder) = word.split_once('=').ok_or("expected NODE=FOLDER")?;
    Ok((node.to_owned(), PathBuf::from(folder)))
}

fn inspect(extent: &ExtentFragments, devices: &mut Devices) -> (InspectedExtent, bool) {
    let mut right: Vec<(Row, Vec<u8>)> = Vec::new();
    let mut rows = Vec::new();
    for fragment in &extent.rows {
        let found = find(extent.extent, fragment, devices);
        let (segment, payload_offset, row_bytes, state) = match found {
            Ok(Found { segment, payload_offset, bytes }) => {
                let at = (Some(segment), payload_offset, bytes.len() as u64, "right".to_owned());
                right.push((Row(fragment.row), bytes));
                at
            }
            Err(wrong) => (wrong.segment, wrong.payload_offset, 0, wrong.reason),
        };
        rows.push(InspectedRow {
            site: fragment.site.to_string(),
            row: fragment.row,
            node: fragment.node.clone(),
            instance: fragment.instance,
            segment,
            payload_offset,
            row_bytes,
            state,
        });
    }
    let of_sites = extent.rows.iter().filter(|row| row.site != SiteName::outside()).count();
    let all_here = right.len() == rows.len() && of_sites == usize::from(extent.expected_rows);
    let here = right.len() as u8;
    let verdict = verify(extent, &right);
    let sound = all_here && verdict.is_ok();
    let verdict = match verdict {
        Ok(()) => "BLAKE3 is right, and every row is what the others make of it".to_owned(),
        Err(reason) => reason,
    };
    let verified = extent.verified_days.iter().map(|(site, day)| (site.to_string(), date(*day))).collect();
    (InspectedExtent { extent: extent.extent, needed: extent.needed, here, verified, verdict, rows }, sound)
}

struct Wrong {
    reason: String,
    segment: Option<PathBuf>,
    payload_offset: u64,
}

fn find(extent: ExtentId, fragment: &RowFragment, devices: &mut Devices) -> Result<Found, Wrong> {
    let nowhere = |reason: String| Wrong { reason, segment: None, payload_offset: 0 };
    let path = fragment
        .path
        .as_deref()
        .map(Path::new)
        .ok_or_else(|| nowhere("its device is not known".to_owned()))?;
    if is_bucket(path) {
        return find_object(extent, fragment, path, devices.store.as_ref());
    }
    let read = || records(path).map_err(|error| error.to_string());
    let records = devices.folders.entry(path.to_path_buf()).or_insert_with(read);
    let records = records.as_ref().map_err(|error| nowhere(error.clone()))?;
    let record = records.iter().find(|record| {
        let row = &record.description.row;
        row.extent == extent && row.row.0 == fragment.row && row.instance == fragment.instance
    });
    let record = record.ok_or_else(|| nowhere("the device has no such record".to_owned()))?;
    let wrong = |reason: String| Wrong {
        reason,
        segment: Some(record.segment.clone()),
        payload_offset: record.payload_offset,
    };
    match &record.state {
        RecordState::Whole => {}
        RecordState::Deleted => return Err(wrong("the record is deleted".to_owned())),
        RecordState::Unfinished => return Err(wrong("the record has no end".to_owned())),
        RecordState::Rotten(reason) => return Err(wrong(format!("rotten: {reason}"))),
    }
    let bytes = row_bytes(record).map_err(|error| wrong(error.to_string()))?;
    Ok(Found { segment: record.segment.clone(), payload_offset: record.payload_offset, bytes })
}

/// As `find`, in a bucket.
fn find_object(
    extent: ExtentId,
    fragment: &RowFragment,
    path: &Path,
    store: Option<&BucketStore>,
) -> Result<Found, Wrong> {
    let nowhere = |reason: String| Wrong { reason, segment: None, payload_offset: 0 };
    let place = place(path, store, "inspect", None).map_err(|error| nowhere(error.to_string()))?;
    let found = bucket::inspect::row(&place, extent, Row(fragment.row), fragment.instance);
    let found = found.map_err(|error| nowhere(format!("{:#}", anyhow::Error::from(error))))?;
    let object = found.ok_or_else(|| nowhere("the bucket has no such object".to_owned()))?;
    let (segment, payload_offset) = (path.join(&object.key), RECORD_HEAD_LEN as u64);
    match object.row {
        Ok((_, bytes)) => Ok(Found { segment, payload_offset, bytes }),
        Err(reason) => {
            Err(Wrong { reason: format!("rotten: {reason}"), segment: Some(segment), payload_offset })
        }
    }
}

/// Decodes from k rows, compares the hash, and makes every other row anew to compare it.
fn verify(extent: &ExtentFragments, rows: &[(Row, Vec<u8>)]) -> Result<(), String> {
    if rows.len() < usize::from(extent.needed) {
        return Err(format!("{} rows are right and {} are needed", rows.len(), extent.needed));
    }
    let layout = StripeLayout::new(extent.needed, u64::from(extent.length));
    let data: Vec<Row> = (0..extent.needed).map(Row).collect();
    let all: Vec<Row> = data.iter().copied().chain(rows.iter().map(|(row, _)| *row)).collect();
    let mut hasher = blake3::Hasher::new();
    let mut rest = u64::from(extent.length);
    let mut begin = 0;
    for stripe in 0..layout.stripes() {
        let shard = layout.shard_len(stripe) as usize;
        let have: Vec<(Row, &[u8])> = rows
            .iter()
            .take(usize::from(extent.needed))
            .map(|(row, bytes)| (*row, &bytes[begin..begin + shard]))
            .collect();
        let made = erasure::reconstruct(extent.needed, &have, &all).map_err(|error| error.to_string())?;
        for part in &made[..data.len()] {
            let take = rest.min(part.len() as u64);
            hasher.update(&part[..take as usize]);
            rest -= take;
        }
        for ((row, bytes), anew) in rows.iter().zip(&made[data.len()..]) {
            if bytes[begin..begin + shard] != anew[..] {
                return Err(format!("row {row} is not what the others make of it"));
            }
        }
        begin += shard;
    }
    if hasher.finalize().to_hex().as_str() == extent.hash {
        Ok(())
    } else {
        Err("the BLAKE3 hash of the extent is another".to_owned())
    }
}

fn show(inspection: &Inspection) {
    for extent in &inspection.extents {
        say(format_args!(
            "extent {}: {} of {} rows needed are right; {}",
            extent.extent, extent.here, extent.needed, extent.verdict
        ));
        for (site, day) in &extent.verified {
            say(format_args!("  all rows of {site} were read and found right on {day}"));
        }
        for row in &extent.rows {
            let segment =
                row.segment.as_deref().map_or_else(|| "-".into(), |path| path.display().to_string());
            say(format_args!(
                "  {} row {} on {}: {} ({segment} at {})",
                row.site, row.row, row.node, row.state, row.payload_offset
            ));
        }
    }
    say(if inspection.sound { "sound" } else { "NOT SOUND" });
}
