//! The third vote moves from the node outside to an object in a bucket, and back.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::store::Store;
use super::{a_file, declare};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::demo::two_sites::hand_over;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::spec;

const SECRET: &str = "proof-witness";
const BUCKET: &str = "leases";
const LIMIT: Duration = Duration::from_mins(2);

/// `failover.witness.objectStore`, a planned switch, and back to `outsideNode`.
pub(super) async fn moves_to_a_bucket(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("the witness moves to a bucket and back: both sites reach it each time, and the lease changes hands by it", async {
            let store = Store::start(ground, BUCKET).await?;
            let seen = Box::pin(there_and_back(ground, &store)).await;
            Ok(((), then_put_back(async { seen }, store.stop()).await?))
        })
        .await
}

async fn there_and_back(ground: &Ground<'_>, store: &Store) -> Result<String> {
    let [east, _] = ground.clusters;
    let declared = east.get(&[spec::OBJECT]).await?;
    let before = declared.pointer("/spec/failover/witness/outsideNode").cloned();
    ensure!(before.is_some(), "the witness is no node outside");
    let key = format!("main-{}/lease", ground.run);
    let look = async {
        for cluster in ground.clusters {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
                "stringData": {"accessKeyId": store.endpoint.access_key, "secretAccessKey": store.endpoint.secret_key}});
            cluster.apply(&secret.to_string()).await?;
        }
        let bucket = json!({"endpoint": store.endpoint.endpoint, "bucket": BUCKET, "key": key,
            "secretRef": {"name": SECRET}});
        moves(ground, &json!({"outsideNode": null, "objectStore": bucket})).await?;
        until(&format!("the vote stands in {key}"), LIMIT, || async {
            let there = store.bucket.list(&key).await?;
            Ok(if there.iter().any(|object| object.key == key) { Ok(()) } else { Err(format!("{there:?}")) })
        })
        .await?;
        let (active, passive) = ground.sites().await?;
        hand_over(&ground.reach, active.site).await?;
        ground.until_well().await?;
        let (file, bytes) = a_file(ground, "by-the-bucket", 64 << 10).await?;
        let read = ground.read_in_both(&file, &bytes).await?;
        Ok(format!("{BUCKET}/{key} has the vote, {} is active by a planned switch, {read}", passive.site))
    };
    let put_back = async {
        moves(ground, &json!({"outsideNode": before, "objectStore": null})).await?;
        for cluster in ground.clusters {
            cluster.kubectl(&["delete", "secret", SECRET, "--ignore-not-found"]).await?;
        }
        Ok(())
    };
    Box::pin(then_put_back(look, put_back)).await
}

/// As docs/kubernetes.md moves it: while both sites ask different witnesses nobody takes over by himself.
async fn moves(ground: &Ground<'_>, witness: &Value) -> Result<()> {
    declare(ground, &json!({"failover": {"mode": "Manual"}})).await?;
    let moved = async {
        declare(ground, &json!({"failover": {"witness": witness}})).await?;
        for cluster in ground.clusters {
            spec::says(cluster, "PeerConnected", "True Answers").await?;
            spec::says(cluster, "WitnessReachable", "True Answers").await?;
        }
        Ok(())
    };
    let automatic = json!({"failover": {"mode": "Automatic"}});
    Box::pin(then_put_back(moved, declare(ground, &automatic))).await?;
    ground.until_well().await.map(drop)
}
