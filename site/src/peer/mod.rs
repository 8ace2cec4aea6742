//! The other site: its feed is followed, what it has and this site lacks is fetched, and what it lacks is counted.

pub(crate) mod apply;
pub mod client;
pub mod cross;
pub mod exposure;
pub mod follow;
pub mod heard;
pub mod loss;
pub mod reached;
pub(crate) mod snapshot;

pub(crate) use apply::want_all;
pub use client::PeerClient;

use std::ops::ControlFlow;

use diptych_catalog::View;
use diptych_core::ids::SiteName;
use diptych_core::keys::{self, Key};
use diptych_core::records::{Cursor, ExtentKind, Record, Wanted};

use crate::error::SiteError;
use crate::survey::each;

/// How far `site` is in the other one's feed, as a site's catalog has it.
pub(crate) fn cursor_of(view: &dyn View, site: &SiteName) -> Result<Cursor, SiteError> {
    let stored = view.get(&keys::cursor(site))?;
    Ok(stored.map(|raw| Cursor::decode(&raw)).transpose()?.unwrap_or_default())
}

/// Calls `visit` for each extent of objects' bytes that a site was told of and lacks. Journals and checkpoints on their way are
/// left out: with them nothing is lost that anybody stored.
pub(crate) fn each_lacking(
    view: &dyn View,
    site: &SiteName,
    mut visit: impl FnMut(&Key, Wanted),
) -> Result<(), SiteError> {
    each(view, &keys::all_wanted(site), |key, value| {
        let wanted = Wanted::decode(value)?;
        if wanted.kind == ExtentKind::Data {
            visit(key, wanted);
        }
        Ok(ControlFlow::Continue(()))
    })
}
