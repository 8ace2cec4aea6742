//! Keys: the keyring goes to every device and is read back from there, a ring key is followed by the next, and the cluster key
//! is exchanged. `core::keyring::rotation` says what is next.
//!
//! Each site's keeper writes down which cluster keys its site is given and where it has read the keyring back (`s/keys/<site>`); the
//! active one reads both, and alone changes the keyring.

mod change;
mod provider;
mod spread;

use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Write};
use diptych_core::keyring::rotation::{Peer, Progress, Seen, Step};
use diptych_core::keyring::{Keyring, RingKey, RingKeyState};
use diptych_core::keys;
use diptych_core::records::{Position, Record, SiteKeys};
use tokio::sync::watch;

use self::change::Found;
#[cfg(test)]
pub(crate) use self::change::find as find_keyring;
pub(crate) use self::change::take_in;
pub use self::change::{fresh, prepare};
pub use self::provider::{KeyFileError, KeyProvider, previous_of, read_keys};
use self::spread::spread;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::journal::is_journaled;
use crate::status::{KeysStatus, RingKeyStatus};

/// Between two rounds where nothing is waited for: a device may have been replaced, and so may the files of the cluster key.
const EVERY: Duration = Duration::from_secs(15);
/// Where something is.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks after the keyring of a site, for ever.
pub async fn run(context: &SiteContext, told: &watch::Sender<Option<KeysStatus>>) {
    let (mut map, mut outside_map) = (context.map.clone(), context.outside.map.clone());
    let mut keeping = Keeping::default();
    loop {
        let pause = match keeping.pass(context).await {
            Ok(status) => {
                let pause = if status.is_settled() { EVERY } else { AGAIN };
                told.send_replace(Some(status));
                pause
            }
            Err(SiteError::NothingYet(_)) => AGAIN,
            Err(error) => {
                tracing::warn!(site = %context.site, %error, "the keyring is not looked after now");
                told.send_modify(|status| status.get_or_insert_default().trouble = Some(error.to_string()));
                AGAIN
            }
        };
        tokio::select! {
            changed = map.changed() => if changed.is_err() { return },
            changed = outside_map.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What a keeper remembers from round to round.
#[derive(Default)]
pub struct Keeping {
    /// The keyring, and a position at which the catalog had it.
    known: Option<(Bytes, Position)>,
}

impl Keeping {
    /// One round: spread, read back, written down; on the active site the next step.
    ///
    /// # Errors
    /// No cluster key that opens the keyring, a catalog that does not answer. A device that lacks it is none.
    pub async fn pass(&mut self, context: &SiteContext) -> Result<KeysStatus, SiteError> {
        let unread = context.cluster_keys.look().err();
        let view = context.catalog.view().await?;
        let sealed = view.get(&keys::keyring())?.ok_or(SiteError::NothingYet("keyring"))?;
        let position = view.position();
        drop(view);
        // Devices get it also where this process can't open it.
        let missing = spread_all(context, &sealed).await?;
        let found = Found::open(sealed.clone(), &context.cluster_keys)?;
        let here = SiteKeys {
            held: context.cluster_keys.keys().ids(found.keyring.cluster()),
            generation: found.keyring.generation(),
            wrapped_by: found.wrapped_by,
            missing,
            journaled: self.is_journaled(context, &sealed, position),
        };
        let there = write_down(context, &here).await?;
        let peer = match (&context.peer, &there) {
            (None, _) => Peer::None,
            (Some(_), None) => Peer::Silent,
            (Some(_), Some(there)) => Peer::Says(there),
        };
        let (wrapped_by, newest) = (found.wrapped_by, here.held[0]);
        let seen = Seen { keyring: &found.keyring, wrapped_by, newest, here: &here, peer };
        act(context, &found, seen.step(now_ms())).await?;
        Ok(status(&seen, unread.map(|error| error.to_string())))
    }

    /// Whether checkpoint and journals go past a position at which the catalog had this keyring.
    fn is_journaled(&mut self, context: &SiteContext, sealed: &Bytes, position: Position) -> bool {
        match &self.known {
            Some((known, at)) if known == sealed => is_journaled(context, *at),
            _ => {
                self.known = Some((sealed.clone(), position));
                is_journaled(context, position)
            }
        }
    }
}

/// Where it was not read back, of all that this site's keeper cares for.
async fn spread_all(context: &SiteContext, sealed: &Bytes) -> Result<Vec<String>, SiteError> {
    let generation = Keyring::generation_of(sealed)?;
    let mut missing = Vec::new();
    for place in context.places() {
        if !place.is_outside() && place.map.nodes.is_empty() {
            missing.push("the nodes, which are not known yet".to_owned());
        }
        missing.extend(spread(&place, sealed, generation).await);
    }
    Ok(missing)
}

/// Writes the own record where it is another, and reads the other site's.
async fn write_down(context: &SiteContext, here: &SiteKeys) -> Result<Option<SiteKeys>, SiteError> {
    let view = context.catalog.view().await?;
    let key = keys::site_keys(&context.site);
    let (known, encoded) = (view.get(&key)?, Bytes::from(here.encode()));
    let there = match &context.peer {
        Some(peer) => view.get(&keys::site_keys(peer))?.map(|raw| SiteKeys::decode(&raw)).transpose()?,
        None => None,
    };
    drop(view);
    if known != Some(encoded.clone()) {
        let write = Change::blind(vec![Write::Put(key, encoded)]);
        context.catalog.commit(Batch::one(None, write)).await?;
    }
    Ok(there)
}

/// Carries out what is next; a site that is not active only says what it sees.
async fn act(context: &SiteContext, found: &Found, step: Option<Step>) -> Result<(), SiteError> {
    let (Some(step), Some(epoch)) = (step, context.active_epoch()) else { return Ok(()) };
    let (catalog, provider) = (context.catalog.as_ref(), &context.cluster_keys);
    match step {
        Step::Prepare => return prepare(context).await.map(drop),
        Step::TakeIntoUse => {
            found.take_into_use(catalog, epoch, provider).await?;
            tracing::info!(site = %context.site, "another ring key is in use");
        }
        Step::Rewrap => {
            found.rewrap(catalog, epoch, provider).await?;
            tracing::info!(site = %context.site, "the keyring is wrapped by another cluster key");
        }
    }
    Ok(())
}

fn status(seen: &Seen<'_>, trouble: Option<String>) -> KeysStatus {
    let progress = seen.progress();
    let ring_key = |key: &RingKey| RingKeyStatus {
        number: key.number().0,
        made_ms: key.made_ms(),
        in_use: key.state() == RingKeyState::InUse,
    };
    KeysStatus {
        generation: seen.keyring.generation(),
        wrapped_by: seen.wrapped_by.to_string(),
        held: seen.here.held.iter().map(ToString::to_string).collect(),
        current: seen.keyring.current().number().0,
        ring_keys: seen.keyring.ring_keys().iter().map(ring_key).collect(),
        missing: seen.here.missing.clone(),
        over: progress.is_over(),
        waiting: progress.reason().to_owned(),
        waiting_for: progress.sentence(seen.newest),
        may_go: progress == Progress::PreviousMayGo,
        trouble,
    }
}
