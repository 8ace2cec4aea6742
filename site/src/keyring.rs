//! The keyring lies on every device: with any one of them and the cluster key all data open, whatever became of the catalogs.

use std::sync::Arc;
use std::time::Duration;

use diptych_core::keyring::Keyring;
use diptych_core::keys;
use diptych_wire::agent::SealedKeyring;
use tokio::sync::watch;

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::nodes::Seen;
use crate::place::Place;

/// Where all have it, it is offered again so often: a device may have been replaced. One that has it writes nothing.
const EVERY: Duration = Duration::from_mins(1);
/// Where some don't.
const AGAIN: Duration = Duration::from_secs(5);
/// Where there is none yet.
const SOON: Duration = Duration::from_secs(1);

/// Hands the catalog's keyring to every agent that answers, for ever.
pub async fn run(
    context: &SiteContext,
    seen: watch::Receiver<Arc<Seen>>,
    outside: watch::Receiver<Arc<Seen>>,
) {
    let (mut map, mut outside_map) = (context.map.clone(), context.outside.map.clone());
    loop {
        let pause = match offer_all(context, &seen, &outside).await {
            Ok(()) => EVERY,
            Err(SiteError::NothingYet(_)) => SOON,
            Err(error) => {
                tracing::info!(site = %context.site, %error, "the keyring is not on every device yet");
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

async fn offer_all(
    context: &SiteContext,
    seen: &watch::Receiver<Arc<Seen>>,
    outside: &watch::Receiver<Arc<Seen>>,
) -> Result<(), SiteError> {
    offer(context, &context.here(), seen).await?;
    match context.outside_nodes() {
        Some(nodes) => offer(context, &nodes, outside).await,
        None => Ok(()),
    }
}

/// The first failure, after all were asked.
async fn offer(
    context: &SiteContext,
    place: &Place,
    seen: &watch::Receiver<Arc<Seen>>,
) -> Result<(), SiteError> {
    let sealed = context.catalog.view().await?.get(&keys::keyring())?;
    let sealed = sealed.ok_or(SiteError::NothingYet("keyring"))?.to_vec();
    let generation = Keyring::generation_of(&sealed)?;
    let seen = seen.borrow().clone();
    let answering = seen.nodes.iter().filter(|(_, node)| node.answers);
    let offers = answering.map(|(name, _)| {
        let keyring = SealedKeyring { generation, sealed: sealed.clone() };
        async move { Ok(place.agents.of_node(name)?.put_keyring(place.stamp, keyring).await?) }
    });
    futures::future::join_all(offers).await.into_iter().collect()
}
