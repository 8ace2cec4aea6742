//! A StorageNode that is drained keeps no row that is named, and gets its share again when it is taken back.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{MOVES_IN, a_file, printed, rows, storage_node, workers};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::cluster::Node;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::spec;

/// One of the four nodes of the active site: `survive` leaves one to spare.
pub(super) async fn empties_a_node(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step(
            "drain of a StorageNode: Drained, no named row is left there; drain false gives it rows again",
            async {
                let (active, _) = ground.sites().await?;
                let node = workers(active).await?.into_iter().next().context("no worker runs")?;
                let object = storage_node(&node);
                let (key, bytes) = a_file(ground, "drained", 4 << 20).await?;
                ground.read_in_both(&key, &bytes).await?;
                let before = rows_on(ground, active.site, &key, &node).await?;
                ensure!(before > 0, "no row of {key} lies on {}", node.name);
                let look = async {
                    spec::patch_of(active, &object, &json!({"drain": true})).await?;
                    let said = spec::said_within(active, &object, "Drained", "True Empty", MOVES_IN).await?;
                    let line = printed(active, &object).await?;
                    ensure!(line.contains("drained"), "kubectl get: {line}");
                    let left = rows_on(ground, active.site, &key, &node).await?;
                    ensure!(left == 0, "{left} rows of {key} are still named on {}", node.name);
                    Ok(format!("{said}; {line}; {}", ground.read_in_both(&key, &bytes).await?))
                };
                let put_back = async {
                    spec::patch_of(active, &object, &json!({"drain": false})).await?;
                    spec::said_of(active, &object, "Ready", "True Live").await.map(drop)
                };
                let seen = Box::pin(then_put_back(look, put_back)).await?;
                until(&format!("{} has its share again", node.name), MOVES_IN, || async {
                    let again = rows_on(ground, active.site, &key, &node).await?;
                    Ok(if again > 0 { Ok(()) } else { Err(format!("no row of {key}")) })
                })
                .await?;
                let read = ground.read_in_both(&key, &bytes).await?;
                Ok((
                    (),
                    format!(
                        "{before} rows of a file lay there: {seen}; taken back it has rows again, {read}"
                    ),
                ))
            },
        )
        .await
}

async fn rows_on(ground: &Ground<'_>, site: &str, key: &str, node: &Node) -> Result<usize> {
    let named = rows(ground, site, key).await?;
    Ok(named.iter().filter(|row| row.site.as_str() == site && row.node == node.name).count())
}
