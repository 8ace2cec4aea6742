//! What StorageNodes say to be emptied is written into the catalog, where the keeper finds it.

use diptych_api::StorageNode;
use diptych_catalog::Catalog;
use diptych_core::ids::{DeviceId, SiteName};
use diptych_core::records::Drain;
use diptych_site::drain;

use crate::access_key::active_epoch;
use crate::error::OperatorError;

/// Writes what has changed. Of nodes outside the active site's operator speaks; the other one declares none of its own twice.
///
/// # Errors
/// The catalog does not take it now.
pub async fn drain(
    catalog: &dyn Catalog,
    nodes: &[StorageNode],
    outside: &[StorageNode],
) -> Result<(), OperatorError> {
    for node in nodes {
        let Ok(name) = node.spec.node.parse() else { continue };
        drain::ask(catalog, catalog.site(), &name, wanted(node).as_ref(), None).await?;
    }
    let Some(epoch) = active_epoch(catalog).await?.filter(|_| !outside.is_empty()) else { return Ok(()) };
    for node in outside {
        let Ok(name) = node.spec.node.parse() else { continue };
        drain::ask(catalog, &SiteName::outside(), &name, wanted(node).as_ref(), Some(epoch)).await?;
    }
    Ok(())
}

/// All of a node, or the devices that say so; None: nothing of it.
fn wanted(node: &StorageNode) -> Option<Drain> {
    if node.spec.drain {
        return Some(Drain::default());
    }
    let drained = node.spec.devices.iter().filter(|device| device.drain);
    let devices: Vec<DeviceId> = drained.map(|device| DeviceId(device.id as u32)).collect();
    (!devices.is_empty()).then_some(Drain { devices })
}

#[cfg(test)]
mod tests {
    use diptych_catalog::{RedbCatalog, RedbOptions};
    use serde_json::json;

    use super::*;

    fn node(drain: bool, drained_device: bool) -> StorageNode {
        let spec = json!({"clusterRef": {"name": "main"}, "node": "n1", "drain": drain,
            "devices": [{"id": 1, "path": "/a"}, {"id": 2, "path": "/b", "drain": drained_device}]});
        StorageNode::new("main-n1", serde_json::from_value(spec).expect("a spec"))
    }

    #[tokio::test]
    async fn the_catalog_is_told_what_a_storage_node_says_until_it_says_it_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let site: SiteName = "east".parse().expect("a name");
        let path = folder.path().join("catalog.redb");
        let catalog = RedbCatalog::open(&path, site.clone(), &RedbOptions::default()).expect("a catalog");
        let told = async |declared: StorageNode| {
            drain(&catalog, &[declared], &[]).await.expect("it is written");
            drain::asked(catalog.view().await.expect("a view").as_ref(), &site).expect("it reads")
        };
        let all = told(node(true, true)).await;
        assert_eq!(all.values().cloned().collect::<Vec<_>>(), [Drain::default()]);
        let one = told(node(false, true)).await;
        assert_eq!(one.into_values().collect::<Vec<_>>(), [Drain { devices: vec![DeviceId(2)] }]);
        assert!(told(node(false, false)).await.is_empty());
    }
}
