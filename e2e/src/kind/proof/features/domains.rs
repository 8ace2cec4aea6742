//! Failure domains that StorageNodes say: rows lie level over them, as far as what is promised of nodes stays true.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{MOVES_IN, a_file, printed, rows, storage_node, workers};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::spec;

const DOMAIN: &str = "rack-7";
const LIMIT: Duration = Duration::from_mins(3);

/// Two of four nodes in one rack: it has a third of the rows then, as each of the two others.
pub(super) async fn are_levelled(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step(
            "two StorageNodes of one domain: column DOMAIN says so, and rows lie level over domains",
            async {
                let (active, _) = ground.sites().await?;
                let rack: Vec<_> = workers(active).await?.into_iter().take(2).collect();
                ensure!(rack.len() == 2, "only {} workers run", rack.len());
                let objects: Vec<String> = rack.iter().map(storage_node).collect();
                let (key, bytes) = a_file(ground, "domains", 4 << 20).await?;
                let look = async {
                    say(active, &objects, &json!(DOMAIN)).await?;
                    let line = printed(active, objects.first().context("no node")?).await?;
                    ensure!(line.split(' ').any(|column| column == DOMAIN), "kubectl get: {line}");
                    let settled = ["wait", spec::OBJECT, "--for=condition=Progressing=False", "--timeout=3m"];
                    active.kubectl(&settled).await?;
                    let in_rack = until("rows lie level over domains", MOVES_IN, || async {
                        let named = rows(ground, active.site, &key).await?;
                        let here: Vec<_> =
                            named.iter().filter(|row| row.site.as_str() == active.site).collect();
                        let there =
                            here.iter().filter(|row| rack.iter().any(|node| node.name == row.node)).count();
                        let level = !here.is_empty() && there * 3 == here.len();
                        let seen = format!("{there} of {} rows are in the rack", here.len());
                        Ok(if level { Ok(seen) } else { Err(seen) })
                    })
                    .await?;
                    Ok(format!("{line}; {in_rack}; {}", ground.read_in_both(&key, &bytes).await?))
                };
                let seen = Box::pin(then_put_back(look, say(active, &objects, &Value::Null))).await?;
                Ok(((), format!("{seen}; without the domain {}", ground.read_in_both(&key, &bytes).await?)))
            },
        )
        .await
}

/// Has these StorageNodes say a domain, or none, and waits until rows are placed by that.
async fn say(cluster: &Cluster, objects: &[String], domain: &Value) -> Result<()> {
    for object in objects {
        spec::patch_of(cluster, object, &json!({"domain": domain})).await?;
    }
    for object in objects {
        spec::shows(cluster, object, &format!("domain {domain}"), LIMIT, |seen| {
            (seen["status"]["domain"] == *domain).then_some(())
        })
        .await?;
    }
    Ok(())
}
