//! The sealed record of an access key in the catalog: made, changed and taken out by the active site.

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, Write};
use diptych_core::access::{open_secret, seal_secret};
use diptych_core::ids::Epoch;
use diptych_core::keyring::Keyring;
use diptych_core::keys;
use diptych_core::records::{AccessKey, Record};

use crate::error::OperatorError;

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The catalog is as it shall be.
    Done,
    /// Not yet: reason and message of a condition.
    Waits(&'static str, String),
}

impl Outcome {
    fn not_active(what: &str) -> Self {
        Self::Waits("NotActive", format!("the site is not active: {what}"))
    }
}

/// What the catalog shall accept.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub(super) id: &'a str,
    pub(super) secret: &'a str,
    pub(super) namespace: &'a str,
    pub(super) read_only: bool,
    /// Whether a record of the same id may be another namespace's now: only whoever runs the StorageCluster may take one over.
    pub(super) takes_over: bool,
}

impl Wanted<'_> {
    fn is_so(&self, keyring: &Keyring, record: &AccessKey) -> bool {
        record.read_only == self.read_only
            && record.namespace == self.namespace
            && open_secret(keyring, self.id, record).is_ok_and(|known| known.as_str() == self.secret)
    }
}

/// The record goes in under the active site's epoch, `None` where this one is not; the feed carries it to the other.
pub(super) async fn enter(
    catalog: &dyn Catalog,
    epoch: Option<Epoch>,
    keyring: &Keyring,
    wanted: &Wanted<'_>,
) -> Result<Outcome, OperatorError> {
    let key = keys::access_key(wanted.id);
    let raw = catalog.view().await?.get(&key)?;
    if let Some(raw) = &raw {
        let record = AccessKey::decode(raw)?;
        if wanted.is_so(keyring, &record) {
            return Ok(Outcome::Done);
        }
        if record.namespace != wanted.namespace && !wanted.takes_over {
            let text = format!(
                "access key {} is another namespace's: delete the Secret, so that one with an id of its own is made",
                wanted.id
            );
            return Ok(Outcome::Waits("IdTaken", text));
        }
    }
    let Some(epoch) = epoch else { return Ok(Outcome::not_active("the active one makes the record")) };
    let Wanted { id, secret, namespace, read_only, takes_over: _ } = wanted;
    let record = seal_secret(keyring, id, secret, &rand::random(), namespace, *read_only)
        .map_err(|error| OperatorError::Internal(error.to_string()))?;
    // FENCING: what was looked at is what is replaced; of two namespaces that enter one id at a time one is refused.
    let guards = vec![Guard { key: key.clone(), expect: raw.map_or(Expect::Absent, Expect::Value) }];
    let change = Change { guards, writes: vec![Write::Put(key, Bytes::from(record.encode()))] };
    if catalog.commit(Batch::one(Some(epoch), change)).await?.all_applied() {
        return Ok(Outcome::Done);
    }
    Ok(Outcome::Waits("Entering", "the record was changed meanwhile; it is looked at again".to_owned()))
}

/// Likewise it goes out, and gateways of both sites refuse it. `owner`: only if it is this namespace's; None: whoever's it is.
pub(super) async fn take_out(
    catalog: &dyn Catalog,
    epoch: Option<Epoch>,
    id: &str,
    owner: Option<&str>,
) -> Result<Outcome, OperatorError> {
    let key = keys::access_key(id);
    let Some(raw) = catalog.view().await?.get(&key)? else { return Ok(Outcome::Done) };
    let record = AccessKey::decode(&raw)?;
    if owner.is_some_and(|owner| record.namespace != owner) {
        return Ok(Outcome::Done);
    }
    let Some(epoch) = epoch else {
        return Ok(Outcome::not_active(&format!(
            "{id} is taken out when it is, or by deleting its AccessKey in the other"
        )));
    };
    let guards = vec![Guard { key: key.clone(), expect: Expect::Value(raw) }];
    let change = Change { guards, writes: vec![Write::Delete(key)] };
    if catalog.commit(Batch::one(Some(epoch), change)).await?.all_applied() {
        return Ok(Outcome::Done);
    }
    Ok(Outcome::Waits("Leaving", "the record was changed meanwhile; it is looked at again".to_owned()))
}

#[cfg(test)]
mod tests {
    use diptych_catalog::{RedbCatalog, RedbOptions};
    use diptych_core::cipher::SecretKey;
    use diptych_core::ids::ClusterId;
    use diptych_core::keyring::NewRingKey;
    use diptych_core::records::Gate;

    use super::*;

    const EPOCH: Epoch = Epoch(1);
    const WANTED: Wanted<'_> =
        Wanted { id: "KEY", secret: "first", namespace: "files", read_only: false, takes_over: false };

    /// Of a site whose gate is open.
    async fn catalog() -> (RedbCatalog, Keyring, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let site: diptych_core::ids::SiteName = "east".parse().expect("a name");
        let path = folder.path().join("catalog.redb");
        let catalog = RedbCatalog::open(&path, site.clone(), &RedbOptions::default()).expect("a catalog");
        let gate = Write::Put(keys::site_gate(&site), Bytes::from(Gate::Open(EPOCH).encode()));
        catalog.commit(Batch::one(None, Change::blind(vec![gate]))).await.expect("it commits");
        let new = NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
        (catalog, Keyring::create(ClusterId([1; 16]), new), folder)
    }

    async fn secret(catalog: &RedbCatalog, keyring: &Keyring, id: &str) -> Option<String> {
        let raw = catalog.view().await.expect("a view").get(&keys::access_key(id)).expect("it reads")?;
        let record = AccessKey::decode(&raw).expect("a record");
        Some(open_secret(keyring, id, &record).expect("it opens").to_string())
    }

    fn waits_for_the_active_site(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Waits("NotActive", _))
    }

    #[tokio::test]
    async fn a_changed_secret_replaces_the_sealed_one() {
        let (catalog, keyring, _folder) = catalog().await;
        let enter = async |epoch: Option<Epoch>, wanted: &Wanted<'_>| {
            super::enter(&catalog, epoch, &keyring, wanted).await.expect("entered")
        };
        assert!(waits_for_the_active_site(&enter(None, &WANTED).await));
        assert_eq!(enter(Some(EPOCH), &WANTED).await, Outcome::Done);
        assert_eq!(enter(None, &WANTED).await, Outcome::Done, "the passive site has nothing to do");
        let changed = Wanted { secret: "second", ..WANTED };
        assert!(waits_for_the_active_site(&enter(None, &changed).await));
        assert_eq!(enter(Some(EPOCH), &changed).await, Outcome::Done);
        assert_eq!(secret(&catalog, &keyring, "KEY").await.as_deref(), Some("second"));
    }

    #[tokio::test]
    async fn what_is_taken_out_is_gone_and_the_passive_site_waits_until_it_is() {
        let (catalog, keyring, _folder) = catalog().await;
        enter(&catalog, Some(EPOCH), &keyring, &WANTED).await.expect("entered");
        let take_out = async |epoch: Option<Epoch>| {
            super::take_out(&catalog, epoch, "KEY", None).await.expect("it is asked")
        };
        assert!(waits_for_the_active_site(&take_out(None).await));
        assert!(secret(&catalog, &keyring, "KEY").await.is_some());
        assert_eq!(take_out(Some(EPOCH)).await, Outcome::Done);
        assert_eq!(secret(&catalog, &keyring, "KEY").await, None);
        assert_eq!(take_out(None).await, Outcome::Done, "the other site has done it");
    }

    #[tokio::test]
    async fn the_id_of_another_namespace_is_neither_taken_over_nor_taken_out() {
        let (catalog, keyring, _folder) = catalog().await;
        let enter = async |wanted: &Wanted<'_>| {
            super::enter(&catalog, Some(EPOCH), &keyring, wanted).await.expect("it is asked")
        };
        assert_eq!(enter(&WANTED).await, Outcome::Done);
        let theirs = Wanted { secret: "theirs", namespace: "shop", ..WANTED };
        assert!(matches!(enter(&theirs).await, Outcome::Waits("IdTaken", _)));
        let out = super::take_out(&catalog, Some(EPOCH), "KEY", Some("shop")).await.expect("it is asked");
        assert_eq!(out, Outcome::Done, "nothing of its own is there");
        assert_eq!(secret(&catalog, &keyring, "KEY").await.as_deref(), Some("first"));
        // Who runs the StorageCluster decides.
        assert_eq!(enter(&Wanted { takes_over: true, ..theirs }).await, Outcome::Done);
        assert_eq!(secret(&catalog, &keyring, "KEY").await.as_deref(), Some("theirs"));
        let out = super::take_out(&catalog, Some(EPOCH), "KEY", Some("shop")).await.expect("it is asked");
        assert_eq!((out, secret(&catalog, &keyring, "KEY").await), (Outcome::Done, None));
    }
}
