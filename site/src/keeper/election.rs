//! Who speaks for a site: one process, elected in the catalog, never through the API server.
//!
//! The number of the keeper grows with each election. A keeper beats; who waits takes over when the beat has stood still
//! for its patience. Two that believe in themselves do no harm: each change of the site's record compares the number.

use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, Write};
use diptych_core::ids::KeeperNumber;
use diptych_core::keys;
use diptych_core::records::{KeeperBeat, KeeperLease, Record};

use crate::error::SiteError;

/// Between two beats.
pub const BEAT_EVERY: Duration = Duration::from_millis(400);
/// A keeper whose beat stands still for so long is replaced. The next one has to be elected, and to have asked the other
/// site, before a lease of 3 s runs out: else the death of one node would move the role.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until this process speaks for the site; its number.
///
/// `patience`: how long a beat must have stood still. Zero where the catalog's own lock shows that no other process lives.
pub async fn elect(
    catalog: &dyn Catalog,
    holder: &str,
    patience: Duration,
) -> Result<KeeperNumber, SiteError> {
    let site = catalog.site().clone();
    let mut seen: Option<(Option<Bytes>, Instant)> = None;
    loop {
        let view = catalog.view().await?;
        let key = keys::site_keeper(&site);
        let raw = view.get(&key)?;
        let beat = view.get(&keys::site_beat(&site))?;
        let current = raw.as_deref().map(KeeperLease::decode).transpose()?;
        let since = match &seen {
            Some((known, since)) if *known == beat => *since,
            _ => Instant::now(),
        };
        seen = Some((beat, since));
        if current.is_none() || since.elapsed() >= patience {
            let number = KeeperNumber(current.map_or(0, |keeper| keeper.number.0) + 1);
            let record = KeeperLease { number, holder: holder.to_owned() };
            let guard = Guard { key: key.clone(), expect: raw.map_or(Expect::Absent, Expect::Value) };
            let writes = vec![
                Write::Put(key, Bytes::from(record.encode())),
                Write::Put(keys::site_beat(&site), Bytes::from(KeeperBeat { number, beat: 0 }.encode())),
            ];
            let change = Change { guards: vec![guard], writes };
            if catalog.commit(Batch::one(None, change)).await?.all_applied() {
                tracing::info!(%site, %number, holder, "this process speaks for the site");
                return Ok(number);
            }
        }
        tokio::time::sleep(BEAT_EVERY).await;
    }
}

/// Beats until another keeper is elected.
pub async fn beat(catalog: &dyn Catalog, number: KeeperNumber, holder: &str) {
    let site = catalog.site().clone();
    let own = KeeperLease { number, holder: holder.to_owned() };
    let guard = Guard { key: keys::site_keeper(&site), expect: Expect::Value(Bytes::from(own.encode())) };
    for beat in 1.. {
        tokio::time::sleep(BEAT_EVERY).await;
        let write = Write::Put(keys::site_beat(&site), Bytes::from(KeeperBeat { number, beat }.encode()));
        let change = Change { guards: vec![guard.clone()], writes: vec![write] };
        match catalog.commit(Batch::one(None, change)).await {
            Ok(committed) if !committed.all_applied() => return,
            Ok(_) => {}
            Err(error) => tracing::warn!(%site, %error, "the beat could not be written"),
        }
    }
}
