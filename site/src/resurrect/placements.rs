//! Placements from the records themselves: of extents that are known; others are kept for a look if they are young enough.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use diptych_catalog::{Catalog, View};
use diptych_core::ids::{ExtentId, Row, SiteName};
use diptych_core::keys;
use diptych_core::records::{Extent, ExtentKind, Placement, Record};
use futures::StreamExt;

use super::ResurrectError;
use super::extent::FoundExtent;
use super::fragments::{Fragment, Fragments};
use super::history::{History, Unknown};
use super::load::Loader;
use super::report::Report;
use crate::error::SiteError;

/// Records that are looked up together: the placements of all of them fit one commit, so that none is read while it waits in
/// another one.
const AT_ONCE: usize = 1_024;

/// Enters where rows are, record by record; extents that nothing names and that may be more than deleted.
pub(super) async fn enter(
    source: &dyn Fragments,
    catalog: &dyn Catalog,
    history: &History,
    report: &mut Report,
) -> Result<BTreeMap<ExtentId, FoundExtent>, ResurrectError> {
    let mut unknown = BTreeMap::new();
    let mut older: BTreeSet<ExtentId> = BTreeSet::new();
    let mut records = source.records(ExtentKind::Data).chunks(AT_ONCE);
    while let Some(some) = records.next().await {
        let view = catalog.view().await?;
        let mut loader = Loader::new(catalog);
        for record in some {
            let fragment = match record {
                Ok(fragment) => fragment,
                Err(reason) => {
                    report.note(reason);
                    continue;
                }
            };
            let known = view.get(&keys::extent(fragment.facts.extent))?;
            if let Some(raw) = known {
                let record = Extent::decode(&raw).map_err(SiteError::from)?;
                if is_row_of(&fragment, &record) {
                    report.rows += 1;
                    place(view.as_ref(), &mut loader, &fragment).await?;
                }
            } else if history.unknown(fragment.facts.birth_hlc.milliseconds()) == Unknown::Gone {
                older.insert(fragment.facts.extent);
            } else {
                FoundExtent::add(&mut unknown, fragment);
            }
        }
        drop(view);
        loader.finish().await?;
    }
    report.stayed_away += older.len() as u64;
    Ok(unknown)
}

/// Whether a fragment is of the extent that the catalog knows under its name: else it is an orphan, whatever it is.
fn is_row_of(fragment: &Fragment, record: &Extent) -> bool {
    let facts = &fragment.facts;
    (facts.hash, facts.length, facts.needed) == (record.hash, record.length, record.needed)
}

/// Adds a row to a placement, unless the row is in it.
async fn place(view: &dyn View, loader: &mut Loader<'_>, fragment: &Fragment) -> Result<(), ResurrectError> {
    let key = keys::placement(&fragment.site, fragment.facts.extent);
    let known = match loader.waiting(&key) {
        Some(waiting) => Some(waiting.clone()),
        None => view.get(&key)?,
    };
    let known = known.map(|raw| Placement::decode(&raw)).transpose().map_err(SiteError::from)?;
    let mut placement = known.unwrap_or(Placement { rows: Vec::new(), verified_day: 0 });
    if placement.rows.iter().any(|placed| placed.row == fragment.placed.row) {
        return Ok(());
    }
    placement.rows.push(fragment.placed);
    placement.rows.sort_by_key(|placed| placed.row);
    loader.set(key, Some(Bytes::from(placement.encode()))).await
}

/// The rows of an extent that any of its sites has, or that lie outside.
pub(super) fn rows_of(
    view: &dyn View,
    extent: ExtentId,
    record: &Extent,
) -> Result<BTreeSet<Row>, SiteError> {
    let mut rows = BTreeSet::new();
    let outside = SiteName::outside();
    for site in record.rows.iter().map(|(site, ..)| site).chain([&outside]) {
        if let Some(raw) = view.get(&keys::placement(site, extent))? {
            rows.extend(Placement::decode(&raw)?.rows.iter().map(|placed| placed.row));
        }
    }
    Ok(rows)
}
