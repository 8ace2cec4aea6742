//! What an active site makes once: the cluster's record, the keyring, the first coding plan; and each coding plan that follows.
//!
//! All of it is role-owned, so it goes under the epoch and reaches the other site by the feed.

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, Write};
use diptych_core::ids::Epoch;
use diptych_core::keys::{self, Key};
use diptych_core::records::{Cluster, CodingPlan, Record};

use crate::error::SiteError;

/// What is made where it is missing.
pub struct Seeds {
    /// The cluster.
    pub cluster: Cluster,
    /// The keyring, sealed.
    pub keyring: Vec<u8>,
    /// k and f.
    pub plan: CodingPlan,
    /// Access keys: id, record.
    pub access: Vec<(String, Vec<u8>)>,
}

/// Takes a coding into use for what is written from now on, unless it is in force; whether it was taken. Extents keep the one that
/// they were written with: it stands in their records.
pub async fn put_in_force(catalog: &dyn Catalog, epoch: Epoch, plan: &CodingPlan) -> Result<bool, SiteError> {
    let last = catalog.view().await?.last(&keys::plans())?;
    let (key, raw) = last.ok_or(SiteError::NothingYet("coding plan"))?;
    if CodingPlan::decode(&raw)? == *plan {
        return Ok(false);
    }
    let number = keys::plan_number(&key).ok_or(SiteError::NothingYet("number of the coding plan"))?;
    let next = keys::plan(number + 1);
    // Another keeper of this term may do the same.
    let guards = vec![Guard { key: next.clone(), expect: Expect::Absent }];
    let change = Change { guards, writes: vec![Write::Put(next, Bytes::from(plan.encode()))] };
    Ok(catalog.commit(Batch::one(Some(epoch), change)).await?.all_applied())
}

/// Makes what is missing; what is there stays.
pub async fn ensure(catalog: &dyn Catalog, epoch: Epoch, seeds: Seeds) -> Result<(), SiteError> {
    let mut wanted: Vec<(Key, Vec<u8>)> = vec![
        (keys::cluster(), seeds.cluster.encode()),
        (keys::keyring(), seeds.keyring),
        (keys::plan(0), seeds.plan.encode()),
    ];
    wanted.extend(seeds.access.into_iter().map(|(id, record)| (keys::access_key(&id), record)));
    let view = catalog.view().await?;
    let mut changes = Vec::new();
    for (key, value) in wanted {
        if view.get(&key)?.is_none() {
            let guard = Guard { key: key.clone(), expect: Expect::Absent };
            changes.push(Change { guards: vec![guard], writes: vec![Write::Put(key, Bytes::from(value))] });
        }
    }
    drop(view);
    if !changes.is_empty() {
        catalog.commit(Batch { epoch: Some(epoch), changes }).await?;
    }
    Ok(())
}
