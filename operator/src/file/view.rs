//! The files of a catalog, with how safe each is, as a view shows them.

use std::collections::{BTreeMap, HashMap};

use diptych_api::FileObjectStatus;
use diptych_catalog::{View, blobs_of};
use diptych_core::ids::{BucketId, DeviceId, ExtentId, SiteName};
use diptych_core::keys;
use diptych_core::placement::PlacementMap;
use diptych_core::records::{Bucket, Extent, Head, HeadBody, Object, Placement, Record};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::error::OperatorError;

/// Keys that a scan takes at once.
const PAGE: usize = 1_000;

/// A file.
#[derive(Debug, Clone)]
pub struct FileSeen {
    /// Its bucket.
    pub bucket: String,
    /// Namespace of the bucket.
    pub namespace: String,
    /// Its key.
    pub key: String,
    /// What is so, without conditions and generation.
    pub status: FileObjectStatus,
}

impl FileSeen {
    /// Whether it lacks something that it should have.
    pub fn is_unhealthy(&self) -> bool {
        matches!(self.status.state.as_deref(), Some("degraded" | "unrecoverable"))
    }
}

/// Files of a catalog.
#[derive(Debug, Default)]
pub struct FilesSeen {
    /// The first ones, and all that are unhealthy.
    pub files: Vec<FileSeen>,
    /// All of them, by state: how many, and their bytes.
    pub by_state: BTreeMap<String, (u64, u64)>,
}

impl FilesSeen {
    fn count(&mut self, status: &FileObjectStatus) {
        let (files, bytes) = self.by_state.entry(status.state.clone().unwrap_or_default()).or_default();
        *files += 1;
        *bytes += status.size.unwrap_or(0).unsigned_abs();
    }
}

/// How an extent is, in both sites and outside.
#[derive(Debug, Clone, Copy, Default)]
struct Rows {
    needed: u8,
    own: (u8, u8),
    peer: (u8, u8),
    /// Rows outside: margin, whatever was declared.
    outside: u8,
    verified_day: u32,
    length: u64,
}

/// Looks at every file. Beyond `limit` only unhealthy ones, and those that `wanted` names, are kept.
pub fn see(
    view: &dyn View,
    site: &SiteName,
    peer: Option<&SiteName>,
    limit: usize,
    wanted: impl Fn(&str, &str) -> bool,
) -> Result<FilesSeen, OperatorError> {
    let mut sight = Sight::new(view, site, peer)?;
    let buckets = view.scan(&keys::buckets(), usize::MAX)?.entries;
    let mut seen = FilesSeen::default();
    for (key, raw) in buckets {
        let Some(name) = keys::bucket_name(&key).map(str::to_owned) else { continue };
        // Records of drills come and go by the hundred, and are nobody's files.
        if name == diptych_core::drill::BUCKET {
            continue;
        }
        let bucket = Bucket::decode(&raw)?;
        let mut range = keys::heads(bucket.id, b"");
        loop {
            let page = view.scan(&range, PAGE)?;
            for (key, raw) in &page.entries {
                let Some((_, object_key)) = keys::object_of_head(key) else { continue };
                let Ok(object_key) = String::from_utf8(object_key) else { continue };
                let head = Head::decode(raw)?;
                let HeadBody::Object(object) = &head.body else { continue };
                let status = sight.status(bucket.id, &head, object)?;
                seen.count(&status);
                let file = FileSeen {
                    bucket: name.clone(),
                    namespace: bucket.namespace.clone(),
                    key: object_key,
                    status,
                };
                if seen.files.len() < limit || file.is_unhealthy() || wanted(&file.bucket, &file.key) {
                    seen.files.push(file);
                }
            }
            match page.next {
                Some(next) => range.start = next,
                None => break,
            }
        }
    }
    Ok(seen)
}

/// Rows that a site shall have of an extent.
fn rows_declared(extent: &Extent, site: &SiteName) -> u8 {
    extent.rows.iter().find(|(name, ..)| name == site).map_or(0, |(_, _, count)| *count)
}

struct Sight<'a> {
    view: &'a dyn View,
    site: &'a SiteName,
    peer: Option<&'a SiteName>,
    readable: HashMap<DeviceId, bool>,
    readable_outside: HashMap<DeviceId, bool>,
    extents: HashMap<ExtentId, Rows>,
}

/// Devices of a place, and whether they can be read.
fn devices(view: &dyn View, place: &SiteName) -> Result<HashMap<DeviceId, bool>, OperatorError> {
    let map = view.get(&keys::map(place))?.map(|raw| PlacementMap::decode(&raw)).transpose()?;
    let map = map.unwrap_or_default();
    Ok(map.devices().map(|(_, node, device)| (device.id, node.readable(device))).collect())
}

fn readable(placement: &Placement, devices: &HashMap<DeviceId, bool>) -> u8 {
    let there = placement.rows.iter().filter(|row| devices.get(&row.device).copied().unwrap_or(false));
    there.count() as u8
}

impl<'a> Sight<'a> {
    fn new(
        view: &'a dyn View,
        site: &'a SiteName,
        peer: Option<&'a SiteName>,
    ) -> Result<Self, OperatorError> {
        let (readable, readable_outside) = (devices(view, site)?, devices(view, &SiteName::outside())?);
        Ok(Self { view, site, peer, readable, readable_outside, extents: HashMap::new() })
    }

    fn rows(&mut self, id: ExtentId) -> Result<Rows, OperatorError> {
        if let Some(known) = self.extents.get(&id) {
            return Ok(*known);
        }
        let extent = self.view.get(&keys::extent(id))?.map(|raw| Extent::decode(&raw)).transpose()?;
        let placement = |site: &SiteName| -> Result<Option<Placement>, OperatorError> {
            Ok(self.view.get(&keys::placement(site, id))?.map(|raw| Placement::decode(&raw)).transpose()?)
        };
        let mut rows = Rows::default();
        if let Some(extent) = &extent {
            rows.needed = extent.needed;
            rows.length = u64::from(extent.length);
            rows.own.1 = rows_declared(extent, self.site);
            rows.peer.1 = self.peer.map_or(0, |peer| rows_declared(extent, peer));
        }
        if let Some(own) = placement(self.site)? {
            rows.own.0 = readable(&own, &self.readable);
            rows.verified_day = own.verified_day;
        }
        if let Some(peer) = self.peer {
            rows.peer.0 = placement(peer)?.map_or(0, |placement| placement.rows.len() as u8);
        }
        if !self.readable_outside.is_empty()
            && let Some(outside) = placement(&SiteName::outside())?
        {
            rows.outside = readable(&outside, &self.readable_outside);
        }
        self.extents.insert(id, rows);
        Ok(rows)
    }

    fn status(
        &mut self,
        bucket: BucketId,
        head: &Head,
        object: &Object,
    ) -> Result<FileObjectStatus, OperatorError> {
        let blobs = blobs_of(self.view, bucket, head.at.version, &object.content)?;
        let mut extents: Vec<ExtentId> =
            blobs.iter().flat_map(|blob| &blob.pieces).map(|piece| piece.extent).collect();
        extents.sort_unstable();
        extents.dedup();
        let sealed: u64 =
            blobs.iter().flat_map(|blob| &blob.pieces).map(|piece| u64::from(piece.sealed)).sum();
        let all = extents.into_iter().map(|extent| self.rows(extent)).collect::<Result<Vec<_>, _>>()?;
        let weakest = |of: fn(&Rows) -> (u8, u8)| {
            all.iter().map(of).min_by_key(|(have, want)| i32::from(*have) - i32::from(*want))
        };
        let (own, there) = (weakest(|rows| rows.own), weakest(|rows| rows.peer));
        let margin = |rows: &Rows| i32::from(rows.own.0) + i32::from(rows.outside) - i32::from(rows.needed);
        let margin = all.iter().map(margin).min();
        let mut rows = BTreeMap::new();
        let text = |(have, want): (u8, u8)| format!("{have}/{want}");
        if let Some(own) = own {
            rows.insert(self.site.to_string(), text(own));
        }
        if let (Some(peer), Some(there)) = (self.peer, there) {
            rows.insert(peer.to_string(), text(there));
        }
        if let Some(outside) = all.iter().map(|rows| rows.outside).min().filter(|rows| *rows > 0) {
            rows.insert(SiteName::outside().to_string(), outside.to_string());
        }
        let stored: u64 = all
            .iter()
            .filter(|rows| rows.needed > 0)
            .map(|rows| u64::from(rows.own.0) * rows.length / u64::from(rows.needed))
            .sum();
        let share =
            if all.len() == 1 && all[0].length > 0 { stored * sealed / all[0].length } else { stored };
        let verified = all.iter().map(|rows| rows.verified_day).min().filter(|day| *day > 0);
        Ok(FileObjectStatus {
            state: Some(self.state(&all).to_owned()),
            size: Some(object.size as i64),
            stored_size: Some(share as i64),
            etag: Some(etag(object)),
            version: Some(format!("{}-{}-{}", head.at.epoch, head.at.hlc, head.at.version)),
            coding: all.first().map(|rows| format!("{} of {}", rows.needed, rows.own.1)),
            rows_summary: (!rows.is_empty()).then(|| {
                rows.iter().map(|(site, rows)| format!("{site} {rows}")).collect::<Vec<_>>().join(" ")
            }),
            rows,
            margin,
            // Whole seconds, as the API server keeps them: else it would never say what was told.
            modified_at: Timestamp::from_second(object.modified_ms as i64 / 1_000).ok().map(Time::from),
            retained_until: head
                .retained_until
                .and_then(|until| i64::try_from(until.0 / 1_000).ok())
                .and_then(|seconds| Timestamp::from_second(seconds).ok())
                .map(Time::from),
            verified_at: verified
                .and_then(|day| Timestamp::from_second(i64::from(day) * 86_400).ok())
                .map(Time::from),
            ..FileObjectStatus::default()
        })
    }

    fn state(&self, extents: &[Rows]) -> &'static str {
        let left = |rows: &Rows| [rows.own.0, rows.peer.0, rows.outside].map(u32::from).iter().sum::<u32>();
        let lost = |rows: &Rows| left(rows) < u32::from(rows.needed).max(1);
        if extents.iter().any(lost) {
            return "unrecoverable";
        }
        // The passive site is told of extents before it has any row of them: that is no damage.
        let elsewhere = |rows: &Rows| rows.own.0 == 0 && rows.peer.0 > 0;
        if extents.iter().any(|rows| rows.own.0 < rows.own.1 && !elsewhere(rows)) {
            return "degraded";
        }
        match self.peer {
            None => "stored",
            Some(_) if extents.iter().any(|rows| rows.peer.0 < rows.peer.1 || rows.own.0 < rows.own.1) => {
                "exposed"
            }
            Some(_) => "protected",
        }
    }
}

fn etag(object: &Object) -> String {
    let md5 = hex::encode(object.etag.md5);
    if object.etag.parts == 0 { md5 } else { format!("{md5}-{}", object.etag.parts) }
}
