//! The keyring lies on every device: with any one of them and the cluster key all data open, whatever became of the catalogs.

use std::time::Duration;

use diptych_core::ids::Generation;
use diptych_core::placement::{MapDevice, MapDeviceState, MapNode, NodeState};
use diptych_wire::agent::SealedKeyring;
use tokio::time::timeout;

use crate::error::SiteError;
use crate::place::Place;

/// An agent that does not answer within it is asked again with the next round.
const LIMIT: Duration = Duration::from_secs(5);

/// Hands the keyring to every node of a place and reads it back from every device: those that were not seen to have it. What is
/// dead is left out.
pub(super) async fn spread(place: &Place, sealed: &[u8], generation: Generation) -> Vec<String> {
    let keyring = SealedKeyring { generation, sealed: sealed.to_vec() };
    let nodes = place.map.nodes.iter().filter(|node| node.state != NodeState::Dead);
    let offers = nodes.map(|node| offer(place, node, &keyring));
    futures::future::join_all(offers).await.into_iter().flatten().collect()
}

/// The devices of one node that lack it.
async fn offer(place: &Place, node: &MapNode, keyring: &SealedKeyring) -> Vec<String> {
    let of_map = node.devices.iter().filter(|device| device.state != MapDeviceState::Dead);
    let name = |device: &MapDevice| format!("device {} of node {}", device.id, node.name);
    let all = || of_map.clone().map(name).collect();
    match timeout(LIMIT, put_and_read(place, node, keyring)).await {
        // FENCING: what counts is what was read from the disk afterwards, not that it was taken.
        Ok(Ok(kept)) => of_map
            .clone()
            .filter(|device| {
                !kept.iter().any(|(id, kept)| *id == device.id && kept.as_ref() == Some(keyring))
            })
            .map(name)
            .collect(),
        Ok(Err(error)) => {
            tracing::info!(node = %node.name, %error, "the keyring is not on every device yet");
            all()
        }
        Err(_) => all(),
    }
}

async fn put_and_read(
    place: &Place,
    node: &MapNode,
    keyring: &SealedKeyring,
) -> Result<Vec<(diptych_core::ids::DeviceId, Option<SealedKeyring>)>, SiteError> {
    let agent = place.agents.of_node(&node.name)?;
    agent.put_keyring(place.stamp, keyring.clone()).await?;
    let kept = agent.get_keyrings().await?;
    Ok(kept.into_iter().map(|kept| (kept.device, kept.keyring)).collect())
}
