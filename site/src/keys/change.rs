//! Changes of the keyring in the catalog: by compare-and-set, under the epoch of the active site.

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, Write};
use diptych_core::cipher::SecretKey;
use diptych_core::ids::{Epoch, RingKeyNumber};
use diptych_core::keyring::{KeyId, Keyring, NewRingKey, RingKey, RingKeyState};
use diptych_core::keys;
use rand::RngCore;
use zeroize::Zeroizing;

use super::KeyProvider;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;

/// The catalog's keyring, sealed and open.
pub(crate) struct Found {
    pub(super) sealed: Bytes,
    pub(crate) keyring: Keyring,
    pub(super) wrapped_by: KeyId,
}

/// Reads it.
pub(crate) async fn find(catalog: &dyn Catalog, provider: &KeyProvider) -> Result<Found, SiteError> {
    let sealed = catalog.view().await?.get(&keys::keyring())?.ok_or(SiteError::NothingYet("keyring"))?;
    Found::open(sealed, provider)
}

impl Found {
    pub(super) fn open(sealed: Bytes, provider: &KeyProvider) -> Result<Self, SiteError> {
        let keyring = provider.open(&sealed)?;
        Ok(Self { wrapped_by: Keyring::wrapped_by(&sealed)?, sealed, keyring })
    }

    /// One more ring key, prepared.
    pub(crate) async fn add(
        &self,
        catalog: &dyn Catalog,
        epoch: Epoch,
        provider: &KeyProvider,
    ) -> Result<RingKeyNumber, SiteError> {
        let next = self.keyring.with_ring_key(epoch, fresh(), RingKeyState::Prepared)?;
        let number = next.prepared().map_or_else(|| next.current().number(), RingKey::number);
        self.replace(catalog, epoch, self.reseal(provider, &next)?).await?;
        Ok(number)
    }

    /// All that is prepared may seal from now on.
    pub(crate) async fn take_into_use(
        &self,
        catalog: &dyn Catalog,
        epoch: Epoch,
        provider: &KeyProvider,
    ) -> Result<(), SiteError> {
        self.replace(catalog, epoch, self.reseal(provider, &self.keyring.all_in_use())?).await
    }

    /// The same keys, sealed by the newest cluster key.
    pub(super) async fn rewrap(
        &self,
        catalog: &dyn Catalog,
        epoch: Epoch,
        provider: &KeyProvider,
    ) -> Result<(), SiteError> {
        let next = self.keyring.next_generation().seal(provider.keys().newest());
        self.replace(catalog, epoch, next).await
    }

    /// A change of ring keys leaves the cluster key as it is.
    fn reseal(&self, provider: &KeyProvider, keyring: &Keyring) -> Result<Vec<u8>, SiteError> {
        let keys = provider.keys();
        let key = keys.key(keyring.cluster(), self.wrapped_by).ok_or(SiteError::Changed)?;
        Ok(keyring.seal(key))
    }

    /// Puts `next` in its place.
    ///
    /// FENCING: under the epoch, and only over the very bytes that were read: what another keeper or a merge has added is never
    /// written over.
    async fn replace(&self, catalog: &dyn Catalog, epoch: Epoch, next: Vec<u8>) -> Result<(), SiteError> {
        put(catalog, epoch, Expect::Value(self.sealed.clone()), next).await
    }
}

async fn put(catalog: &dyn Catalog, epoch: Epoch, expect: Expect, next: Vec<u8>) -> Result<(), SiteError> {
    let key = keys::keyring();
    let guards = vec![Guard { key: key.clone(), expect }];
    let change = Change { guards, writes: vec![Write::Put(key, Bytes::from(next))] };
    let committed = catalog.commit(Batch::one(Some(epoch), change)).await?;
    if committed.all_applied() { Ok(()) } else { Err(SiteError::Changed) }
}

/// Prepares another ring key; false: one waits to be used already.
///
/// # Errors
/// Of a site that is not active `NotYet`.
pub async fn prepare(context: &SiteContext) -> Result<bool, SiteError> {
    let epoch = context.active_epoch().ok_or(SiteError::NotYet("this site is not active"))?;
    let found = find(context.catalog.as_ref(), &context.cluster_keys).await?;
    if found.keyring.prepared().is_some() {
        return Ok(false);
    }
    let number = found.add(context.catalog.as_ref(), epoch, &context.cluster_keys).await?;
    tracing::info!(site = %context.site, %number, "a ring key is prepared");
    Ok(true)
}

/// Of a ring key that is made now.
pub fn fresh() -> NewRingKey {
    let (mut key, mut nonce) = (Zeroizing::new([0; 32]), [0; 12]);
    rand::rng().fill_bytes(key.as_mut());
    rand::rng().fill_bytes(&mut nonce);
    NewRingKey { key: SecretKey::new(*key), nonce, made_ms: now_ms() }
}

/// Merges the keyring of an unseen term; whether that changed this one.
///
/// FENCING: this is done before any version of that term is taken in, and before the site that returns takes this one's
/// keyring for its own. A ring key under which blobs lie is in one of the two at any moment.
pub(crate) async fn take_in(
    catalog: &dyn Catalog,
    epoch: Epoch,
    provider: &KeyProvider,
    unseen: &[u8],
) -> Result<bool, SiteError> {
    let theirs = provider.open(unseen)?;
    loop {
        let taken = match catalog.view().await?.get(&keys::keyring())? {
            Some(sealed) if sealed == unseen => return Ok(false),
            Some(sealed) => {
                let here = Found::open(sealed, provider)?;
                let merged = match here.keyring.merged(&theirs)? {
                    Some(merged) => merged,
                    // The same keys sealed by two cluster keys: a device takes other bytes only under a higher generation.
                    None if theirs.generation() == here.keyring.generation() => {
                        here.keyring.next_generation()
                    }
                    None => return Ok(false),
                };
                here.replace(catalog, epoch, here.reseal(provider, &merged)?).await
            }
            None => put(catalog, epoch, Expect::Absent, unseen.to_vec()).await,
        };
        match taken {
            Ok(()) => return Ok(true),
            Err(SiteError::Changed) => {}
            Err(error) => return Err(error),
        }
    }
}
