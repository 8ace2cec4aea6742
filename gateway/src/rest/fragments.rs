//! `/api/v1/fragments/{id}`: where the rows of a file are, for who wants to look at the devices themselves.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use diptych_catalog::View;
use diptych_core::ids::{DeviceId, ExtentId, InstanceId, SiteName};
use diptych_core::keys;
use diptych_core::records::{Device, Extent, Placement, Record};
use serde::{Deserialize, Serialize};

use super::RestState;
use super::auth::Namespace;
use super::errors::RestError;
use crate::error::{GatewayError, Result};
use crate::objects::extents_of;

/// A file's extents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileFragments {
    /// Its key.
    pub id: String,
    /// In the order of the file.
    pub extents: Vec<ExtentFragments>,
}

/// An extent and its rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExtentFragments {
    /// Which.
    pub extent: ExtentId,
    /// Rows that are needed to decode.
    pub needed: u8,
    /// Rows that were made for all sites that have placed some; those outside are margin, and not counted.
    pub expected_rows: u8,
    /// Bytes, the tail with them.
    pub length: u32,
    /// BLAKE3 of them, in hexadecimal.
    pub hash: String,
    /// Days since 1970 when all rows of a site were last read and found right, by site; those of which it can't be said are left out.
    #[serde(default)]
    pub verified_days: BTreeMap<SiteName, u32>,
    /// The rows that are placed.
    pub rows: Vec<RowFragment>,
}

/// A row on a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RowFragment {
    /// Its site, or `outside`.
    pub site: SiteName,
    /// Its number.
    pub row: u8,
    /// Its node.
    pub node: String,
    /// Its device.
    pub device: DeviceId,
    /// The device's folder on that node, if the catalog knows it.
    pub path: Option<String>,
    /// Which record.
    pub instance: InstanceId,
}

/// Which bucket.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Where {
    bucket: Option<String>,
}

pub(super) async fn show(
    State(state): State<RestState>,
    Extension(Namespace(namespace)): Extension<Namespace>,
    Path(id): Path<String>,
    Query(target): Query<Where>,
) -> Result<Json<FileFragments>, RestError> {
    let bucket = target.bucket.as_deref().unwrap_or("files");
    Ok(Json(fragments(&state, &namespace, bucket, id).await?))
}

async fn fragments(state: &RestState, namespace: &str, bucket: &str, id: String) -> Result<FileFragments> {
    let view = state.objects.context().view_for_client().await?;
    let named = extents_of(view.as_ref(), namespace, bucket, &id)?;
    let mut seen = BTreeSet::new();
    let distinct = named.into_iter().filter(|extent| seen.insert(*extent));
    let extents = distinct.map(|extent| rows_of(view.as_ref(), extent)).collect::<Result<_>>()?;
    Ok(FileFragments { id, extents })
}

fn rows_of(view: &dyn View, id: ExtentId) -> Result<ExtentFragments> {
    let raw = view.get(&keys::extent(id))?;
    let record = Extent::decode(
        &raw.ok_or_else(|| GatewayError::Corrupt(format!("extent {id} is not in the catalog")))?,
    )?;
    let mut rows = Vec::new();
    let (mut expected_rows, mut verified_days) = (0, BTreeMap::new());
    let sites = record.rows.iter().map(|(site, _, count)| (site.clone(), *count));
    for (site, count) in sites.chain([(SiteName::outside(), 0)]) {
        let Some(raw) = view.get(&keys::placement(&site, id))? else { continue };
        expected_rows += count;
        let placement = Placement::decode(&raw)?;
        if placement.verified_day > 0 {
            verified_days.insert(site.clone(), placement.verified_day);
        }
        for placed in placement.rows {
            let device = view.get(&keys::device(&site, placed.device))?;
            let device = device.as_deref().map(Device::decode).transpose()?;
            rows.push(RowFragment {
                site: site.clone(),
                row: placed.row.0,
                node: device.as_ref().map_or_else(|| "unknown".to_owned(), |device| device.node.to_string()),
                device: placed.device,
                path: device.map(|device| device.path),
                instance: placed.instance,
            });
        }
    }
    let hash = hex::encode(record.hash);
    Ok(ExtentFragments {
        extent: id,
        needed: record.needed,
        expected_rows,
        length: record.length,
        hash,
        verified_days,
        rows,
    })
}
