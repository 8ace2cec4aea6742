//! What a person wants emptied: written down here, marked in the placement map by `nodes`, moved by `repair`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, View, Write};
use diptych_core::ids::{Epoch, NodeName, SiteName};
use diptych_core::keys;
use diptych_core::records::{Drain, Record};

use crate::error::SiteError;
use crate::survey::each;

/// What a person wants emptied of a place.
pub fn asked(view: &dyn View, place: &SiteName) -> Result<BTreeMap<NodeName, Drain>, SiteError> {
    let mut asked = BTreeMap::new();
    each(view, &keys::drains(place), |key, value| {
        if let Some(name) = keys::drained_node_of(key) {
            asked.insert(name, Drain::decode(value)?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(asked)
}

/// Writes down what of a node shall be emptied; None: it shall hold rows. True: that is new.
///
/// `epoch`: of the active site for a node outside, None for one of the own site.
pub async fn ask(
    catalog: &dyn Catalog,
    place: &SiteName,
    node: &NodeName,
    drain: Option<&Drain>,
    epoch: Option<Epoch>,
) -> Result<bool, SiteError> {
    let key = keys::drain(place, node);
    let known = catalog.view().await?.get(&key)?;
    let wanted = drain.map(|drain| Bytes::from(drain.encode()));
    if known == wanted {
        return Ok(false);
    }
    let write = match wanted {
        Some(drain) => Write::Put(key, drain),
        None => Write::Delete(key),
    };
    let committed = catalog.commit(Batch::one(epoch, Change::blind(vec![write]))).await?;
    if !committed.all_applied() {
        return Err(SiteError::Changed);
    }
    tracing::info!(%place, %node, ?drain, "what shall be emptied is another");
    Ok(true)
}
