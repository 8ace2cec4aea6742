//! Who is active, for other workloads; writes to the site that is not; credentials that are taken away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych::client::endpoints::S3Endpoint;
use serde_json::{Value, json};

use super::ground::{Ground, random, refusal, sha256};
use crate::demo::installation::until;
use crate::demo::reach::site_of;
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::install::STORAGE_CLUSTER;
use crate::kind::spec;

/// Name of the AccessKey and of its Secret.
const KEY: &str = "proof";
const SOON: Duration = Duration::from_mins(1);

/// Role and epoch as ConfigMap and namespace say them, and who is active by the ConfigMap.
async fn flags(cluster: &Cluster) -> Result<[String; 5]> {
    let config = cluster.get(&["configmap/diptych-role"]).await?;
    let namespace = cluster.get(&[&format!("namespace/{}", cluster.namespace())]).await?;
    let labels = namespace.pointer("/metadata/labels").cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("nothing").to_owned();
    let data = &config["data"];
    Ok([
        text(&data["role"]),
        text(&data["epoch"]),
        text(&data["active"]),
        text(&labels["diptych.dev/role"]),
        text(&labels["diptych.dev/epoch"]),
    ])
}

/// ConfigMap `diptych-role` and the namespace's labels.
pub(super) async fn role_is_flagged(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step(
            "ConfigMap diptych-role and the namespace's labels say who is active, in both clusters",
            async {
                let (active, passive) = ground.sites().await?;
                let epoch = ground.status(active.site).await?.epoch.to_string();
                for (cluster, role) in [(active, "active"), (passive, "passive")] {
                    let wanted = [role, epoch.as_str(), active.site, role, epoch.as_str()];
                    until(&format!("{} says that it is {role}", cluster.site), SOON, || async {
                        let said = flags(cluster).await?;
                        Ok(if said == wanted { Ok(()) } else { Err(format!("{said:?}, not {wanted:?}")) })
                    })
                    .await?;
                }
                Ok(((), format!("{} is active and {} passive, epoch {epoch}", active.site, passive.site)))
            },
        )
        .await
}

/// A client that writes at the wrong site.
pub(super) async fn write_is_forwarded(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("a write sent to the passive site's gateways is forwarded to the active one", async {
            let (active, passive) = ground.sites().await?;
            let (key, bytes) = (format!("forwarded-{}", ground.run), random(256 << 10)?);
            ground.s3_of(passive.site, SOON)?.put(&key, bytes.clone()).await?;
            // What was acknowledged is there at once in the site that acknowledged it.
            let found = ground.s3_of(active.site, Duration::ZERO)?.get(&key).await?.bytes().await?;
            ensure!(sha256(&found) == sha256(&bytes), "{} has other bytes", active.site);
            let (now, _) = ground.sites().await?;
            ensure!(now.site == active.site, "{} is active now", now.site);
            Ok(((), format!("put at {}: {}", passive.site, ground.read_in_both(&key, &bytes).await?)))
        })
        .await
}

/// Credentials of S3 go with their AccessKey.
pub(super) async fn deleted_key_is_refused(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("an AccessKey opens both sites, and neither once it is deleted", async {
            let (active, _) = ground.sites().await?;
            let manifest = json!({"apiVersion": "diptych.dev/v1alpha1", "kind": "AccessKey",
                "metadata": {"name": KEY}, "spec": {"clusterRef": {"name": STORAGE_CLUSTER}}});
            active.apply(&manifest.to_string()).await?;
            spec::said_of(active, &format!("accesskey/{KEY}"), "Ready", "True Entered").await?;
            let access_key = active.secret(KEY, "accessKeyId").await?;
            let secret_key = active.secret(KEY, "secretAccessKey").await?;
            let endpoints = ground.reach.endpoints()?;
            let mut clients = Vec::new();
            for cluster in ground.clusters {
                let endpoint = site_of(&endpoints, cluster.site)?.s3.clone();
                let endpoint =
                    S3Endpoint { endpoint, access_key: access_key.clone(), secret_key: secret_key.clone() };
                clients.push((cluster.site, ground.s3_by(&endpoint, Duration::ZERO)?));
            }
            let (key, bytes) = (format!("keyed-{}", ground.run), random(4 << 10)?);
            ground.s3()?.put(&key, bytes.clone()).await?;
            for (site, s3) in &clients {
                until(&format!("{site} takes the new key"), SOON, || async {
                    let found = s3.get(&key).await?.bytes().await?;
                    Ok(if found == bytes { Ok(()) } else { Err("other bytes".to_owned()) })
                })
                .await?;
            }
            active.kubectl(&["delete", "accesskey", KEY, "--timeout=60s"]).await?;
            let mut said = String::new();
            for (site, s3) in &clients {
                said = until(&format!("{site} refuses the old key"), SOON, || async {
                    Ok(refusal(s3.get(&key).await, 403, "InvalidAccessKeyId"))
                })
                .await?;
            }
            let read = ground.read_in_both(&key, &bytes).await?;
            let message = said.split("<Message>").nth(1).and_then(|rest| rest.split('<').next());
            let message = message.context("an error without a message")?;
            Ok(((), format!("403 InvalidAccessKeyId in both: {message}; with another key {read}")))
        })
        .await
}
