//! FileObjects: what deleting one does, and how many there are.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use serde_json::{Value, json};

use super::ground::{BUCKET, Ground, random, then_put_back};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::demo::two_sites;
use crate::kind::cluster::Cluster;
use crate::kind::install::STORAGE_CLUSTER;
use crate::kind::spec;

/// The FileObject that shows a key of [`BUCKET`], once there is one.
async fn shown(cluster: &Cluster, key: &str) -> Result<String> {
    let selector = format!("--field-selector=spec.bucket={BUCKET}");
    until(&format!("{} shows {key} as a FileObject", cluster.site), Duration::from_mins(3), || async {
        let all = cluster.get(&["fileobjects", selector.as_str()]).await?;
        let mut items = all["items"].as_array().into_iter().flatten();
        let found = items.find(|item| item["spec"]["key"] == key);
        Ok(found
            .and_then(|item| item.pointer("/metadata/name")?.as_str())
            .map(str::to_owned)
            .ok_or_else(|| format!("{} others", all["items"].as_array().map_or(0, Vec::len))))
    })
    .await
}

/// Waits until there is no such FileObject.
pub(super) async fn gone(cluster: &Cluster, name: &str) -> Result<()> {
    until(&format!("FileObject {name} of {} is gone", cluster.site), Duration::from_mins(2), || async {
        let words = ["get", "fileobject", name, "--ignore-not-found", "-o", "jsonpath={.status.conditions}"];
        let there = cluster.kubectl(&["get", "fileobject", name, "--ignore-not-found", "-o", "name"]).await?;
        if there.is_empty() { Ok(Ok(())) } else { Ok(Err(cluster.kubectl(&words).await?)) }
    })
    .await
}

/// `kubectl delete` of a file that `kubectl apply` stored.
pub(super) async fn declared_is_deleted(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("a declared FileObject is stored in both sites, and deleted in both by kubectl delete", async {
            let (active, _) = ground.sites().await?;
            let (name, bytes) = (format!("declared-{}", ground.run), random(64 << 10)?);
            let content = base64::engine::general_purpose::STANDARD.encode(&bytes);
            let manifest = json!({"apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
                "metadata": {"name": name},
                "spec": {"clusterRef": {"name": STORAGE_CLUSTER}, "bucket": BUCKET, "key": name,
                    "content": {"base64": content}}});
            active.apply(&manifest.to_string()).await?;
            spec::said_of(active, &format!("fileobject/{name}"), "Stored", "True Stored").await?;
            let read = ground.read_in_both(&name, &bytes).await?;
            active.kubectl(&["delete", "fileobject", &name, "--timeout=60s"]).await?;
            ground.gone_in_both(&name).await?;
            Ok(((), format!("{read}; then both answer 404 NoSuchKey")))
        })
        .await
}

/// `kubectl delete` of a file that came in by S3.
pub(super) async fn projected_is_deleted(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("a file that came in by S3 is shown, and deleted in both sites by kubectl delete", async {
            let (active, passive) = ground.sites().await?;
            let (key, bytes) = (format!("projected-{}", ground.run), random(1 << 20)?);
            ground.s3()?.put(&key, bytes.clone()).await?;
            let read = ground.read_in_both(&key, &bytes).await?;
            let name = shown(active, &key).await?;
            active.kubectl(&["delete", "fileobject", &name, "--timeout=60s"]).await?;
            ground.gone_in_both(&key).await?;
            // The passive site takes its picture back by itself, if it had drawn one.
            gone(passive, &name).await?;
            Ok(((), format!("{read}; {name} deleted, then both answer 404 NoSuchKey")))
        })
        .await
}

/// More files than are shown.
pub(super) async fn limit_is_reached(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("past catalog.projectionLimit a condition says so, and nothing is lost", async {
            let (active, _) = ground.sites().await?;
            let (key, bytes) = (format!("limit-{}", ground.run), random(4 << 10)?);
            ground.s3()?.put(&key, bytes.clone()).await?;
            ground.read_in_both(&key, &bytes).await?;
            let before = active.get(&[spec::OBJECT]).await?;
            let declared = before.pointer("/spec/catalog/projectionLimit").cloned().unwrap_or(json!(10_000));
            let total = before.pointer("/status/files/total").and_then(Value::as_i64).unwrap_or_default();
            // One less than there are: pictures of the others need not be drawn anew.
            let limit = (total - 1).max(0);
            let look = async {
                spec::patch(active, &json!({"catalog": {"projectionLimit": limit}})).await?;
                let said = spec::says(active, "FilesProjected", "False LimitReached").await?;
                ground.read_in_both(&key, &bytes).await?;
                Ok(said)
            };
            let put_back = async {
                spec::declare(active, &json!({"catalog": {"projectionLimit": declared}})).await?;
                spec::says(active, "FilesProjected", "True All").await.map(drop)
            };
            Ok(((), Box::pin(then_put_back(look, put_back)).await?))
        })
        .await
}

/// `kubectl delete` in the site that may not write.
pub(super) async fn deletion_waits_for_the_lease(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let (active, passive) = ground.sites().await?;
    let (key, bytes) = (format!("waits-{}", ground.run), random(256 << 10)?);
    let name = table
        .step("a deletion in the passive site waits with reason NotActive, the file stays", async {
            ground.s3()?.put(&key, bytes.clone()).await?;
            ground.read_in_both(&key, &bytes).await?;
            let name = shown(passive, &key).await?;
            passive.kubectl(&["delete", "fileobject", &name, "--wait=false"]).await?;
            let object = format!("fileobject/{name}");
            let said = spec::said_of(passive, &object, "Deleted", "False NotActive").await?;
            let there = passive.get(&[object.as_str()]).await?;
            there.pointer("/metadata/deletionTimestamp").context("it is not being deleted")?;
            let read = ground.read_in_both(&key, &bytes).await?;
            Ok((name, format!("{said}; {read}")))
        })
        .await?;
    two_sites::settled(table, &ground.reach).await?;
    two_sites::switch(table, &ground.reach, active.site).await?;
    table
        .step("once that site is active the deletion is carried out in both", async {
            gone(passive, &name).await?;
            ground.gone_in_both(&key).await?;
            Ok(((), format!("{name} is gone, both answer 404 NoSuchKey")))
        })
        .await
}
