//! What may be known a moment late: a right, and that it was taken away.

use std::time::Duration;

use diptych_catalog::Catalog;
use diptych_core::keys::Key;
use diptych_core::records::Record;

use crate::error::Result;

/// What is taken away or changed is good for no longer than this.
const TAKEN_BACK_IN: Duration = Duration::from_secs(1);

/// A record, if there is one: a new one is found at once, one that is taken away or changed no longer after [`TAKEN_BACK_IN`].
pub(crate) async fn recent<R: Record>(catalog: &dyn Catalog, key: &Key) -> Result<Option<R>> {
    let raw = match catalog.recent_view(TAKEN_BACK_IN).await?.get(key)? {
        Some(raw) => Some(raw),
        None => catalog.view().await?.get(key)?,
    };
    Ok(raw.as_deref().map(R::decode).transpose()?)
}
