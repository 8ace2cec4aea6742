//! The other site: its feed is followed, what it has and this site lacks is fetched, and what it lacks is counted.

pub(crate) mod apply;
pub mod client;
pub mod cross;
pub mod exposure;
pub mod follow;
mod snapshot;

pub(crate) use apply::want_all;
pub use client::PeerClient;

use diptych_catalog::Catalog;
use diptych_core::ids::SiteName;
use diptych_core::keys;
use diptych_core::records::{Record, Wanted};

use crate::error::SiteError;
use crate::survey::each;

/// Since when (milliseconds since 1970) this site lacks the oldest extent that it was told of; None: it lacks nothing.
pub async fn oldest_wanted_ms(catalog: &dyn Catalog, site: &SiteName) -> Result<Option<u64>, SiteError> {
    let view = catalog.view().await?;
    let mut oldest = None;
    each(view.as_ref(), &keys::all_wanted(site), |_, value| {
        let since = Wanted::decode(value)?.since_ms;
        oldest = Some(oldest.map_or(since, |known: u64| known.min(since)));
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(oldest)
}
