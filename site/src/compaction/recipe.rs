//! A new extent of the other site, made here by its recipe: no bytes cross.

use std::collections::{BTreeMap, BTreeSet};

use diptych_core::compaction::Recipe;
use diptych_core::ids::ExtentId;
use diptych_core::records::{Extent, PlacedRow};

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::extents;

/// Makes this site's rows of an extent from others that lie here; where they are.
///
/// # Errors
/// A source is not here or does not read: the extent crosses.
pub(crate) async fn make(
    context: &SiteContext,
    extent: ExtentId,
    record: &Extent,
    recipe: &Recipe,
) -> Result<Vec<PlacedRow>, SiteError> {
    let names: BTreeSet<ExtentId> = recipe.ranges.iter().map(|range| range.extent).collect();
    let mut sources = BTreeMap::new();
    for source in names {
        let (_, bytes) = extents::read(context, source).await?;
        sources.insert(source, bytes);
    }
    let bytes = recipe.assemble(&sources).ok_or(SiteError::WrongExtent { extent })?;
    // FENCING: as with what crosses, no row is written before the extent's hash was checked.
    if *blake3::hash(&bytes).as_bytes() != record.hash {
        return Err(SiteError::WrongExtent { extent });
    }
    extents::make_rows(context, extent, record, bytes).await
}
